"""Measures the scheduler's own decisions with many workers: in one process, without gRPC, HTTP or a disk.

The parts come from ``make_cluster``, with a store in memory and workers that answer every call at once. Times are
processor time of the one thread, so they do not include other load on the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from benchmarks.rows import Row
from scheduler.cluster.build import ClusterParts, make_cluster, random_id
from scheduler.cluster.jobs.placement import place
from scheduler.cluster.requirement import Requirement
from scheduler.errors import NoFreeSlot, Unavailable
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, Heartbeat, JobStatus, Registration
from scheduler.model import FEATURES, Job, JobSpec, JobState, Stream, Worker
from scheduler.net import DialRule
from scheduler.store.memory import MemoryStore
from scheduler.terms import Target

#: Numbers of workers, and of zones: each fifth worker has the same ``zone``.
WORKERS, ZONES = (1000, 10_000), 5

#: Milliseconds that a placement by the selector ``{}`` may take, and for which Liveness may block the reactor.
PLACEMENT_AIM, LIVENESS_AIM = 0.3, 2.0

#: Seconds that the registration of 10,000 workers may take.
REGISTRATION_AIM = 3.0

LEASE = 30.0
SLOTS = 4

_ECHO = JobSpec(command="echo", args=("hi",))
_ANY = Target(selector={})
_ZONE = Target(selector={"zone": "3"})


class _Reactor(Clock):
    """A reactor whose time passes by itself, and jumps to the next timer in ``turn``. It measures each call."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.thread_time()
        #: The seconds that each call took.
        self.took: list[float] = []

    def seconds(self) -> float:
        return self.rightNow + time.thread_time() - self._began

    def turn(self, until: float) -> bool:
        """Make the next call that is due before ``until``; whether there was one."""
        self._sortCalls()
        if not self.calls or self.calls[0].getTime() > until:
            return False
        call = self.calls.pop(0)
        self.rightNow += max(0.0, call.getTime() - self.seconds())
        call.called = 1
        self.took.append(_seconds(lambda: call.func(*call.args, **call.kw)))
        return True

    def run(self, seconds: float) -> float:
        """Run for that time. Returns the most milliseconds that one call took."""
        self.took = [0.0]
        until = self.seconds() + seconds
        while self.turn(until):
            pass
        self.rightNow += max(0.0, until - self.seconds())
        return max(self.took) * 1000


@implementer(IWorkerClient)
class _Workers:
    """Workers that always answer, and whose jobs run for ever."""

    def probe(self, worker: Worker) -> Deferred[None]:
        return succeed(None)

    def start_job(
        self, worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None = None
    ) -> Deferred[JobStatus]:
        return succeed(JobStatus(job.id, JobState.RUNNING, started_at=time.time()))

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        return succeed(JobStatus(job_id, JobState.RUNNING))

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        raise NotImplementedError

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        raise NotImplementedError

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        raise NotImplementedError

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        raise NotImplementedError

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver
    ) -> IOutputStream:
        raise NotImplementedError

    def forget(self, worker_id: str) -> None:
        pass


@frozen
class _Cluster:
    """The parts of a scheduler, and their store and clock."""

    clock: _Reactor
    store: MemoryStore
    parts: ClusterParts

    @classmethod
    def make(cls, store: MemoryStore) -> _Cluster:
        clock = _Reactor()
        rule = DialRule([], lambda name: succeed([]), keep_names=False)
        limits: dict[str, Any] = {"lease": LEASE, "queue_max": 100_000, "keep_jobs": 86400.0, "forget_after": 86400.0}
        cluster = cls(clock, store, make_cluster(clock, time.time, random_id, store, _Workers(), rule, **limits))
        for service in (*cluster.parts.records, *cluster.parts.work, *cluster.parts.admission):
            service.startService()
        return cluster

    def register(self, n: int) -> None:
        for number in range(n):
            self.parts.membership.register(_registration(number), "127.0.0.1")
        self.clock.run(0.0)  # the listeners hear of it

    def heartbeats(self) -> None:
        for worker in self.parts.ledger.registry.workers.all():
            self.parts.membership.heartbeat(Heartbeat(worker.id, "boot"), "127.0.0.1")
        self.clock.run(0.0)


