"""Building blocks of services: two functions, a periodic call, and an order of start and stop.

``Ordered`` starts each service when the one before it is ready, and stops it when all after it have stopped. Twisted's
``MultiService`` would stop all children at once; here the servers that accept requests stop before the parts that
answer them. A stop has limited time. A child that has not stopped by then, because a call or a database hangs, is left
behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

#: The share of the remaining time that the stop of one child may take.
_STOP_SHARE = 0.75


class IReactor(IReactorCore, IReactorTime):
    """The interfaces that ``Ordered`` needs of the reactor."""


class Step(Service):
    """A service made of two functions; each may return a Deferred."""

    def __init__(self, start: Callable[[], Any] = lambda: None, stop: Callable[[], Any] = lambda: None) -> None:
        self._start = start
        self._stop = stop

    def startService(self) -> Any:
        super().startService()
        return self._start()

    def stopService(self) -> Any:
        super().stopService()
        return self._stop()


class Periodic(Service):
    """Calls a function periodically. A call that fails is logged, and the next call is made all the same."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, interval: float, call: Callable[[], None], at_once: bool = False) -> None:
        """``interval``: seconds between calls. ``at_once``: make the first call at the start, not after an interval."""
        self._interval = interval
        self._call = call
        self._at_once = at_once
        self._calling = LoopingCall(self._call_once)
        self._calling.clock = clock

    def startService(self) -> None:
        super().startService()
        self._calling.start(self._interval, now=self._at_once)

    def stopService(self) -> None:
        super().stopService()
        if self._calling.running:
            self._calling.stop()

    def _call_once(self) -> None:
        try:
            self._call()
        except Exception:  # the next call may succeed
            self._log.failure("a call that is made every {interval:g} s failed", interval=self._interval)


class Ordered(MultiService):
    """Starts its children in the order in which they were added, and waits for a start that returns a Deferred."""

    _log = Logger()

    def __init__(
        self, reactor: IReactor, stop_timeout: float, last_resort: Callable[[float], None], failing: Callable[[], None]
    ) -> None:
        """``stop_timeout``: seconds for the whole stop, with which a stop calls ``last_resort``.

        ``last_resort`` must end the process after that time, in case the reactor itself hangs. ``failing`` is called
        before a late failure of a start stops the reactor.
        """
        super().__init__()
        self._reactor = reactor
        self._stop_timeout = stop_timeout
        self._last_resort = last_resort
        self._failing = failing
        self._started: list[IService] = []
        self._starting: Deferred[None] | None = None

    def startService(self) -> None:
        """Start the children. Raises the exception of a child's start; if that fails later, the process ends."""
        Service.startService(self)
        failures: list[Failure] = []
        self._starting = Deferred.fromCoroutine(self._start()).addErrback(failures.append)
        if failures:
            failures[0].raiseException()
        self._starting.addCallback(lambda _: self._end_with(failures))

    async def _start(self) -> None:
        for service in self:
            if not self.running:
                return
            self._started.append(service)
            await maybeDeferred(service.startService)

    def _end_with(self, failures: list[Failure]) -> None:
        if failures:
            self._log.failure("the start failed; ending", failures[0])
            self._failing()
            self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Stop the children. Fires when the first child, which stops last, has stopped, or after ``stop_timeout``."""
        Service.stopService(self)
        self._last_resort(self._stop_timeout)
        return Deferred.fromCoroutine(self._stop(self._reactor.seconds() + self._stop_timeout))

    async def _stop(self, until: float) -> None:
        while self._started:
            service = self._started.pop()
            name = str(service.name or type(service).__name__)
            left = until - self._reactor.seconds()
            # The children that stop later must get some time, too.
            seconds = left * _STOP_SHARE if self._started else left
            stopped: Deferred[Any] = Deferred()
            maybeDeferred(service.stopService).addBoth(self._pass_on, stopped)
            try:
                await stopped.addTimeout(max(seconds, 0.0), self._reactor)
            except TimedOut:
                self._log.warn(
                    "{service} has not stopped in {seconds:.1f} s: left behind", service=name, seconds=seconds
                )
            except Exception:  # the others must stop all the same
                self._log.failure("{service} failed to stop", service=name)

    @staticmethod
    def _pass_on(result: Any, stopped: Deferred[Any]) -> None:
        if not stopped.called:
            stopped.callback(result)  # a Failure starts the errbacks
