"""The job runners that keep the contract: with real processes, in memory, and simulated."""

import os
import uuid

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from scheduler.messages import JobStatus
from scheduler.model import JobSpec, Stream
from tests.contract.simulated import ToldJobs
from tests.doubles.runner import FakeJobRunner
from tests.integration.running import RunningCase

#: Other ids in each process: the processes of a lost job are looked for on the whole machine.
JOB, SECOND, THIRD = (str(uuid.uuid4()) for _ in range(3))


class Case:
    """Mixed into a TestCase that has ``runner`` and ``jobs``, for the scheduler and for the link to it.

    It also has ``job()`` (a spec that runs until told), ``write`` and ``finish``.
    """

    def job(self) -> JobSpec:
        raise NotImplementedError

    def write(self, job_id: str, text: str) -> None:
        raise NotImplementedError

    def finish(self, job_id: str, code: int) -> None:
        raise NotImplementedError

    async def started(self, job_id: str = JOB) -> JobStatus:
        return await self.runner.start(job_id, self.job(), 7.0)

    def when_ended(self) -> Deferred[None]:
        """Fires at the next end."""
        deferred: Deferred[None] = Deferred()
        self.jobs.on_end(lambda: deferred.called or deferred.callback(None))
        return deferred

    async def ended(self, code: int = 0, job_id: str = JOB) -> JobStatus:
        await self.started(job_id)
        at_end = self.when_ended()
        self.finish(job_id, code)
        await at_end
        return self.runner.query(job_id)

    async def written(self, text: str, job_id: str = JOB) -> None:
        grown: Deferred[None] = Deferred()
        remove = await self.runner.watch_output(job_id, Stream.STDOUT, lambda: grown.called or grown.callback(None))
        self.write(job_id, text)
        await grown
        remove()

    def started_again(self, job_id: str) -> Deferred[JobStatus]:
        return self.runner.start(job_id, JobSpec(command="true"), None)


class FakeCase(Case, TestCase):
    """The runner in memory."""

    def setUp(self) -> None:
        self.runner = self.jobs = FakeJobRunner()
        self.runner.refused["no-such-program"] = "command 'no-such-program' not found"

    def job(self) -> JobSpec:
        return JobSpec(command="sh", path="/fifo")

    def write(self, job_id: str, text: str) -> None:
        self.runner.write(job_id, text.encode())

    def finish(self, job_id: str, code: int) -> None:
        self.runner.end(job_id, code)


class SimulatedCase(ToldJobs, Case):
    """The runner on a simulated machine."""


class RealCase(Case, RunningCase):
    """Real processes: each is a shell that reads its commands from a pipe."""

    async def setUp(self) -> None:
        await super().setUp()
        self.runner, self.jobs = self.worker.runner, self.worker.jobs
        self.pipes = os.path.join(self.state_dir, "pipes")
        os.mkdir(self.pipes)
        self.fifos: list[int] = []
        self.addCleanup(lambda: [os.close(fd) for fd in self.fifos])

    def job(self) -> JobSpec:
        """Each with a pipe of its own."""
        path = os.path.join(self.pipes, str(len(self.fifos)))
        os.mkfifo(path)
        self.fifos.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        return JobSpec(command="sh", path=path)

    def tell(self, job_id: str, command: str) -> None:
        path = self.worker.spool(job_id).read_job()["spec"]["path"]
        os.write(self.fifos[int(os.path.basename(path))], command.encode() + b"\n")

    def write(self, job_id: str, text: str) -> None:
        self.tell(job_id, f"printf {text}")

    def finish(self, job_id: str, code: int) -> None:
        self.tell(job_id, f"exit {code}")
