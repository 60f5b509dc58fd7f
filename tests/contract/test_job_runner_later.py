"""The contract of every job runner, after the start: signals, removals, seals, output, and reports for the link."""

from attrs import evolve

from scheduler.errors import Conflict, JobNotEnded, JobNotRunning, NotFound, OffsetBeyondEnd, OutputPruned
from scheduler.model import JobSpec, JobState, Stream
from scheduler.request_keys import RequestKey
from tests.contract.job_runners import JOB, SECOND, THIRD, Case, FakeCase, RealCase, SimulatedCase


class RequestContract(Case):
    """Signals, removals and seals; mixed into a case of a job runner."""

    async def test_signal(self) -> None:
        """A job that a signal kills which nobody sent to stop it has failed, and the signal is named."""
        for job_id, to in ((JOB, "main"), (SECOND, "tree")):
            await self.started(job_id)
            at_end = self.when_ended()
            await self.runner.signal(job_id, "SIGKILL", to)
            await at_end
            status = self.runner.query(job_id)
            self.assertEqual((status.state, status.reason), (JobState.FAILED, "signal: killed"))
            self.assertEqual((status.signal, status.exit_code), ("SIGKILL", None))

    async def test_signal_to_none(self) -> None:
        """A job that has ended gets no signal."""
        status = await self.ended(3)
        error = await self.assertFailure(self.runner.signal(JOB, "SIGUSR1", "main"), JobNotRunning)
        self.assertEqual((error.job_id, error.state), (JOB, "failed"))
        self.assertEqual(self.runner.query(JOB), status)

    async def test_remove(self) -> None:
        """A job that has ended is gone with its output and its report, and its id is not started again."""
        await self.started()
        await self.written("hello")
        at_end = self.when_ended()
        self.finish(JOB, 0)
        await at_end
        await self.ended(1, SECOND)
        self.jobs.acknowledge([SECOND])
        for job_id in (JOB, SECOND, JOB):
            self.assertIsNone(await self.runner.remove(job_id))
        for job_id in (JOB, SECOND):
            self.assertRaises(NotFound, self.runner.query, job_id)
            self.assertRaises(OutputPruned, self.runner.read_output_thd, job_id, Stream.STDOUT, 0, 1)
            await self.assertFailure(self.started_again(job_id), Conflict)
        self.assertEqual((self.jobs.unacknowledged(), await self.jobs.describe([JOB, SECOND])), ((), ()))

    async def test_remove_what_runs(self) -> None:
        """A job that has not ended stays, and goes on."""
        await self.started()
        error = await self.assertFailure(self.runner.remove(JOB), JobNotEnded)
        self.assertEqual((error.job_id, error.state), (JOB, "running"))
        await self.written("hello")
        self.assertEqual(self.jobs.running(), (JOB,))

    async def test_remove_nothing(self) -> None:
        """A job that is not there is removed already, and a start of it that comes later is refused."""
        self.assertIsNone(await self.runner.remove(JOB))
        await self.assertFailure(self.started_again(JOB), Conflict)

    async def test_seal(self) -> None:
        """An id that is no job's is sealed: it is not found, and then never started, whatever is asked."""
        for _ in range(2):
            error = await self.assertFailure(self.runner.seal(JOB), NotFound)
            self.assertEqual((error.kind, error.name), ("job", JOB))
            await self.assertFailure(self.runner.start(JOB, self.job(), 7.0), Conflict)
        self.assertEqual((self.jobs.running(), self.jobs.unacknowledged()), ((), ()))
        self.assertRaises(NotFound, self.runner.query, JOB)
        self.assertRaises(NotFound, self.runner.read_output_thd, JOB, Stream.STDOUT, 0, 1)
        self.assertEqual((await self.started(SECOND)).state, JobState.RUNNING)

    async def test_seal_of_a_job(self) -> None:
        """The seal of a job, running, ended or acknowledged, is its status, and it goes on as before."""
        started = await self.started()
        self.assertEqual(await self.runner.seal(JOB), started)
        self.assertEqual(await self.started(), started)
        at_end = self.when_ended()
        self.finish(JOB, 3)
        await at_end
        for _ in range(2):
            self.assertEqual(await self.runner.seal(JOB), self.runner.query(JOB))
            self.jobs.acknowledge([JOB])

    async def test_seal_at_once(self) -> None:
        """A start and a seal at the same moment agree: the one that was first decides."""
        start, seal = self.runner.start(JOB, self.job(), 7.0), self.runner.seal(JOB)
        self.assertEqual(await seal, await start)
        seal, start = self.runner.seal(SECOND), self.runner.start(SECOND, self.job(), 7.0)
        await self.assertFailure(start, Conflict)
        await self.assertFailure(seal, NotFound)

    async def test_seal_of_what_is_no_id(self) -> None:
        """A text that is no valid id is not found."""
        for bad in ("../x", "", "x" * 65):
            await self.assertFailure(self.runner.seal(bad), NotFound)


