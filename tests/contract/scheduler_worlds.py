"""What the contract of ``IScheduler`` is told in: a scheduler and its world, where a test makes things happen.

There is one world for each provider; a test knows no more than ``World``. What
a new part of the interface needs to happen is a new method there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from scheduler.cluster.build import random_id
from scheduler.cluster.jobs.attendance import Attendance
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.jobs.outlook import Outlook
from scheduler.cluster.jobs.queue import Queue
from scheduler.cluster.jobs.removals import Removals
from scheduler.cluster.jobs.signals import Signals
from scheduler.cluster.jobs.starts import Starts
from scheduler.cluster.jobs.stops import Stops
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.output.outputs import Outputs
from scheduler.cluster.service import Cluster
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.membership import Membership
from scheduler.cluster.workers.observed import ObservedClient
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.errors import DeadlineExceeded, SchedulerError, StoreFailed, Unreachable
from scheduler.interfaces import IScheduler, IStore, JobFilter, Readiness, Record
from scheduler.messages import Heartbeat, JobStatus, Registration
from scheduler.model import FEATURES, Disk, Job, JobSpec, JobState, Stream, Target, Worker, WorkerState
from scheduler.net import DialRule
from scheduler.store.memory import MemoryStore
from tests.doubles.runner import FakeJobRunner
from tests.fakes.scheduler import FakeScheduler
from tests.fakes.worker_client import FakeWorkerClient

#: Wall time when the clock says 0; it passes like the clock.
EPOCH = 1_700_000_000.0

#: Jobs that may be queued.
QUEUE_MAX = 4

ECHO = JobSpec(command="echo")
W1 = Target(worker="w1")
ANY = Target(selector={})


class World(Protocol):
    """Workers are told by their names; their ids are ``id-<name>``."""

    clock: Clock
    scheduler: IScheduler

    def add_worker(
        self,
        name: str,
        slots: int | None = None,
        labels: dict[str, str] | None = None,
        core: bool = False,
        features: Iterable[str] = FEATURES,
    ) -> None:
        """One that is online; ``core``: it speaks only the core protocol. Again: it is another version of it."""

    def lose(self, name: str) -> None:
        """It can't be reached any more, and the scheduler knows."""

    def find(self, name: str) -> None:
        """It can be reached, and has told the scheduler what runs on it."""

    def vanish(self, name: str) -> None:
        """It can't be reached any more; the scheduler may find out by calling it."""

    def come_back(self, name: str) -> None:
        """It was forgotten, registers under its id, and tells the scheduler what runs on it."""

    def refuse(self, command: str, why: str) -> None:
        """No worker runs that command."""

    def lacks(self, name: str, shortage: str) -> None:
        """The worker lacks something to start a job, and says so when asked to; ``""``: it does no more."""

    def says(self, name: str, refusing: str) -> None:
        """The worker says why it takes no job, without being asked; ``""``: it takes some."""

    def describes(self, name: str, ahead: float, disk: Disk) -> None:
        """The worker says what its clock shows, ``ahead`` of the scheduler's by that many seconds, and of its disk."""

    def start_fails(self, error: SchedulerError) -> None:
        """The next starts end so, and nothing is sent."""

    def start_goes_unanswered(self) -> None:
        """The next starts arrive, and their answers do not."""

    def ignore_stops(self) -> None:
        """No job ends for being asked."""

    def leave(self, job: Job, *pids: int) -> None:
        """These are the processes of the job that no signal ends, and that still run."""

    def signals(self) -> list[tuple[str, str, str]]:
        """What was sent to jobs: the job's id, the signal, and to whom."""

    def signals_go_unanswered(self) -> None:
        """The next signals arrive, and their answers do not."""

    def resist(self, why: str) -> None:
        """No worker can remove a job, for that reason; ``""``: again."""

    def store_fails(self, why: str) -> None:
        """From now on."""

    def write(self, job: Job, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """The job writes."""

    def end(self, job: Job, exit_code: int = 0, report: bool = True, output_error: str = "") -> None:
        """The job ends, and its worker, if it is to ``report``, says so; ``output_error``: why output was cut."""

    def readers(self) -> int:
        """How many still hold on to a stream."""

    def flow(self) -> None:
        """What is under way comes to rest; that may take seconds by the clock."""
        self.clock.pump([0.1] * 20)


class FakeWorld(World):
    """In memory, as the tests of the HTTP API have it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.scheduler = self._fake = FakeScheduler(self.clock, lambda: EPOCH + self.clock.seconds())
        self._fake.queue_max = QUEUE_MAX
        self._workers: dict[str, Worker] = {}

    def add_worker(
        self,
        name: str,
        slots: int | None = None,
        labels: dict[str, str] | None = None,
        core: bool = False,
        features: Iterable[str] = FEATURES,
    ) -> None:
        known = frozenset(() if core else features)
        facts = {"slots": slots, "labels": labels or {}, "features": known}
        self._workers[name] = self._fake.add_worker(name, "" if core else "boot", **facts)

    def lose(self, name: str) -> None:
        self._fake.worker_is(name, WorkerState.UNREACHABLE)

    def find(self, name: str) -> None:
        self._fake.worker_is(name, WorkerState.ONLINE)

    def come_back(self, name: str) -> None:
        self._fake.come_back(self._workers[name])

    vanish = lose  # it finds out at once

    def refuse(self, command: str, why: str) -> None:
        self._fake.refused[command] = why

    def lacks(self, name: str, shortage: str) -> None:
        self._fake.worker_lacks(name, shortage)

    def says(self, name: str, refusing: str) -> None:
        self._fake.worker_says(name, refusing)

    def describes(self, name: str, ahead: float, disk: Disk) -> None:
        self._fake.worker_describes(name, ahead, disk)

    def start_fails(self, error: SchedulerError) -> None:
        self._fake.fail["submit"] = error

    def start_goes_unanswered(self) -> None:
        self._fake.unanswered = True

    def ignore_stops(self) -> None:
        self._fake.ends_on_stop = False

    def leave(self, job: Job, *pids: int) -> None:
        self._fake.left[job.id] = pids

    def signals(self) -> list[tuple[str, str, str]]:
        return self._fake.signals

    def signals_go_unanswered(self) -> None:
        self._fake.answers_signals = False

    def resist(self, why: str) -> None:
        self._fake.resists = why

    def store_fails(self, why: str) -> None:
        self._fake.fail["submit"] = self._fake.fail["remove"] = StoreFailed(why)
        self._fake.ready = Readiness((why,))

    def write(self, job: Job, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        self._fake.write(job.id, data, stream)

    def end(self, job: Job, exit_code: int = 0, report: bool = True, output_error: str = "") -> None:
        facts = {"output_error": output_error or None}
        if exit_code:
            facts["reason"] = f"exit status {exit_code}"
        state = JobState.FAILED if exit_code else JobState.SUCCEEDED
        self._fake.finish(job.id, state, exit_code=exit_code, **facts)

    def readers(self) -> int:
        return len(self._fake.readers())


class ClusterWorld(World):
    """The real thing, between a store and workers in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._runners: dict[str, FakeJobRunner] = {}
        self._refused: dict[str, str] = {}
        self._refusing: dict[str, str] = {}
        # names of workers with by how much their clocks are ahead, and their disks
        self._machines: dict[str, tuple[float, Disk]] = {}
        self._store = _Store()
        self._client = _Client(self.clock)
        self._ledger = Ledger(self.clock, self._now, self._store)
        self._liveness = Liveness(self.clock, self._ledger, self._client.probe, 30.0)
        client = ObservedClient(self._client, self._liveness)
        rule = DialRule([], lambda name: succeed([]), keep_names=False)
        waiting = Lines()
        starts = Starts(self.clock, random_id, self._ledger, client, waiting, queue_max=QUEUE_MAX)
        queue = Queue(self.clock, self._ledger, starts, waiting)
        stops = Stops(self.clock, self._ledger, client, starts)
        removals = Removals(self._ledger, client, starts)
        self._ledger.listen(on_worker=removals.worker_changed)
        reconciler = Reconciler(self._ledger, client, starts, removals)
        self._membership = Membership(random_id, self._ledger, self._liveness, client, rule, reconciler)
        outputs = Outputs(self.clock, client, self._ledger.registry)
        outlook = Outlook(self.clock, self._ledger, waiting, queue, starts.backoff)
        attendance = Attendance(self.clock, self._ledger.registry, stops)
        signals = Signals(self._ledger.registry, client, starts)
        self.scheduler = Cluster(
            self._ledger, starts, stops, signals, removals, reconciler, self._membership, outputs, attendance, outlook
        )
        self._ledger.listen(outlook.job_changed, outlook.worker_changed)
        self._ledger.listen(outputs.job_changed, outputs.worker_changed)
        self._ledger.listen(stops.job_changed, stops.worker_changed)
        self._registrations: dict[str, Registration] = {}
        self._ledger.listen(queue.job_changed, queue.worker_changed)
        self._ledger.listen(attendance.job_changed)
        queue.startService()
        attendance.startService()

    def add_worker(
        self,
        name: str,
        slots: int | None = None,
        labels: dict[str, str] | None = None,
        core: bool = False,
        features: Iterable[str] = FEATURES,
    ) -> None:
        if name not in self._runners:
            runner = self._runners[name] = FakeJobRunner(self._now)
            runner.refused = self._refused
            runner.on_end(lambda: self._report(name))
        self._client.runners[f"id-{name}"] = self._runners[name]
        registration = Registration(
            f"127.0.0.1:{30000 + list(self._runners).index(name)}",
            f"id-{name}",
            name,
            labels or {},
            slots,
            boot_id="" if core else "boot",
            features=() if core else tuple(features),
        )
        self._registrations[name] = registration
        _now(self._membership.register(registration, "127.0.0.1"))

    def lose(self, name: str) -> None:
        self.vanish(name)
        worker = self._worker(name)
        self._liveness.observe(worker.id, self._client.probe(worker)).addErrback(lambda _: None)

    def find(self, name: str) -> None:
        worker = self._worker(name)
        self._client.runners[worker.id] = self._runners[name]
        _now(self._liveness.observe(worker.id, self._client.probe(worker)))
        self._report(name)

    def come_back(self, name: str) -> None:
        self._client.runners[f"id-{name}"] = self._runners[name]
        _now(self._membership.register(self._registrations[name], "127.0.0.1"))
        self._report(name)

    def vanish(self, name: str) -> None:
        del self._client.runners[f"id-{name}"]
        for stream in list(self._client.streams):
            stream.fail(Failure(Unreachable(name, sent=True)))

    def refuse(self, command: str, why: str) -> None:
        self._refused[command] = why

    def lacks(self, name: str, shortage: str) -> None:
        self._runners[name].shortage = shortage

    def says(self, name: str, refusing: str) -> None:
        self._refusing[name] = refusing
        self._report(name)

    def describes(self, name: str, ahead: float, disk: Disk) -> None:
        self._machines[name] = ahead, disk
        self._report(name)

    def start_fails(self, error: SchedulerError) -> None:
        self._client.start_fails = error

    def start_goes_unanswered(self) -> None:
        self._client.answers_starts = False

    def ignore_stops(self) -> None:
        for runner in self._runners.values():
            runner.ends_on_stop = False

    def leave(self, job: Job, *pids: int) -> None:
        self._runner(job).left[job.id_on_worker] = pids

    def signals(self) -> list[tuple[str, str, str]]:
        names = {job.id_on_worker: job.id for job in self.scheduler.jobs(JobFilter(), 100, None).jobs}
        sent = [each for runner in self._runners.values() for each in runner.signals]
        return [(names[job_id], name, to) for job_id, name, to in sent]

    def signals_go_unanswered(self) -> None:
        self._client.answers_signals = False

    def resist(self, why: str) -> None:
        for runner in self._runners.values():
            runner.resists = why

    def store_fails(self, why: str) -> None:
        self._store.problem = why

    def write(self, job: Job, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        self._runner(job).write(job.id_on_worker, data, stream)

    def end(self, job: Job, exit_code: int = 0, report: bool = True, output_error: str = "") -> None:
        self._client.reports = report
        self._runner(job).end(job.id_on_worker, exit_code, output_error=output_error)
        self._client.reports = True

    def readers(self) -> int:
        return len(self._client.streams)

    def _now(self) -> float:
        return EPOCH + self.clock.seconds()

    def _worker(self, name: str) -> Worker:
        return self._ledger.registry.worker(name)

    def _runner(self, job: Job) -> FakeJobRunner:
        assert job.worker_name is not None
        return self._runners[job.worker_name]

    def _report(self, name: str) -> None:
        """What its heartbeat tells, or, if it sends none, what the polling finds out."""
        worker = self._ledger.registry.find_worker(f"id-{name}")
        if worker is None or worker.id not in self._client.runners or not self._client.reports:
            return
        if worker.is_core:
            for job in self._ledger.registry.unfinished(worker.id):
                self.scheduler.query(worker.id, job.id)
            return
        runner = self._runners[name]
        ahead, disk = self._machines.get(name, (None, None))
        heartbeat = Heartbeat(
            worker.id,
            worker.boot_id,
            runner.running(),
            runner.unacknowledged(),
            refusing=self._refusing.get(name, ""),
            sent_at=None if ahead is None else self._now() + ahead,
            disk=disk,
        )
        runner.acknowledge(_now(self._membership.heartbeat(heartbeat)).acknowledged)


class _Client(FakeWorkerClient):
    """One whose starts can go wrong; ``reports`` tells whether workers call by themselves."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, {})
        self.start_fails: SchedulerError | None = None
        self.answers_starts = True
        self.answers_signals = True
        self.reports = True

    def start_job(self, worker: Worker, job: Job, sent: Callable[[], None] | None = None) -> Deferred[JobStatus]:
        if self.start_fails is not None:
            return fail(self.start_fails)
        answer = super().start_job(worker, job, sent)
        return answer if self.answers_starts else answer.addCallback(lambda _: fail(DeadlineExceeded("start", 10)))

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        answer = super().signal_job(worker, job_id, signal, to)
        return answer if self.answers_signals else answer.addCallback(lambda _: fail(DeadlineExceeded("signal", 10)))


@implementer(IStore)
class _Store(MemoryStore):
    """``problem``, if there is one, is why nothing is saved."""

    problem = ""

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        return fail(StoreFailed(self.problem)) if self.problem else super().save(records)


def _now(answer: Deferred[Any]) -> Any:
    """The result that is there."""
    results: list[Any] = []
    answer.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


class Contract:
    """Mixed into a test case that has ``world_class``: a scheduler with the worker ``w1``, and short words for it."""

    world_class: Callable[[], World]

    def setUp(self) -> None:
        self.world = self.world_class()
        self.scheduler = self.world.scheduler
        self.world.add_worker("w1")

    def submit(self, target: Target = W1, spec: JobSpec = ECHO) -> Job:
        """What a submission is answered with, a second later than all before."""
        self.world.clock.advance(1.0)
        job: Job = self.successResultOf(self.scheduler.submit(spec, target))
        return job

    def ended(self, exit_code: int = 0, output: bytes = b"") -> Job:
        """A job that has ended."""
        job = self.submit()
        self.world.write(job, output)
        self.world.end(job, exit_code)
        return self.scheduler.job(job.id)

    def refusal(self, error: type[SchedulerError], method: Callable[..., Deferred[Any]], *args: Any) -> Any:
        """The error that a call comes to; it may be raised at once, or later."""
        return self.failureResultOf(maybeDeferred(method, *args), error).value

    def ids(self, which: JobFilter | None = None) -> list[str]:
        """Of all jobs that match, newest first."""
        return [job.id for job in self.scheduler.jobs(which or JobFilter(), 100, None).jobs]

    def state(self, job: Job) -> JobState:
        """As it is now."""
        return self.scheduler.job(job.id).state


def for_every_provider(*contracts: type[Contract]) -> dict[str, type[SynchronousTestCase]]:
    """The test cases by their names: each contract for each world."""
    cases = {}
    for contract in contracts:
        for world in (FakeWorld, ClusterWorld):
            name = contract.__name__ + world.__name__.replace("World", "Tests")
            facts = {"world_class": world, "__module__": contract.__module__, "__doc__": world.__doc__}
            cases[name] = type(name, (contract, SynchronousTestCase), facts)
    return cases
