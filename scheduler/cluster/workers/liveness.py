"""Which workers can be reached, in both directions.

Theory of operation. ``online`` means that both directions work: a sign of life
of the worker arrived within the lease, and a call to it succeeded. A heartbeat
proves the first. The second is proved by any call that was answered, and where
none was made for half a lease, by a probe. A call that failed proves nothing
yet (the worker may be slow), but asks for a probe at once; a failed probe
decides. One that is silent is not probed: whatever came of it, it would not be
online. A core worker sends no heartbeats: there, the answered call
is the sign of life as well. One that deregistered is ``offline``, whatever
a late call says, until it registers again.

Elapsed time is measured by the reactor's clock, which the composition root
makes monotonic; wall time is only for people to read. Time in which this process
did not run (it was stopped, or its machine) does not count: who called meanwhile
waits in a socket, and is to be heard before anything is concluded. It shows as a
look that is late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.daemon.services import Periodic
from scheduler.daemon.sweep import Sweep
from scheduler.errors import Busy, DeadlineExceeded, SchedulerError, Unreachable
from scheduler.model import JobState, Worker, WorkerState

T = TypeVar("T")

#: A lease is looked at so many times while it lasts.
LOOKS_PER_LEASE = 6


@define
class Pulse:
    """Signs of life of one worker; times by the reactor's clock, ``None`` is never."""

    heard: float | None = None
    answered: float | None = None
    probing: bool = False
    #: The last probe failed, and no call was answered since.
    failed: bool = False
    #: Why it was known to be gone, before it was heard of again; ``""``: it was not.
    gone: str = ""


