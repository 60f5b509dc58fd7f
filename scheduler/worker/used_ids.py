"""The file of ids under which no job may start: of jobs whose spools are gone, and *sealed* ids (``HowUsed``).

Theory of operation. The file consists of pages, a power of two of them. An id belongs to one page, by its digest, and
takes one slot there. So a look-up reads one page, whether there are ten ids or a million (32 MB), and nothing is held
in memory or read when the worker starts. When a page is full the file doubles: the pages are written anew to another
file, which is renamed. A slot never crosses a sector, so a power cut leaves either its old or its new content.

The file has its full size from the beginning. So it takes ids on a full disk, too, until it has to grow.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b

from scheduler.daemon import drafts

_PAGE = 4096
_FIRST_PAGES = 16

#: Bytes: a digest, and then how the id was used.
_SLOT = 16
_DIGEST = _SLOT - 1
_FREE = bytes(_SLOT)


class HowUsed(Enum):
    """The ways in which an id is used up."""

    #: There was such a job, and its spool is gone.
    PRUNED = b"p"
    #: The scheduler asked about the job, and there was none: a start that comes later is refused.
    SEALED = b"s"


class UsedIds:
    """The file at ``path``, made when it is first needed. May be used from any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._adding = threading.Lock()
        #: Guards the descriptor, so that no look-up waits for a sync or for a larger file.
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._pages = 0

    def open_thd(self) -> None:
        """Open the file, made if need be. Raises ``ValueError`` for a damaged one."""
        with self._lock:
            self._opened()

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        with self._adding, self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

    def find_thd(self, job_id: str) -> HowUsed | None:
        """Look up how an id was used up; ``None``: it was not."""
        digest = _digest(job_id)
        page = self._read(digest)
        slot = _find(page, digest)
        return None if slot is None else HowUsed(page[slot + _DIGEST : slot + _SLOT])

    def add_thd(self, job_ids: Iterable[str], use: HowUsed) -> None:
        """Add ids; durable when this returns. Raises ``OSError`` if some may not have been added."""
        with self._adding:
            for job_id in job_ids:
                self._add(_digest(job_id), use)
            with self._lock:
                fd = self._opened()
            os.fsync(fd)

    def _add(self, digest: bytes, use: HowUsed) -> None:
        page = self._read(digest)
        if _find(page, digest) is not None:
            return
        free = _find(page, _FREE)
        while free is None:
            self._grow()
            free = _find(self._read(digest), _FREE)
        with self._lock:
            os.pwrite(self._opened(), digest + use.value, self._place(digest) + free)

    def _read(self, digest: bytes) -> bytes:
        """Read the page to which the id belongs."""
        with self._lock:
            fd = self._opened()
            return os.pread(fd, _PAGE, self._place(digest))

    def _place(self, digest: bytes) -> int:
        return _page(digest, self._pages) * _PAGE

    def _opened(self) -> int:
        if self._fd is None:
            if not os.path.exists(self._path):
                drafts.replace(self._path, bytes(_FIRST_PAGES * _PAGE))
            fd = os.open(self._path, os.O_RDWR)
            pages, rest = divmod(os.fstat(fd).st_size, _PAGE)
            if rest or not pages or pages & (pages - 1):
                os.close(fd)
                raise ValueError(f"{self._path} is damaged: {pages} pages and {rest} bytes are no power of two")
            self._fd, self._pages = fd, pages
        return self._fd

    def _grow(self) -> None:
        with self._lock:
            fd, pages = self._opened(), self._pages
        content, free = bytearray(2 * pages * _PAGE), [page * _PAGE for page in range(2 * pages)]
        for page in range(pages):
            old = os.pread(fd, _PAGE, page * _PAGE)
            for start in range(0, _PAGE, _SLOT):
                slot = old[start : start + _SLOT]
                if slot != _FREE:
                    its = _page(slot, 2 * pages)
                    content[free[its] : free[its] + _SLOT] = slot
                    free[its] += _SLOT
        drafts.replace(self._path, content)
        with self._lock:
            self._fd = None
            os.close(fd)
            self._opened()


def _find(page: bytes, start_of_slot: bytes) -> int | None:
    """Find the first slot that begins with these bytes; answers its offset in the page."""
    position = page.find(start_of_slot)
    while position >= 0 and position % _SLOT:
        position = page.find(start_of_slot, position + 1)
    return None if position < 0 else position


def _digest(job_id: str) -> bytes:
    return blake2b(job_id.encode(), digest_size=_DIGEST).digest()


def _page(digest: bytes, pages: int) -> int:
    return int.from_bytes(digest[:8], "big") & (pages - 1)
