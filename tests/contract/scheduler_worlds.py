"""What the contract of ``IScheduler`` is told in: a scheduler and its world, where a test makes things happen.

There is one world for each provider; a test knows no more than ``World``. What
a new part of the interface needs to happen is a new method there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import DeadlineExceeded, SchedulerError, StoreFailed
from scheduler.interfaces import IScheduler
from scheduler.model import FEATURES, Disk, Job, JobSpec, JobState, Stream, Worker, WorkerState
from scheduler.terms import Target
from scheduler.views import JobFilter, Readiness
from tests.doubles.runner import FakeJobRunner
from tests.fakes.scheduler import FakeScheduler
from tests.house import ECHO, EPOCH, HOME, House, result_of

#: Jobs that may be queued.
QUEUE_MAX = 4

W1 = Target(worker="w1")


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

    def rename(self, name: str, other: str) -> None:
        """The worker that was added as ``name`` registers by another one."""

    def lose(self, name: str) -> None:
        """It can't be reached any more, and the scheduler knows."""

    def deregister(self, name: str) -> None:
        """It deregisters: it is stopped, and has no jobs."""

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

    def timers(self) -> int:
        """How many timers there are that a scheduler without jobs has not."""

    def settle(self) -> None:
        """Turn the clock until nothing is due now."""
        self.clock.advance(0)

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

    def rename(self, name: str, other: str) -> None:
        self._fake.rename(f"id-{name}", other)

    def lose(self, name: str) -> None:
        self._fake.worker_is(name, WorkerState.UNREACHABLE)

    def deregister(self, name: str) -> None:
        self._fake.worker_is(name, WorkerState.OFFLINE)

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

    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())


class ClusterWorld(World):
    """The real thing, between a store and workers in memory."""

    def __init__(self) -> None:
        self._house = House(lease=30.0, queue_max=QUEUE_MAX)
        self.clock = self._house.clock
        self.scheduler = self._house.parts.service
        self._workers = self._house.workers
        self._refused: dict[str, str] = {}
        # what the registration of each worker said, and what its heartbeats say beside its jobs, by its id
        self._facts: dict[str, dict[str, Any]] = {}
        self._says: dict[str, dict[str, Any]] = {}
        # whether ends are told at once
        self._reports = True

    def add_worker(
        self,
        name: str,
        slots: int | None = None,
        labels: dict[str, str] | None = None,
        core: bool = False,
        features: Iterable[str] = FEATURES,
    ) -> None:
        worker_id = f"id-{name}"
        port = 30000 + len(self._facts)
        self._facts[worker_id] = {
            "address": self._facts.get(worker_id, {}).get("address", f"{HOME}:{port}"),
            "name": name,
            "labels": labels or {},
            "slots": slots,
            "boot_id": "" if core else "boot",
            "features": () if core else tuple(features),
        }
        is_new = worker_id not in self._house.runners
        self._house.register(worker_id, **self._facts[worker_id])
        if is_new:
            runner = self._house.runners[worker_id]
            runner.refused = self._refused
            runner.on_end(lambda: self._report(worker_id))

    def rename(self, name: str, other: str) -> None:
        self._facts[f"id-{name}"]["name"] = other
        self.come_back(name)

    def lose(self, name: str) -> None:
        self._house.lose(f"id-{name}")

    def deregister(self, name: str) -> None:
        worker_id = f"id-{name}"
        result_of(self._house.parts.membership.deregister(worker_id, ""))
        del self._workers.runners[worker_id]

    def find(self, name: str) -> None:
        if self._house.worker(f"id-{name}").state is WorkerState.OFFLINE:
            self._house.register(f"id-{name}", **self._facts[f"id-{name}"])
        self._house.find(f"id-{name}")

    def come_back(self, name: str) -> None:
        worker_id = f"id-{name}"
        self._house.register(worker_id, **self._facts[worker_id])
        self._report(worker_id)

    def vanish(self, name: str) -> None:
        self._house.vanish(f"id-{name}")

    def refuse(self, command: str, why: str) -> None:
        self._refused[command] = why

    def lacks(self, name: str, shortage: str) -> None:
        self._house.runners[f"id-{name}"].shortage = shortage

    def says(self, name: str, refusing: str) -> None:
        self._say(f"id-{name}", refusing=refusing)

    def describes(self, name: str, ahead: float, disk: Disk) -> None:
        self._say(f"id-{name}", ahead=ahead, disk=disk)

    def start_fails(self, error: SchedulerError) -> None:
        self._workers.fail("start_job", error)

    def start_goes_unanswered(self) -> None:
        self._workers.fail("start_job", DeadlineExceeded("start", 10), arrives=True)

    def ignore_stops(self) -> None:
        for runner in self._house.runners.values():
            runner.ends_on_stop = False

    def leave(self, job: Job, *pids: int) -> None:
        self._runner(job).left[job.id_on_worker] = pids

    def signals(self) -> list[tuple[str, str, str]]:
        names = {job.id_on_worker: job.id for job in self.scheduler.jobs(JobFilter(), 100, None).jobs}
        sent = [each for runner in self._house.runners.values() for each in runner.signals]
        return [(names[job_id], name, to) for job_id, name, to in sent]

    def signals_go_unanswered(self) -> None:
        self._workers.fail("signal_job", DeadlineExceeded("signal", 10), arrives=True)

    def resist(self, why: str) -> None:
        for runner in self._house.runners.values():
            runner.resists = why

    def store_fails(self, why: str) -> None:
        self._house.store.problem = why

    def write(self, job: Job, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        self._runner(job).write(job.id_on_worker, data, stream)

    def end(self, job: Job, exit_code: int = 0, report: bool = True, output_error: str = "") -> None:
        self._reports = report
        self._runner(job).end(job.id_on_worker, exit_code, output_error=output_error)
        self._reports = True

    def readers(self) -> int:
        return len(self._workers.running())

    def timers(self) -> int:
        return self._house.timers()

    def _runner(self, job: Job) -> FakeJobRunner:
        assert job.worker_id is not None
        return self._house.runners[job.worker_id]

    def _say(self, worker_id: str, **facts: Any) -> None:
        self._says.setdefault(worker_id, {}).update(facts)
        self._report(worker_id)

    def _report(self, worker_id: str) -> None:
        """What its heartbeat tells, or, if it sends none, what the polling finds out."""
        if not self._reports or worker_id not in self._workers.runners:
            return
        facts = dict(self._says.get(worker_id, {}))
        if "ahead" in facts:
            facts["sent_at"] = self._house.wall_time() + facts.pop("ahead")
        self._house.report(worker_id, **facts)


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