def judge(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> WorkerState:
    """The state that follows from the signs; ``heartbeats`` tells whether the worker sends any."""
    callable_ = pulse.answered is not None and not pulse.failed
    online = is_alive(pulse, heartbeats, now, lease) and callable_
    return WorkerState.ONLINE if online else WorkerState.UNREACHABLE


def is_alive(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> bool:
    """Whether there was a sign of life within the lease."""
    sign = pulse.heard if heartbeats else pulse.answered
    return sign is not None and now - sign <= lease


def why_unreachable(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> str:
    """Why ``judge`` does not call it online."""
    sign = pulse.heard if heartbeats else pulse.answered
    if pulse.gone:
        return pulse.gone
    if sign is not None and now - sign > lease:
        return f"no sign of life for {now - sign:.0f} s"
    if sign is None and heartbeats:
        return "it has not called since the scheduler was started"
    return "calls to it fail" if pulse.failed else "no call to it has succeeded yet"


def wants_probe(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> bool:
    """Whether it is time to find out if calls to it succeed."""
    silent = heartbeats and not is_alive(pulse, heartbeats, now, lease)
    if pulse.probing or silent:
        return False
    return pulse.failed or pulse.answered is None or now - pulse.answered >= lease / 2


class Liveness(Periodic):
    """Keeps every worker's ``state`` true, and its running jobs ``unknown`` while it is unreachable."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, ledger: Ledger, probe: Callable[[Worker], Deferred[None]], lease: float
    ) -> None:
        """``probe`` makes a call to the worker, with a deadline of its own; ``lease`` in seconds."""
        super().__init__(clock, lease / LOOKS_PER_LEASE, self._look, at_once=True)
        self.lease = lease
        self._clock = clock
        self._ledger = ledger
        self._probe = probe
        self._pulses: dict[str, Pulse] = {}
        self._sweep = Sweep(clock, self._look_at)
        # when the next look is due, by the clock
        self._due = 0.0
        # how often this process was found not to have run, and for how many seconds in all
        self._pauses = 0
        self._paused = 0.0

    def startService(self) -> None:
        self._due = self._clock.seconds()
        super().startService()

    def stopService(self) -> None:
        super().stopService()
        self._sweep.stop()

    @property
    def idle(self) -> bool:
        """Whether no worker is being probed, and none that is gone is kept."""
        find = self._ledger.registry.find_worker
        return all(find(worker_id) and not pulse.probing for worker_id, pulse in self._pulses.items())

    def heard(self, worker_id: str) -> None:
        """It called us."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        pulse = self._pulse(worker_id)
        pulse.heard, pulse.gone = self._now(), ""
        self._ledger.note_worker(evolve(worker, last_seen=self._ledger.now()))
        self._apply(worker_id)
        if pulse.failed or pulse.answered is None:
            self._probe_now(worker_id)  # it is back: that calls succeed again is to be known soon

    def registered(self, worker_id: str) -> None:
        """It is a new process, or at a new address: whether calls succeed is open again."""
        self._pulses[worker_id] = Pulse(answered=self._pulse(worker_id).answered)
        self.heard(worker_id)
        self._probe_now(worker_id)

    def reset(self, worker_id: str, why: str) -> None:
        """The worker no longer listens there, for the reason ``why``; it is unreachable until it calls again."""
        self._pulses[worker_id] = Pulse(gone=why)
        self._apply(worker_id)

    def left(self, worker_id: str) -> None:
        """It called us for the last time, and was stopped while its jobs run on."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        self._ledger.note_worker(evolve(worker, last_seen=self._ledger.now()))
        self._mark_jobs_unknown(worker_id, "was stopped, and left it running")
        self.reset(worker_id, "it was stopped, and left its jobs running")

    def why_unreachable(self, worker: Worker) -> str:
        """A sentence, of one that is."""
        pulse = self._pulses.get(worker.id, Pulse())
        return why_unreachable(pulse, worker.sends_heartbeats, self._clock.seconds() - self._paused, self.lease)

    def calls_fail(self, worker_id: str) -> bool:
        """Whether the last call to it that tells was not answered."""
        pulse = self._pulses.get(worker_id)
        return pulse is not None and pulse.failed

    def forget(self, worker_id: str) -> None:
        """It deregistered, or is no worker any more."""
        self._pulses.pop(worker_id, None)

    def observe(self, worker_id: str, call: Deferred[T]) -> Deferred[T]:
        """Draw conclusions from a call to the worker; its result passes through."""

        def succeeded(result: T) -> T:
            self._answered(worker_id)
            return result

        def failed(reason: Failure) -> Failure:
            if reason.check(Unreachable, DeadlineExceeded):
                self._probe_now(worker_id)
            elif reason.check(SchedulerError) and not reason.check(Busy):
                self._answered(worker_id)
            return reason

        return call.addCallbacks(succeeded, failed)

    def _now(self) -> float:
        """Seconds by the clock, without those in which this process did not run; signs of life are timed by these."""
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

    def _answered(self, worker_id: str) -> None:
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        pulse = self._pulse(worker_id)
        pulse.answered = self._now()
        pulse.failed = False
        if not worker.sends_heartbeats:
            pulse.gone = ""
            self._ledger.note_worker(evolve(worker, last_seen=self._ledger.now()))
        self._apply(worker_id)

    def _probe_now(self, worker_id: str) -> None:
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        pulse = self._pulse(worker_id)
        if pulse.probing:
            return
        pulse.probing = True
        pauses = self._pauses

        def succeeded(_: None) -> None:
            if self._pulses.get(worker_id) is pulse:
                pulse.probing = False
                self._answered(worker_id)

        def failed(reason: Failure) -> None:
            pulse.probing = False
            if reason.check(Busy):
                return  # the place was not free: nothing was learnt
            if not reason.check(SchedulerError):
                self._log.failure("probing worker {worker_id} went wrong", reason, worker_id=worker_id)
            if self._pulses.get(worker_id) is not pulse:
                return
            self._now()
            if self._pauses != pauses:
                self._probe_now(worker_id)  # its time ran out while nobody here could hear the answer
                return
            pulse.failed = True
            self._apply(worker_id)

        self._probe(worker).addCallbacks(succeeded, failed)

    def _look(self) -> None:
        self._now()
        self._due = self._clock.seconds() + self.lease / LOOKS_PER_LEASE
        registry = self._ledger.registry
        self._sweep.begin([*registry.worker_ids(), *registry.busy_elsewhere()])

    def _look_at(self, worker_id: str) -> None:
        """A worker that calls do not reach may report its jobs all the same: they run until it is silent, or gone."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            self._mark_jobs_unknown(worker_id)
            return
        self._apply(worker_id)
        now, pulse, heartbeats = self._now(), self._pulse(worker_id), worker.sends_heartbeats
        if wants_probe(pulse, heartbeats, now, self.lease):
            self._probe_now(worker_id)
        if not is_alive(pulse, heartbeats, now, self.lease):
            self._mark_jobs_unknown(worker_id)

    def _apply(self, worker_id: str) -> None:
        """Make the worker's state, and its jobs', what the signs say."""
        worker = self._ledger.registry.find_registered(worker_id)
        if worker is None:
            return
        state = judge(self._pulse(worker_id), worker.sends_heartbeats, self._now(), self.lease)
        if state is worker.state:
            return
        self._log.info(
            "worker {name} ({worker_id}) is {state}", name=worker.name, worker_id=worker_id, state=state.value
        )
        self._ledger.note_worker(evolve(worker, state=state))
        if state is WorkerState.UNREACHABLE:
            self._mark_jobs_unknown(worker_id)

    def _mark_jobs_unknown(self, worker_id: str, why: str = "can't be reached") -> None:
        """Nobody can say any more that its jobs run. One that is starting is left to the answer of its start."""
        now = self._ledger.now()
        unknown = [
            lifecycle.unknown(job, f"worker {job.worker_name!r} {why}", now)
            for job in self._ledger.registry.unfinished(worker_id)
            if job.state is JobState.RUNNING
        ]
        if unknown:
            self._ledger.update_jobs(unknown).addErrback(lambda _: None)
