"""The signs of life of all workers, and what follows from them: presences, and running jobs that are ``unknown``.

Elapsed time is measured by the reactor's clock, which the composition root makes monotonic. Wall time is only for
people to read.
"""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from scheduler.cluster import lifecycle
from scheduler.cluster.expected import Expected
from scheduler.cluster.ledger import Ledger
from scheduler.daemon.running_time import RunningTime
from scheduler.errors import NotAWorker, Unreachable
from scheduler.model import JobState, Presence, Worker, WorkerState
from scheduler.texts import bounded_text

#: Bytes that are kept of the reason why a call to a worker failed.
FAILURE_MAX_BYTES = 500


@define
class Pulse:
    """Signs of life of one process of a worker: when it was ``heard``, and when it ``answered`` a call.

    Times are by the reactor's clock; ``None``: never.
    """

    heard: float | None = None
    answered: float | None = None
    probing: bool = False
    #: Deferreds that fire when the probe under way has ended.
    waiting: list[Deferred[None]] = field(factory=list)
    #: Why the last probe failed, if no call was answered since; ``""``: it is not known why; ``None``: it did not fail.
    failed: str | None = None
    #: Why the worker is known to be gone; ``""``: it is not, or was heard again.
    gone: str = ""
    #: The program that answers at the address is no worker. It may answer probes all the same: only a query shows it.
    no_worker: bool = False
    #: Since when the worker may be online at any moment; ``None``: it is online, or is not expected.
    expected: float | None = None
    #: The reason for being unreachable that was logged last.
    logged: str = ""

    @property
    def is_in_doubt(self) -> bool:
        """Whether no call to the worker has succeeded, or the last probe failed."""
        return self.answered is None or self.failed is not None

    def judge(self, heartbeats: bool, now: float, lease: float) -> WorkerState:
        """The state that follows from the signs; ``heartbeats`` tells whether the worker sends heartbeats."""
        online = self.is_alive(heartbeats, now, lease) and not self.is_in_doubt
        return WorkerState.ONLINE if online else WorkerState.UNREACHABLE

    def is_alive(self, heartbeats: bool, now: float, lease: float) -> bool:
        """Whether there was a sign of life within the lease."""
        sign = self.heard if heartbeats else self.answered
        return sign is not None and now - sign <= lease

    def why_unreachable(self, heartbeats: bool, now: float, lease: float) -> str:
        """The reason why ``judge`` does not call the worker online, in words that end a sentence."""
        sign = self.heard if heartbeats else self.answered
        silence = None if sign is None or now - sign <= lease else now - sign
        if sign is None and heartbeats and not self.gone:
            return self._and_calls("it has not called since the scheduler was started")
        return self._cause(silence) or "no call to it has succeeded yet"

    def why_for_log(self, heartbeats: bool, now: float, lease: float) -> str:
        """The reason as in ``why_unreachable``, without a number that grows; ``""``: no reason is known yet."""
        sign = self.heard if heartbeats else self.answered
        return self._cause(None if sign is None or now - sign <= lease else lease)

    def _cause(self, silence: float | None) -> str:
        """The known cause; ``silence`` in seconds, ``None``: the worker is not silent."""
        return self.gone or self._and_calls("" if silence is None else f"no sign of life for {silence:.0f} s")

    def _and_calls(self, why: str) -> str:
        if self.failed is None:
            return why
        calls = f"calls to it fail: {self.failed}" if self.failed else "calls to it fail"
        return f"{why}; {calls}" if why else calls

    def wants_probe(self, heartbeats: bool, now: float, lease: float) -> bool:
        """Whether it is time to find out if calls to the worker succeed."""
        if self.probing or (heartbeats and not self.is_alive(heartbeats, now, lease)):
            return False  # a silent worker would not be online for an answer
        return self.answered is None or self.failed is not None or now - self.answered >= lease / 2


