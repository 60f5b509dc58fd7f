"""Copies of a state folder, on the machine of the original: they leave its jobs alone, whatever they know of them."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from scheduler.errors import Conflict, Invalid, NotFound
from scheduler.model import JobSpec, JobState
from scheduler.worker.folder import open_folder
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import Spool, boot_id, create
from tests.integration.running import UNTIL_TOLD, Running, RunningCase, edit, gone, is_gone, stubborn


class CopyCase(RunningCase):
    """Has a worker, and copies of its state folder."""

    def setUp(self):
        self.copied = os.path.abspath(self.mktemp())
        return super().setUp()

    def copy(self) -> None:
        """All files, with what is known of them; as ``cp -a`` does it."""
        shutil.copytree(self.state_dir, self.copied, symlinks=True)

    async def life(self) -> Running:
        """A worker of the copy."""
        worker = Running(self.copied)
        self.addCleanup(worker.drop)
        await worker.begin()
        return worker

    async def assert_left_alone(self, copy: Running, job: str) -> None:
        """The copy reports no such job, and does nothing with it, whatever it is asked."""
        record = copy.spool(job)
        before = sorted(os.listdir(record.folder))
        self.assertEqual((copy.jobs.running(), copy.jobs.unacknowledged()), ((), ()))
        self.assertRaises(NotFound, copy.runner.query, job)
        with self.assertRaises(NotFound):
            await copy.runner.stop(job, True)
        with self.assertRaises(Conflict):
            await copy.start("true", job_id=job)
        with self.assertRaises(NotFound):
            await copy.runner.seal(job)
        self.assertEqual(sorted(os.listdir(record.folder)), before)


class CopiedJobTests(CopyCase):
    """A copy that was started as it is."""

    async def test_running(self) -> None:
        """A job that runs goes on, to the end that it comes to; the copy reports it neither before nor after that."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        stubborn_one = await self.worker.start(sys.executable, "-c", stubborn("os.environ"))
        pids = [int(line) for line in await self.worker.lines(stubborn_one, 3)]
        self.copy()
        for _ in range(2):
            copy = await self.life()
            for each in (job, stubborn_one):
                await self.assert_left_alone(copy, each)
            await copy.drop()
        self.assertFalse(any(map(is_gone, pids)))
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
        await self.assert_left_alone(await self.life(), job)
        await self.worker.runner.stop(stubborn_one, wait=True)

    async def test_earlier_version(self) -> None:
        """A running job whose record does not say which file is its lock is known by its shim, which runs."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        edit(self.worker.spool(job).job_path, lock=None)
        self.copy()
        await self.assert_left_alone(await self.life(), job)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)

    async def test_shim_killed(self) -> None:
        """A job stays that of the original although its shim is gone."""
        job = await self.worker.start("sleep", "600")
        self.copy()
        shim = self.worker.shim(job)
        proctree.send(shim, signal.SIGKILL)
        self.assertIs((await self.worker.ended(job)).state, JobState.LOST)
        await self.assert_left_alone(await self.life(), job)

    async def test_not_begun(self) -> None:
        """A job that was about to begin has not failed."""
        spool = self.worker.spool("early")
        create(spool.folder, f"{spool.folder}.new", {"boot_id": boot_id()}, None, None)
        self.copy()
        await self.assert_left_alone(await self.life(), "early")
        shutil.rmtree(spool.folder)

    async def test_rebooted(self) -> None:
        """On a machine that was started since then nothing of it runs: there the job is lost."""
        job = await self.worker.start("sleep", "600")
        self.copy()
        edit(Spool(f"{self.copied}/jobs/{job}").job_path, boot_id="before")
        copy = await self.life()
        self.assertEqual(copy.runner.query(job).reason, "rebooted")
        self.assertIs(self.worker.runner.query(job).state, JobState.RUNNING)

    async def test_left_processes(self) -> None:
        """A stop in the copy does not kill the processes that are left of an ended job, but names them."""
        left = subprocess.Popen(["sleep", "600"])
        self.addCleanup(left.wait)
        self.addCleanup(left.kill)
        status = await self.worker.run("true")
        identity = proctree.process(left.pid).identity
        edit(self.worker.spool(status.job_id).exit_path, leftover=[identity.pid], leftover_started=[identity.starttime])
        self.copy()
        copy = await self.life()
        self.assertEqual((await copy.runner.stop(status.job_id, True)).leftover, (left.pid,))
        os.unlink(copy.spool(status.job_id).lock_path)
        self.assertEqual((await copy.runner.stop(status.job_id, True)).leftover, (left.pid,))
        self.assertIsNone(left.poll())
        await self.restart()
        self.assertEqual((await self.worker.runner.stop(status.job_id, True)).leftover, ())
        self.assertTrue(is_gone(left.pid))

    async def test_moved(self) -> None:
        """A state folder that was renamed is no copy: a job whose shim is gone is lost."""
        job = await self.worker.start("sleep", "600")
        shim = self.worker.shim(job)
        await self.worker.drop()
        proctree.send(shim, signal.SIGKILL)
        await gone(shim.pid)
        os.rename(self.state_dir, self.copied)
        os.mkdir(self.state_dir)
        os.mkdir(self.worker.jobs_dir)
        copy = await self.life()
        self.assertEqual(copy.runner.query(job).reason, "its shim was killed by a signal")


class NewIdTests(CopyCase):
    """A copy that is made a worker of its own."""

    async def test_running(self) -> None:
        """The copied jobs are set aside, and go on in the original; the copy runs jobs of its own, with any id."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        ended = await self.worker.run("true")
        original = open_folder(Path(self.state_dir), new_id=False)
        self.copy()
        identity = open_folder(Path(self.copied), new_id=True)
        self.assertNotEqual(identity.folder_id, original.folder_id)
        self.assertEqual(identity.set_aside, f"{self.copied}/jobs-of-no-worker")
        copy = await self.life()
        self.assertEqual((copy.jobs.running(), copy.jobs.unacknowledged()), ((), ()))
        for job_id in (job, ended.job_id):
            self.assertRaises(NotFound, copy.runner.query, job_id)
            with self.assertRaises(NotFound):
                await copy.runner.stop(job_id, True)
        self.assertEqual((await copy.run("sh", "-c", "exit 4", job_id=ended.job_id)).exit_code, 4)
        self.assertIs(self.worker.runner.query(job).state, JobState.RUNNING)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
        self.assertEqual(await self.worker.runner.start(ended.job_id, JobSpec("true"), None), ended)

    async def test_no_copy(self) -> None:
        """A state folder whose own jobs run is refused, and nothing of it is changed."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        await self.worker.drop()
        before = open_folder(Path(self.state_dir), new_id=False)
        with self.assertRaises(Invalid) as refused:
            open_folder(Path(self.state_dir), new_id=True)
        self.assertEqual(
            str(refused.exception),
            f"{self.state_dir}: is no copy, as its job {job} runs: "
            "--new-id is for the first start from a copy of a state folder",
        )
        self.assertEqual(open_folder(Path(self.state_dir), new_id=False), before)
        self.worker = await self.next_life()
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
