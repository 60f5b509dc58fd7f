"""Calls of workers to the scheduler: ``ISchedulerClient`` over the simulated network.

The network's results become the documented errors of the real client (``scheduler.rpc.scheduler_client``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.errors import DeadlineExceeded, SchedulerError, Unreachable, WorkerFault
from scheduler.messages import Heartbeat, HeartbeatAnswer, Peer, Registered, Registration
from scheduler.worker_interfaces import ISchedulerClient
from tests.simulation.network import DEADLINE, Call, Caller, CallFailed, Endpoint, Network


@implementer(ISchedulerClient)
class SimulatedSchedulerClient:
    """A worker's calls to its scheduler, which listens at ``address``."""

    def __init__(
        self,
        network: Network,
        caller: Callable[[], Caller],
        address: str,
        registered: Callable[[str], None] = lambda worker_id: None,
        reported: Callable[[str, Sequence[str]], None] = lambda worker_id, job_ids: None,
        acknowledged: Callable[[Sequence[str]], None] = lambda job_ids: None,
        deregistered: Callable[[str], None] = lambda worker_id: None,
    ) -> None:
        """``registered`` is called with each id that the scheduler answers, even if the answer is lost.

        ``reported``: with a worker's id and the jobs whose ends it reports, when the scheduler hears that.
        ``acknowledged``: with the jobs whose ends are acknowledged, even if that is lost. ``deregistered``: with the id
        of a worker that is deregistered, likewise.
        """
        self._network = network
        self._caller = caller
        self._address = address
        self._registered = registered
        self._reported = reported
        self._acknowledged = acknowledged
        self._deregistered = deregistered
        #: The process to which it is connected.
        self._connected: Endpoint | None = None
        self._notify: Callable[[], None] = lambda: None
        self._under_way: Call | None = None

    def hang_up(self) -> None:
        if self._under_way is not None:
            self._caller().process.after(0, self._network.hang_up, self._under_way)

    def on_cut(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def _answered(self, result: Any, call: Call) -> Any:
        self._under_way = None
        endpoint = call.endpoint
        reset = isinstance(result, Failure) and result.check(CallFailed)
        if endpoint is not None and not reset and endpoint is not self._connected and endpoint.process.alive:
            self._connected = endpoint
            self._network.when_gone(call, lambda: self._gone(endpoint))
        return result

    def _gone(self, endpoint: Endpoint) -> None:
        if endpoint is self._connected:
            self._connected = None
            self._notify()

    def register(self, registration: Registration) -> Deferred[Registered]:
        caller = self._caller()
        wire = f"id={registration.worker_id or '-'} name={registration.name} address={registration.address}"

        def register(server: Any) -> Deferred[Registered]:
            registered: Deferred[Registered] = server.register(registration, Peer(caller.address))
            return registered.addCallback(self._noted)

        return self._call(caller, "register", register, wire)

    def _noted(self, registered: Registered) -> Registered:
        self._registered(registered.worker_id)
        return registered

    def deregister(self, worker_id: str, nonce: str) -> Deferred[None]:
        caller = self._caller()

        def deregister(server: Any) -> Deferred[None]:
            done: Deferred[None] = server.deregister(worker_id, nonce, Peer(caller.address))
            return done.addCallback(lambda _: self._deregistered(worker_id))

        return self._call(caller, "deregister", deregister, worker_id)

    def heartbeat(self, heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        ended = [report.status.job_id for report in heartbeat.ended]
        wire = f"of {heartbeat.worker_id} running={list(heartbeat.running)} ended={ended}"
        wire += " leaving" if heartbeat.leaving else ""
        caller = self._caller()

        def beat(server: Any) -> Deferred[HeartbeatAnswer]:
            self._reported(heartbeat.worker_id, ended)
            answered: Deferred[HeartbeatAnswer] = server.heartbeat(heartbeat, Peer(caller.address))
            return answered.addCallback(self._told)

        return self._call(caller, "heartbeat", beat, wire)

    def _told(self, answer: HeartbeatAnswer) -> HeartbeatAnswer:
        self._acknowledged(answer.acknowledged)
        return answer

    def _call(self, caller: Caller, name: str, make: Callable[[Any], Any], wire: str) -> Deferred[Any]:
        call = self._under_way = self._network.call(caller, self._address, name, make, DEADLINE, wire)
        return call.answer.addBoth(self._answered, call).addErrback(self._understood, name)

    def _understood(self, failure: Failure, name: str) -> Failure:
        error = failure.value
        if isinstance(error, CallFailed):
            if error.why == "deadline":
                return Failure(DeadlineExceeded(name, DEADLINE))
            reason = f"connection {error.why}"
            return Failure(Unreachable(self._address, sent=True, kind="scheduler", reason=reason))
        if not isinstance(error, SchedulerError | CancelledError):
            return Failure(WorkerFault("scheduler", f"{type(error).__name__}: {error}"))
        return failure
