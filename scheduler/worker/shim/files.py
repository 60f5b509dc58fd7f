"""Files that are written whole and made durable. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def held(fd: int) -> Iterator[int]:
    """Hold a descriptor, and close it at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def write_file(path: str, data: bytes | bytearray, mode: int = 0o600, sync: bool = True) -> None:
    """Write all of ``data``, durably if ``sync``. Disk space that the file had before is used again."""
    with held(os.open(path, os.O_WRONLY | os.O_CREAT, mode)) as fd:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.ftruncate(fd, len(data))
        if sync:
            os.fsync(fd)


def take_room(path: str, size: int) -> None:
    """Make a file with ``size`` bytes of disk space. Raises ``OSError`` if there are not as many."""
    with held(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)) as fd:
        os.posix_fallocate(fd, 0, size)


def sync_file(path: str, flags: int = os.O_RDONLY) -> None:
    """Make the content of a file durable."""
    with held(os.open(path, flags)) as fd:
        os.fsync(fd)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    sync_file(path, os.O_RDONLY | os.O_DIRECTORY)
