"""The output of real jobs: all of it, too much of it, and on a full disk."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

from scheduler.errors import NotFound, OutputPruned, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState, Stream
from tests.integration.running import UNTIL_TOLD, RunningCase, gone, is_gone, stubborn

#: Python that goes on when it is told to, by ``Running.tell``.
WAIT = "import time\nwhile not os.path.exists('told'): time.sleep(0.02)\n"


class OutputTests(RunningCase):
    async def test_two_streams(self) -> None:
        """Each stream has its own file, though somebody opens it anew by name."""
        job = await self.worker.start(
            "sh", "-c", "echo one; echo two >&2; echo three > /dev/stderr; echo four > /dev/stdout; echo five >&2"
        )
        status = await self.worker.ended(job)
        self.assertEqual(self.worker.output(job), b"one\nfour\n")
        self.assertEqual(self.worker.output(job, Stream.STDERR), b"two\nthree\nfive\n")
        self.assertEqual((status.stdout_bytes, status.stderr_bytes), (9, 15))

    async def test_merged(self) -> None:
        """Merged, both streams are one, in order."""
        job = await self.worker.start("sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2", merge_stderr=True)
        await self.worker.ended(job)
        self.assertEqual(self.worker.output(job), b"1\n2\n3\n4\n")
        self.assertEqual(self.worker.output(job, Stream.STDERR), b"")

    async def test_a_lot(self) -> None:
        """Fifty megabytes of anything arrive as they were written."""
        source = (
            "import hashlib, os, sys; h = hashlib.sha256()\n"
            "for _ in range(800):\n b = os.urandom(65536); h.update(b); sys.stdout.buffer.write(b)\n"
            "sys.stderr.write(h.hexdigest())"
        )
        job = await self.worker.start(sys.executable, "-c", source)
        status = await self.worker.ended(job)
        self.assertEqual((status.reason, status.stdout_bytes), ("", 800 * 65536))
        written = self.worker.output(job, Stream.STDERR).decode()
        self.assertEqual(hashlib.sha256(self.worker.output(job)).hexdigest(), written)

    async def test_all_of_it(self) -> None:
        """Data in the pipe at the end of the job is kept, however much it is."""
        source = (
            f"import fcntl, os, signal; fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)\n{WAIT}"
            "os.kill(os.getppid(), signal.SIGSTOP); os.write(1, b'x' * (1 << 20)); os._exit(0)"
        )
        job = await self.worker.start(sys.executable, "-c", source)
        self.worker.tell(job)
        await gone(self.worker.spool(job).read_start()["pid"])
        os.kill(self.worker.shim(job).pid, signal.SIGCONT)
        self.assertEqual((await self.worker.ended(job)).stdout_bytes, 1 << 20)

    async def test_closed(self) -> None:
        """A job that closes its output runs on."""
        job = await self.worker.start("sh", "-c", "echo up; exec >&- 2>&-; sleep 0.1; exit 4")
        self.assertEqual((await self.worker.ended(job)).exit_code, 4)

    async def test_pipe_given_away(self) -> None:
        """Somebody outside the tree who writes to the job's pipe for ever does not delay its end."""
        job = await self.worker.start("sh", "-c", "echo up; sleep 600")
        await self.worker.lines(job, 1)
        main = self.worker.spool(job).read_start()["pid"]
        with open(f"/proc/{main}/fd/1", "wb") as pipe:
            outside = subprocess.Popen(["yes"], stdout=pipe, stderr=subprocess.DEVNULL)
        self.addCleanup(outside.wait)
        self.addCleanup(outside.kill)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual(status.state, JobState.STOPPED)


