"""Notices, within milliseconds, that a file has grown: one inotify instance for the whole worker.

Theory of operation. The kernel queues an event for every write to a watched file. The reactor reads all queued events
at once, and each watcher of a file is called once for them, however many there were. When the queue overflows, events
are lost, so all watchers are called. A call means "look again", and says nothing about how much the file has grown.

The kernel limits the instances and watches of each user, and other processes may have taken them all. A file without a
watch is polled every ``POLL_INTERVAL_SECONDS``: its followers get their bytes later, but get them.

A file that is watched twice has one watch in the kernel, by its inode, so watchers are kept by the kernel's number of
the watch. ``twisted.internet.inotify`` drops overflows and closes the whole instance when one watched file is deleted,
which is why it is not used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable

from attrs import define
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

#: The watch, the mask, a cookie, the length of the name that follows.
_EVENT = struct.Struct("iIII")

_READ_SIZE = 64 * 1024

#: Seconds between two looks at files that the kernel does not watch.
POLL_INTERVAL_SECONDS = 0.5

#: Errors of inotify when there are no more instances (EMFILE), watches (ENOSPC), files or memory for this user.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)

_libc = ctypes.CDLL(None, use_errno=True)


def call_kernel(function: str, *args: int | bytes) -> int:
    """Call a function of libc. Raises ``OSError`` if it answers less than 0."""
    result = int(getattr(_libc, function)(*args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


class IReactor(IReactorFDSet, IReactorTime):
    """The parts of the reactor that are used here."""


@define(eq=False)
class _Watcher:
    notify: Notify
    #: Of a file that the kernel does not watch: where it is, and its size at the last look.
    path: str = ""
    size: int = 0

    def changed(self) -> bool:
        """Look at the file; answers whether its size has changed since the last look, or the file is gone."""
        try:
            size = os.stat(self.path).st_size
        except OSError:
            size = -1
        before, self.size = self.size, size
        return size != before


@implementer(IReadDescriptor)
class OutputWatch:
    """Watches files for their followers. Opens its inotify instance with the first ``add``."""

    _log = Logger()

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._fd = -1
        self._closed = False
        self._watchers: dict[int, set[_Watcher]] = {}
        self._polled: set[_Watcher] = set()
        self._next_poll: IDelayedCall | None = None
        self._warned = False

    def add(self, path: str, notify: Notify) -> Callable[[], None]:
        """Call ``notify`` whenever the file may have grown, until the returned function is called.

        Raises ``OSError`` if there is no such file, ``ShuttingDown`` once closed.
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
        """Have the kernel watch a file; answers the kernel's number of the watch."""
        if self._fd < 0:
            self._fd = call_kernel("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            self._reactor.addReader(self)
        return call_kernel("inotify_add_watch", self._fd, os.fsencode(path), _IN_MODIFY)

    def _poll(self, path: str, notify: Notify, shortage: OSError) -> Callable[[], None]:
        if not self._warned:
            self._warned = True
            self._log.warn(
                "{why}: output that is followed is looked for every {seconds:g} s "
                "(fs.inotify.max_user_instances and max_user_watches are for all processes of this user)",
                why=shortage.strerror,
                seconds=POLL_INTERVAL_SECONDS,
            )
        watcher = _Watcher(notify, path, os.stat(path).st_size)
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
        """Close the inotify instance, and call no watcher any more."""
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
        """Close, as the reactor drops its readers at shutdown."""
        self.close()

    def doRead(self) -> None:
        """Call the watchers of all files with a queued event."""
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
            elif mask & _IN_IGNORED:  # the file was removed, and the watch with it
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
        """Collect all watchers, those of polled files included."""
        return self._polled.union(*self._watchers.values())

    def _remove(self, watch: int, watcher: _Watcher) -> None:
        watcher.notify = _nothing
        watchers = self._watchers.get(watch, set())
        watchers.discard(watcher)
        if not watchers and self._watchers.pop(watch, None) is not None:
            with contextlib.suppress(OSError):  # the file was removed before
                call_kernel("inotify_rm_watch", self._fd, watch)


def _nothing() -> None:
    """Do nothing, in place of the callback of a watcher that was removed while others were being called."""
