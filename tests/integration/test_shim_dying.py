"""Shims that are signalled, trace their jobs, or are killed; and zygotes that are."""

import errno
import os
import resource
import signal
import subprocess
import sys
from typing import Any

from twisted.internet.defer import gatherResults

from scheduler.errors import Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState
from scheduler.worker import starting
from scheduler.worker.shim.spool import Spool
from tests.integration.running import UNTIL_TOLD, RunningCase, gone, is_gone, later, ready_shim, stubborn


class SignalledShimTests(RunningCase):
    """A job may send any signal to its parent, the shim. Only the mark in the spool asks for a stop."""

    async def test_every_signal(self) -> None:
        """No signal that can be ignored ends the shim, or counts as a stop."""
        source = """
import os, signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    os.kill(os.getppid(), number)
os._exit(3)
"""
        status = await self.worker.run(sys.executable, "-c", source)
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "exit status 3"))

    async def test_stopped_all_the_same(self) -> None:
        """A job that sent TERM to its shim is still stopped when that is asked for."""
        job = await self.worker.start("sh", "-c", "kill $PPID; kill -USR1 $PPID; echo up; exec sleep 600")
        await self.worker.lines(job, 1)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.reason), (JobState.STOPPED, "signal: terminated"))

    async def test_not_marked(self) -> None:
        """Where the mark can't be set the stop is refused, and the job runs on."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        full = OSError(errno.ENOSPC, "No space left on device")

        def ask_stop(_: Spool) -> None:
            raise full

        marks = self.patch(Spool, "ask_stop", ask_stop)
        for wait in (True, False):
            refused = await self.assertFailure(self.worker.runner.stop(job, wait), Unavailable)
            self.assertIn("No space left on device", str(refused))
        self.assertEqual(self.flushLoggedErrors(), [])  # no traceback: the stop is sent again with each sign of life
        marks.restore()
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).reason, "exit status 3")


class UnwritableTests(RunningCase):
    """The shim alone knows how its job ended, and may not be able to write that down at once."""

    async def test_record(self) -> None:
        """The end is written down as soon as the spool takes the record; until then the job counts as running."""
        for stopped in (False, True):
            job = await self.worker.start("sh", "-c", f"trap 'exit 4' TERM; {UNTIL_TOLD}")
            shim = self.worker.shim(job).pid
            limits = resource.prlimit(shim, resource.RLIMIT_FSIZE)
            # Enough for a line in the log of the shims, and too little for the record.
            resource.prlimit(shim, resource.RLIMIT_FSIZE, (200, limits[1]))
            self.worker.tell(job)
            while not (said := self.said()):
                await later(0.01)
            self.assertEqual(said, f"the end of job {job} can't be written down yet: File too large\n")
            self.assertEqual(self.worker.jobs.running(), (job,))
            if stopped:  # it is too late for that
                await self.worker.runner.stop(job, wait=False)
            resource.prlimit(shim, resource.RLIMIT_FSIZE, limits)
            status = await self.worker.ended(job)
            self.assertEqual((status.state, status.exit_code), (JobState.FAILED, 3))
            os.truncate(self.worker.log, 0)

    def said(self) -> str:
        with open(self.worker.log, encoding="utf-8") as log:
            return log.read()


class TracedTests(RunningCase):
    """Processes that make their parent, the shim, their tracer: they stop at each signal until the tracer acts."""

    async def traced(self, then: str) -> JobStatus:
        ask = "import ctypes, os, signal, sys\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0\n"
        return await self.worker.run(sys.executable, "-c", ask + then, timeout=20.0)

    async def test_signal_that_is_ignored(self) -> None:
        """A stop at a signal is no end: the job runs on, and its exit code is its own."""
        status = await self.traced("os.kill(os.getpid(), signal.SIGCHLD)\nos._exit(5)")
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "exit status 5"))

    async def test_exec(self) -> None:
        """The stop at exec is made up by the kernel, so no signal is passed on."""
        status = await self.traced("os.execvp('sh', ['sh', '-c', 'echo ran; exit 6'])")
        self.assertEqual((status.reason, self.worker.output(status.job_id)), ("exit status 6", b"ran\n"))

    async def test_signal_that_ends_it(self) -> None:
        """A signal that stopped it is passed on, and does what it does."""
        status = await self.traced("os.kill(os.getpid(), signal.SIGUSR1)\nos._exit(5)")
        self.assertEqual(status.reason, "signal: user defined signal 1")

    async def test_again(self) -> None:
        """A process may ask to be traced again and again."""
        again = "for _ in range(20):\n os.kill(os.getpid(), signal.SIGCHLD)\n ctypes.CDLL(None).ptrace(0, 0, 0, 0)\n"
        self.assertEqual((await self.traced(again + "os._exit(7)")).exit_code, 7)

    async def test_orphan(self) -> None:
        """A process whose parent ended has the shim as its parent, and can make it its tracer too."""
        source = """
