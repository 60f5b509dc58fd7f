"""Jobs whose folder somebody removed, and what is left of jobs that have ended."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from scheduler.errors import Conflict, NotFound, OutputPruned, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState, Stream
from scheduler.worker import deleted_folders, life
from scheduler.worker.records import HeldByShim
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import ProcessId
from tests.integration.running import UNTIL_TOLD, Running, RunningCase, edit, gone, is_gone, later, stubborn
from tests.integration.scenario import play
from tests.namespaces import as_other_user

CLEAN = '{"PATH": os.environ["PATH"]}'


class RemovedTests(RunningCase):
    """Somebody removes the folder of a job that runs."""

    async def running(self, job_id: str = "") -> tuple[str, list[int]]:
        """A job of three processes, of which one has an environment of its own and has left the session."""
        job = await self.worker.start(sys.executable, "-c", stubborn(CLEAN), job_id=job_id)
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        self.addCleanup(self.end, self.worker.shim(job).pid, *pids)
        return job, pids

    @staticmethod
    def end(*pids: int) -> None:
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)

    def check_lost(self, job: str, pids: list[int]) -> JobStatus:
        status = self.worker.runner.query(job)
        self.assertIs(status.state, JobState.LOST)
        self.assertTrue(status.reason.startswith("its spool was removed"), status.reason)
        self.assertTrue(set(pids) <= set(status.leftover), status)
        self.assertIsNotNone(status.started_at)
        self.assertEqual(self.worker.jobs.running(), ())
        self.assertEqual([report.status for report in self.worker.jobs.unacknowledged()], [status])
        return status

    async def test_noticed(self) -> None:
        """The job is lost with that reason, holds no slot, and says what runs on; a stop ends all of that."""
        self.patch(deleted_folders, "FOLDER_CHECK_INTERVAL_SECONDS", 0.05)
        await self.restart()
        job, pids = await self.running("job")
        shim = self.worker.shim(job).pid
        shutil.rmtree(self.worker.spool(job).folder)
        await self.worker.ended(job)
        status = self.check_lost(job, pids)
        self.assertIn("; processes of it still run: ", status.reason)
        stopped = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((stopped.state, stopped.leftover), (JobState.LOST, ()))
        self.assertTrue(all(map(is_gone, [shim, *pids])))
        self.assertEqual(self.worker.runner.query(job), status)
        self.assertEqual(await self.worker.runner.stop(job, wait=False), stopped)
        self.assertRaises(OutputPruned, self.worker.output, job)

    async def test_output_that_cannot_be_read(self) -> None:
        """An error that prevents a look is named, and may pass."""
        job, _ = await self.running("job")
        path = Path(self.worker.spool(job).output("stdout"))
        path.unlink()
        path.mkdir()
        with self.assertRaises(Unavailable) as caught:
            self.worker.output(job)
        self.assertEqual(str(caught.exception), f"the output of job {job!r} can't be read: Is a directory")

    async def test_used_up(self) -> None:
        """Its id is not started again, by the next process either, and the acknowledged end goes without a word."""
        job, _ = await self.running("job")
        shutil.rmtree(self.worker.spool(job).folder)
        await self.worker.runner.removals.look()
        await self.worker.runner.stop(job, wait=True)
        self.assertIs((await self.worker.runner.start(job, JobSpec(command="true"), None)).state, JobState.LOST)
        self.worker.jobs.acknowledge([job])
        await self.worker.pool.run(lambda: None)
        self.assertEqual(await self.worker.jobs.describe([job]), ())
        self.assertEqual(await self.worker.pool.run(self.worker.spools.use_up_thd, [job]), (job,))
        self.assertIsNone(await self.worker.pool.run(self.worker.spools.remove_thd, job))
        await self.restart()
        self.assertEqual(self.worker.jobs.unacknowledged(), ())
        await self.assertFailure(self.worker.runner.start(job, JobSpec(command="true"), None), Conflict)

    async def test_stopped_first(self) -> None:
        """A stop that finds no folder ends the job, whether or not it waits."""
        for wait in (True, False):
            job, pids = await self.running()
            shutil.rmtree(self.worker.spool(job).folder)
            status = await self.worker.runner.stop(job, wait)
            self.assertEqual((status.state, status.leftover), (JobState.LOST, ()))
            self.assertTrue(all(map(is_gone, pids)))
            self.worker.jobs.acknowledge([job])

    async def test_ended_first(self) -> None:
        """A job that ends without its folder is lost at once, and once in the log."""
        job = await self.worker.start("sh", "-c", "read line", stdin=b"")
        await self.worker.ended(job)
        job = await self.worker.start("sleep", "600")
        main = self.worker.spool(job).read_start()["pid"]
        shutil.rmtree(self.worker.spool(job).folder)
        os.kill(main, signal.SIGKILL)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "its spool was removed"))
        self.assertEqual(status.leftover, ())

    async def forgotten(self) -> tuple[str, list[int]]:
        """A job whose folder was removed, with a worker that does not know it; and its processes that can be found."""
        job, _ = await self.running()
        folder = self.worker.spool(job).folder
        shutil.rmtree(folder)
        await self.restart()
        pids = [each.pid for each in proctree.of_spool(folder, 0)]
        self.assertEqual(len(pids), 2)
        return job, pids

    async def test_sealed_by_the_next_process(self) -> None:
        """A worker that never heard of the job finds what runs of it, and a stop ends that."""
        job, pids = await self.forgotten()
        status = await self.worker.runner.seal(job)
        self.assertEqual((status.state, sorted(status.leftover)), (JobState.LOST, sorted(pids)))
        self.assertIn("its spool was removed; processes of it still run: ", status.reason)
        self.assertEqual([report.status for report in self.worker.jobs.unacknowledged()], [status])
        self.assertEqual((await self.worker.runner.stop(job, wait=True)).leftover, ())
        self.assertTrue(all(map(is_gone, pids)))
        await self.assertFailure(self.worker.runner.seal("other"), NotFound)

    async def test_stopped_by_the_next_process(self) -> None:
        """A stop does as much; and of what no process carries, there is no job."""
        job, pids = await self.forgotten()
        for _ in range(2):
            status = await self.worker.runner.stop(job, wait=True)
            self.assertEqual((status.state, status.leftover), (JobState.LOST, ()))
        self.assertTrue(all(map(is_gone, pids)))
        for unknown in ("other", "../other"):
            await self.assertFailure(self.worker.runner.stop(unknown, wait=True), NotFound)

    async def test_all_of_them(self) -> None:
        """Without the folder of all jobs each that runs is lost, and the next start makes the folder again."""
        first, second = await self.running(), await self.running()
        shutil.rmtree(self.worker.jobs_dir)
        self.assertIs((await self.worker.run("true")).state, JobState.SUCCEEDED)
        await self.worker.runner.removals.look()
        for job, pids in (first, second):
            self.assertIs(self.worker.runner.query(job).state, JobState.LOST)
            await self.worker.runner.stop(job, wait=True)
            self.assertTrue(all(map(is_gone, pids)))
        shutil.rmtree(self.worker.jobs_dir)
        await self.worker.runner.removals.look()
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        await self.worker.jobs.retention.make_room()

    async def test_in_part(self) -> None:
        """A folder of which something is left, as the job writes there, is one that was removed."""
        for name in ("lock", "job.json"):
            job, pids = await self.running()
            os.unlink(os.path.join(self.worker.spool(job).folder, name))
            await self.worker.runner.removals.look()
            self.assertIs(self.worker.runner.query(job).state, JobState.LOST)
            await self.worker.runner.stop(job, wait=True)
            self.assertTrue(all(map(is_gone, pids)))
            shutil.rmtree(self.worker.spool(job).folder)

    async def test_unreadable(self) -> None:
        """A folder that can't be looked at now is not taken for one that was removed."""
        job = await self.worker.start("sleep", "600")
        patched = self.patch(os, "stat", self.refuse)
        removed = self.worker.spools.endings.removed_thd([job])
        patched.restore()
        self.assertEqual(removed, ())
        await self.worker.runner.stop(job, wait=True)

    async def test_undecided(self) -> None:
        """An end that can't be decided on, however often it is tried, is logged once."""
        self.patch(life, "RETRY_AFTER_FAILURE_SECONDS", 0.01)
        endings, tried = self.worker.spools.endings, []
        judge_thd = endings.judge_thd

        def judge(job_id: str, shim: ProcessId | None, not_begun: str) -> JobStatus | HeldByShim:
            tried.append(job_id)
            if len(tried) < 5:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), job_id)
            return judge_thd(job_id, shim, not_begun)

        self.patch(endings, "judge_thd", judge)
        # It ends after its start was answered, or nothing is left to judge.
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        self.worker.tell(job)
        self.assertEqual(((await self.worker.ended(job)).exit_code, len(tried)), (3, 5))
        self.assertEqual(len(self.flushLoggedErrors(PermissionError)), 1)

    @staticmethod
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    async def test_output_alone(self) -> None:
        """A job whose output alone was removed ends as it does."""
        job = await self.worker.start("sh", "-c", "read line; exit 3", stdin=b"")
        await self.worker.ended(job)
        job = await self.worker.start("sh", "-c", "while [ ! -e told ]; do sleep 0.02; done; exit 3")
        os.unlink(self.worker.spool(job).output("stdout"))
        (await self.worker.runner.watch_output(job, Stream.STDOUT, lambda: None))()
        self.worker.tell(job)
        status = await self.worker.ended(job)
        self.assertEqual((status.exit_code, status.stdout_bytes), (3, 0))


