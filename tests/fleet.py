"""The workers of a house, by their names, and the jobs that run there: a test says what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import SchedulerError
from scheduler.model import FEATURES, Job, JobSpec, JobState, Stream, WorkerState
from scheduler.terms import Target
from scheduler.views import JobFilter
from tests.doubles.runner import FakeJobRunner
from tests.house import ECHO, HOME, PEER, House, result_of

#: Jobs that may be queued in a ``FleetTestCase``.
QUEUE_MAX = 4

W1 = Target(worker="w1")


class Fleet:
    """The id of a worker is ``id-<name>``. The scheduler has settled after whatever happens."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._refused: dict[str, str] = {}
        # what the registration of each worker said, and what its heartbeats say beside its jobs, by its id
        self._facts: dict[str, dict[str, Any]] = {}
        self._says: dict[str, dict[str, Any]] = {}
        # whether ends are told at once
        self._reports = True

    # workers

    def add_worker(
        self,
        name: str = "w1",
        slots: int | None = None,
        labels: dict[str, str] | None = None,
        core: bool = False,
        features: Iterable[str] = FEATURES,
    ) -> None:
        """A worker registers; ``core``: it speaks only the core protocol. A known one registers as another version."""
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
        is_new = worker_id not in self.house.runners
        self.house.register(worker_id, **self._facts[worker_id])
        if is_new:
            runner = self.house.runners[worker_id]
            runner.refused = self._refused
            runner.on_end(lambda: self._report(worker_id))
        self.house.settle()

    def rename(self, name: str, other: str) -> None:
        """The worker that was added as ``name`` registers by another one."""
        self._facts[f"id-{name}"]["name"] = other
        self.come_back(name)

    def lose(self, name: str = "w1") -> None:
        """The worker can't be reached any more, and the scheduler knows."""
        self.house.lose(f"id-{name}")
        self.house.settle()

    def deregister(self, name: str) -> None:
        """The worker deregisters: it is stopped, and has no jobs."""
        worker_id = f"id-{name}"
        result_of(self.house.parts.membership.deregister(worker_id, "", PEER))
        del self.house.workers.runners[worker_id]

    def find(self, name: str = "w1") -> None:
        """The worker can be reached again, and has told the scheduler what runs on it."""
        if self.house.presence(f"id-{name}").state is WorkerState.OFFLINE:
            self.house.register(f"id-{name}", **self._facts[f"id-{name}"])
        self.house.find(f"id-{name}")

    def come_back(self, name: str = "w1") -> None:
        """A worker that was forgotten registers under its id, and tells the scheduler what runs on it."""
        worker_id = f"id-{name}"
        self.house.register(worker_id, **self._facts[worker_id])
        self._report(worker_id)

    def forget(self, name: str = "w1") -> None:
        """The worker can't be reached any more, and a client has it forgotten."""
        if self.house.presence(f"id-{name}").state is WorkerState.ONLINE:
            self.lose(name)
        result_of(self.house.parts.service.forget(f"id-{name}"))
        self.house.settle()

    def refuse(self, command: str, why: str) -> None:
        """No worker runs that command."""
        self._refused[command] = why

    def says(self, name: str, **facts: Any) -> None:
        """The worker says that by its heartbeats, without being asked, from now on.

        ``refusing`` is why it takes no job, ``""``: it takes some; ``disk`` how full its disk is; ``ahead`` by how many
        seconds its clock is ahead of the scheduler's.
        """
        self._says.setdefault(f"id-{name}", {}).update(facts)
        self._report(f"id-{name}")

    def runner(self, name: str = "w1") -> FakeJobRunner:
        """The runner of that worker's jobs."""
        return self.house.runners[f"id-{name}"]

    # jobs

    def add_job(
        self, output: bytes = b"", errors: bytes = b"", state: JobState = JobState.RUNNING, on: str = "w1", **facts: Any
    ) -> Job:
        """A job of that worker that has written that much, and is in that state now."""
        now, worker = self.house.wall_time(), self.house.worker(f"id-{on}")
        where = {"worker_id": worker.id, "worker_name": worker.name, "started_at": now}
        defaults = {"spec": JobSpec(command="true"), "created_at": now, **where}
        job_id = self.house.new_id()
        if "terms" in facts and facts["terms"].retry is not None:
            defaults["group_id"] = job_id
        job = Job(id=job_id, state=JobState.RUNNING, **{**defaults, **facts})
        self.house.add(job)
        self.runner(on).start(job.id, job.spec, job.created_at)
        self.write(job.id, output)
        self.write(job.id, errors, Stream.STDERR)
        if state.final and state is not JobState.LOST:
            self.end(job.id, {JobState.SUCCEEDED: 0, JobState.FAILED: 1}.get(state), state=state)
        elif state is not JobState.RUNNING:
            self.house.add(evolve(job, state=state, finished_at=now if state.final else None))
        return self.house.job(job.id)

    def write(self, job_id: str, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        """The job writes."""
        runner, id_on_worker = self._where(job_id)
        runner.write(id_on_worker, data, stream)
        self.house.settle()

    def end(self, job_id: str, exit_code: int | None = 0, report: bool = True, **facts: Any) -> Job:
        """The job ends, and its worker, if it is to ``report``, says so; ``facts`` as for the runner."""
        self._reports = report
        runner, id_on_worker = self._where(job_id)
        runner.end(id_on_worker, exit_code, **facts)
        self._reports = True
        self.house.settle()
        return self.house.job(job_id)

    def prune(self, job_id: str) -> None:
        """Its worker no longer keeps a job that has ended."""
        runner, id_on_worker = self._where(job_id)
        runner.acknowledge([id_on_worker])
        runner.prune(id_on_worker)

    def leave(self, job_id: str, *pids: int) -> None:
        """These are the processes of the job that no signal ends, and that still run."""
        runner, id_on_worker = self._where(job_id)
        runner.left.pop(id_on_worker, None)
        if pids:
            runner.left[id_on_worker] = pids

    def signals(self) -> list[tuple[str, str, str]]:
        """The signals that were sent to jobs: the job's id, the signal, and its target."""
        jobs = self.house.parts.service.jobs(JobFilter(), 100, None).jobs
        names = {job.id_on_worker: job.id for job in jobs}
        sent = [each for runner in self.house.runners.values() for each in runner.signals]
        return [(names[job_id], name, to) for job_id, name, to in sent]

    def _where(self, job_id: str) -> tuple[FakeJobRunner, str]:
        job = self.house.job(job_id)
        return self.house.runners[job.worker_id or ""], job.id_on_worker

    def _report(self, worker_id: str) -> None:
        """Have the scheduler hear a heartbeat of the worker, or, if it sends none, poll it."""
        if not self._reports or worker_id not in self.house.workers.runners:
            return
        facts = dict(self._says.get(worker_id, {}))
        if "ahead" in facts:
            facts["sent_at"] = self.house.wall_time() + facts.pop("ahead")
        self.house.report(worker_id, **facts)


class FleetTestCase(SynchronousTestCase):
    """Clients of a scheduler with the worker ``w1``, whose jobs and workers do as they are asked."""

    def setUp(self) -> None:
        self.house = House(lease=30.0, queue_max=QUEUE_MAX)
        self.clock, self.scheduler = self.house.clock, self.house.parts.service
        self.fleet = Fleet(self.house)
        self.fleet.add_worker("w1")

    def flow(self) -> None:
        """Let two seconds pass, in which all calls under way end."""
        self.clock.pump([0.1] * 20)

    def submit(self, target: Target = W1, spec: JobSpec = ECHO) -> Job:
        """Submit a job a second later than all before; returns the job of the answer."""
        self.clock.advance(1.0)
        job: Job = self.successResultOf(self.house.submit(spec, target))
        return job

    def ended(self, exit_code: int = 0, output: bytes = b"") -> Job:
        """A job that has ended."""
        job = self.submit()
        self.fleet.write(job.id, output)
        return self.fleet.end(job.id, exit_code)

    def refusal(self, error: type[SchedulerError], method: Callable[..., Deferred[Any]], *args: Any) -> Any:
        """The error that a call comes to; it may be raised at once, or later."""
        return self.failureResultOf(maybeDeferred(method, *args), error).value

    def ids(self, which: JobFilter | None = None) -> list[str]:
        """The ids of all jobs that match, newest first."""
        return [job.id for job in self.scheduler.jobs(which or JobFilter(), 100, None).jobs]

    def state(self, job: Job) -> JobState:
        """As it is now."""
        return self.scheduler.job(job.id).state
