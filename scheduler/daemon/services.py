"""What services are made of: functions, what is done every so often, and an order.

Each service in an order starts when the one before is ready, and stops when all after it have stopped.
Twisted's ``MultiService`` stops all its children at once; here, what takes
requests is closed before what answers them. A stop has its time: what has not
ended by then, a call that hangs or a database that does, is left behind.
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

#: Of the time that is left, what one child's stop may take.
_STOP_SHARE = 0.75


class IReactor(IReactorCore, IReactorTime):
    """What is needed of the reactor."""


def _nothing() -> None:
    pass


class Step(Service):
    """A service made of two functions; each may return a Deferred."""

    def __init__(self, start: Callable[[], Any] = _nothing, stop: Callable[[], Any] = _nothing) -> None:
        self._start = start
        self._stop = stop

    def startService(self) -> Any:
        super().startService()
        return self._start()

    def stopService(self) -> Any:
        super().stopService()
        return self._stop()


class Periodic(Service):
    """Calls a function every so often. A call that fails is logged, and the next comes all the same."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, interval: float, call: Callable[[], None], at_once: bool = False) -> None:
        """``interval`` in seconds; ``at_once``: the first call is made at the start, and not after an interval."""
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
        except Exception:  # the next may do better
            self._log.failure("what is done every {interval:g} s went wrong", interval=self._interval)


class Ordered(MultiService):
    """Starts its children in the order they were added; a start that returns a Deferred is waited for."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactor,
        stop_timeout: float,
        last_resort: Callable[[float], None],
        failing: Callable[[], None],
    ) -> None:
        """``stop_timeout`` in seconds; with it ``last_resort`` is called when a stop begins.

        It is to end the process thereafter, in case that even the reactor hangs. ``failing`` is called
        before a start that failed late stops the reactor.
        """
        super().__init__()
        self._reactor = reactor
        self._stop_timeout = stop_timeout
        self._last_resort = last_resort
        self._failing = failing
        self._started: list[IService] = []
        self._starting: Deferred[None] | None = None

    def startService(self) -> None:
        """Raises what the start of a child raises; where that comes later, the process ends."""
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
        """Fires when the first child, the last to go, has stopped, or ``stop_timeout`` is over."""
        Service.stopService(self)
        self._last_resort(self._stop_timeout)
        return Deferred.fromCoroutine(self._stop(self._reactor.seconds() + self._stop_timeout))

    async def _stop(self, until: float) -> None:
        while self._started:
            service = self._started.pop()
            name = str(service.name or type(service).__name__)
            left = until - self._reactor.seconds()
            # Those after it are to have their turn, whatever it does.
            seconds = left * _STOP_SHARE if self._started else left
            stopped: Deferred[Any] = Deferred()
            maybeDeferred(service.stopService).addBoth(self._pass_on, stopped)
            try:
                await stopped.addTimeout(max(seconds, 0.0), self._reactor)
            except TimedOut:
                self._log.warn(
                    "{service} has not stopped in {seconds:.1f} s: left behind", service=name, seconds=seconds
                )
            except Exception:  # the others are to stop all the same
                self._log.failure("{service} did not stop well", service=name)

    @staticmethod
    def _pass_on(result: Any, stopped: Deferred[Any]) -> None:
        if not stopped.called:
            stopped.callback(result)  # a Failure starts the errbacks
