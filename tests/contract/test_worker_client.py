"""The contract of every client of workers: its calls."""

from attrs import evolve
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from scheduler.errors import (
    Conflict,
    JobNotEnded,
    JobNotRunning,
    NotFound,
    OutputPruned,
    Unavailable,
    Unreachable,
    WorkerFault,
)
from scheduler.interfaces import IWorkerClient
from scheduler.model import JobSpec, JobState, Stream
from scheduler.request_keys import RequestKey
from tests.contract.worker_clients import InMemory, OverTheWire, Simulated
from tests.integration.rpc import a_job


class Contract:
    """Mixed into a ``ClientCase``."""

    def test_interface(self) -> None:
        """The client provides its interface, with the right arguments."""
        verifyObject(IWorkerClient, self.client)

    async def test_start(self) -> None:
        """A start is answered with the job's status, and the worker gets the whole spec, and the key of the request."""
        spec = JobSpec(
            "sh", ("-c", "x"), "a.sh", {"A": "b"}, "/tmp", b"\0in", b"#!\xff", 1.5, 2.5, {"l": "v"}, merge_stderr=True
        )
        key = RequestKey("k", "f" * 64, "token:ci")
        status = await self.client.start_job(self.worker, evolve(a_job(), spec=spec, key=key))
        self.assertEqual((status.job_id, status.state), ("j", JobState.RUNNING))
        self.assertEqual(status, self.runner.query("j"))
        self.assertEqual(self.runner.started, [("j", spec, 7.0)])
        self.assertEqual([report.key for report in await self.runner.describe(("j",))], [key])

    async def test_start_again(self) -> None:
        """A repeated start is answered with the existing job."""
        await self.started()
        self.runner.end("j", 3)
        status = await self.client.start_job(self.worker, a_job())
        self.assertEqual((status.state, status.exit_code), (JobState.FAILED, 3))

    async def test_refused(self) -> None:
        """A job that the worker refuses to run has failed, with the reason."""
        self.runner.refused["rm"] = "not allowed"
        status = await self.client.start_job(self.worker, a_job(command="rm"))
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "not allowed"))

    async def test_no_job(self) -> None:
        """An impossible job is the worker's fault."""
        error = await self.failure(WorkerFault, self.client.start_job(self.worker, a_job("../j")))
        self.assertIn("jobID", error.detail)

    async def test_going_down(self) -> None:
        """A worker that is stopping can't be reached; a start in progress there may have happened."""
        self.runner.shutting_down = True
        error = await self.failure(Unreachable, self.client.start_job(self.worker, a_job()))
        self.assertTrue(error.sent)

    async def test_core_worker(self) -> None:
        """A core worker chooses the id, and starts the core part of the spec."""
        core = evolve(self.worker, boot_id="")
        status = await self.client.start_job(core, a_job(command="sh", path="a.sh"))
        self.assertEqual((status.job_id, status.state), ("job-1", JobState.RUNNING))
        ((asked, spec, created_at),) = self.runner.started
        self.assertEqual((asked, spec, created_at), ("", JobSpec(command="sh", path="a.sh"), None))

    async def test_stop(self) -> None:
        """A stop does not wait for the end; it is answered with the present status."""
        self.runner.ends_on_stop = False
        await self.started()
        self.assertEqual(await self.client.stop_job(self.worker, "j"), self.runner.query("j"))
        self.assertEqual(self.runner.stops, [("j", False)])
        ended = self.runner.end("j")
        self.assertEqual(await self.client.stop_job(self.worker, "j"), ended)

    async def test_stop_that_leaves_processes(self) -> None:
        """The answer to a stop of an ended job lists its processes that still run."""
        await self.started()
        self.runner.left["j"] = (123, 124)
        self.assertEqual(self.runner.end("j").leftover, (123, 124))
        self.assertEqual((await self.client.stop_job(self.worker, "j")).leftover, (123, 124))
        self.runner.left["j"] = (124,)
        self.assertEqual((await self.client.stop_job(self.worker, "j")).leftover, (124,))
        self.assertEqual((await self.client.query_job(self.worker, "j")).leftover, (123, 124))  # as at the job's end

    async def test_signal(self) -> None:
        """A signal arrives once, at its target; a job that has ended gets none, and failures are reported."""
        await self.started()
        for name, to in (("SIGUSR1", "main"), ("SIGSTOP", "tree")):
            self.assertIsNone(await self.client.signal_job(self.worker, "j", name, to))
        self.assertEqual(self.runner.signals, [("j", "SIGUSR1", "main"), ("j", "SIGSTOP", "tree")])
        self.runner.left["j"] = (123,)
        error = await self.failure(Conflict, self.client.signal_job(self.worker, "j", "SIGUSR1", "tree"))
        self.assertIn("can't be sent", str(error))
        self.runner.end("j")
        error = await self.failure(JobNotRunning, self.client.signal_job(self.worker, "j", "SIGUSR1", "main"))
        self.assertEqual((error.job_id, error.state), ("j", "succeeded"))

    async def test_remove(self) -> None:
        """An ended job is removed, its id stays used, and that may be repeated. A running job stays."""
        await self.started()
        error = await self.failure(JobNotEnded, self.client.remove_job(self.worker, "j"))
        self.assertEqual((error.job_id, error.state), ("j", "running"))
        self.runner.end("j")
        self.runner.resists = "its folder can't be moved"
        error = await self.failure(Unavailable, self.client.remove_job(self.worker, "j"))
        self.assertEqual(str(error), self.runner.resists)
        self.runner.resists = ""
        for _ in range(2):
            self.assertIsNone(await self.client.remove_job(self.worker, "j"))
        self.assertEqual(self.runner.unacknowledged(), ())
        await self.failure(OutputPruned, self.client.read_output(self.worker, "j", Stream.STDOUT, 0, 1))
        await self.failure(Conflict, self.client.start_job(self.worker, a_job()))

    async def test_query(self) -> None:
        """A query is answered with the whole status, running or ended."""
        await self.started()
        self.assertEqual(await self.client.query_job(self.worker, "j"), self.runner.query("j"))
        self.runner.write("j", b"abc")
        ended = self.runner.end("j", None, JobState.STOPPED, "signal: killed", "SIGKILL")
        self.assertEqual(await self.client.query_job(self.worker, "j"), ended)

    async def test_seal(self) -> None:
        """A sealing query is answered like any other; an unknown job is not started afterwards."""
        await self.failure(NotFound, self.client.query_job(self.worker, "j"))
        await self.started()
        self.assertEqual(await self.client.query_job(self.worker, "j", seal=True), self.runner.query("j"))
        error = await self.failure(NotFound, self.client.query_job(self.worker, "k", seal=True))
        self.assertEqual((error.kind, error.name), ("job", "k"))
        error = await self.failure(Conflict, self.client.start_job(self.worker, a_job("k")))
        self.assertIn("'k'", str(error))

    async def test_many_queries(self) -> None:
        """Simultaneous queries each get their own answer, or that the job is unknown, even if some callers give up."""
        for number in range(100):
            await self.started(f"j{number}")
        for number in range(0, 100, 2):
            self.runner.end(f"j{number}", number)
        for begin in (0, 50):
            asked = {f"j{n}": self.client.query_job(self.worker, f"j{n}", n % 3 == 0) for n in range(begin, begin + 50)}
            twice = self.client.query_job(self.worker, "j1")
            missing = self.client.query_job(self.worker, "k")
            sealed = self.client.query_job(self.worker, f"s{begin}", seal=True)
            given_up = self.client.query_job(self.worker, "j1")
            given_up.addErrback(lambda reason: reason.trap(CancelledError))
            given_up.cancel()
            for job_id, answer in asked.items():
                self.assertEqual(await answer, self.runner.query(job_id))
            self.assertEqual(await twice, self.runner.query("j1"))
            self.assertEqual((await self.failure(NotFound, missing)).name, "k")
            self.assertEqual((await self.failure(NotFound, sealed)).name, f"s{begin}")
            await self.failure(Conflict, self.client.start_job(self.worker, a_job(f"s{begin}")))
        await self.started("k")

    async def test_not_found(self) -> None:
        """An unknown job is not found, with its id, for every method."""
        stream, _ = self.follow()
        for call in (
            self.client.stop_job(self.worker, "j"),
            self.client.signal_job(self.worker, "j", "SIGUSR1", "main"),
            self.client.query_job(self.worker, "j"),
            self.client.read_output(self.worker, "j", Stream.STDOUT, 0, 1),
            stream.finished,
        ):
            error = await self.failure(NotFound, call)
            self.assertEqual((error.kind, error.name), ("job", "j"))

    async def test_probe(self) -> None:
        """A worker that answers can be reached."""
        self.assertIsNone(await self.client.probe(self.worker))

    async def test_forget(self) -> None:
        """A forgotten worker can be called again; forgetting an unknown one does nothing."""
        self.client.forget("stranger")
        await self.started()
        self.client.forget(self.worker.id)
        self.assertEqual((await self.client.query_job(self.worker, "j")).state, JobState.RUNNING)


class GivingUp:
    """The part of the contract that needs answers that take time."""

    async def test_given_up(self) -> None:
        """A caller that gives up gets CancelledError."""
        await self.started()
        for call in (self.client.query_job(self.worker, "j"), self.client.stop_job(self.worker, "j")):
            call.cancel()
            await self.assertFailure(call, CancelledError)


class FakeTests(Contract, InMemory):
    pass


class SimulatedTests(Contract, GivingUp, Simulated):
    pass


class RealTests(Contract, GivingUp, OverTheWire):
    pass
