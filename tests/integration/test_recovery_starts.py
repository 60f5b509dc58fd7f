"""Recovery of starts that the previous worker process did not finish, and of damaged spools."""

import math
import os
import signal
import subprocess
import uuid

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from scheduler.errors import Conflict, NotFound, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState
from scheduler.worker import endings
from scheduler.worker.launcher import Shortage
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import create
from tests.integration.running import UNTIL_TOLD, ProcessCase, RunningCase, ask, edit, gone

#: Another in each process: what a lost job left is looked for on the whole machine.
JOB = str(uuid.uuid4())


class FailpointTests(ProcessCase):
    """A worker that dies at the worst moments."""

    async def died(self, failpoint: str, warm: bool = False) -> JobStatus:
        """Kill a worker at a failpoint of a start; answers the job's status after the same start in the next process.

        With ``warm`` it has run another before, so that a shim is there at once.
        """
        await self.worker.drop()
        process = self.process(failpoint)
        if warm:
            ask(process, "", "true")
            await deferToThread(process.stdout.readline)
        ask(process, JOB, *self.command)
        self.assertEqual(await deferToThread(process.wait), -signal.SIGKILL)
        process.stdin.close()
        self.worker = await self.next_life()
        await self.worker.start(*self.command, job_id=JOB)
        return await self.worker.ended(JOB)

    @property
    def command(self) -> tuple[str, ...]:
        return "sh", "-c", f"echo ran >> {self.state_dir}/runs; exit 3"

    def runs(self) -> int:
        try:
            with open(f"{self.state_dir}/runs", encoding="ascii") as file:
                return file.read().count("ran")
        except FileNotFoundError:
            return 0

    async def test_before_the_spool(self) -> None:
        """A start without a spool yet leaves nothing behind, and the same start runs the job once."""
        self.assertEqual((await self.died("worker.before-spool-rename")).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_after_the_spool(self) -> None:
        """A start that has a spool and no shim counts as never made, and the same start runs it, once."""
        self.assertEqual((await self.died("worker.after-spool-rename")).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_before_it_is_begun(self) -> None:
        """A shim that waits for its permission does not begin the job, as the worker is gone."""
        self.assertEqual((await self.died("worker.before-begin:2", warm=True)).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_before_the_answer(self) -> None:
        """A job that runs and was not answered is the one that the same start is answered with."""
        self.assertEqual((await self.died("worker.before-start-answer")).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_before_the_acknowledgement(self) -> None:
        """An end whose acknowledgement was not written down is reported again."""
        status = await self.died("worker.before-ack-written")
        self.assertEqual([report.status for report in self.worker.jobs.unacknowledged()], [status])
        self.assertEqual(self.runs(), 1)

    async def test_shim(self) -> None:
        """A shim that dies before its record has its name leaves a job that is lost, and not run again."""
        await self.worker.drop()
        process = self.process("shim.before-exit-rename")
        ask(process, JOB, *self.command)
        await deferToThread(process.stdout.readline)
        process.kill()
        process.stdin.close()
        await deferToThread(process.wait)
        await gone(self.worker.shim(JOB).pid)
        self.worker = await self.next_life()
        await self.worker.start(*self.command, job_id=JOB)
        status = self.worker.runner.query(JOB)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "its shim was killed by a signal"))
        self.assertIsNone(status.exit_code)
        self.assertEqual(self.runs(), 1)


class UnfinishedTests(RunningCase):
    """The next worker process after a start that was not finished, or with a spool that is damaged."""

    async def test_not_begun(self) -> None:
        """A start that no shim took on is refused and leaves nothing; nor does one that the worker did not survive."""
        refused = await self.assertFailure(self.start_unlaunched(), Unavailable)
        wanted = f"the worker's machine can't start a job now: no shim began it, see {self.worker.log}"
        self.assertEqual(str(refused), wanted)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        self.patch(self.worker.spools.endings, "unmake_thd", lambda job_id: True)  # as if it had been killed before
        await self.assertFailure(self.start_unlaunched(), Unavailable)
        await self.restart()
        self.assertRaises(NotFound, self.worker.runner.query, JOB)
        self.assertEqual((self.worker.jobs.running(), self.worker.jobs.unacknowledged()), ((), ()))
        folder = self.worker.spool(JOB).folder  # a shim that comes late does nothing
        late = self.worker.pool.run(self.worker.launcher.launch_thd, folder, 10.0, lambda: None)
        await self.assertFailure(late, Shortage)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])

    async def test_not_begun_and_rebooted(self) -> None:
        """A power cut may have taken the trace of a shim: such a job is lost, and is not started again."""
        self.patch(self.worker.spools.endings, "unmake_thd", lambda job_id: True)
        await self.assertFailure(self.start_unlaunched(), Unavailable)
        await self.worker.drop()
        self.patch(endings, "boot_id", lambda: "another")
        self.worker = await self.next_life()
        status = await self.worker.runner.start(JOB, JobSpec(command="true"), None)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "rebooted"))

    def start_unlaunched(self) -> Deferred[JobStatus]:
        """Start a job that no shim takes on."""
        patched = self.patch(self.worker.launcher, "launch_thd", lambda *_: True)
        started = self.worker.runner.start(JOB, JobSpec(command="sh", args=("-c", "echo ran")), None)
        return started.addBoth(lambda result: patched.restore() or result)

    async def test_once(self) -> None:
        """A second shim for a job that was begun does nothing, while the first is there and when it was killed."""
        job = await self.worker.start("sh", "-c", f"echo ran; {UNTIL_TOLD}")
        await self.worker.lines(job, 1)
        spool = self.worker.spool(job)
        await self.worker.pool.run(self.worker.launcher.launch_thd, spool.folder, 10.0, spool.sync)
        await self.worker.drop()
        shim = self.worker.shim(job).pid
        os.kill(shim, 9)
        await gone(shim)
        another = await self.next_life()
        os.unlink(another.spool(job).exit_path)
        await another.pool.run(another.launcher.launch_thd, spool.folder, 10.0, spool.sync)
        self.assertEqual(another.shim(job).pid, shim)

    async def test_leftovers(self) -> None:
        """Unfinished folders are removed, a broken one is left alone, and neither keeps the worker from its jobs."""
        job = await self.worker.start("true")
        await self.worker.ended(job)
        await self.worker.drop()
        for name in (".new-a", ".gone-b", "broken"):
            os.makedirs(os.path.join(self.worker.jobs_dir, name, "work"))
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(set(os.listdir(self.worker.jobs_dir)), {job, "broken"})
        self.assertEqual(self.worker.runner.query(job).state, JobState.SUCCEEDED)
        os.rmdir(os.path.join(self.worker.jobs_dir, "broken", "work"))
        os.rmdir(os.path.join(self.worker.jobs_dir, "broken"))

    async def test_cut_short(self) -> None:
        """A spool that a power cut left before it was durable is removed, and the same start runs the job."""
        for left in (b"", bytes(100), b'{"id": "j", "spec": {"com', None):
            await self.worker.drop()
            spool = self.worker.spool(JOB)
            create(spool.folder, f"{spool.folder}.new", {}, None, None)
            if left is None:
                os.unlink(spool.job_path)
            else:
                with open(spool.job_path, "wb") as file:
                    file.write(left)
            self.worker = await self.next_life()
            self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        self.assertEqual((await self.worker.run("true", job_id=JOB)).state, JobState.SUCCEEDED)

    async def test_waiting_shim(self) -> None:
        """A shim that still waits to be told that it may begin, as it has not noticed yet that nobody is left to."""
        spool = self.worker.spool(JOB)
        self.worker.starter.make_thd(JOB, JobSpec(command="true"), 7.0, None)
        await self.worker.drop()
        with spool.locked() as lock:
            self.assertIsNotNone(lock)
            self.worker = await self.next_life()
            runner, jobs = self.worker.runner, self.worker.jobs
            self.assertEqual((jobs.running(), jobs.is_starting()), ((), True))
            started = runner.start(JOB, JobSpec(command="sh", args=("-c", UNTIL_TOLD)), None)
        self.assertIs((await started).state, JobState.RUNNING)  # once the shim has let go of it
        self.assertEqual(jobs.running(), (JOB,))
        self.worker.tell(JOB)
        self.assertEqual((await self.worker.ended(JOB)).exit_code, 3)

    async def test_waiting_shim_of_a_sealed_job(self) -> None:
        """A job that such a shim has is sealed when that has let go of it."""
        spool = self.worker.spool(JOB)
        self.worker.starter.make_thd(JOB, JobSpec(command="true"), 7.0, None)
        await self.worker.drop()
        with spool.locked():
            self.worker = await self.next_life()
            sealed = self.worker.runner.seal(JOB)
        await self.assertFailure(sealed, NotFound)
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)
        self.assertEqual((self.worker.jobs.is_starting(), os.listdir(self.worker.jobs_dir)), (False, []))

    async def test_shim_that_was_let_begin(self) -> None:
        """A shim that begins the job after all is followed."""
        spool = self.worker.spool(JOB)
        self.worker.starter.make_thd(JOB, JobSpec(command="true"), 7.0, None)
        await self.worker.drop()
        with subprocess.Popen(["sleep", "600"]) as other, spool.locked() as lock:
            assert lock is not None
            self.addCleanup(other.kill)
            self.worker = await self.next_life()
            started = self.worker.runner.start(JOB, JobSpec(command="true"), None)
            shim = proctree.process(other.pid)
            assert shim is not None
            spool.begin(lock, shim.identity)
            self.assertIs((await started).state, JobState.RUNNING)
            self.assertEqual((self.worker.jobs.running(), self.worker.jobs.is_starting()), ((JOB,), False))
            other.kill()
        self.assertIs((await self.worker.ended(JOB)).state, JobState.LOST)

    async def test_unreadable_lock(self) -> None:
        """A spool that nothing can be made of is left alone, and keeps the worker from nothing."""
        spool = self.worker.spool(JOB)
        create(spool.folder, f"{spool.folder}.new", {}, None, None)
        os.truncate(spool.job_path, 0)
        with open(spool.lock_path, "wb") as lock:
            lock.write(b"no number")
        await self.restart()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [JOB])
        os.truncate(spool.lock_path, 0)

    async def test_begun_and_unreadable(self) -> None:
        """A spool that a shim began is kept, whatever became of it."""
        job = await self.worker.start("true", job_id=JOB)
        await self.worker.ended(job)
        await self.worker.drop()
        os.truncate(self.worker.spool(job).job_path, 0)
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [JOB])
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)

    async def test_damaged_end(self) -> None:
        """An exit record with what no message could tell is left alone; the ends beside it are reported."""
        good = await self.worker.run("true")
        edit(self.worker.spool(good.job_id).exit_path, reason="\ud800 was here")
        damages = (
            {"finished_at": 1e300},
            {"finished_at": math.nan},
            {"started_at": "now"},
            {"exit_code": 2**40},
            {"exit_code": 1.5},
            {"stdout_bytes": -1},
            {"signal": 9},
            {"leftover": [2**40]},
            {"usage": {"max_rss": 1, "cpu_seconds": "1"}},
            {"usage": {"max_rss": -1, "cpu_seconds": 1.5}},
        )
        for damage in damages:
            bad = await self.worker.run("true")
            edit(self.worker.spool(bad.job_id).exit_path, **damage)
        await self.restart()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(damages))
        self.assertEqual(
            [each.status for each in self.worker.jobs.unacknowledged()], [evolve(good, reason="? was here")]
        )
        self.assertEqual(len(os.listdir(self.worker.jobs_dir)), len(damages) + 1)
