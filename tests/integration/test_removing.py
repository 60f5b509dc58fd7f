"""Jobs that a client has removed, with real spools: what is gone, when, and what a crash in between leaves."""

import os
import shutil
import uuid

from twisted.internet.defer import gatherResults

from scheduler.errors import Conflict, JobNotEnded, NotFound, OutputPruned, Unavailable
from scheduler.model import JobSpec, JobState, Stream
from scheduler.request_keys import RequestKey
from scheduler.worker import trees
from scheduler.worker.trees import Left
from scheduler.worker.used_ids import HowUsed
from tests.integration.running import UNTIL_TOLD, RunningCase, edit, later

#: Another in each process: what a lost job left is looked for on the whole machine.
JOB = str(uuid.uuid4())


class RemoveTests(RunningCase):
    async def ended(self, acknowledged: bool = True) -> str:
        status = await self.worker.run("sh", "-c", "echo hello > file; cat file", job_id=JOB)
        if acknowledged:
            self.worker.jobs.acknowledge([JOB])
            while self.worker.spool(JOB).acknowledged() is None:
                await later(0.01)
        return status.job_id

    async def check_gone(self, lives: int = 2) -> None:
        """Nothing is left of the job but that its id was used, in this life and in those after it."""
        for _ in range(lives):
            self.assertEqual(os.listdir(self.worker.jobs_dir), [])
            self.assertRaises(NotFound, self.worker.runner.query, JOB)
            self.assertEqual(self.worker.jobs.unacknowledged(), ())
            self.assertEqual(await self.worker.jobs.describe([JOB]), ())
            self.assertRaises(OutputPruned, self.worker.output, JOB)
            await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)
            await self.restart()

    async def test_removed(self) -> None:
        """The folder is gone at once, whether or not the end was acknowledged, and what it took is not counted."""
        for acknowledged in (True, False):
            await self.ended(acknowledged)
            await self.worker.runner.remove(JOB)
            self.assertEqual(self.worker.jobs.retention.ended.size, 0)
            await self.check_gone()
            os.unlink(os.path.join(self.state_dir, "used-ids"))
            await self.restart()

    async def test_remains(self) -> None:
        """A job with a part that can't be removed does not count as removed, in this process and the next."""
        await self.ended()
        real = trees.remove
        self.patch(trees, "remove", lambda base, path, *_: Left(path, "resists"))
        for life in range(2):
            error = await self.assertFailure(self.worker.runner.remove(JOB), Unavailable)
            self.assertIn("can't be removed", str(error))
            self.assertEqual(os.listdir(self.worker.jobs_dir), [f".gone-{JOB}"])
            await self.worker.drop()
            if life:
                self.patch(trees, "remove", real)
            self.worker = await self.next_life()
        await self.worker.runner.remove(JOB)
        await self.check_gone()

    async def test_at_once(self) -> None:
        """Right after its end, though its folder is being looked at, and asked for more than once."""
        await self.ended(acknowledged=False)
        sweep = self.worker.jobs.retention.make_room()
        await gatherResults([self.worker.runner.remove(JOB) for _ in range(3)])
        await sweep
        await self.check_gone(1)

    async def test_killed_before_the_folder_went(self) -> None:
        """A worker that died when the id was used up, and the folder still there, removes it when it is back."""
        await self.ended(acknowledged=False)
        await self.worker.pool.run(self.worker.spools.use_up_thd, [JOB])
        await self.worker.drop()
        self.assertTrue(os.path.exists(self.worker.spool(JOB).exit_path))
        self.worker = await self.next_life()
        await self.check_gone()

    async def test_killed_while_the_folder_went(self) -> None:
        """A worker that died later leaves a renamed folder, which its next process removes."""
        await self.ended()
        await self.worker.pool.run(self.worker.spools.use_up_thd, [JOB])
        await self.worker.drop()
        os.rename(self.worker.spool(JOB).folder, os.path.join(self.worker.jobs_dir, f".gone-{JOB}"))
        self.worker = await self.next_life()
        await self.check_gone()

    async def test_resisting(self) -> None:
        """A folder that can't be moved stays, with its job and its report, and is removed when that is possible."""
        await self.ended(acknowledged=False)
        clearing, refusals = self.worker.spools.clearing, []

        def refuse(job_id: str) -> None:
            refusals.append(job_id)
            raise OSError(1, "Operation not permitted")

        patched = self.patch(clearing, "move_away", refuse)
        error = await self.assertFailure(self.worker.runner.remove(JOB), Unavailable)
        self.assertIn("Operation not permitted", str(error))
        self.assertEqual([report.status.job_id for report in self.worker.jobs.unacknowledged()], [JOB])
        self.assertEqual(self.worker.output(JOB), b"hello\n")
        patched.restore()
        await self.worker.runner.remove(JOB)
        await self.check_gone()

    async def test_no_room_for_the_id(self) -> None:
        """Nothing goes whose id can't be written down as used: it could be started again."""
        await self.ended()
        patched = self.patch(self.worker.used, "add_thd", self.full)
        error = await self.assertFailure(self.worker.runner.remove(JOB), Unavailable)
        self.assertIn("can't be written down", str(error))
        await self.assertFailure(self.worker.runner.remove("unheard-of"), Unavailable)
        self.assertEqual(self.worker.output(JOB), b"hello\n")
        patched.restore()
        await self.worker.runner.remove(JOB)
        await self.check_gone()

    @staticmethod
    def full(job_ids: object, use: HowUsed) -> None:
        raise OSError(28, "No space left on device")

    async def test_running(self) -> None:
        """A job that runs is not removed, nor one that is being started; when it has ended it is."""
        start = self.worker.runner.start(JOB, JobSpec(command="sh", args=("-c", UNTIL_TOLD)), None)
        await self.assertFailure(self.worker.runner.remove(JOB), JobNotEnded)
        self.assertEqual((await start).state, JobState.RUNNING)
        self.worker.tell(JOB)
        await self.worker.ended(JOB)
        await self.worker.runner.remove(JOB)
        await self.check_gone()

    async def test_start_that_failed(self) -> None:
        """The removal of a job whose start fails succeeds, and no later start of it runs."""
        real, created = self.worker.starter.start_thd, []

        def fail_thd(job_id: str, spec: JobSpec, created_at: float, key: RequestKey | None) -> None:
            created.append(job_id)
            raise Unavailable("no room")

        patched = self.patch(self.worker.starter, "start_thd", fail_thd)
        start = self.worker.runner.start(JOB, JobSpec(command="true"), None)
        removed = self.worker.runner.remove(JOB)
        await self.assertFailure(start, Unavailable)
        await removed
        patched.restore()
        self.assertEqual(self.worker.starter.start_thd, real)
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)

    async def test_unreadable(self) -> None:
        """A folder that the worker can make nothing of goes, too, unless a shim has it."""
        await self.ended()
        await self.worker.drop()
        edit(self.worker.spool(JOB).exit_path, format=99)
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        with self.worker.spool(JOB).locked() as lock:
            self.assertIsNotNone(lock)
            await self.assertFailure(self.worker.runner.remove(JOB), JobNotEnded)
        await self.worker.runner.remove(JOB)
        await self.check_gone()

    async def test_removed_by_hand(self) -> None:
        """A job whose folder is gone already can be removed."""
        await self.ended()
        shutil.rmtree(self.worker.spool(JOB).folder)
        await self.worker.runner.remove(JOB)
        await self.check_gone()

    async def test_reader(self) -> None:
        """A reader in the middle of the output is told that it was removed."""
        await self.ended()
        self.assertEqual(self.worker.runner.read_output_thd(JOB, Stream.STDOUT, 0, 2).data, b"he")
        remove = await self.worker.runner.watch_output(JOB, Stream.STDOUT, lambda: None)
        await self.worker.runner.remove(JOB)
        self.assertRaises(OutputPruned, self.worker.runner.read_output_thd, JOB, Stream.STDOUT, 2, 2)
        remove()
