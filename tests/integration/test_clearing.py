"""Folders of jobs that are large, or resist: what goes, what is left, and what is pushed out."""

import os
import subprocess
import sys

from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest

from scheduler.errors import OutputPruned
from scheduler.model import JobState
from scheduler.worker import trees
from scheduler.worker.clearing import Clearing
from scheduler.worker.trees import Left
from tests.integration.running import RunningCase, later
from tests.integration.test_trees import MAKE_DEEP, TreeCase


class ClearingTests(TreeCase):
    """The leftovers of a process are found by the next one."""

    def test_names(self) -> None:
        """A folder that is to go gets a name of its own, though another of that job resists."""
        clearing = Clearing(self.base)
        removing: list[str] = []
        self.patch(trees, "remove", lambda base, path, *_: removing.append(path) or Left(path, "resists"))
        for number in range(3):
            remains = clearing.move_away("j")
            self.assertEqual((remains.job_id, remains.name), ("j", ".gone-j" + (f".{number}" if number else "")))
            os.mkdir(self.path())
        self.assertEqual(sorted(clearing.leftovers()), [".gone-j", ".gone-j.1", ".gone-j.2"])

    def test_removed_by_hand(self) -> None:
        """A folder that somebody else removed is gone, and no trouble."""
        os.rmdir(self.path())
        clearing = Clearing(self.base)
        self.assertIsNone(clearing.move_away("j"))
        self.assertEqual(clearing.leftovers(), ())

    def test_next_process(self) -> None:
        """The next process knows what is left, and has the name free that a start needs."""
        os.rmdir(self.path())
        for name in (".new-j", ".gone-j", ".gone-k"):
            os.mkdir(os.path.join(self.base, name))
        clearing = Clearing(self.base)
        real = trees.remove
        self.patch(trees, "remove", lambda base, path, *_: Left(path, "resists"))
        clearing.take_over(os.listdir(self.base))
        self.assertEqual(sorted(os.listdir(self.base)), [".gone-j", ".gone-j.1", ".gone-k"])
        self.assertEqual(sorted(clearing.leftovers()), [".gone-j", ".gone-j.1", ".gone-k"])
        self.patch(trees, "remove", real)
        for name in clearing.leftovers():
            self.assertIsNone(clearing.clear_thd(name))
        self.assertEqual((clearing.leftovers(), os.listdir(self.base)), ((), []))


class FullTests(RunningCase):
    """Jobs that leave much, or what resists."""

    async def ended_and_acknowledged(self, *command: str) -> str:
        status = await self.worker.run(*command)
        self.assertIs(status.state, JobState.SUCCEEDED)
        self.worker.jobs.acknowledge([status.job_id])
        return status.job_id

    async def swept(self) -> None:
        """Once one more sweep is over."""
        await self.worker.pool.run(lambda: None)
        await self.worker.jobs.retention.make_room()

    async def test_deep(self) -> None:
        """A job that leaves folders in folders is removed."""
        await self.restart(keep_spool=0.1)
        await self.ended_and_acknowledged(sys.executable, "-c", MAKE_DEEP)
        while os.listdir(self.worker.jobs_dir):
            await later(0.02)

    async def test_work_folder(self) -> None:
        """A job that fills its work folder loses that, and no output is lost, its own neither, in the next life too."""
        await self.restart(spool_max="4MB")
        jobs = [await self.ended_and_acknowledged("sh", "-c", f"echo {number}") for number in range(3)]
        jobs.append(await self.ended_and_acknowledged("sh", "-c", "head -c 6000000 /dev/zero > file; echo 3"))
        for _ in range(2):
            await self.swept()
            self.assertEqual([self.worker.output(job) for job in jobs], [b"%d\n" % number for number in range(4)])
            self.assertEqual(os.path.exists(self.worker.spool(jobs[3]).work), False)
            await self.restart(spool_max="4MB")
            self.assertLess(self.worker.jobs.retention.ended.size, 400_000)

    async def test_work_folder_of_a_job_that_runs(self) -> None:
        """A job that runs and fills its work folder pushes out a quarter at most."""
        await self.restart(spool_max="4MB")
        jobs = [await self.ended_and_acknowledged("head", "-c", "450000", "/dev/zero") for _ in range(8)]
        filling = "head -c 9000000 /dev/zero > file; echo full; sleep 600"
        running = await self.worker.start("sh", "-c", filling)
        await self.worker.lines(running, 1)
        for _ in range(3):
            await self.swept()
        kept = set(os.listdir(self.worker.jobs_dir))
        self.assertEqual([job in kept for job in jobs], [False] + [True] * 7)
        self.assertEqual((await self.worker.runner.stop(running, wait=True)).state, JobState.STOPPED)

    async def test_what_resists(self) -> None:
        """A leftover counts for a quarter at most, is logged once, and is removed when that is possible."""
        await self.restart(spool_max="3MB")
        errors: list[dict] = []
        globalLogPublisher.addObserver(errors.append)
        self.addCleanup(globalLogPublisher.removeObserver, errors.append)
        script = "mkdir d; head -c 2000000 /dev/zero > d/kept"
        status = await self.worker.run("sh", "-c", script)
        first, kept = status.job_id, os.path.join(self.worker.spool(status.job_id).work, "d", "kept")
        if subprocess.run(["chattr", "+i", kept], capture_output=True, check=False).returncode:
            raise SkipTest("chattr +i is not possible here")
        moved = [kept, kept.replace(first, f".gone-{first}")]
        self.addCleanup(subprocess.run, ["chattr", "-i", *moved], check=False, capture_output=True)
        self.worker.jobs.acknowledge([first])
        second, *others = [await self.ended_and_acknowledged("head", "-c", "600000", "/dev/zero") for _ in range(4)]
        for _ in range(3):
            await self.swept()
        self.assertNotIn(second, os.listdir(self.worker.jobs_dir))
        self.assertEqual([len(self.worker.output(job)) for job in others], [600_000] * 3)
        self.assertRaises(OutputPruned, self.worker.output, first)
        told = [formatEvent(event) for event in errors if event["log_level"] is LogLevel.error]
        self.assertEqual(len(told), 1, told)
        self.assertIn(f"'{first}/work/d/kept' of job {first}, which takes ", told[0])
        self.assertIn("can't be removed: Operation not permitted", told[0])
        subprocess.run(["chattr", "-i", moved[1]], check=True)
        await self.restart(spool_max="3MB")
        self.assertEqual(sorted(os.listdir(self.worker.jobs_dir)), sorted(others))
