"""Core workers: other people's programs that speak only the core protocol.

Such a worker registers with an address and nothing else, each time that it starts. It is called with a command and a
path. It answers a start with an id of its own, sometimes late, and a stop when the job has ended. It sends no
heartbeats. Some deregister when they are stopped. The jobs of some end with the process. Others have jobs that
continue, which the next process knows by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import NoReturn

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed

from scheduler.errors import NotFound, Unsupported, WorkerFault
from scheduler.messages import JobStatus, Registered, Registration
from scheduler.model import JobSpec, JobState, Stream
from scheduler.pb import worker_pb2
from scheduler.request_keys import RequestKey
from scheduler.rpc import convert
from tests.simulation.jobs import STEP
from tests.simulation.machine import Machine, Spool
from tests.simulation.network import Caller, Endpoint
from tests.simulation.nodes import InstalledWorker, Surroundings
from tests.simulation.plan import PlannedCoreWorker
from tests.simulation.process import Process
from tests.simulation.scheduler_calls import SimulatedSchedulerClient

#: Seconds before a failed registration is repeated, and the most for a deregistration.
REGISTER_AGAIN = 5.0
DEREGISTER_DEADLINE = 5.0

#: The share of starts that are answered late, and the most seconds of delay.
LATE_SHARE, LATE_MOST = 0.1, 25.0

_SIGNAL_TEXTS = {"SIGTERM": "signal: terminated", "SIGKILL": "signal: killed"}


@define(eq=False)
class CoreJobs:
    """The jobs of a core worker, by its ids; kept on its disk if they outlive the process."""

    spools: dict[str, Spool] = field(factory=dict)
    #: The number of its starts: its ids are never used twice.
    started: int = 0
    #: The scheduler's ids of the jobs that it does not know any more.
    dropped: dict[str, None] = field(factory=dict)


class CoreServer:
    """A process of a core worker: its jobs, and its methods."""

    def __init__(
        self, process: Process, name: str, machine: Machine, jobs: CoreJobs, random: Random, late: Random
    ) -> None:
        """``late`` decides which starts are answered late."""
        self._process = process
        self._late = late
        self._name = name
        self._machine = machine
        self._jobs = jobs
        self._random = random
        self._ended: dict[str, list[Deferred[None]]] = {}

    def recover(self) -> None:
        """Take back the jobs that continue."""
        for spool in self._jobs.spools.values():
            if self._machine.runs_job(spool):
                self._machine.follow(spool, self._when_ended(spool.job_id))

    def end_jobs(self) -> None:
        """The process ends, and all its jobs and their records with it."""
        self._machine.destroy("its core worker ended", list(self._jobs.spools))
        self._jobs.dropped.update(dict.fromkeys(spool.known_as for spool in self._jobs.spools.values()))
        self._jobs.spools.clear()

    def core_start(self, spec: JobSpec, known_as: str) -> Deferred[str]:
        """The id of the job. ``known_as`` is for the judge, and not told to the worker."""
        if self._machine.shortage:
            return fail(WorkerFault(self._name, self._machine.shortage))
        self._jobs.started += 1
        job_id = f"{self._name}-{self._jobs.started}"
        started: Deferred[str] = Deferred()
        self._process.after(self._random.uniform(0, STEP), self._start, job_id, spec, known_as, started)
        return started

    def _start(self, job_id: str, spec: JobSpec, known_as: str, started: Deferred[str]) -> None:
        spool = Spool(job_id, spec, self._machine.wall_time(), self._machine.boot_id, known_as=known_as)
        self._jobs.spools[job_id] = spool
        self._machine.begin(spool, self._when_ended(job_id))
        delay = self._late.uniform(0, LATE_MOST) if self._late.random() < LATE_SHARE else 0.0
        self._process.after(delay + self._random.uniform(0, STEP), started.callback, job_id)

    def _when_ended(self, job_id: str) -> Callable[[], None]:
        return lambda: self._process.after(0, self._has_ended, job_id)

    def _has_ended(self, job_id: str) -> None:
        for waiting in self._ended.pop(job_id, ()):
            waiting.callback(None)

    def core_stop(self, job_id: str) -> Deferred[None]:
        """Fires when the job has ended."""
        spool = self._jobs.spools.get(job_id)
        if spool is None:
            return fail(NotFound("job", job_id))
        if not self._machine.runs_job(spool):
            return succeed(None)
        spool.stop_asked = True
        self._machine.kill(job_id, "SIGTERM")
        ended: Deferred[None] = Deferred()
        self._ended.setdefault(job_id, []).append(ended)
        return ended

    def core_query(self, job_id: str) -> worker_pb2.QueryJobRes:
        """A core worker's answer about a job."""
        spool = self._jobs.spools.get(job_id)
        if spool is None:
            raise NotFound("job", job_id)
        ended = spool.exit
        if ended is None:
            # the end of a job that ended with its machine is unknown
            done = not self._machine.runs_job(spool)
            return worker_pb2.QueryJobRes(done=done, error=done, errorText="interrupted" if done else "")
        if not ended.exit_code and ended.signal is None:
            return worker_pb2.QueryJobRes(done=True)
        text = f"exit status {ended.exit_code}" if ended.signal is None else _SIGNAL_TEXTS[ended.signal]
        return worker_pb2.QueryJobRes(done=True, error=True, errorText=text)

    # calls of a scheduler that takes it for a worker of ours: it reads the core fields

    def start(
        self, job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
    ) -> Deferred[JobStatus]:
        """A start with the core fields."""
        return self.core_start(spec, job_id).addCallback(lambda own: JobStatus(own, JobState.RUNNING))

    def stop(self, job_id: str, wait: bool) -> Deferred[None]:
        """A stop with the core fields."""
        return self.core_stop(job_id)

    def query(self, job_id: str) -> JobStatus:
        """A query with the core fields."""
        return convert.query_from_pb(job_id, self.core_query(job_id))

    def seal(self, job_id: str) -> JobStatus:
        """A query, since it does not know seals."""
        return self.query(job_id)

    def signal(self, job_id: str, signal: str, to: str) -> NoReturn:
        """Not implemented."""
        raise Unsupported(self._name, "SignalJob")

    def remove(self, job_id: str) -> NoReturn:
        """Not implemented."""
        raise Unsupported(self._name, "RemoveJob")

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> NoReturn:
        """Not implemented."""
        raise Unsupported(self._name, "ReadOutput")

    def watch_output(self, job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        """Not implemented."""
        return fail(Unsupported(self._name, "StreamJob"))


class CoreWorkerProcess:
    """A run of a core worker."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        planned: PlannedCoreWorker,
        machine: Machine,
        jobs: CoreJobs,
        port: int,
        scheduler: str,
    ) -> None:
        self.process = Process(around.loop, name, around.crashed)
        #: The id that it was given; ``""`` before it has registered.
        self.worker_id = ""
        self._around = around
        self._planned = planned
        self._machine = machine
        self._port = port
        randoms = (around.random(f"{name} {use}") for use in ("jobs", "late"))
        self._server = CoreServer(self.process, planned.name, machine, jobs, *randoms)
        caller = Caller(self.process, machine.name, machine.address)
        self._client = SimulatedSchedulerClient(
            around.network, lambda: caller, scheduler, deregistered=around.deregistered
        )
        if not planned.jobs_run_on:
            self.process.on_end.append(self._server.end_jobs)

    def start(self) -> None:
        """Begin to run."""
        self._around.trace.add(self.process.name, f"starts on {self._machine.name}")
        self.process.run(self._begin)

    def _begin(self) -> None:
        self._server.recover()
        self._around.network.listen(self._port, Endpoint(self.process, self._machine.name, self._server))
        self._register()

    def _register(self) -> None:
        registration = Registration(address=f"{self._machine.address}:{self._port}")
        self._client.register(registration).addCallbacks(self._registered, self._not_registered)

    def _registered(self, registered: Registered) -> None:
        self.worker_id = registered.worker_id

    def _not_registered(self, _: object) -> None:
        self.process.after(REGISTER_AGAIN, self._register)

    def stop(self) -> Deferred[None]:
        """Stop like on SIGTERM; fires when it has ended."""
        self._around.trace.add(self.process.name, "is told to stop")
        return self.process.stop(self._leave)

    def _leave(self) -> None:
        if self._planned.deregisters and self.worker_id:
            self._client.deregister(self.worker_id, "").addBoth(lambda _: self._left())
            self.process.after(DEREGISTER_DEADLINE, self._left)
        else:
            self._left()

    def _left(self) -> None:
        if self.process.alive:
            self._around.network.close(self._machine.name, self._port)
            self.process.end()


class CoreWorkerNode(InstalledWorker[CoreWorkerProcess]):
    """A core worker."""

    def __init__(
        self, around: Surroundings, planned: PlannedCoreWorker, machine: Machine, port: int, scheduler: str
    ) -> None:
        super().__init__(planned.name, machine, port)
        self.planned = planned
        self._around = around
        self._scheduler = scheduler
        self._jobs = CoreJobs()

    def make(self, name: str) -> CoreWorkerProcess:
        return CoreWorkerProcess(self._around, name, self.planned, self.machine, self._jobs, self.port, self._scheduler)

    @property
    def dropped(self) -> Mapping[str, None]:
        """The jobs that it does not know any more, by the scheduler's ids."""
        return self._jobs.dropped

    @property
    def worker_id(self) -> str:
        """The id that it was given last."""
        return "" if self.running is None else self.running.worker_id
