"""Tells, within milliseconds, that a file has grown: one inotify instance for the whole worker.

Theory of operation. The kernel queues an event for every write to a watched
file. All that are queued when the reactor looks are read at once, and each
watcher of a file is called once for them, however many there were. When the
queue overflows events are lost, so then everybody is called. A call means "look
again", never how much there is.

A file watched twice has one watch in the kernel, by its inode, so watchers are
kept by the kernel's number of the watch. ``twisted.internet.inotify`` drops
overflows and closes the whole instance when one watched file is deleted, which
is why it is not used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
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

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *args: int | bytes) -> int:
    result = int(getattr(_libc, function)(*args))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


class _Watcher:
    """One who asked; equal to nobody else."""

    def __init__(self, notify: Notify) -> None:
        self.notify = notify


@implementer(IReadDescriptor)
class OutputWatch:
    """Watches files for those that follow them. Nothing is opened before the first ``add``."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._fd = -1
        self._closed = False
        self._watchers: dict[int, set[_Watcher]] = {}

    def add(self, path: str, notify: Notify) -> Callable[[], None]:
        """Call ``notify`` whenever the file may have grown, until the function that is returned is called.

        ``OSError``: there is no such file, or the kernel has no watch to give
        (``fs.inotify.max_user_instances``, ``max_user_watches``). ``ShuttingDown`` once closed.
        """
        if self._closed:
            raise ShuttingDown()
        if self._fd < 0:
            self._fd = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            self._reactor.addReader(self)
        watch = _call("inotify_add_watch", self._fd, os.fsencode(path), _IN_MODIFY)
        watcher = _Watcher(notify)
        self._watchers.setdefault(watch, set()).add(watcher)
        return lambda: self._remove(watch, watcher)

    def close(self) -> None:
        """Let go of everything; nobody is called any more."""
        self._closed = True
        for watcher in self._everybody():
            watcher.notify = _nothing
        self._watchers.clear()
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
        for watcher in concerned:
            try:
                watcher.notify()
            except Exception:
                self._log.failure("a watcher failed")

    def _everybody(self) -> set[_Watcher]:
        return {watcher for watchers in self._watchers.values() for watcher in watchers}

    def _remove(self, watch: int, watcher: _Watcher) -> None:
        watcher.notify = _nothing
        watchers = self._watchers.get(watch, set())
        watchers.discard(watcher)
        if not watchers and self._watchers.pop(watch, None) is not None:
            with contextlib.suppress(OSError):  # the file went first
                _call("inotify_rm_watch", self._fd, watch)


def _nothing() -> None:
    """What is called in place of a watcher who left while others were being called."""
