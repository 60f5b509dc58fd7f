"""The contract of every job runner: starts, stops, and queries."""

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from scheduler.errors import Invalid, NotFound
from scheduler.model import JobSpec, JobState, Stream
from scheduler.names import is_id
from scheduler.worker_interfaces import IJobRunner, IJobs
from tests.contract.job_runners import JOB, Case, FakeCase, RealCase, SimulatedCase


class Contract(Case):
    """Mixed into a case of a job runner."""

    def test_interfaces(self) -> None:
        """The runner provides its interfaces, with the arguments that they have."""
        verifyObject(IJobRunner, self.runner)
        verifyObject(IJobs, self.jobs)

    async def test_start(self) -> None:
        """A start is answered with a job that runs under that id."""
        status = await self.started()
        self.assertEqual((status.job_id, status.state, status.reason), (JOB, JobState.RUNNING, ""))
        self.assertIsNotNone(status.started_at)
        self.assertEqual(self.runner.query(JOB), status)
        self.assertEqual(self.jobs.running(), (JOB,))

    async def test_chosen_id(self) -> None:
        """Asked without an id it chooses one, another each time."""
        first, second = await self.started(""), await self.started("")
        self.assertTrue(is_id(first.job_id) and is_id(second.job_id))
        self.assertNotEqual(first.job_id, second.job_id)

    async def test_same_id_again(self) -> None:
        """A second start of an id is answered with the existing job, running or ended."""
        first = await self.started()
        self.assertEqual(await self.started(), first)
        at_end = self.when_ended()
        self.finish(JOB, 3)
        await at_end
        self.assertEqual(await self.started(), self.runner.query(JOB))
        self.assertEqual(self.runner.query(JOB).exit_code, 3)

    async def test_same_id_at_once(self) -> None:
        """Starts of one id at the same moment are one job, and all are answered."""
        answers = await gatherResults([self.runner.start(JOB, self.job(), None) for _ in range(5)])
        self.assertEqual(set(answers), {self.runner.query(JOB)})
        self.assertEqual(self.jobs.running(), (JOB,))

    async def test_bad_id(self) -> None:
        """An id that could be a path is refused, everywhere."""
        for bad in ("../x", "a/b", ".", "x" * 65, "a\n"):
            with self.assertRaises(Invalid):
                await self.runner.start(bad, self.job(), None)
            self.assertRaises(NotFound, self.runner.read_output_thd, bad, Stream.STDOUT, 0, 1)

    async def test_refused(self) -> None:
        """A command that may not run is a failed job with the reason, kept like any other job."""
        at_end = self.when_ended()
        status = await self.runner.start(JOB, JobSpec(command="no-such-program"), 7.0)
        self.assertEqual(status.state, JobState.FAILED)
        self.assertIn("no-such-program", status.reason)
        await at_end
        self.assertEqual([report.status for report in self.jobs.unacknowledged()], [status])
        self.assertEqual(self.jobs.running(), ())

    async def test_success(self) -> None:
        """Exit status 0 is a success, without a reason."""
        status = await self.ended(0)
        self.assertEqual((status.state, status.reason, status.exit_code), (JobState.SUCCEEDED, "", 0))
        self.assertGreaterEqual(status.finished_at, status.started_at)
        self.assertEqual((status.stdout_bytes, status.stderr_bytes), (0, 0))

    async def test_failure(self) -> None:
        """Another exit status is a failure, with the status as its reason."""
        status = await self.ended(3)
        self.assertEqual((status.state, status.reason, status.exit_code), (JobState.FAILED, "exit status 3", 3))

    async def test_stop(self) -> None:
        """A stop that waits is answered with the end."""
        await self.started()
        status = await self.runner.stop(JOB, wait=True)
        self.assertEqual((status.state, status.reason), (JobState.STOPPED, "signal: terminated"))
        self.assertEqual((status.signal, status.exit_code), ("SIGTERM", None))
        self.assertEqual(self.runner.query(JOB), status)

    async def test_stop_without_waiting(self) -> None:
        """A stop that does not wait ends the job all the same."""
        await self.started()
        at_end = self.when_ended()
        await self.runner.stop(JOB, wait=False)
        await at_end
        self.assertEqual(self.runner.query(JOB).state, JobState.STOPPED)

    async def test_stop_of_an_ended_job(self) -> None:
        """The stop of an ended job is answered with its end, which it does not change."""
        status = await self.ended(3)
        self.assertEqual(await self.runner.stop(JOB, wait=True), status)

    async def test_stop_twice(self) -> None:
        """Everybody who stops a job is answered with the same end."""
        await self.started()
        first, second = await gatherResults([self.runner.stop(JOB, wait=True) for _ in range(2)])
        self.assertEqual(first, second)

    async def test_unknown(self) -> None:
        """Every request about an unknown job fails with NotFound."""
        self.assertRaises(NotFound, self.runner.query, "other")
        with self.assertRaises(NotFound):
            await self.runner.stop("other", wait=True)
        with self.assertRaises(NotFound):
            await self.runner.signal("other", "SIGUSR1", "main")
        self.assertRaises(NotFound, self.runner.read_output_thd, "other", Stream.STDOUT, 0, 1)
        with self.assertRaises(NotFound):
            await self.runner.watch_output("other", Stream.STDOUT, lambda: None)


class WhileStarting(Case):
    """The part of the contract that shows if a start takes time."""

    async def test_query_while_starting(self) -> None:
        """A job is not found before its start was answered, which may still come to nothing."""
        start = self.runner.start(JOB, self.job(), 7.0)
        self.assertRaises(NotFound, self.runner.query, JOB)
        self.assertEqual(await start, self.runner.query(JOB))

    async def test_watch_while_starting(self) -> None:
        """The output of a job that is being started is watched from its start on."""
        start, grown = self.runner.start(JOB, self.job(), 7.0), Deferred[None]()
        remove = await self.runner.watch_output(JOB, Stream.STDOUT, lambda: grown.called or grown.callback(None))
        self.assertTrue(start.called)
        self.write(JOB, "hello")
        await grown
        remove()


class FakeTests(Contract, FakeCase):
    """The runner in memory."""


class SimulatedTests(Contract, WhileStarting, SimulatedCase):
    """The runner on a simulated machine."""


class RealTests(Contract, WhileStarting, RealCase):
    """The runner with real processes."""