class LimitTests(RunningCase):
    """A job that may write so much and no more."""

    def check(self, status: JobStatus, limit: int) -> None:
        reason = f"output limit of {limit} bytes reached"
        self.assertEqual((status.state, status.reason, status.output_error), (JobState.FAILED, reason, reason))
        self.assertEqual(status.stdout_bytes + status.stderr_bytes, limit)
        self.assertEqual(status.stdout_bytes, len(self.worker.output(status.job_id)))
        self.assertEqual(status.stderr_bytes, len(self.worker.output(status.job_id, Stream.STDERR)))

    async def test_limit(self) -> None:
        """A job that writes too much is ended, and every byte up to the limit is kept."""
        status = await self.worker.run("sh", "-c", "exec yes", output_limit=100_001)
        self.check(status, 100_001)
        self.assertEqual(self.worker.output(status.job_id), b"y\n" * 50_000 + b"y")

    async def test_both_streams(self) -> None:
        """Both streams count together, whoever writes."""
        status = await self.worker.run("sh", "-c", "yes & yes >&2 & sleep 600", output_limit=1_000_000)
        self.check(status, 1_000_000)

    async def test_whole_tree(self) -> None:
        """A process that ignores TERM is killed after the grace, also in another session."""
        source = stubborn(main=WAIT + "os.write(1, b'x' * 999)\nwhile True: signal.pause()")
        job = await self.worker.start(sys.executable, "-c", source, output_limit=500)
        pids = [int(line) for line in await self.worker.lines(job, 2)]
        self.worker.tell(job)
        status = await self.worker.ended(job)
        self.check(status, 500)
        self.assertEqual((status.tree, status.signal), ("killed", "SIGKILL"))
        self.assertTrue(all(map(is_gone, pids)), pids)

    async def test_at_the_end(self) -> None:
        """A job that had ended by itself when its last output was moved has reached its limit all the same."""
        end = "os.kill(os.getppid(), signal.SIGSTOP); os.write(1, b'x' * 9000); os._exit(0)"
        source = f"import os, signal\n{WAIT}{end}"
        job = await self.worker.start(sys.executable, "-c", source, output_limit=8000)
        self.worker.tell(job)
        await gone(self.worker.spool(job).read_start()["pid"])
        os.kill(self.worker.shim(job).pid, signal.SIGCONT)
        status = await self.worker.ended(job)
        self.check(status, 8000)
        self.assertEqual(status.exit_code, 0)

    async def test_below(self) -> None:
        """A job that stays below ends as it likes."""
        status = await self.worker.run("sh", "-c", "echo 12345; exit 4", output_limit=7)
        self.assertEqual((status.reason, status.output_error, status.stdout_bytes), ("exit status 4", "", 6))

    async def test_stopped_before(self) -> None:
        """A job that was stopped and reaches its limit in its grace is stopped, and says that output was cut."""
        source = "trap 'while :; do echo more; done' TERM; echo up; while :; do sleep 0.01; done"
        job = await self.worker.start("bash", "-c", source, output_limit=1000, stop_grace=30.0)
        await self.worker.lines(job, 1)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual(status.state, JobState.STOPPED)
        written = (status.stdout_bytes or 0) + (status.stderr_bytes or 0)  # the shell may say that its sleep was ended
        self.assertEqual((written, status.output_error), (1000, "output limit of 1000 bytes reached"))

    async def test_cap(self) -> None:
        """The worker's own limit holds for all jobs; one of a job that is lower holds for that."""
        await self.restart(output_limit=5000)
        for own, limit in ((None, 5000), (9000, 5000), (600, 600)):
            status = await self.worker.run("yes", output_limit=own)
            self.check(status, limit)
            (report,) = await self.worker.jobs.describe([status.job_id])
            self.assertEqual(report.spec.output_limit, own)

    async def test_without_a_worker(self) -> None:
        """The limit holds while there is no worker."""
        job = await self.worker.start("sh", "-c", f"{UNTIL_TOLD.removesuffix('; exit 3')}; exec yes", output_limit=3000)
        shim = self.worker.shim(job).pid
        await self.worker.drop()
        self.worker.tell(job)
        await gone(shim)
        self.worker = await self.next_life()
        self.check(self.worker.runner.query(job), 3000)