import ctypes, os, signal, sys
told, tell = os.pipe()
if not os.fork():
    middle = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == middle:
        pass
    ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGCHLD)
    os.write(tell, b"x")
    os._exit(0)
os.close(tell)
sys.exit(3 if os.read(told, 1) else 4)
"""
        status = await self.worker.run(sys.executable, "-c", source, timeout=20.0)
        self.assertEqual(status.reason, "exit status 3")


class DyingTests(RunningCase):
    """Parts that are killed."""

    async def test_shim(self) -> None:
        """A job whose shim was killed leaves no process, and is lost, without an exit code."""
        job = await self.worker.start(sys.executable, "-c", stubborn())
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        os.kill(self.worker.shim(job).pid, 9)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "its shim was killed by a signal"))
        self.assertEqual((status.exit_code, status.signal), (None, None))
        self.assertIsNotNone(status.started_at)
        self.assertEqual(status.stdout_bytes, len(self.worker.output(job)))
        await gone(*pids)

    async def test_zygote(self) -> None:
        """Without the zygote running jobs run on, and the next start has another."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        first = self.worker.launcher.pid
        os.kill(first, 9)
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        self.assertNotEqual(self.worker.launcher.pid, first)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)

    async def test_zygote_hangs(self) -> None:
        """A zygote that does not answer is replaced while starts wait for it; jobs that run, run on."""
        self.patch(starting, "START_DEADLINE_SECONDS", 0.5)
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        first = self.worker.launcher.pid
        os.kill(first, signal.SIGSTOP)
        starts = [self.worker.runner.start("", JobSpec(command="sh", args=("-c", "echo x")), None) for _ in range(5)]
        for started in await gatherResults(starts):
            status = await self.worker.ended(started.job_id)
            self.assertEqual((status.state, self.worker.output(status.job_id)), (JobState.SUCCEEDED, b"x\n"))
        await gone(first)
        self.assertNotEqual(self.worker.launcher.pid, first)
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).exit_code, 3)

    async def test_zygotes_that_hang(self) -> None:
        """Where no zygote ever answers the start is refused, and a shim that comes late does not begin it."""
        await self.worker.run("true")
        self.patch(starting, "START_DEADLINE_SECONDS", 0.3)
        real = subprocess.Popen

        def hanging(*args: Any, **named: Any) -> subprocess.Popen[bytes]:
            zygote = real(*args, **named)
            zygote.send_signal(signal.SIGSTOP)
            return zygote

        patched = self.patch(subprocess, "Popen", hanging)
        os.kill(self.worker.launcher.pid, signal.SIGSTOP)
        late = f"late-{os.getpid()}"
        refused = await self.assertFailure(self.worker.runner.start(late, JobSpec(command="true"), None), Unavailable)
        self.assertIn("the worker's machine can't start a job now: no shim answered within 0.3 s", str(refused))
        self.assertNotIn(late, os.listdir(self.worker.jobs_dir))
        patched.restore()
        self.assertEqual((await self.worker.run("true", job_id=late)).state, JobState.SUCCEEDED)

    async def test_ready_shim(self) -> None:
        """The shim that waits for a job may be killed, and is not ended by TERM; without its zygote it ends."""
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        ready = await ready_shim(self.worker)
        os.kill(ready, signal.SIGKILL)
        await gone(ready)
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        ready = await ready_shim(self.worker)
        os.kill(ready, signal.SIGTERM)
        self.assertEqual(self.worker.shim((await self.worker.run("true")).job_id).pid, ready)
        ready = await ready_shim(self.worker)
        os.kill(self.worker.launcher.pid, signal.SIGKILL)
        await gone(ready)

    async def test_ready_shim_hangs(self) -> None:
        """A start does not wait for a shim that does not begin, and that shim does not begin later."""
        self.patch(starting, "START_DEADLINE_SECONDS", 0.5)
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        ready = await ready_shim(self.worker)
        os.kill(ready, signal.SIGSTOP)
        status = await self.worker.run("sh", "-c", "echo x")
        self.assertEqual(status.state, JobState.SUCCEEDED)
        os.kill(ready, signal.SIGCONT)
        await gone(ready)
        self.assertEqual(self.worker.output(status.job_id), b"x\n")

    async def test_zygote_and_shim(self) -> None:
        """Without both, the worker ends what it knows of the job."""
        job = await self.worker.start(sys.executable, "-c", stubborn("os.environ"))
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        os.kill(self.worker.launcher.pid, 9)
        await gone(self.worker.launcher.pid)
        os.kill(self.worker.shim(job).pid, 9)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.tree, status.leftover), (JobState.LOST, "killed", ()))
        self.assertTrue(all(map(is_gone, pids)), pids)
