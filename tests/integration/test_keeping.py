"""Spools of ended jobs: which are kept, for how long, and how little the worker holds in memory."""

import errno
import os
import resource
import threading
import time
import uuid
from functools import partial

from twisted.internet.defer import DeferredList, gatherResults

from scheduler.daemon import drafts
from scheduler.errors import Conflict, NotFound, OutputPruned, Unavailable
from scheduler.model import JobSpec, JobState, Stream
from scheduler.worker.shim import spool
from scheduler.worker.shim.spool import Spool
from tests.integration.running import UNTIL_TOLD, RunningCase, edit, later

#: Another in each process: what a lost job left is looked for on the whole machine.
JOB = str(uuid.uuid4())


def no_descriptor(*_: object) -> None:
    raise OSError(errno.EMFILE, "no descriptor")


def no_room(path: str, data: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class KeepingTests(RunningCase):
    """Spools are kept within limits of age and size."""

    async def removed(self, job_id: str) -> None:
        """Once the worker has nothing more of that job: it does not know it, and the folder is gone."""
        while self.is_known(job_id) or any(job_id in name for name in os.listdir(self.worker.jobs_dir)):
            await later(0.01)

    def is_known(self, job_id: str) -> bool:
        try:
            self.worker.runner.query(job_id)
        except NotFound:
            return False
        return True

    async def test_sweep(self) -> None:
        """An ended job is removed when it was acknowledged and kept long enough, and only then."""
        await self.worker.drop()
        clock = [1000.0]
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: clock[0])
        jobs = [await self.worker.start("true") for _ in range(3)]
        for job in jobs:
            await self.worker.ended(job)
        runs = await self.worker.start("sh", "-c", UNTIL_TOLD)
        old, unacknowledged, young = jobs
        self.worker.jobs.acknowledge([old, young])
        await self.worker.drop()
        edit(self.worker.spool(old).exit_path, finished_at=1000.0)
        edit(self.worker.spool(unacknowledged).exit_path, finished_at=1000.0)
        edit(self.worker.spool(young).exit_path, finished_at=1000.5)
        clock[0] = 1100.0
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: clock[0])
        await self.removed(old)
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {unacknowledged, young, runs})
        self.assertRaises(NotFound, self.worker.runner.query, old)
        self.assertRaises(OutputPruned, self.worker.runner.read_output_thd, old, Stream.STDOUT, 0, 1)

    async def test_used_once(self) -> None:
        """An id that was used or sealed is not started again, in this life or the next, though its spool is gone."""
        await self.restart(keep_spool=100.0, wall_time=lambda: 1000.0)
        pruned, sealed = (await self.worker.run("true")).job_id, f"sealed-{JOB}"
        await self.assertFailure(self.worker.runner.seal(sealed), NotFound)
        self.worker.jobs.acknowledge([pruned])
        await self.worker.drop()
        edit(self.worker.spool(pruned).exit_path, finished_at=1000.0)
        self.worker = await self.next_life(keep_spool=100.0, wall_time=lambda: 2000.0)
        await self.removed(pruned)
        await self.worker.drop()
        for _ in range(2):
            self.worker = await self.next_life()
            for job_id in (pruned, sealed):
                again = self.worker.runner.start(job_id, JobSpec(command="true"), None)
                await self.assertFailure(again, Conflict)
            await self.worker.drop()
            self.assertEqual(os.listdir(self.worker.jobs_dir), [])
            self.assertRaises(OutputPruned, self.worker.runner.read_output_thd, pruned, Stream.STDOUT, 0, 1)
            self.assertRaises(NotFound, self.worker.runner.read_output_thd, sealed, Stream.STDOUT, 0, 1)

    async def test_no_room_for_used_ids(self) -> None:
        """Where the file of used ids can't be made jobs are taken back, and nothing is started until it can."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        await self.worker.drop()
        os.unlink(os.path.join(self.state_dir, "used-ids"))
        real = drafts.replace
        self.patch(drafts, "replace", no_room)
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
        start = self.worker.runner.start(JOB, JobSpec(command="true"), None)
        self.assertIn("No space left", str(await self.assertFailure(start, Unavailable)))
        await self.assertFailure(self.worker.runner.seal(JOB), Unavailable)
        self.patch(drafts, "replace", real)
        self.assertEqual((await self.worker.run("true", job_id=JOB)).state, JobState.SUCCEEDED)

    async def test_an_acknowledgement_that_can_not_be_written(self) -> None:
        """An acknowledged job may be removed although the full disk does not take the mark."""
        await self.restart(keep_spool=0.1)
        self.patch(Spool, "acknowledge", no_descriptor)
        jobs = [(await self.worker.run("true")).job_id for _ in range(2)]
        self.worker.jobs.acknowledge(jobs)
        for job in jobs:
            await self.removed(job)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    async def test_clock_step(self) -> None:
        """A step of the clock, however far, makes nothing older."""
        await self.worker.drop()
        clock = [time.time()]
        self.worker = await self.next_life(keep_spool=3600.0, wall_time=lambda: clock[0])
        job = (await self.worker.run("true")).job_id
        self.worker.jobs.acknowledge([job])
        for step in (1e9, -2e9):
            clock[0] += step
            second = (await self.worker.run("true")).job_id
            self.worker.jobs.acknowledge([second])
            await self.swept()
            self.assertEqual(self.worker.runner.query(job).state, JobState.SUCCEEDED)
            self.assertEqual(self.worker.runner.query(second).state, JobState.SUCCEEDED)

    async def swept(self) -> None:
        """Once one more sweep is over."""
        await self.worker.pool.run(lambda: None)
        await self.worker.jobs.retention.make_room()

    async def write(self, size: int) -> str:
        """The id of a job that has written so much and ended."""
        status = await self.worker.run("head", "-c", str(size), "/dev/zero")
        self.assertEqual((status.state, status.stdout_bytes), (JobState.SUCCEEDED, size))
        return status.job_id

    async def test_most(self) -> None:
        """Beyond ``spool_max`` the oldest that were acknowledged go; the next life counts what it finds."""
        await self.restart(spool_max="2.5MB")
        first, second = await self.write(1_000_000), await self.write(1_000_000)
        self.worker.jobs.acknowledge([first, second])
        await self.swept()
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {first, second})
        await self.restart(spool_max="2.5MB")
        third = await self.write(1_000_000)
        await self.removed(first)
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {second, third})
        self.assertEqual(len(self.worker.output(second)), 1_000_000)
        await self.assertFailure(self.worker.runner.start(first, JobSpec(command="true"), None), Conflict)

    async def test_mark_of_an_earlier_version(self) -> None:
        """A mark that says less of what a folder takes is an acknowledgement as well; the folder is looked at."""
        job = await self.write(1_000_000)
        self.worker.jobs.acknowledge([job])
        await self.worker.drop()
        with open(os.path.join(self.worker.spool(job).folder, "acknowledged"), "wb") as mark:
            mark.write(b"123\n")
        self.worker = await self.next_life()
        await self.swept()
        self.assertEqual(self.worker.jobs.unacknowledged(), ())
        self.assertGreaterEqual(self.worker.jobs.retention.ended.size, 1_000_000)

    async def test_most_of_what_is_not_acknowledged(self) -> None:
        """An unacknowledged job loses its output if need be, and is still reported, by the next process, too."""
        await self.restart(spool_max="2.5MB")
        jobs = [await self.write(1_000_000) for _ in range(3)]
        await self.swept()
        statuses = [self.worker.runner.query(job) for job in jobs]
        for _ in range(2):
            self.assertEqual([report.status for report in self.worker.jobs.unacknowledged()], statuses)
            self.assertEqual(len(await self.worker.jobs.describe(jobs)), 3)
            for offset in (0, 1_000_000):
                self.assertRaises(OutputPruned, self.worker.runner.read_output_thd, jobs[0], Stream.STDOUT, offset, 1)
            self.assertEqual(len(self.worker.output(jobs[1])), 1_000_000)
            self.assertEqual(await self.worker.runner.start(jobs[0], JobSpec(command="true"), None), statuses[0])
            await self.restart(spool_max="2.5MB")
            await self.swept()
        self.worker.jobs.acknowledge(jobs)
        await self.swept()


class StartsAndSealsTests(RunningCase):
    """Starts and seals that meet each other, or a lack of descriptors."""

    async def test_start_while_sealing(self) -> None:
        """A start that comes while its id is being sealed is refused, however long that takes."""
        go_on, real = threading.Event(), self.worker.spools.seal_thd

        def slow_thd(job_id: str) -> object:
            go_on.wait(30)
            return real(job_id)

        self.worker.spools.seal_thd = slow_thd
        first, second = self.worker.runner.seal(JOB), self.worker.runner.seal(JOB)
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)
        go_on.set()
        await self.assertFailure(first, NotFound)
        await self.assertFailure(second, NotFound)
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)

    async def test_seal_of_what_can_not_be_read_now(self) -> None:
        """A job whose spool can't be read for want of a descriptor is not given up, and is taken back when it can."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        await self.worker.drop()
        real = Spool.read_job
        self.patch(Spool, "read_job", no_descriptor)
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        await self.assertFailure(self.worker.runner.seal(job), Unavailable)
        self.patch(Spool, "read_job", real)
        self.assertIs((await self.worker.runner.seal(job)).state, JobState.RUNNING)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)

    async def test_seal_of_a_failed_start(self) -> None:
        """The seal of a start that left a spool and no job removes the spool."""
        await self.leave_a_spool()
        self.assertEqual(os.listdir(self.worker.jobs_dir), [JOB])
        self.assertRaises(NotFound, self.worker.runner.query, JOB)
        await self.assertFailure(self.worker.runner.seal(JOB), NotFound)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)
        self.assertEqual(self.worker.jobs.unacknowledged(), ())

    async def leave_a_spool(self) -> None:
        """Have a start fail that can't even remove its spool."""
        unmake = self.patch(self.worker.spools.endings, "unmake_thd", lambda job_id: True)
        launch = self.patch(self.worker.launcher, "launch_thd", no_descriptor)
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Unavailable)
        unmake.restore()
        launch.restore()

    async def test_start_without_a_descriptor(self) -> None:
        """A start that nobody could be asked to carry out leaves nothing, in the next life too, and may come again."""
        start = partial(self.worker.runner.start, JOB, JobSpec(command="true"), None)
        left = os.path.join(self.worker.jobs_dir, f".gone-{JOB}", "work")
        os.makedirs(left)  # of one before, which could not be removed for the same want
        self.worker.launcher.launch_thd = no_descriptor
        await self.assertFailure(start(), Unavailable)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        await self.restart()
        self.assertEqual(self.worker.jobs.unacknowledged(), ())
        self.assertEqual((await self.worker.run("true", job_id=JOB)).state, JobState.SUCCEEDED)

    async def test_spool_that_is_not_durable(self) -> None:
        """A spool that has its name, and can't be made durable, is none."""
        synced = spool.sync_folder

        def sync(path: str) -> None:
            if path == self.worker.jobs_dir:
                no_descriptor()
            synced(path)

        patched = self.patch(spool, "sync_folder", sync)
        ran = os.path.join(self.state_dir, "ran")
        spec = JobSpec(command="touch", args=(ran,))
        await self.assertFailure(self.worker.runner.start(JOB, spec, None), Unavailable)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        patched.restore()
        await self.worker.run("true")  # the shim after that one has begun its job
        self.assertFalse(os.path.exists(ran))

    async def test_start_that_can_not_be_seen(self) -> None:
        """A job that was asked for and can't be looked at just now is not taken for one that does not run."""
        endings = self.worker.spools.endings
        real, looks = endings.see_thd, []

        def see(*args: object, **options: object) -> object:
            looks.append(args)
            if len(looks) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*args, **options)

        self.patch(endings, "see_thd", see)
        status = await self.worker.run("sh", "-c", "echo x; exit 3", job_id=JOB)
        self.assertEqual((status.exit_code, self.worker.output(JOB)), (3, b"x\n"))

    async def test_start_of_what_was_there_without_a_descriptor(self) -> None:
        """The spool of a start before goes only by its lock: that one may have been asked for."""
        await self.leave_a_spool()
        self.patch(self.worker.launcher, "launch_thd", no_descriptor)
        with self.worker.spool(JOB).locked():  # as a shim has it that has not begun yet
            started = await self.worker.runner.start(JOB, JobSpec(command="true"), None)
            self.assertIs(started.state, JobState.RUNNING)
        status = await self.worker.ended(JOB)
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "not started: no shim began it"))

    async def test_many_at_once(self) -> None:
        """As many as are started at once all run, each once, with the output that is its own."""
        jobs = await gatherResults(
            [self.worker.runner.start("", JobSpec(command="sh", args=("-c", f"echo {n}")), None) for n in range(60)]
        )
        for number, job in enumerate(jobs):
            self.assertEqual((await self.worker.ended(job.job_id)).state, JobState.SUCCEEDED)
            self.assertEqual(self.worker.output(job.job_id), b"%d\n" % number)

    async def test_stop_while_starting(self) -> None:
        """A job stopped before its start was answered is stopped."""
        started = self.worker.runner.start(JOB, JobSpec(command="sleep", args=("600",)), None)
        status = await self.worker.runner.stop(JOB, wait=True)
        self.assertEqual(status.state, JobState.STOPPED)
        self.assertEqual((await started).state, JobState.RUNNING)

    async def test_descriptors(self) -> None:
        """Fifty jobs later the worker has the descriptors it had before."""
        await self.worker.run("true")
        before = sorted(os.listdir("/proc/self/fd"))
        jobs = await gatherResults([self.worker.runner.start("", JobSpec(command="true"), None) for _ in range(50)])
        for job in jobs:
            await self.worker.ended(job.job_id)
        await self.worker.run("false", cwd="/no/such")
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)

    async def test_no_descriptor_left(self) -> None:
        """Without descriptors for all some starts are refused, and work later; no job that was begun is forgotten."""
        await self.worker.run("true")
        before = sorted(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 14, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        spec = JobSpec(command="sleep", args=("1",))
        answers = await DeferredList(
            [self.worker.runner.start(f"{JOB}-{n}", spec, None) for n in range(40)], consumeErrors=True
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        refused = {number for number, (good, _) in enumerate(answers) if not good}
        for number in refused:
            answers[number][1].trap(Unavailable)
            spool = self.worker.spool(f"{JOB}-{number}")
            self.assertTrue(not os.path.exists(spool.folder) or spool.begun_by() is None)
            await self.worker.runner.start(f"{JOB}-{number}", spec, None)
        for number in range(40):
            self.assertEqual((await self.worker.ended(f"{JOB}-{number}")).state, JobState.SUCCEEDED)
        self.assertTrue(refused)
        self.assertLess(len(refused), 40)
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)
        self.flushLoggedErrors(OSError)
