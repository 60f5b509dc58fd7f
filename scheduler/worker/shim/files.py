"""Files that are written whole and made durable. Standard library only."""

from __future__ import annotations

import os


def write_file(path: str, data: bytes | bytearray, mode: int = 0o600, sync: bool = True) -> None:
    """Write all of ``data``, durably if ``sync``. Disk space that the file had before is used again."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.ftruncate(fd, len(data))
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def take_room(path: str, size: int) -> None:
    """Make a file with ``size`` bytes of disk space. Raises ``OSError`` if there are not as many."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def sync_file(path: str, flags: int = os.O_RDONLY) -> None:
    """Make the content of a file durable."""
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    sync_file(path, os.O_RDONLY | os.O_DIRECTORY)
