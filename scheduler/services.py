"""Services in an order: each starts when the one before is ready, and stops when all after it have stopped.

Twisted's ``MultiService`` stops all its children at once; here, what takes
requests is closed before what answers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure


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


class Ordered(MultiService):
    """Starts its children in the order they were added; a start that returns a Deferred is waited for."""

    _log = Logger()

    def __init__(self, reactor: IReactorCore) -> None:
        super().__init__()
        self._reactor = reactor
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
            self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Fires when the first child, the last to go, has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        while self._started:
            service = self._started.pop()
            try:
                await maybeDeferred(service.stopService)
            except Exception:  # the others are to stop all the same
                self._log.failure("{service} did not stop well", service=str(service.name or type(service).__name__))
