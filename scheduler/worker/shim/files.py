"""Files that are written whole and made durable. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from scheduler.daemon import drafts


@contextlib.contextmanager
def held(fd: int) -> Iterator[int]:
    """Hold a descriptor, and close it at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def write_file(path: str, data: bytes | bytearray, mode: int = 0o600, sync: bool = True) -> None:
    """Write all of ``data``, durably if ``sync``. Disk space that the file had before is used again.

    A link is replaced, never followed.
    """
    with held(_opened(path, mode)) as fd:
        drafts.write_all(fd, data)
        os.ftruncate(fd, len(data))
        if sync:
            os.fsync(fd)


def _opened(path: str, mode: int) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
    return drafts.create_anew(path, mode)


def take_room(path: str, size: int) -> None:
    """Make a new file with ``size`` bytes of disk space. Raises ``OSError`` if there are not as many."""
    with held(drafts.create(path)) as fd:
        os.posix_fallocate(fd, 0, size)


def sync_file(path: str, flags: int = os.O_RDONLY) -> None:
    """Make the content of a file durable."""
    with held(os.open(path, flags)) as fd:
        os.fsync(fd)