class OutputContract(Case):
    """Output and reports; mixed into a case of a job runner."""

    async def test_output(self) -> None:
        """Output is read from any offset, at most so much, and says where it ends and whether that is the end."""
        await self.started()
        await self.written("hello")
        chunk = self.runner.read_output_thd(JOB, Stream.STDOUT, 1, 3)
        self.assertEqual((chunk.data, chunk.offset, chunk.end, chunk.size), (b"ell", 1, False, 5))
        length = self.runner.read_output_thd(JOB, Stream.STDOUT, 0, 0)
        self.assertEqual((length.data, length.end, length.size), (b"", False, 5))
        at_place = self.runner.read_output_thd(JOB, Stream.STDOUT, 5, 9)
        self.assertEqual((at_place.data, at_place.end), (b"", False))
        at_end = self.when_ended()
        self.finish(JOB, 0)
        await at_end
        self.assertTrue(self.runner.read_output_thd(JOB, Stream.STDOUT, 2, 9).end)
        self.assertTrue(self.runner.read_output_thd(JOB, Stream.STDOUT, 5, 9).end)
        self.assertFalse(self.runner.read_output_thd(JOB, Stream.STDOUT, 0, 4).end)
        self.assertFalse(self.runner.read_output_thd(JOB, Stream.STDOUT, 0, 0).end)
        self.assertTrue(self.runner.read_output_thd(JOB, Stream.STDERR, 0, 9).end)
        self.assertEqual(self.runner.query(JOB).stdout_bytes, 5)

    async def test_offset_beyond_the_end(self) -> None:
        """An offset past what is there says how much there is."""
        await self.started()
        await self.written("hello")
        with self.assertRaises(OffsetBeyondEnd) as raised:
            self.runner.read_output_thd(JOB, Stream.STDOUT, 6, 1)
        self.assertEqual(raised.exception.size, 5)

    async def test_watch(self) -> None:
        """A watcher of a stream is told of its end, unless the watch was given up."""
        await self.started()
        told: list[str] = []
        await self.runner.watch_output(JOB, Stream.STDERR, lambda: told.append("watching"))
        remove = await self.runner.watch_output(JOB, Stream.STDERR, lambda: told.append("left"))
        remove()
        remove()
        at_end = self.when_ended()
        self.finish(JOB, 0)
        await at_end
        self.assertEqual(told, ["watching"])
        (await self.runner.watch_output(JOB, Stream.STDERR, lambda: None))()  # of an ended job too

    async def test_starting(self) -> None:
        """A job counts as running when it was begun; before that it is one that is starting."""
        self.assertFalse(self.jobs.is_starting())
        answer = self.runner.start(JOB, self.job(), 7.0)
        self.assertEqual(
            (self.jobs.running(), self.jobs.is_starting()), ((JOB,), False) if answer.called else ((), True)
        )
        await answer
        self.assertEqual((self.jobs.running(), self.jobs.is_starting()), ((JOB,), False))

    async def test_acknowledge(self) -> None:
        """An ended job is reported, oldest first, until acknowledged, be it twice at once; a running one can't be."""
        first, second = await self.ended(1), await self.ended(2, SECOND)
        await self.started(THIRD)
        reports = self.jobs.unacknowledged()
        self.assertEqual([report.status for report in reports], [first, second])
        self.assertEqual([(report.spec, report.created_at) for report in reports], [(None, 7.0), (None, 7.0)])
        self.jobs.acknowledge([JOB, THIRD, "other", JOB])
        self.assertEqual([report.status for report in self.jobs.unacknowledged()], [second])
        self.assertEqual(self.runner.query(JOB), first)
        self.assertEqual(self.jobs.running(), (THIRD,))

    async def test_report_again(self) -> None:
        """When asked for, all ended jobs are reported once more, oldest first, until they are acknowledged again."""
        first, second = await self.ended(1), await self.ended(2, SECOND)
        await self.started(THIRD)
        self.jobs.acknowledge([SECOND, JOB])
        self.jobs.report_again()
        self.assertEqual([report.status for report in self.jobs.unacknowledged()], [first, second])
        self.assertEqual(self.jobs.running(), (THIRD,))
        self.jobs.acknowledge([JOB])
        self.jobs.report_again()
        self.jobs.acknowledge([JOB])
        self.assertEqual([report.status for report in self.jobs.unacknowledged()], [second])
        self.jobs.acknowledge([SECOND])
        self.assertEqual(self.jobs.unacknowledged(), ())

    async def test_no_acknowledgements(self) -> None:
        """Without acknowledgements an ended job is kept and reported until its time is over."""
        status = await self.ended(1)
        for expected in (False, True):
            self.jobs.expect_acknowledgements(expected)
            self.assertEqual([report.status for report in self.jobs.unacknowledged()], [status])
            self.assertEqual(self.runner.query(JOB), status)

    async def test_describe(self) -> None:
        """A description has the spec without stdin and script, and the key of the request with its principal.

        It is the same for running, ended and acknowledged jobs.
        """
        running, keys = self.job(), (RequestKey("k", "f" * 64, "token:ci"), RequestKey("k", "0" * 64))
        spec = JobSpec(command="no-such-program", args=("a",), env={"A": "b"}, labels={"l": "m"}, timeout=1.5)
        await self.runner.start(JOB, running, 7.0, keys[0])
        await self.runner.start(SECOND, evolve(spec, stdin=b"secret"), 8.0, keys[1])
        for _ in range(2):
            first, second = await self.jobs.describe([JOB, "other", SECOND])
            self.assertEqual((first.status, first.spec, first.created_at), (self.runner.query(JOB), running, 7.0))
            self.assertEqual(second.spec, spec)
            self.assertEqual((first.key, second.key), keys)
            self.jobs.acknowledge([SECOND])


class FakeTests(RequestContract, OutputContract, FakeCase):
    """The runner in memory."""


class SimulatedTests(RequestContract, OutputContract, SimulatedCase):
    """The runner on a simulated machine."""


class RealTests(RequestContract, OutputContract, RealCase):
    """The runner with real processes."""
