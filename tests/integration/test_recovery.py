"""Recovery: a worker process finds the jobs of the previous one."""

import os
import signal
import subprocess
import sys
import time
import uuid

from twisted.internet.threads import deferToThread

from scheduler.errors import ShuttingDown
from scheduler.model import JobSpec, JobState
from scheduler.request_keys import RequestKey
from scheduler.worker.shim import proctree
from tests.integration.running import UNTIL_TOLD, ProcessCase, ask, edit, gone, is_gone, later, stubborn

#: Another in each process: what a lost job left is looked for on the whole machine.
JOB = str(uuid.uuid4())


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
        self.assertEqual(self.worker.jobs.running(), (runs,))
        self.assertEqual([report.status.exit_code for report in self.worker.jobs.unacknowledged()], [3])
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
        self.assertEqual(self.worker.jobs.running(), (job,))
        await self.worker.lines(job, self.worker.output(job).count(b"\n") + 1000)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)
        lines = self.worker.output(job).split()
        self.assertEqual(lines, [b"%d" % number for number in range(len(lines))])

    async def test_stop_afterwards(self) -> None:
        """A job taken back can be stopped."""
        job = await self.worker.start(sys.executable, "-c", stubborn())
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        await self.restart()
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
        self.assertEqual([report.status for report in self.worker.jobs.unacknowledged()], [status])

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
        """Processes that worker, zygote and shim leave when they are killed are ended by the next worker process."""
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

    async def test_same_id_in_the_next_life(self) -> None:
        """An id that was started by the worker before is answered, not started again."""
        job = await self.worker.start("sh", "-c", "echo ran", job_id=JOB)
        status = await self.worker.ended(job)
        await self.restart()
        self.assertEqual(await self.worker.runner.start(JOB, JobSpec(command="false"), None), status)
        self.assertEqual(self.worker.output(job), b"ran\n")

    async def test_acknowledged(self) -> None:
        """An acknowledged job is known to the next worker process, and not reported by it."""
        key = RequestKey("k", "f" * 64, "token:ci")
        first = (await self.worker.runner.start("first", JobSpec(command="true"), None, key)).job_id
        second = await self.worker.start("true")
        for job in (first, second):
            await self.worker.ended(job)
        self.worker.jobs.acknowledge([first])
        await self.restart()
        self.assertEqual([report.status.job_id for report in self.worker.jobs.unacknowledged()], [second])
        self.assertEqual(self.worker.runner.query(first).state, JobState.SUCCEEDED)
        (report,) = await self.worker.jobs.describe([first])
        self.assertEqual((report.spec.command, report.key), ("true", key))

    async def test_after_the_end(self) -> None:
        """A runner that was shut down starts nothing, and whoever waited for an end is told."""
        job = await self.worker.start("sleep", "600")
        waiting = self.worker.runner.stop(job, wait=True)
        self.worker.runner.shut_down()
        await self.assertFailure(waiting, ShuttingDown)
        await self.assertFailure(self.worker.runner.start("", JobSpec(command="true"), None), ShuttingDown)
