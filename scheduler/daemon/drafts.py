"""Files that appear under their name only when they are whole: written as a draft, then renamed. Standard library only.

A name in a folder may have been made into a link, by a user who may write there. So a new file is created with
``O_EXCL`` and ``O_NOFOLLOW``: it is never the target of a link, and never a file that another process holds open.
"""

from __future__ import annotations

import contextlib
import os


def create(path: str, mode: int = 0o600) -> int:
    """Create a file and open it for writing. Raises ``FileExistsError`` if there is anything, also a link."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def create_anew(path: str, mode: int = 0o600) -> int:
    """Create a file as ``create`` does. A file or link of that name, as a killed process leaves it, is removed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return create(path, mode)


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of ``data``."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def replace(path: str, data: bytes | bytearray, sync: bool = True) -> None:
    """Write a file whole or not at all, durably if ``sync``. Its draft is ``path`` with ``.tmp`` added.

    Raises ``OSError``; then the file is as it was, and there is no draft.
    """
    draft = f"{path}.tmp"
    try:
        fd = create_anew(draft)
        try:
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    if sync:
        sync_folder(os.path.dirname(path) or ".")


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
