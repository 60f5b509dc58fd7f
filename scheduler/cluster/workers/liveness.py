"""The state of each worker: whether it can be reached in both directions.

A worker is ``online`` if both directions work: a sign of life of the worker arrived within the lease, and a call to it
succeeded. A heartbeat proves the first. Any call that was answered proves the second, and if none was made for half a
lease, a probe is made. A call that failed proves nothing yet (the worker may be slow), but causes a probe at once. A
failed probe decides. A silent worker is not probed, as the answer would not make it online. A core worker sends no
heartbeats: for it, an answered call is the sign of life as well. A worker that deregistered is ``offline`` until it
registers again, even if a late call is answered. The rule is ``pulse.judge``.

A worker that was loaded from the store is called once after the start, whether it was heard or not (``first_calls``):
it sends a heartbeat when a new scheduler calls it. Requests wait for the worker until then
(``scheduler.cluster.expected``), and after a registration until its first probe has ended.

A program that answers a start or a query with UNIMPLEMENTED is no worker, though it may answer probes. Once that is
known, it is not probed, but asked about a job that can't exist.

Elapsed time is measured by the reactor's clock, which the composition root makes monotonic. Wall time is only for
people to read. Time in which this process did not run (it was stopped, or its machine) does not count: calls that
workers made meanwhile wait in a socket, and have to be heard before anything is concluded. Such a time is noticed
because a look is late.
"""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster import lifecycle
from scheduler.cluster.expected import Expected
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.workers.first_calls import FirstCalls
from scheduler.cluster.workers.pulse import (
    Pulse,
    is_alive,
    is_in_doubt,
    judge,
    wants_probe,
    why_for_log,
    why_unreachable,
)
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
from scheduler.model import JobState, Presence, Worker, WorkerState
from scheduler.texts import bounded_text

T = TypeVar("T")

#: Looks at all workers during one lease.
LOOKS_PER_LEASE = 6

#: Bytes that are kept of the reason why a call to a worker failed.
FAILURE_MAX_BYTES = 500

#: The id of no job: a UUID that is never given.
NO_JOB = "00000000-0000-0000-0000-000000000000"