def fill(folder: str) -> None:
    """Take every block and every inode of its file system, at most 10,000 of those."""
    with contextlib.suppress(OSError), open(os.path.join(folder, ".blocks"), "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError):
        for number in range(10_000):
            os.mkfifo(os.path.join(folder, f".inode-{number}"))
        raise AssertionError("there is still an inode")


class FullDiskTests(RunningCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.worker.drop()
        disk = self.worker.jobs_dir
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k,nr_inodes=100", "none", disk],
            capture_output=True,
            check=False,
            text=True,
        )
        if mounted.returncode:
            raise SkipTest(f"a small tmpfs can't be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=True)
        self.worker = await self.next_life()

    async def full(self, command: str) -> JobStatus:
        job = await self.worker.start("sh", "-c", command)
        status = await self.worker.ended(job)
        self.assertEqual(status.stdout_bytes, len(self.worker.output(job)))
        self.assertEqual(status.output_error, "stdout: No space left on device")
        self.assertGreater(status.stdout_bytes, 100_000)
        return status

    async def test_told_by_a_signal(self) -> None:
        """A job that fills the disk is told by SIGPIPE, and its end is written down all the same."""
        status = await self.full("exec yes")
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "signal: broken pipe"))

    async def test_other_stream_goes_on(self) -> None:
        """A job that does not mind ends as it likes."""
        status = await self.full("trap '' PIPE; yes 2>/dev/null; exit 6")
        self.assertEqual((status.state, status.exit_code), (JobState.FAILED, 6))

    async def test_success(self) -> None:
        """A job that ends well all the same has succeeded, and says that its output was cut."""
        subprocess.run(["mount", "-o", "remount,size=12m", self.worker.jobs_dir], check=True)
        status = await self.full("trap '' PIPE; head -c 30000000 /dev/zero 2>/dev/null; exit 0")
        self.assertEqual((status.state, status.reason), (JobState.SUCCEEDED, ""))
        self.assertGreater(status.stdout_bytes, 11_000_000)

    async def test_stop(self) -> None:
        """A stop needs no room: neither a block nor an inode."""
        job = await self.worker.start("sh", "-c", "echo up; exec sleep 600")
        await self.worker.lines(job, 1)
        fill(self.worker.jobs_dir)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.reason), (JobState.STOPPED, "signal: terminated"))

    async def test_too_little_room(self) -> None:
        """With less free than there must be nothing is started, nor left of it; what is kept makes room first."""
        await self.restart(spool_min_free="50%")
        filler = (await self.full("exec yes")).job_id
        late = f"late-{os.getpid()}"
        short = await self.assertFailure(self.worker.runner.start(late, JobSpec(command="true"), None), Unavailable)
        self.assertIn("less than the 50% of spool_min_free", str(short))
        self.assertEqual((self.worker.jobs.running(), os.listdir(self.worker.jobs_dir)), ((), [filler]))
        self.assertRaises(NotFound, self.worker.runner.query, late)
        known: Deferred[None] = Deferred()
        ended = self.worker.jobs.retention.ended
        acknowledged = ended.acknowledged
        self.patch(ended, "acknowledged", lambda *args: (acknowledged(*args), known.callback(None)))
        self.worker.jobs.acknowledge([filler])
        await known
        started = await self.worker.runner.start(late, JobSpec(command="true"), None)
        self.assertEqual(started.job_id, late)
        await self.worker.ended(late)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [late])
        self.assertRaises(OutputPruned, self.worker.output, filler)

    async def test_full_before_it_is_begun(self) -> None:
        """A job whose spool is there needs no room to be started."""
        launch = self.worker.launcher.launch_thd

        def fill_and_launch(*args: object) -> bool:
            with (
                contextlib.suppress(OSError),
                open(os.path.join(self.worker.jobs_dir, "filler"), "wb", buffering=0) as filler,
            ):
                while True:
                    filler.write(bytes(4096))
            return launch(*args)

        self.worker.launcher.launch_thd = fill_and_launch
        status = await self.worker.run("sh", "-c", "exit 3")
        self.assertEqual((status.exit_code, status.reason), (3, "exit status 3"))
        os.unlink(os.path.join(self.worker.jobs_dir, "filler"))

    async def test_nothing_is_started(self) -> None:
        """Where no spool can be written nothing is started, and once there is room the same start works."""
        filler = (await self.full("yes")).job_id
        late = f"late-{os.getpid()}"
        full = await self.assertFailure(self.worker.runner.start(late, JobSpec(command="true"), None), Unavailable)
        self.assertIn("No space left on device", str(full))
        self.assertEqual(self.worker.jobs.running(), ())
        os.truncate(self.worker.spool(filler).output("stdout"), 0)
        started = await self.worker.runner.start(late, JobSpec(command="true"), None)
        self.assertEqual(started.job_id, late)
