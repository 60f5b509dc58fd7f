"""Waits for work on folders that may hang, but not for ever."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

#: Seconds to wait for one piece of work. More than ``scheduler.worker.clearing`` spends on one removal.
WAIT_SECONDS = 10.0

#: Pieces of work that take longer than that, at once. With more of them no other one is begun, as each has a thread.
HANGING_MAX = 4


class Patience:
    """Does one piece of work after the other. A piece that takes too long goes on beside the next ones."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, failed: Callable[[Failure], None]) -> None:
        self._clock = clock
        self._failed = failed
        self._hanging = 0

    def wait(self, name: str, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Do the work. Fires when it is over, takes too long, or is not begun as too much hangs. Never fails."""
        if self._hanging >= HANGING_MAX:
            work.close()
            return succeed(None)
        going_on: Deferred[None] = Deferred()

        def too_long() -> None:
            self._hanging += 1
            self._log.error("the folder of {name} hangs, or takes long; others are not held up", name=name)
            going_on.callback(None)

        timer = self._clock.callLater(WAIT_SECONDS, too_long)

        def over(_: object) -> None:
            if timer.active():
                timer.cancel()
                going_on.callback(None)
            else:
                self._hanging -= 1

        Deferred.fromCoroutine(work).addErrback(self._failed).addCallback(over)
        return going_on