class Liveness(Periodic):
    """Keeps every worker's presence true, and its running jobs ``unknown`` while it is unreachable."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, ledger: Ledger, calls: IWorkerClient, expected: Expected, lease: float
    ) -> None:
        """``calls`` is the client below ``ObservedClient``; ``expected`` is told which workers may be online soon.

        ``lease`` in seconds.
        """
        super().__init__(clock, lease / LOOKS_PER_LEASE, self._look, at_once=True)
        self.lease = lease
        self._clock = clock
        self._ledger = ledger
        self._calls = calls
        self._expected = expected
        self._first_calls = FirstCalls(clock, self._probe_now)
        self._pulses: dict[str, Pulse] = {}
        self._sweep = Sweep(clock, self._look_at)
        # when the next look is due, by the clock
        self._due = 0.0
        # how often this process was found not to have run, and for how many seconds in all
        self._pauses = 0
        self._paused = 0.0

    def startService(self) -> None:
        self._due = self._clock.seconds()
        loaded = [
            worker
            for worker in self._ledger.registry.workers()
            if worker.deregistered_at is None and worker.id not in self._pulses
        ]
        for worker in loaded:
            self._expect(worker)
            self._apply(worker, self._now())
        self._first_calls.plan(worker.id for worker in loaded)
        super().startService()

    def stopService(self) -> None:
        super().stopService()
        self._sweep.stop()
        self._first_calls.stop()

    def call_loaded(self) -> None:
        """Call the workers that were loaded, once they can call this scheduler."""
        self._first_calls.begin()

    def wanted(self, worker_id: str) -> None:
        """A request waits for that worker: make its first call now, if it has not been made."""
        self._first_calls.now(worker_id)

    @property
    def idle(self) -> bool:
        """Whether no worker is being probed, and every worker that is kept here is in the registry."""
        find = self._ledger.registry.find_worker
        return all(find(worker_id) and not pulse.probing for worker_id, pulse in self._pulses.items())

    def heard(self, worker_id: str, told: Presence | None = None) -> None:
        """The worker called this scheduler; ``told``: what it said about itself."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is not None:
            self._heard(worker, told)

    def begin(self, worker_id: str) -> None:
        """A new process registers as the worker, or at a new address: it is not known whether calls succeed.

        The worker is unreachable until then. Its jobs stay as they are: it reports them itself.
        """
        self._pulses[worker_id] = Pulse()
        if self._ledger.registry.find_registered(worker_id) is not None:
            self._ledger.see(worker_id, Presence())

    def reset(self, worker_id: str, why: str, seen: Presence | None = None) -> None:
        """The worker no longer listens there, for the reason ``why``; it is unreachable until it calls again.

        ``seen``: its presence after its last call, where that is not known yet.
        """
        self._first_calls.cancel(worker_id)
        self._pulses[worker_id] = Pulse(gone=why)
        self._expected.settle(worker_id)
        self._apply_to(worker_id, seen)

    def left(self, worker_id: str, told: Presence | None = None) -> None:
        """The worker called for the last time, and was stopped while its jobs run on."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        self._mark_jobs_unknown(worker_id, "was stopped, and left it running")
        self.reset(worker_id, "it was stopped, and left its jobs running", self._seen(worker_id, told))

    def probed(self, worker_id: str) -> Deferred[None]:
        """Fires when a probe of the worker has ended: the one that is under way, or one that begins now."""
        return self._probe_now(worker_id)

    def calls_fail(self, worker_id: str) -> bool:
        """Whether the last probe of the worker failed, and no call was answered since."""
        pulse = self._pulses.get(worker_id)
        return pulse is not None and pulse.failed is not None

    def forget(self, worker_id: str) -> None:
        """Forget a worker that deregistered, or was removed."""
        self._first_calls.cancel(worker_id)
        self._pulses.pop(worker_id, None)
        self._expected.settle(worker_id)

    def observe(self, worker_id: str, call: Deferred[T], is_probe: bool = False) -> Deferred[T]:
        """Draw conclusions from a call to the worker; its result passes through.

        A call that was made before the worker registered anew, or was known to be gone, says nothing about it.
        """
        pulse = self._pulses.get(worker_id)

        def answered(knows_the_method: bool) -> None:
            if self._pulses.get(worker_id) is pulse and (pulse is None or not pulse.no_worker or knows_the_method):
                self._answered(worker_id)

        def succeeded(result: T) -> T:
            answered(not is_probe)
            return result

        def failed(reason: Failure) -> Failure:
            if reason.check(NotAWorker, Misdirected):
                if pulse is not None and self._pulses.get(worker_id) is pulse:
                    self._failed(worker_id, pulse, reason.value)
            elif reason.check(Unreachable, DeadlineExceeded):
                self._probe_now(worker_id)
            elif reason.check(SchedulerError) and not reason.check(Busy):
                answered(not is_probe and not reason.check(Unsupported))
            return reason

        return call.addCallbacks(succeeded, failed)

    def _now(self) -> float:
        """Seconds by the clock, without those in which this process did not run. Signs of life have such times."""
        now = self._clock.seconds()
        late = now - self._due
        if self.running and late > self.lease / LOOKS_PER_LEASE:
            self._log.warn("this process did not run for {seconds:.1f} s", seconds=late)
            self._due = now
            self._pauses += 1
            self._paused += late
        return now - self._paused

    def _pulse(self, worker_id: str) -> Pulse:
        return self._pulses.setdefault(worker_id, Pulse())

    def _seen(self, worker_id: str, told: Presence | None = None) -> Presence:
        """The presence after a sign of life, with what the worker ``told``; its state is still to be judged."""
        return evolve(told or self._ledger.registry.presence(worker_id), last_seen=self._ledger.now())

    def _heard(self, worker: Worker, told: Presence | None = None) -> None:
        pulse = self._pulse(worker.id)
        in_doubt = is_in_doubt(pulse)
        if in_doubt and pulse.heard is None:
            self._expect(worker)
        pulse.heard, pulse.gone = self._now(), ""
        self._apply(worker, pulse.heard, self._seen(worker.id, told))
        if in_doubt and not self._first_calls.soon(worker.id):
            self._first_calls.cancel(worker.id)
            self._probe_now(worker.id)  # it is back: find out soon whether calls succeed again

    def _expect(self, worker: Worker) -> None:
        """The worker may be online at any moment."""
        self._pulse(worker.id).expected = self._now()
        self._expected.begin(worker)

    def _settle(self, worker_id: str, pulse: Pulse) -> None:
        """The worker is online, or requests no longer wait for it."""
        if pulse.expected is not None:
            pulse.expected = None
            self._expected.settle(worker_id)

    def _answered(self, worker_id: str) -> None:
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        pulse = self._pulse(worker_id)
        pulse.answered = self._now()
        pulse.failed, pulse.no_worker = None, False
        if worker.sends_heartbeats:
            self._apply(worker, pulse.answered)
        else:
            pulse.gone = ""
            self._apply(worker, pulse.answered, self._seen(worker_id))

    def _failed(self, worker_id: str, pulse: Pulse, error: BaseException | None) -> None:
        """Calls to the worker fail."""
        why = error.reason if isinstance(error, Unreachable) else str(error)
        pulse.failed = bounded_text(why, FAILURE_MAX_BYTES)
        pulse.no_worker = pulse.no_worker or isinstance(error, NotAWorker)
        self._apply_to(worker_id)
        self._settle(worker_id, pulse)

    def _probe_now(self, worker_id: str) -> Deferred[None]:
        """Probe the worker, unless a probe is under way; fires when the probe has ended."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return succeed(None)
        pulse = self._pulse(worker_id)
        if pulse.probing:
            waiter: Deferred[None] = Deferred()
            pulse.waiting.append(waiter)
            return waiter
        pulse.probing = True
        pauses, asks = self._pauses, pulse.no_worker

        def succeeded(_: object) -> None:
            pulse.probing = False
            if self._pulses.get(worker_id) is pulse and (asks or not pulse.no_worker):
                self._answered(worker_id)

        def failed(reason: Failure) -> Deferred[None] | None:
            pulse.probing = False
            if reason.check(Busy):
                return None  # the probe was not made
            if not reason.check(SchedulerError):
                self._log.failure("probing worker {worker_id} went wrong", reason, worker_id=worker_id)
            if self._pulses.get(worker_id) is not pulse:
                return None
            self._now()
            if self._pauses != pauses:
                return self._probe_now(worker_id)  # its time ran out while nobody here could hear the answer
            if asks and not reason.check(Unavailable, DeadlineExceeded):
                self._answered(worker_id)  # there is no such job, as expected
            else:
                self._failed(worker_id, pulse, reason.value)
            return None

        def over(_: None) -> None:
            waiting, pulse.waiting = pulse.waiting, []
            for waiter in waiting:
                waiter.callback(None)

        call: Deferred[Any] = self._calls.query_job(worker, NO_JOB) if asks else self._calls.probe(worker)
        return call.addCallbacks(succeeded, failed).addCallback(over)

    def _look(self) -> None:
        self._now()
        self._due = self._clock.seconds() + self.lease / LOOKS_PER_LEASE
        registry = self._ledger.registry
        self._sweep.begin([*registry.worker_ids(), *registry.busy_elsewhere()])

    def _look_at(self, worker_id: str) -> None:
        """Apply the signs of a worker. Its jobs count as running until it is silent or gone, even if calls fail."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            self._mark_jobs_unknown(worker_id)
            return
        now, pulse, heartbeats = self._now(), self._pulse(worker_id), worker.sends_heartbeats
        self._apply(worker, now)
        if worker_id in self._first_calls:
            return
        if pulse.expected is not None and now - pulse.expected > self.lease:
            self._settle(worker_id, pulse)
        if wants_probe(pulse, heartbeats, now, self.lease):
            self._probe_now(worker_id)
        if not is_alive(pulse, heartbeats, now, self.lease):
            self._mark_jobs_unknown(worker_id)

    def _apply_to(self, worker_id: str, seen: Presence | None = None) -> None:
        """Call ``_apply``, if that worker is registered."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is not None:
            self._apply(worker, self._now(), seen)

    def _apply(self, worker: Worker, now: float, seen: Presence | None = None) -> None:
        """Set the presence of the worker, and the state of its jobs, by the signs of life.

        ``seen``: the presence after the last of them, where that tells more than the state.
        """
        worker_id, pulse, heartbeats = worker.id, self._pulse(worker.id), worker.sends_heartbeats
        before = self._ledger.registry.presence(worker_id)
        state = judge(pulse, heartbeats, now, self.lease)
        reason = "" if state is WorkerState.ONLINE else why_unreachable(pulse, heartbeats, now, self.lease)
        changed = state is not before.state
        if seen is not None or changed or reason != before.reason:
            self._ledger.see(worker_id, evolve(seen or before, state=state, reason=reason))
        if state is WorkerState.ONLINE:
            pulse.logged = ""
            if changed:
                self._log.info("worker {name} ({worker_id}) is online", name=worker.name, worker_id=worker_id)
            self._settle(worker_id, pulse)
            return
        why = why_for_log(pulse, heartbeats, now, self.lease)
        if why and why != pulse.logged:
            pulse.logged = why
            self._log.warn(
                "worker {name} ({worker_id}) is unreachable: {why}", name=worker.name, worker_id=worker_id, why=why
            )
        if changed:
            self._mark_jobs_unknown(worker_id)

    def _mark_jobs_unknown(self, worker_id: str, why: str = "can't be reached") -> None:
        """Show the running jobs of a worker as unknown. A job that is starting is left to the answer of its start."""
        now = self._ledger.now()
        unknown = [
            lifecycle.unknown(job, f"worker {job.worker_name!r} {why}", now)
            for job in self._ledger.registry.unfinished(worker_id)
            if job.state is JobState.RUNNING
        ]
        if unknown:
            self._ledger.learn(*unknown).addErrback(lambda _: None)