def _registration(number: int) -> Registration:
    return Registration(
        f"127.0.0.1:{10_000 + number}",
        name=f"box-{number:05}",
        labels={"zone": str(number % ZONES), "os": "linux", "rack": str(number // 40)},
        slots=SLOTS,
        boot_id="boot",
        version="1",
        features=FEATURES,
    )


def _seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def cluster(quick: bool) -> Iterator[Row]:
    """Registration, placement and liveness, for each number of workers."""
    for n in WORKERS:
        many = n // 10 if quick else n
        yield from _registrations(many)
        yield from _placements(many, 20 if quick else 300)
        yield _liveness(many)


def _registrations(n: int) -> Iterator[Row]:
    made = _Cluster.make(MemoryStore())
    taken = _seconds(lambda: made.register(n))
    assert made.parts.service.readiness().workers_online == n
    yield Row(f"registration of {n} workers", f"{taken:.2f} s", str(n), f"aim {REGISTRATION_AIM:g} s for 10,000")


def _placements(n: int, times: int) -> Iterator[Row]:
    """Placements with changes of loads between them, as when jobs come and go."""
    made = _Cluster.make(MemoryStore())
    made.register(n)
    yield _placement_row(f"placement for `{{}}`, {n} workers", made, _ANY, times, f"aim {PLACEMENT_AIM:g} ms")
    yield _placement_row(f"placement for `zone=3`, {n} workers", made, _ZONE, times, "")
    ids = [worker.id for worker in made.parts.ledger.registry.workers.all()]
    for worker_id in ids[:-3]:
        made.parts.backoff.refused(worker_id, Unavailable("no more processes", 60.0))
    yield _placement_row(f"the same, all but 3 of {n} in backoff", made, _ANY, 8, f"aim {PLACEMENT_AIM:g} ms")
    for worker_id in ids[:-3]:
        made.parts.backoff.forget(worker_id)
    for worker_id in ids:
        registry = made.parts.ledger.registry
        while registry.load(worker_id) < SLOTS:
            registry.reserve(worker_id)
    refused = [_seconds(lambda: _place_or_not(made, _ANY)) for _ in range(times)]
    yield _times_row(f"the same, all of {n} full", refused, f"aim {PLACEMENT_AIM:g} ms")


def _placement_row(what: str, made: _Cluster, target: Target, times: int, note: str) -> Row:
    registry = made.parts.ledger.registry
    taken = []
    for _ in range(times):
        chosen: list[Worker] = []
        taken.append(_seconds(lambda chosen=chosen: chosen.append(_place(made, target))))
        registry.reserve(chosen[0].id)
    return _times_row(what, taken, note)


def _place(made: _Cluster, target: Target) -> Worker:
    return place(Requirement.of(_ECHO, target), made.parts.backoff.candidates)


def _place_or_not(made: _Cluster, target: Target) -> None:
    try:
        _place(made, target)
    except NoFreeSlot:
        return
    raise AssertionError("a slot was free")


def _times_row(what: str, seconds: list[float], note: str) -> Row:
    figure = f"p50 {median(seconds) * 1000:.3f} ms, longest {max(seconds) * 1000:.3f} ms"
    return Row(what, figure, str(len(seconds)), note)


def _liveness(n: int) -> Row:
    """The longest call of the reactor in each of the hard times, without any requests."""
    made = _Cluster.make(MemoryStore())
    made.register(n)
    gc.collect()
    gc.disable()  # a garbage collection would block everything, independently of Liveness
    try:
        longest = _longest(made)
    finally:
        gc.enable()
    figure = ", ".join(f"{when} {took:.1f} ms" for when, took in longest.items())
    return Row(f"longest time Liveness blocks, {n} workers", figure, "1", f"aim {LIVENESS_AIM:g} ms")


def _longest(made: _Cluster) -> dict[str, float]:
    longest = {}
    longest["at rest"] = made.clock.run(LEASE / 2)
    made.heartbeats()
    made.clock.rightNow += 10 * LEASE
    longest["after a pause"] = made.clock.run(LEASE / 2)
    longest["when all fall silent"] = made.clock.run(LEASE)
    assert made.parts.service.readiness().workers_online == 0
    again = _Cluster.make(made.store)
    longest["after a restart"] = again.clock.run(LEASE)
    return longest
