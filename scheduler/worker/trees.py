"""Removes and measures folders that jobs may write to, by careful walks. Standard library only; it blocks.

Theory of operation. A job may leave anything in its folder: links, mounts, folders without permissions, thousands of
nested folders. And a process may still change it during the walk. So a walk goes by descriptor, one name at a time. It
never follows a link and never crosses a mount point, by means of ``scheduler.worker.shim.beneath``. An entry is looked
at only once it is known not to be a mount point, as a mount may hang.

A walk keeps a list of the folders it is in, and no more than ``HELD_DESCRIPTORS`` of them open. It returns to a closed
folder by ``..``, and goes on only if that is still the same folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import NamedTuple

from scheduler.worker.shim.beneath import HANDLE, open_beneath, open_folder, open_handle, open_parent
from scheduler.worker.shim.files import held

#: Descriptors that one walk holds, however deep it is.
HELD_DESCRIPTORS = 32

#: Subfolders of one folder that are listed before the first of them is removed.
_SUBFOLDERS_AT_ONCE = 1000

#: Entries of one folder that may resist before the folder is given up.
_RESISTING_MAX = 1000

#: Folders in one removal that are entered again, because a process still writes there.
_REENTERED_MAX = 100

#: Characters of a path in a log line.
_PATH_SHOWN = 300

#: Bytes, in the unit of ``st_blocks``.
_BLOCK = 512

#: Errors for a lack of descriptors or memory in this process: the same removal may succeed later.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

#: Errors of a mount point, which can't be crossed, unlinked or renamed.
_MOUNTED = (errno.EXDEV, errno.EBUSY)


class Amount(NamedTuple):
    """The disk use of files and folders."""

    #: Bytes.
    size: int = 0
    #: Files and folders; each takes an inode.
    entries: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(self.size + other.size, self.entries + other.entries)


NOTHING = Amount()


class Left(NamedTuple):
    """The rest of a removal that did not remove everything."""

    #: The first entry that could not be removed, relative to the base of the walk and quoted.
    path: str
    why: str
    #: A mount point was met.
    mounted: bool = False
    #: The time was over first, or descriptors or memory ran short: the rest may be removable.
    unfinished: bool = False


class _Folder:
    """A folder that a walk is in."""

    __slots__ = ("fd", "identity", "name", "resisting", "todo", "unread")

    def __init__(self, name: str, fd: int) -> None:
        found = os.fstat(fd)
        self.name = name
        #: ``None``: closed meanwhile.
        self.fd: int | None = fd
        self.identity = found.st_dev, found.st_ino
        #: Subfolders to go into.
        self.todo: list[str] = []
        #: Some of its entries were not looked at.
        self.unread = True
        #: Names that could not be removed.
        self.resisting: set[str] = set()


class _Walk:
    """The folders from the start of a walk down to where it is."""

    def __init__(self, base: str, path: str) -> None:
        """Start in the folder at ``path`` below ``base``."""
        self._folders = [_Folder("", open_handle(base, path))]

    def close(self) -> None:
        for folder in self._folders:
            if folder.fd is not None:
                os.close(folder.fd)

    @property
    def here(self) -> _Folder:
        return self._folders[-1]

    @property
    def fd(self) -> int:
        """The descriptor of ``here``, which is always open."""
        fd = self.here.fd
        assert fd is not None
        return fd

    @property
    def depth(self) -> int:
        return len(self._folders) - 1

    def names(self) -> list[str]:
        return [folder.name for folder in self._folders[1:]]

    def second(self) -> str:
        """Answer the name of the second folder that the walk went into; ``""``: it is not that deep."""
        return self._folders[2].name if len(self._folders) > 2 else ""

    def down(self, name: str, unlock: bool) -> None:
        """Go into a subfolder. Raises ``OSError``: EXDEV for a mount point, ENOTDIR or ELOOP if it is no folder."""
        fd = open_folder(self.fd, name, unlock)
        self._folders.append(_Folder(name, fd))
        if self.depth >= HELD_DESCRIPTORS:
            far = self._folders[-1 - HELD_DESCRIPTORS]
            if far.fd is not None:
                os.close(far.fd)
                far.fd = None

    def up(self) -> _Folder:
        """Go back to the parent; answers the folder that the walk leaves. Raises ``OSError`` if that was moved."""
        left = self._folders.pop()
        assert left.fd is not None
        with held(left.fd):
            if self.here.fd is None:
                self.here.fd = open_parent(left.fd, self.here.identity)
        return left


def measure(base: str, path: str, most: int | None = None, unlock: bool = False) -> dict[str, Amount]:
    """Measure a folder below ``base``, by the names in it; ``""`` is for the folder itself and its direct subfolders.

    Mounts do not count, nor entries that can't be looked at, nor any entry after the first ``most``. With ``unlock``,
    folders are made readable.
    """
    found: dict[str, list[int]] = {}
    with contextlib.suppress(OSError):
        _measure(base, path, most, unlock, found)
    return {name: Amount(size * _BLOCK, entries) for name, (size, entries) in found.items()}


def _measure(base: str, path: str, most: int | None, unlock: bool, found: dict[str, list[int]]) -> None:
    """Add blocks and entries by name to ``found``."""
    parent, _, name = path.rpartition("/")
    counted = 0
    with contextlib.closing(_Walk(base, parent)) as walk:
        walk.down(name, unlock)
        found[""] = [os.fstat(walk.fd).st_blocks, 1]
        while walk.depth:
            here = walk.here
            if here.unread:
                here.unread = False
                with contextlib.suppress(OSError), os.scandir(walk.fd) as entries:
                    for entry in entries:
                        if most is not None and counted >= most:
                            return
                        counted += 1
                        _count(walk, entry.name, found)
            elif here.todo:
                with contextlib.suppress(OSError):
                    walk.down(here.todo.pop(), unlock)
            else:
                walk.up()


def size_of(base: str, path: str) -> int:
    """Measure one file below ``base``, in bytes. Raises ``OSError`` if it is a mount point, or not there."""
    parent, _, name = path.rpartition("/")
    with held(open_handle(base, parent)) as folder, held(open_beneath(folder, name, HANDLE)) as handle:
        return os.fstat(handle).st_blocks * _BLOCK


def _count(walk: _Walk, name: str, found: dict[str, list[int]]) -> None:
    try:
        with held(open_beneath(walk.fd, name, HANDLE)) as handle:
            status = os.fstat(handle)
    except OSError:  # a mount point, or gone
        return
    folder = stat.S_ISDIR(status.st_mode)
    if folder:
        walk.here.todo.append(name)
    top = walk.second() or ("" if folder else name)
    counts = found.setdefault(top, [0, 0])
    counts[0] += status.st_blocks
    counts[1] += 1


def remove(base: str, path: str, seconds: float | None = None) -> Left | None:
    """Remove ``path`` below ``base``, as much of it as possible in ``seconds``; ``None``: all is removed."""
    parent, _, name = path.rpartition("/")
    try:
        with contextlib.closing(_Walk(base, parent)) as walk:
            return _Removal(walk, parent, seconds).run(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _left(path, error)


class _Removal:
    """A walk that removes."""

    def __init__(self, walk: _Walk, parent: str, seconds: float | None) -> None:
        self._walk = walk
        self._parent = parent
        self._until = None if seconds is None else time.monotonic() + seconds
        self._first: Left | None = None
        self._mounted = False
        self._reentered = 0

    def run(self, name: str) -> Left | None:
        walk = self._walk
        walk.here.unread = False  # no other entry of the parent is removed
        self._unlink(name)
        while not self._late():
            here = walk.here
            if here.todo:
                self._enter(here.todo.pop())
            elif here.unread:
                self._read()
            elif walk.depth:
                self._leave()
            else:
                return self._first._replace(mounted=self._mounted) if self._first and here.resisting else None
        return Left(self._path(""), "it takes long", self._mounted, unfinished=True)

    def _late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _read(self) -> None:
        """Unlink the files of the folder, and list its subfolders."""
        here = self._walk.here
        here.unread = False
        try:
            with os.scandir(self._walk.fd) as entries:
                for entry in entries:
                    if self._late() or len(here.resisting) >= _RESISTING_MAX:
                        return
                    if len(here.todo) >= _SUBFOLDERS_AT_ONCE:
                        here.unread = True
                        return
                    if entry.name not in here.resisting:
                        self._unlink(entry.name)
        except OSError as error:
            self._resists("", error)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._walk.fd)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):  # without permission the kernel does not tell a folder
            self._walk.here.todo.append(name)
        except OSError as error:
            self._resists(name, error)

    def _enter(self, name: str) -> None:
        try:
            self._walk.down(name, unlock=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                self._resists(name, error)
                return
            try:  # it is no folder, or not any more
                os.unlink(name, dir_fd=self._walk.fd)
            except FileNotFoundError:
                pass
            except OSError as unlinking:
                self._resists(name, unlinking)

    def _leave(self) -> None:
        left = self._walk.up()
        try:
            os.rmdir(left.name, dir_fd=self._walk.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            emptied = not left.resisting and error.errno == errno.ENOTEMPTY
            if emptied and self._reentered < _REENTERED_MAX:
                self._reentered += 1
                self._walk.here.todo.append(left.name)
            else:
                self._resists(left.name, error)

    def _resists(self, name: str, error: OSError) -> None:
        self._walk.here.resisting.add(name)
        if error.errno in _MOUNTED:
            self._mounted = True
        if self._first is None:  # later errors may be consequences of the first
            self._first = _left(self._path(name), error)

    def _path(self, name: str) -> str:
        return "/".join(filter(None, [self._parent, *self._walk.names(), name]))


def _left(path: str, error: OSError) -> Left:
    mounted = error.errno in _MOUNTED
    if len(path) > _PATH_SHOWN:
        path = f"{path[: _PATH_SHOWN // 2]}...{path[-_PATH_SHOWN // 2 :]}"
    why = "something is mounted there" if mounted else os.strerror(error.errno or 0)
    return Left(repr(path), why, mounted, unfinished=error.errno in _SHORTAGES)