@define(eq=False, slots=False)
class Pulses:
    """Pulses by worker id. Keeps the presence of each worker as its pulse says."""

    _log = Logger()

    _time: RunningTime
    _ledger: Ledger
    #: Is told which workers may be online soon.
    _expected: Expected
    #: Seconds.
    _lease: float
    _pulses: dict[str, Pulse] = field(init=False, factory=dict)

    @property
    def idle(self) -> bool:
        """Whether no worker is being probed, and there is no pulse of a worker that the registry does not know."""
        find = self._ledger.registry.workers.find
        return all(find(worker_id) and not pulse.probing for worker_id, pulse in self._pulses.items())

    def find(self, worker_id: str) -> Pulse | None:
        """The pulse of a worker; ``None``: it has none, or is not known."""
        return self._pulses.get(worker_id)

    def of(self, worker_id: str) -> Pulse:
        """The pulse of a known worker, which may be new."""
        return self._pulses.setdefault(worker_id, Pulse())

    def begin(self, worker_id: str) -> None:
        """A new process registers as the worker: it has given no sign of life, and is unreachable."""
        self._pulses[worker_id] = Pulse()
        if self._ledger.registry.workers.find_registered(worker_id) is not None:
            self._ledger.see(worker_id, Presence())

    def reset(self, worker_id: str, why: str, told: Presence | None = None) -> None:
        """The worker is known to be gone, for the reason ``why``. ``told``: what it said in a last call."""
        self._pulses[worker_id] = Pulse(gone=why)
        self._expected.settle(worker_id)
        worker = self._ledger.registry.workers.find_registered(worker_id)
        if worker is not None:
            self.apply(worker, None if told is None else self._seen(worker_id, told))

    def forget(self, worker_id: str) -> None:
        """The worker deregistered, or was removed."""
        self._pulses.pop(worker_id, None)
        self._expected.settle(worker_id)

    def expect(self, worker: Worker) -> None:
        """The worker may be online at any moment."""
        self.of(worker.id).expected = self._time.read()
        self._expected.begin(worker)

    def heard(self, worker: Worker, told: Presence | None) -> bool:
        """The worker called, and said what it ``told`` about itself. Returns whether calls to it may fail."""
        pulse = self.of(worker.id)
        in_doubt = pulse.is_in_doubt
        if in_doubt and pulse.heard is None:
            self.expect(worker)
        pulse.heard, pulse.gone = self._time.read(), ""
        self.apply(worker, self._seen(worker.id, told))
        return in_doubt

    def answered(self, worker_id: str) -> None:
        """The worker answered a call. For one that sends no heartbeats, that is its sign of life."""
        worker = self._ledger.registry.workers.find_registered(worker_id)
        if worker is None:
            return
        pulse = self.of(worker_id)
        pulse.answered = self._time.read()
        pulse.failed, pulse.no_worker = None, False
        if worker.sends_heartbeats:
            self.apply(worker)
        else:
            pulse.gone = ""
            self.apply(worker, self._seen(worker_id))

    def failed(self, worker_id: str, error: BaseException | None) -> None:
        """Calls to the worker fail."""
        pulse = self.of(worker_id)
        why = error.reason if isinstance(error, Unreachable) else str(error)
        pulse.failed = bounded_text(why, FAILURE_MAX_BYTES)
        pulse.no_worker = pulse.no_worker or isinstance(error, NotAWorker)
        worker = self._ledger.registry.workers.find_registered(worker_id)
        if worker is not None:
            self.apply(worker)
        self._settle(worker_id, pulse)

    def wants_probe(self, worker: Worker) -> bool:
        """Whether it is time to find out if calls to the worker succeed."""
        return self.of(worker.id).wants_probe(worker.sends_heartbeats, self._time.read(), self._lease)

    def expire(self, worker: Worker) -> None:
        """Expect the worker for a lease at most. Its jobs count as running until it is silent or gone."""
        now, pulse = self._time.read(), self.of(worker.id)
        if pulse.expected is not None and now - pulse.expected > self._lease:
            self._settle(worker.id, pulse)
        if not pulse.is_alive(worker.sends_heartbeats, now, self._lease):
            self.mark_jobs_unknown(worker.id)

    def apply(self, worker: Worker, seen: Presence | None = None) -> None:
        """Set the presence of the worker, and the state of its jobs, by the signs of life.

        ``seen``: the presence after a sign of life, where that tells more than the state.
        """
        worker_id, pulse = worker.id, self.of(worker.id)
        signs = (worker.sends_heartbeats, self._time.read(), self._lease)
        before, state = self._ledger.registry.presences.of(worker_id), pulse.judge(*signs)
        reason = "" if state is WorkerState.ONLINE else pulse.why_unreachable(*signs)
        changed = state is not before.state
        if seen is not None or changed or reason != before.reason:
            self._ledger.see(worker_id, evolve(seen or before, state=state, reason=reason))
        if state is WorkerState.ONLINE:
            pulse.logged = ""
            if changed:
                self._log.info("worker {name} ({worker_id}) is online", name=worker.name, worker_id=worker_id)
            self._settle(worker_id, pulse)
            return
        why = pulse.why_for_log(*signs)
        if why and why != pulse.logged:
            pulse.logged = why
            self._log.warn(
                "worker {name} ({worker_id}) is unreachable: {why}", name=worker.name, worker_id=worker_id, why=why
            )
        if changed:
            self.mark_jobs_unknown(worker_id)

    def mark_jobs_unknown(self, worker_id: str, why: str = "can't be reached") -> None:
        """Show the running jobs of a worker as unknown. A job that is starting is left to the answer of its start."""
        now = self._ledger.now()
        unknown = [
            lifecycle.unknown(job, f"worker {job.worker_name!r} {why}", now)
            for job in self._ledger.registry.jobs.unfinished(worker_id)
            if job.state is JobState.RUNNING
        ]
        if unknown:
            self._ledger.learn(*unknown).addErrback(lambda _: None)

    def _seen(self, worker_id: str, told: Presence | None = None) -> Presence:
        """The presence after a sign of life, with what the worker ``told``; its state is still to be judged."""
        return evolve(told or self._ledger.registry.presences.of(worker_id), last_seen=self._ledger.now())

    def _settle(self, worker_id: str, pulse: Pulse) -> None:
        """The worker is online, or requests no longer wait for it."""
        if pulse.expected is not None:
            pulse.expected = None
            self._expected.settle(worker_id)
