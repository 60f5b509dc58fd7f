"""Identifies a file, so that a copy of it can be told from the original. Standard library only.

A file keeps its inode number when it is renamed and when its file system is mounted again. The device number may be
another one after that, within one boot: with another loop device, and for btrfs, NFS and overlay in a container that is
started again. So another device number does not prove a copy.

A copy on another file system may have the inode number of the original by chance. The generation of the inode, a random
number on most file systems, or the id of the file system tells them apart. A copy in a snapshot of a block device has
all of these: while the shim of the original runs, it is known by that shim (``endings``). A snapshot of a whole disk
that another machine starts from is in another boot.
"""

from __future__ import annotations

import fcntl
import os
import struct

from scheduler.worker.shim.files import held

#: ``_IOR('v', 1, long)``: asks for an inode's generation. Where that request has another number, it is not known.
_FS_IOC_GETVERSION = 2 << 30 | struct.calcsize("l") << 16 | ord("v") << 8 | 1

#: The device and inode number, the inode's generation, and the id of the file system; 0: not known.
FileId = list[int]


def file_id(path: str) -> FileId:
    """Identify the file at ``path``. Raises ``OSError`` if it can't be opened."""
    with held(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        found = os.fstat(fd)
        file_system = os.fstatvfs(fd).f_fsid
        # Some file systems, like XFS, have no id but the device number.
        return [found.st_dev, found.st_ino, _generation(fd), 0 if file_system == found.st_dev else file_system]


def is_other(made: FileId, found: FileId) -> bool:
    """Whether ``found`` is another file than ``made``. Parts that are not known are not compared."""
    (_, made_inode, *made_rest), (_, inode, *rest) = made, found
    return made_inode != inode or any(a and b and a != b for a, b in zip(made_rest, rest, strict=True))


def _generation(fd: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))[:4], "little")
    except OSError:  # tmpfs, overlay and NFS have none
        return 0
