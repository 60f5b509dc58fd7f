"""Detaches the mounts that jobs made in their folders. Standard library only.

A mount is detached lazily: this does not wait for a mount that hangs, and a process that has files open there keeps
them. Mounts elsewhere must not be affected.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from typing import NamedTuple

from scheduler.worker.shim.beneath import open_handle
from scheduler.worker.shim.files import held

#: Mounts on top of each other, or beside each other, that one call detaches.
_DETACHED_MAX = 1000

_MNT_DETACH, _UMOUNT_NOFOLLOW = 0x02, 0x08

#: ``mount_setattr(2)``, since Linux 5.12.
_MOUNT_SETATTR = 442
_AT_SYMLINK_NOFOLLOW, _AT_RECURSIVE = 0x100, 0x8000
_MS_PRIVATE = 1 << 18

_ESCAPED = re.compile(rb"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Attributes(ctypes.Structure):
    """``struct mount_attr``."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


class Mount(NamedTuple):
    """A line of ``/proc/self/mountinfo``."""

    id: int
    #: The id of the mount that it is mounted on.
    parent: int
    point: str
    #: Mounts inside it appear and vanish in other mounts, too.
    shared: bool


def parse(table: bytes) -> list[Mount]:
    """Parse ``/proc/self/mountinfo``; see proc(5)."""
    found = []
    for line in table.splitlines():
        fields = line.split(b" ")
        point = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        optional = fields[6 : fields.index(b"-", 6)]
        shared = any(field.startswith(b"shared:") for field in optional)
        found.append(Mount(int(fields[0]), int(fields[1]), os.fsdecode(point), shared))
    return found


def below(folder: str, table: list[Mount]) -> list[Mount]:
    """Find the mounts at or below a folder, given by its real path."""
    return [mount for mount in table if mount.point == folder or mount.point.startswith(f"{folder}/")]


def detach(base: str, path: str) -> bool:
    """Detach all mounts at or below ``path`` below ``base``; answers whether there were any. Raises ``OSError``."""
    real = os.path.realpath(base)
    for count in range(_DETACHED_MAX):
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = below(f"{real}/{path}", parse(file.read()))
        if not mounts:
            return count > 0
        ids = {mount.id for mount in mounts}
        tops = [mount for mount in mounts if mount.parent not in ids]  # the mounts in them go with them
        top = min(tops, key=lambda mount: len(mount.point))  # it may hide one further down
        nested = [mount for mount in mounts if mount.parent in ids]
        _detach(base, os.path.relpath(top.point, real), private=bool(nested) and any(each.shared for each in mounts))
    raise OSError(errno.EBUSY, "too much is mounted there")


def _detach(base: str, path: str, private: bool) -> None:
    """Detach a mount. ``private``: first end its sharing, or the mounts in its origin would be detached as well."""
    parent, _, name = path.rpartition("/")
    with held(open_handle(base, parent)) as fd:  # no link leads the next calls to another place
        if private:
            how = _Attributes(propagation=_MS_PRIVATE)
            flags = ctypes.c_uint(_AT_SYMLINK_NOFOLLOW | _AT_RECURSIVE)
            size = ctypes.c_size_t(ctypes.sizeof(how))
            number, at = ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(fd)
            _check(_libc.syscall(number, at, os.fsencode(name), flags, ctypes.byref(how), size))
        _check(_libc.umount2(os.fsencode(f"/proc/self/fd/{fd}/{name}"), _MNT_DETACH | _UMOUNT_NOFOLLOW))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
