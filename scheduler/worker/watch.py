"""Tells, within milliseconds, that a file has grown: one inotify instance for the whole worker.

Theory of operation. The kernel queues an event for every write to a watched
file. All that are queued when the reactor looks are read at once, and each
watcher of a file is called once for them, however many there were. When the
queue overflows events are lost, so then everybody is called. A call means "look
again", never how much there is.

The kernel gives each user so many instances, and so many watches, and others may
have taken them all. A file for which there is none is looked at every
``POLL_INTERVAL_SECONDS``: its followers get their bytes later, and get them.

A file watched twice has one watch in the kernel, by its inode, so watchers are
kept by the kernel's number of the watch. ``twisted.internet.inotify`` drops
overflows and closes the whole instance when one watched file is deleted, which
is why it is not used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import ShuttingDown

Notify = Callable[[], None]

#: From linux/inotify.h.
_IN_MODIFY = 0x00000002
_IN_Q_OVERFLOW = 0x00004000
_IN_IGNORED = 0x00008000

#: Watch, mask, cookie, length of the name that follows.
_EVENT = struct.Struct("iIII")

_READ_SIZE = 64 * 1024

#: Seconds between two looks at the files that the kernel does not watch.
POLL_INTERVAL_SECONDS = 0.5

#: What inotify says when the user has all the instances (EMFILE), watches (ENOSPC), files or memory there may be.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)

_libc = ctypes.CDLL(None, use_errno=True)


def call_inotify(function: str, *args: int | bytes) -> int:
    """Call a function of inotify; ``OSError``."""
    result = int(getattr(_libc, function)(*args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


class IReactor(IReactorFDSet, IReactorTime):
    """What is needed of the reactor."""


class _Watcher:
    """One who asked; equal to nobody else."""

    def __init__(self, notify: Notify) -> None:
        self.notify = notify


class _Polled(_Watcher):
    """One whose file the kernel does not watch."""

    def __init__(self, path: str, notify: Notify) -> None:
        super().__init__(notify)
        self._path = path
        self._size = os.stat(path).st_size

    def changed(self) -> bool:
        """Whether the file has another size than at the last look, or is gone."""
        try:
            size = os.stat(self._path).st_size
        except OSError:
            size = -1
        before, self._size = self._size, size
        return size != before


@implementer(IReadDescriptor)
class OutputWatch:
    """Watches files for those that follow them. Nothing is opened before the first ``add``."""

    _log = Logger()

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._fd = -1
        self._closed = False
        self._watchers: dict[int, set[_Watcher]] = {}
        self._polled: set[_Polled] = set()
        self._next_poll: IDelayedCall | None = None
        self._warned = False

    @property
    def polling(self) -> bool:
        """Whether files are looked at every now and then, for want of a watch."""
        return bool(self._polled)

    def add(self, path: str, notify: Notify) -> Callable[[], None]:
        """Call ``notify`` whenever the file may have grown, until the function that is returned is called.

        ``OSError``: there is no such file. ``ShuttingDown`` once closed.
        """
        if self._closed:
            raise ShuttingDown()
        try:
            watch = self._watch(path)
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            return self._poll(path, notify, error)
        watcher = _Watcher(notify)
        self._watchers.setdefault(watch, set()).add(watcher)
        return lambda: self._remove(watch, watcher)

    def _watch(self, path: str) -> int:
        """The kernel's number of the watch."""
        if self._fd < 0:
            self._fd = call_inotify("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            self._reactor.addReader(self)
        return call_inotify("inotify_add_watch", self._fd, os.fsencode(path), _IN_MODIFY)

    def _poll(self, path: str, notify: Notify, shortage: OSError) -> Callable[[], None]:
        """Look at the file again and again."""
        if not self._warned:
            self._warned = True
            self._log.warn(
                "{why}: output that is followed is looked for every {seconds:g} s "
                "(fs.inotify.max_user_instances and max_user_watches are for all processes of this user)",
                why=shortage.strerror,
                seconds=POLL_INTERVAL_SECONDS,
            )
        watcher = _Polled(path, notify)
        self._polled.add(watcher)
        self._poll_later()

        def leave() -> None:
            watcher.notify = _nothing
            self._polled.discard(watcher)

        return leave

    def _poll_later(self) -> None:
        if self._polled and self._next_poll is None:
            self._next_poll = self._reactor.callLater(POLL_INTERVAL_SECONDS, self._poll_all)

    def _poll_all(self) -> None:
        self._next_poll = None
        self._tell({watcher for watcher in self._polled if watcher.changed()})
        self._poll_later()

    def close(self) -> None:
        """Let go of everything; nobody is called any more."""
        self._closed = True
        for watcher in self._everybody():
            watcher.notify = _nothing
        self._watchers.clear()
        self._polled.clear()
        if self._next_poll is not None:
            self._next_poll.cancel()
            self._next_poll = None
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "OutputWatch"

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - the interface has it
        """The reactor lets go of it, at shutdown."""
        self.close()

    def doRead(self) -> None:
        """Call everybody whose file is mentioned in what the kernel has queued."""
        try:
            queued = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        concerned: set[_Watcher] = set()
        offset = 0
        while offset < len(queued):
            watch, mask, _, length = _EVENT.unpack_from(queued, offset)
            offset += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:
                concerned = self._everybody()
            elif mask & _IN_IGNORED:  # the file is gone, and the watch with it
                concerned |= self._watchers.pop(watch, set())
            else:
                concerned |= self._watchers.get(watch, set())
        self._tell(concerned)

    def _tell(self, watchers: Iterable[_Watcher]) -> None:
        for watcher in watchers:
            try:
                watcher.notify()
            except Exception:
                self._log.failure("a watcher failed")

    def _everybody(self) -> set[_Watcher]:
        """All, whether the kernel watches for them or not."""
        return self._polled.union(*self._watchers.values())

    def _remove(self, watch: int, watcher: _Watcher) -> None:
        watcher.notify = _nothing
        watchers = self._watchers.get(watch, set())
        watchers.discard(watcher)
        if not watchers and self._watchers.pop(watch, None) is not None:
            with contextlib.suppress(OSError):  # the file went first
                call_inotify("inotify_rm_watch", self._fd, watch)


def _nothing() -> None:
    """What is called in place of a watcher who left while others were being called."""
