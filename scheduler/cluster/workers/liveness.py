"""Which workers can be reached in both directions: from their calls, and from the calls to them.

A worker is ``online`` if both directions work: a sign of life of the worker arrived within the lease, and a call to it
succeeded. A heartbeat proves the first. Any call that was answered proves the second, and if none was made for half a
lease, a probe is made. A call that failed proves nothing yet (the worker may be slow), but causes a probe at once. A
failed probe decides. A silent worker is not probed, as the answer would not make it online. A core worker sends no
heartbeats: for it, an answered call is the sign of life as well. A worker that deregistered is ``offline`` until it
registers again, even if a late call is answered. The rule is ``Pulse.judge``.

A worker that was loaded from the store is called once after the start, whether it was heard or not (``first_calls``):
it sends a heartbeat when a new scheduler calls it. Requests wait for the worker until then
(``scheduler.cluster.expected``), and after a registration until its first probe has ended.

A program that answers a start or a query with UNIMPLEMENTED is no worker, though it may answer probes. Once that is
known, it is not probed, but asked about a job that can't exist.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster.expected import Expected
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.workers.first_calls import FirstCalls
from scheduler.cluster.workers.pulses import Pulses
from scheduler.daemon.running_time import RunningTime
from scheduler.daemon.services import Periodic
from scheduler.daemon.sweep import Sweep
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    Misdirected,
    NotAWorker,
    SchedulerError,
    Unavailable,
    Unreachable,
    Unsupported,
)
from scheduler.interfaces import IWorkerClient
from scheduler.model import Presence

T = TypeVar("T")

#: Looks at all workers during one lease.
LOOKS_PER_LEASE = 6

#: The id of no job: a UUID that is never given.
NO_JOB = "00000000-0000-0000-0000-000000000000"


class Liveness(Periodic):
    """Finds out which workers can be reached: ``Pulses`` says what follows."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, ledger: Ledger, calls: IWorkerClient, expected: Expected, lease: float
    ) -> None:
        """``calls`` is the client below ``ObservedClient``; ``expected`` is told which workers may be online soon.

        ``lease`` in seconds.
        """
        super().__init__(clock, lease / LOOKS_PER_LEASE, self._look, at_once=True)
        self.lease = lease
        self._registry = ledger.registry
        self._calls = calls
        self._time = RunningTime(clock, lease / LOOKS_PER_LEASE)
        self._pulses = Pulses(self._time, ledger, expected, lease)
        #: The calls of the workers that were loaded; they begin once these can call this scheduler.
        self.first_calls = FirstCalls(clock, self.probed)
        self._sweep = Sweep(clock, self._look_at)

    def startService(self) -> None:
        self._time.begin()
        workers = self._registry.workers.all()
        loaded = [worker for worker in workers if not worker.is_offline and self._pulses.find(worker.id) is None]
        for worker in loaded:
            self._pulses.expect(worker)
            self._pulses.apply(worker)
        self.first_calls.plan(worker.id for worker in loaded)
        super().startService()

    def stopService(self) -> None:
        super().stopService()
        self._time.end()
        self._sweep.stop()
        self.first_calls.stop()

    @property
    def idle(self) -> bool:
        """Whether no worker is being probed, and there is no pulse of a worker that the registry does not know."""
        return self._pulses.idle

    def begin(self, worker_id: str) -> None:
        """A new process registers as the worker, or at a new address: it is not known whether calls succeed.

        The worker is unreachable until then. Its jobs stay as they are: it reports them itself.
        """
        self._pulses.begin(worker_id)

    def heard(self, worker_id: str, told: Presence | None = None) -> None:
        """The worker called this scheduler; ``told``: what it said about itself."""
        worker = self._registry.workers.find_registered(worker_id)
        if worker is not None and self._pulses.heard(worker, told) and not self.first_calls.soon(worker_id):
            self.first_calls.cancel(worker_id)
            self.probed(worker_id)  # it is back: find out soon whether calls succeed again

    def left(self, worker_id: str, told: Presence) -> None:
        """The worker called for the last time, ``told`` that, and was stopped while its jobs run on."""
        if self._registry.workers.find_registered(worker_id) is not None:
            self._pulses.mark_jobs_unknown(worker_id, "was stopped, and left it running")
            self.reset(worker_id, "it was stopped, and left its jobs running", told)

    def reset(self, worker_id: str, why: str, told: Presence | None = None) -> None:
        """The worker no longer listens there, for the reason ``why``; it is unreachable until it calls again.

        ``told``: what it said about itself in a last call.
        """
        self.first_calls.cancel(worker_id)
        self._pulses.reset(worker_id, why, told)

    def forget(self, worker_id: str) -> None:
        """Forget a worker that deregistered, or was removed."""
        self.first_calls.cancel(worker_id)
        self._pulses.forget(worker_id)

    def calls_fail(self, worker_id: str) -> bool:
        """Whether the last probe of the worker failed, and no call was answered since."""
        pulse = self._pulses.find(worker_id)
        return pulse is not None and pulse.failed is not None

    def observe(self, worker_id: str, call: Deferred[T], is_probe: bool = False) -> Deferred[T]:
        """Draw conclusions from a call to the worker; its result passes through.

        A call that was made before the worker registered anew, or was known to be gone, says nothing about it.
        """
        pulse = self._pulses.find(worker_id)

        def answered(knows_the_method: bool) -> None:
            if self._pulses.find(worker_id) is pulse and (pulse is None or not pulse.no_worker or knows_the_method):
                self._pulses.answered(worker_id)

        def succeeded(result: T) -> T:
            answered(not is_probe)
            return result

        def failed(reason: Failure) -> Failure:
            if reason.check(NotAWorker, Misdirected):
                if pulse is not None and self._pulses.find(worker_id) is pulse:
                    self._pulses.failed(worker_id, reason.value)
            elif reason.check(Unreachable, DeadlineExceeded):
                self.probed(worker_id)
            elif reason.check(SchedulerError) and not reason.check(Busy):
                answered(not is_probe and not reason.check(Unsupported))
            return reason

        return call.addCallbacks(succeeded, failed)

    def probed(self, worker_id: str) -> Deferred[None]:
        """Fires when a probe of the worker has ended: the one that is under way, or one that begins now."""
        worker = self._registry.workers.find_registered(worker_id)
        if worker is None:
            return succeed(None)
        pulse = self._pulses.of(worker_id)
        if pulse.probing:
            waiter: Deferred[None] = Deferred()
            pulse.waiting.append(waiter)
            return waiter
        pulse.probing = True
        pauses, asks = self._time.pauses, pulse.no_worker

        def succeeded(_: object) -> None:
            pulse.probing = False
            if self._pulses.find(worker_id) is pulse and (asks or not pulse.no_worker):
                self._pulses.answered(worker_id)

        def failed(reason: Failure) -> Deferred[None] | None:
            pulse.probing = False
            if reason.check(Busy):
                return None  # the probe was not made
            if not reason.check(SchedulerError):
                self._log.failure("probing worker {worker_id} went wrong", reason, worker_id=worker_id)
            if self._pulses.find(worker_id) is not pulse:
                return None
            self._time.read()
            if self._time.pauses != pauses:
                return self.probed(worker_id)  # its time ran out while nobody here could hear the answer
            if asks and not reason.check(Unavailable, DeadlineExceeded):
                self._pulses.answered(worker_id)  # there is no such job, as expected
            else:
                self._pulses.failed(worker_id, reason.value)
            return None

        def over(_: None) -> None:
            waiting, pulse.waiting = pulse.waiting, []
            for waiter in waiting:
                waiter.callback(None)

        call: Deferred[Any] = self._calls.query_job(worker, NO_JOB) if asks else self._calls.probe(worker)
        return call.addCallbacks(succeeded, failed).addCallback(over)

    def _look(self) -> None:
        self._time.tick()
        self._sweep.begin([*self._registry.workers.ids(), *self._registry.busy_elsewhere()])

    def _look_at(self, worker_id: str) -> None:
        """Apply the signs of a worker, and probe it if it is time."""
        worker = self._registry.workers.find_registered(worker_id)
        if worker is None:
            self._pulses.mark_jobs_unknown(worker_id)
            return
        self._pulses.apply(worker)
        if worker_id in self.first_calls:
            return
        if self._pulses.wants_probe(worker):
            self.probed(worker_id)
        self._pulses.expire(worker)
