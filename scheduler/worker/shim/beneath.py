"""Opens entries of a folder without following a link or crossing a mount point. Standard library only.

``openat2`` refuses both, including bind mounts of the same file system, which a comparison of devices would miss. It
does not touch a mounted file system. Where the kernel has no ``openat2``, the mount ids of descriptors are compared.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from functools import lru_cache

from scheduler.worker.shim.files import held

#: A descriptor that only stands for a file, and needs no permission for it.
HANDLE = os.O_PATH | os.O_NOFOLLOW

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

#: ``openat2(2)``; the number is the same on every architecture Python is built for.
_OPENAT2 = 437
_AT_FDCWD = -100
_NO_MOUNTS, _NO_LINKS, _BENEATH = 0x01, 0x04, 0x08

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


class _How(ctypes.Structure):
    """``struct open_how``."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE = ctypes.sizeof(_How)


def open_folder(dir_fd: int, name: str, unlock: bool = False) -> int:
    """Open a subfolder to read it. With ``unlock``, this process first gets all permissions, if it is the owner."""
    try:
        fd = open_beneath(dir_fd, name, _FOLDER)
    except PermissionError:
        if not unlock:
            raise
        with held(open_beneath(dir_fd, name, HANDLE | os.O_DIRECTORY)) as handle:
            # Not by its name, which may now name another folder. A handle itself can't be chmodded.
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(os.fstat(handle).st_mode) | stat.S_IRWXU)
            return open_beneath(handle, ".", _FOLDER)
    if unlock:
        mode = os.fstat(fd).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(OSError):  # of another owner: an access to its entries then fails with the reason
                os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IRWXU)
    return fd


def open_handle(base: str, path: str) -> int:
    """Open a handle (``O_PATH``) of the folder at ``path`` below ``base``; ``""`` is ``base``, which may be a link."""
    fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in filter(None, path.split("/")):
        with held(fd):
            below = open_beneath(fd, name, HANDLE | os.O_DIRECTORY)
        fd = below
    return fd


def open_beneath(dir_fd: int, name: str, flags: int) -> int:
    """Open an entry of a folder. Raises ELOOP for a link to be followed, EXDEV for a mount point."""
    if has_openat2():
        return _openat2(dir_fd, name, flags, _NO_MOUNTS | _NO_LINKS | _BENEATH)
    return _open_compared(dir_fd, name, flags)


def open_parent(dir_fd: int, identity: tuple[int, int]) -> int:
    """Open the parent of a folder. Raises ESTALE if the parent is not that device and inode any more."""
    if has_openat2():
        fd = _openat2(dir_fd, "..", _FOLDER, _NO_MOUNTS | _NO_LINKS)
    else:
        fd = _open_compared(dir_fd, "..", _FOLDER)
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) != identity:
        os.close(fd)
        raise OSError(errno.ESTALE, "it was moved during the walk")
    return fd


@lru_cache
def has_openat2() -> bool:
    """Whether the kernel has ``openat2``: since Linux 5.6. Some sandboxes refuse unknown calls with EPERM."""
    try:
        os.close(_openat2(_AT_FDCWD, "/", os.O_PATH, 0))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM)
    return True


def _openat2(dir_fd: int, name: str, flags: int, resolve: int) -> int:
    fd: int = _libc.syscall(_OPENAT2, dir_fd, os.fsencode(name), _how(flags | os.O_CLOEXEC, resolve), _HOW_SIZE)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return fd


@lru_cache
def _how(flags: int, resolve: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(bytes(_How(flags, 0, resolve)), _HOW_SIZE)


def _open_compared(dir_fd: int, name: str, flags: int) -> int:
    with held(os.open(name, HANDLE | os.O_CLOEXEC | flags & os.O_DIRECTORY, dir_fd=dir_fd)) as handle:
        if _mount_id(handle) != _mount_id(dir_fd):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
        if not flags & os.O_PATH:
            return os.open(f"/proc/self/fd/{handle}", (flags & ~os.O_NOFOLLOW) | os.O_CLOEXEC)
        return os.dup(handle)


def _mount_id(fd: int) -> bytes:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))