async def unkillable(worker: Running) -> None:
    """A process that this user may not signal stays, and is named until it is gone."""
    status = await worker.run("true", job_id="job")
    root = proctree.process(int(os.environ["OF_ROOT"]))
    edit(worker.spool("job").exit_path, leftover=[root.pid], leftover_started=[root.identity.starttime])
    await worker.drop()
    worker = Running(os.path.dirname(worker.jobs_dir))
    await worker.begin()
    status = await worker.runner.stop("job", wait=True)
    assert (status.state, status.leftover) == (JobState.SUCCEEDED, (root.pid,)), status
    os.mkdir(os.path.join(os.path.dirname(worker.jobs_dir), "named"))
    await gone(root.pid)
    status = await worker.runner.stop("job", wait=True)
    assert status.leftover == (), status
    await worker.drop()


async def locked(worker: Running) -> None:
    """A job takes the permissions of its own folder away from the user that it shares with the worker."""
    lock = 'chmod 500 "$SCHEDULER_SPOOL"; echo locked'
    status = await worker.run("sh", "-c", f"{lock}; exit 3")
    assert (status.state, status.exit_code) == (JobState.FAILED, 3), status
    job = await worker.start("sh", "-c", f"{lock}; exec sleep 600")
    await worker.lines(job, 1)
    status = await worker.runner.stop(job, wait=True)
    assert status.state is JobState.STOPPED, status
    job = await worker.start("sh", "-c", f"{lock}; exec sleep 600")
    await worker.lines(job, 1)
    os.kill(worker.shim(job).pid, signal.SIGKILL)
    status = await worker.ended(job)
    assert (status.state, status.reason) == (JobState.LOST, "its shim was killed by a signal"), status


