"""What a worker finds of the jobs of the process before it."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from scheduler.errors import Conflict, NotFound, ShuttingDown, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState
from scheduler.worker import records, starting
from scheduler.worker.launcher import Shortage
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import create
from tests.integration.running import UNTIL_TOLD, RunningCase, edit, gone, is_gone, later, stubborn

#: Another in each process: what a lost job left is looked for on the whole machine.
JOB = str(uuid.uuid4())


def ask(process: subprocess.Popen[bytes], job_id: str, *command: str) -> None:
    """Have a worker in a process of its own start a job."""
    process.stdin.write(json.dumps([job_id, *command]).encode() + b"\n")
    process.stdin.flush()


class ProcessCase(RunningCase):
    """Has workers in processes of their own."""

    def process(self, failpoints: str = "") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.worker_process", self.state_dir],
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SCHEDULER_FAILPOINTS": failpoints},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class FailpointTests(ProcessCase):
    """A worker that dies at the worst moments."""

    async def died(self, failpoint: str, warm: bool = False) -> JobStatus:
        """How the job is that a worker had when it died there, in the next life, after the same start again.

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
        """Of a start that has no spool yet nothing is left, and the same start runs it, once."""
        self.assertEqual((await self.died("worker.before-spool-rename")).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_after_the_spool(self) -> None:
        """A start that has a spool and no shim counts as never made, and the same start runs it, once."""
        self.assertEqual((await self.died("worker.after-spool-rename")).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_before_it_is_begun(self) -> None:
        """Nor does a shim begin it that waits to be told that it may: nobody is left to tell it."""
        self.assertEqual((await self.died("worker.before-begin:2", warm=True)).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_before_the_answer(self) -> None:
        """A job that runs and was not answered is the one that the same start is answered with."""
        self.assertEqual((await self.died("worker.before-start-answer")).exit_code, 3)
        self.assertEqual(self.runs(), 1)

    async def test_before_the_acknowledgement(self) -> None:
        """An end whose acknowledgement was not written down is reported again."""
        status = await self.died("worker.before-ack-written")
        self.assertEqual([report.status for report in self.worker.runner.unacknowledged()], [status])
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


class NextLifeTests(ProcessCase):
    """A worker ends and another begins."""

    async def test_running_and_ended(self) -> None:
        """Jobs run on without a worker; the next follows those that run and finds how the others ended."""
        runs = await self.worker.start("sh", "-c", UNTIL_TOLD)
        ends = await self.worker.start("sh", "-c", UNTIL_TOLD)
        shims = [self.worker.shim(job).pid for job in (runs, ends)]
        await self.worker.drop()
        self.worker.tell(ends)
        await gone(shims[1])
        self.assertFalse(is_gone(shims[0]))
        before = time.monotonic()
        self.worker = await self.next_life()
        self.assertLess(time.monotonic() - before, 2)
        self.assertEqual(self.worker.runner.running(), (runs,))
        self.assertEqual([report.status.exit_code for report in self.worker.runner.unacknowledged()], [3])
        self.worker.tell(runs)
        self.assertEqual((await self.worker.ended(runs)).exit_code, 3)

    async def test_killed(self) -> None:
        """A worker killed by -9 leaves its jobs running, each byte of their output kept."""
        process = self.process()
        await self.worker.drop()
        count = "i=0; while [ ! -e told ]; do echo $i; i=$((i+1)); done; echo $i; exit 3"
        ask(process, "", "sh", "-c", count)
        job = (await deferToThread(process.stdout.readline)).decode().strip()
        process.kill()
        await deferToThread(process.wait)
        process.stdin.close()
        self.worker = await self.next_life()
        self.assertEqual(self.worker.runner.running(), (job,))
        await self.worker.lines(job, self.worker.output(job).count(b"\n") + 1000)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
        lines = self.worker.output(job).split()
        self.assertEqual(lines, [b"%d" % number for number in range(len(lines))])

    async def test_stop_afterwards(self) -> None:
        """A job taken back can be stopped."""
        job = await self.worker.start(sys.executable, "-c", stubborn())
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        await self.worker.drop()
        self.worker = await self.next_life()
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.tree), (JobState.STOPPED, "killed"))
        self.assertTrue(all(map(is_gone, pids)), pids)

    async def test_stop_written_down(self) -> None:
        """A stop that was written down by a worker killed before it said so is carried out by the next."""
        job = await self.worker.start("sleep", "600")
        await self.worker.drop()
        self.worker.spool(job).ask_stop()
        self.worker = await self.next_life()
        self.assertEqual((await self.worker.ended(job)).state, JobState.STOPPED)

    async def test_shim_killed_meanwhile(self) -> None:
        """A job whose shim was killed while there was no worker is lost."""
        job = await self.worker.start("sleep", "600")
        shim = self.worker.shim(job).pid
        await self.worker.drop()
        os.kill(shim, 9)
        await gone(shim)
        self.worker = await self.next_life()
        status = self.worker.runner.query(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "its shim was killed by a signal"))
        self.assertIsNone(status.exit_code)
        self.assertEqual([report.status for report in self.worker.runner.unacknowledged()], [status])

    async def test_rebooted(self) -> None:
        """A job that ran when the machine went down is lost, and nothing is signalled for it."""
        job = await self.worker.start("sleep", "600")
        shim = self.worker.shim(job).pid
        main = self.worker.spool(job).read_start()["pid"]
        await self.worker.drop()
        os.kill(shim, 9)
        await gone(shim, main)
        edit(self.worker.spool(job).job_path, boot_id="another")
        bystander = self.bystander(self.worker.spool(job).folder)
        self.worker = await self.next_life()
        status = self.worker.runner.query(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "rebooted"))
        self.assertIsNone(bystander.poll())

    def bystander(self, spool: str) -> subprocess.Popen[bytes]:
        """A process that carries the path of that spool."""
        process = subprocess.Popen(["sleep", "600"], env={"SCHEDULER_SPOOL": spool})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    async def killed_with_its_shim(self, process: subprocess.Popen[bytes]) -> str:
        """The id of a job of that worker, once worker, zygote and shim have been killed together."""
        ask(process, JOB, sys.executable, "-c", stubborn("os.environ"))
        job = (await deferToThread(process.stdout.readline)).decode().strip()
        while self.worker.output(job).count(b"\n") < 3:
            await later(0.01)
        shim = self.worker.shim(job).pid
        zygote = proctree.process(shim).parent
        victims = (process.pid, zygote, shim)
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        process.stdin.close()
        await deferToThread(process.wait)
        await gone(zygote, shim)
        return job

    async def test_strays(self) -> None:
        """What worker, zygote and shim leave when they are killed together ends at the next start."""
        await self.worker.drop()
        process = self.process()
        early = self.bystander(self.worker.spool(JOB).folder)  # began before the job
        await later(0.05)  # of the clock of start times that is five ticks
        job = await self.killed_with_its_shim(process)
        strays = [int(line) for line in self.worker.output(job).split()]
        self.assertFalse(any(map(is_gone, strays)), strays)
        other = self.bystander(self.worker.spool("other").folder)
        clean = subprocess.Popen(["sleep", "600"], env={"SCHEDULER_JOB_ID": job})
        self.addCleanup(clean.wait)
        self.addCleanup(clean.kill)
        self.worker = await self.next_life()
        status = self.worker.runner.query(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "its shim was killed by a signal"))
        self.assertEqual((status.tree, status.leftover), ("killed", ()))
        self.assertTrue(all(map(is_gone, strays)), strays)
        self.assertEqual([early.poll(), other.poll(), clean.poll()], [None, None, None])

    async def test_worker_in_a_job(self) -> None:
        """Zygote and shims of a worker that a job started are no processes of that job."""
        os.environ["SCHEDULER_SPOOL"] = "/no/such/spool"
        self.addCleanup(os.environ.pop, "SCHEDULER_SPOOL")
        await self.worker.run("true")
        self.assertEqual(proctree.of_spool("/no/such/spool", 0), [])

    async def test_not_begun(self) -> None:
        """A start that no shim took on is refused and leaves nothing; nor does one that the worker did not survive."""
        refused = await self.assertFailure(self.start_unlaunched(), Unavailable)
        wanted = f"the worker's machine can't start a job now: no shim began it, see {self.worker.log}"
        self.assertEqual(str(refused), wanted)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        kept = self.patch(starting.Starter, "unmake_thd", lambda _, job_id: True)  # as if it had been killed before
        await self.assertFailure(self.start_unlaunched(), Unavailable)
        kept.restore()
        await self.worker.drop()
        self.worker = await self.next_life()
        with self.assertRaises(NotFound):
            self.worker.runner.query(JOB)
        self.assertEqual((self.worker.runner.running(), self.worker.runner.unacknowledged()), ((), ()))
        folder = self.worker.spool(JOB).folder  # a shim that comes late does nothing
        late = self.worker.pool.run(self.worker.launcher.launch_thd, folder, 10.0, lambda: None)
        await self.assertFailure(late, Shortage)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])

    async def test_not_begun_and_rebooted(self) -> None:
        """A power cut may have taken the trace of a shim: such a job is lost, and is not started again."""
        kept = self.patch(starting.Starter, "unmake_thd", lambda _, job_id: True)
        await self.assertFailure(self.start_unlaunched(), Unavailable)
        kept.restore()
        await self.worker.drop()
        self.patch(records, "boot_id", lambda: "another")
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

    async def test_same_id_in_the_next_life(self) -> None:
        """An id that was started by the worker before is answered, not started again."""
        job = await self.worker.start("sh", "-c", "echo ran", job_id=JOB)
        status = await self.worker.ended(job)
        await self.worker.drop()
        self.worker = await self.next_life()
        self.assertEqual(await self.worker.runner.start(JOB, JobSpec(command="false"), None), status)
        self.assertEqual(self.worker.output(job), b"ran\n")

    async def test_acknowledged(self) -> None:
        """What was acknowledged is not reported by the next worker, but known."""
        first = await self.worker.start("true")
        second = await self.worker.start("true")
        for job in (first, second):
            await self.worker.ended(job)
        self.worker.runner.acknowledge([first])
        await self.worker.drop()
        self.worker = await self.next_life()
        self.assertEqual([report.status.job_id for report in self.worker.runner.unacknowledged()], [second])
        self.assertEqual(self.worker.runner.query(first).state, JobState.SUCCEEDED)
        (report,) = await self.worker.runner.describe([first])
        self.assertEqual(report.spec.command, "true")

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
        """What a power cut left of a spool before it was durable is none, and the same start runs it."""
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
        self.worker.spools.create_thd(JOB, spool, JobSpec(command="true"), 7.0, None)
        await self.worker.drop()
        with spool.locked() as lock:
            self.assertIsNotNone(lock)
            self.worker = await self.next_life()
            runner = self.worker.runner
            self.assertEqual((runner.running(), runner.is_starting()), ((), True))
            started = runner.start(JOB, JobSpec(command="sh", args=("-c", "exit 3")), None)
        self.assertIs((await started).state, JobState.RUNNING)  # once the shim has let go of it
        self.assertEqual(runner.running(), (JOB,))
        self.assertEqual((await self.worker.ended(JOB)).exit_code, 3)

    async def test_waiting_shim_of_a_sealed_job(self) -> None:
        """A job that such a shim has is sealed when that has let go of it."""
        spool = self.worker.spool(JOB)
        self.worker.spools.create_thd(JOB, spool, JobSpec(command="true"), 7.0, None)
        await self.worker.drop()
        with spool.locked():
            self.worker = await self.next_life()
            sealed = self.worker.runner.seal(JOB)
        await self.assertFailure(sealed, NotFound)
        await self.assertFailure(self.worker.runner.start(JOB, JobSpec(command="true"), None), Conflict)
        self.assertEqual((self.worker.runner.is_starting(), os.listdir(self.worker.jobs_dir)), (False, []))

    async def test_shim_that_was_let_begin(self) -> None:
        """A shim that begins the job after all is followed."""
        spool = self.worker.spool(JOB)
        self.worker.spools.create_thd(JOB, spool, JobSpec(command="true"), 7.0, None)
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
            self.assertEqual((self.worker.runner.running(), self.worker.runner.is_starting()), ((JOB,), False))
            other.kill()
        self.assertIs((await self.worker.ended(JOB)).state, JobState.LOST)

    async def test_unreadable_lock(self) -> None:
        """A spool that nothing can be made of is left alone, and keeps the worker from nothing."""
        spool = self.worker.spool(JOB)
        create(spool.folder, f"{spool.folder}.new", {}, None, None)
        os.truncate(spool.job_path, 0)
        with open(spool.lock_path, "wb") as lock:
            lock.write(b"no number")
        await self.worker.drop()
        self.worker = await self.next_life()
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
        await self.worker.drop()
        self.worker = await self.next_life()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(damages))
        self.assertEqual(
            [each.status for each in self.worker.runner.unacknowledged()], [evolve(good, reason="? was here")]
        )
        self.assertEqual(len(os.listdir(self.worker.jobs_dir)), len(damages) + 1)

    async def test_after_the_end(self) -> None:
        """A runner that was shut down starts nothing, and whoever waited for an end is told."""
        job = await self.worker.start("sleep", "600")
        waiting = self.worker.runner.stop(job, wait=True)
        self.worker.runner.shut_down()
        await self.assertFailure(waiting, ShuttingDown)
        await self.assertFailure(self.worker.runner.start("", JobSpec(command="true"), None), ShuttingDown)