class UnprivilegedTests(TestCase):
    """A worker without root's rights."""

    timeout = 60

    async def test_folder_without_permissions(self) -> None:
        """A job that locks its folder ends and is stopped as any other."""
        state_dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, state_dir)
        await play(self, "locked", state_dir, as_other_user(state_dir))

    async def test_until_it_is_gone(self) -> None:
        """A stop names a process of another user, as a setuid program leaves it, and not after that has gone."""
        state_dir = tempfile.mkdtemp()  # where another user gets to
        self.addCleanup(shutil.rmtree, state_dir)
        process = subprocess.Popen(["sleep", "600"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.patch(os, "environ", {**os.environ, "OF_ROOT": str(process.pid)})
        playing = Deferred.fromCoroutine(play(self, "unkillable", state_dir, as_other_user(state_dir)))
        while not playing.called and not os.path.exists(os.path.join(state_dir, "named")):
            await later(0.02)
        self.assertIsNone(process.poll())
        process.kill()
        await playing


class LeftoverTests(RunningCase):
    """The exit record names processes that could not be ended."""

    async def ended_with(self, *processes: subprocess.Popen[bytes], **changes: object) -> str:
        """The id of an ended job with these left, as the worker that comes next finds it."""
        status = await self.worker.run("true")
        found = [proctree.process(each.pid) for each in processes]
        record = {
            "leftover": [each.pid for each in found],
            "leftover_started": [each.identity.starttime for each in found],
        }
        edit(self.worker.spool(status.job_id).exit_path, **{**record, **changes})
        await self.restart()
        return status.job_id

    def process(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "600"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    async def test_looked_at_again(self) -> None:
        """A second stop ends what can be ended now, and answers what is left; what was seen at the end stays."""
        process, ended = self.process(), self.process()
        job = await self.ended_with(process, ended)
        ended.kill()
        before = self.worker.runner.query(job)
        self.assertEqual(before.leftover, (process.pid, ended.pid))
        for wait in (True, False):
            status = await self.worker.runner.stop(job, wait)
            self.assertEqual((status.state, status.leftover), (JobState.SUCCEEDED, ()))
        self.assertTrue(is_gone(process.pid))
        self.assertEqual(self.worker.runner.query(job), before)

    async def test_not_known(self) -> None:
        """Another process with that id, one of before a restart, and one without a start time are left alone."""
        process = self.process()
        for changes in ({"leftover_started": [1]}, {"leftover_started": []}):
            job = await self.ended_with(process, **changes)
            self.assertEqual((await self.worker.runner.stop(job, True)).leftover, ())
        job = await self.ended_with(process)
        edit(self.worker.spool(job).job_path, boot_id="another")
        self.assertEqual((await self.worker.runner.stop(job, True)).leftover, ())
        self.assertIsNone(process.poll())

    async def test_record_of_an_earlier_version(self) -> None:
        """A record that has no start times at all is read."""
        process = self.process()
        job = await self.ended_with(process)
        path = self.worker.spool(job).exit_path
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        del record["leftover_started"]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)
        self.assertEqual((await self.worker.runner.stop(job, True)).leftover, ())
        self.assertIsNone(process.poll())
