"""The shim with real processes: how jobs start, how they end, what they leave, and what becomes of their output."""

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest

from scheduler.errors import NotFound, OutputPruned, Unavailable
from scheduler.model import JobSpec, JobState, JobStatus, Stream
from scheduler.worker import proctree, spools
from scheduler.worker.commands import base_environment
from scheduler.worker.spool import Record, Spool
from tests.integration.running import GRACE, UNTIL_TOLD, RunningCase, gone, is_gone, later, stubborn

#: Python that goes on when it is told to, by ``Running.tell``.
WAIT = "import time\nwhile not os.path.exists('told'): time.sleep(0.02)\n"


class EndTests(RunningCase):
    """How a job ended."""

    async def test_exit_codes(self) -> None:
        """The exit code is the main process's own, and none left means the tree was empty."""
        for code in (0, 1, 127, 255):
            status = await self.worker.run("sh", "-c", f"exit {code}")
            self.assertEqual((status.exit_code, status.signal, status.tree), (code, None, "exited"))
            self.assertEqual(status.reason, f"exit status {code}" if code else "")

    async def test_signals(self) -> None:
        """A signal nobody asked for is a failure that names it."""
        for name, text in (("KILL", "killed"), ("TERM", "terminated"), ("SEGV", "segmentation fault")):
            status = await self.worker.run("sh", "-c", f"kill -{name} $$")
            self.assertEqual((status.state, status.reason), (JobState.FAILED, f"signal: {text}"))
            self.assertEqual((status.exit_code, status.signal), (None, f"SIG{name}"))

    async def test_timeout(self) -> None:
        """A job that runs too long is stopped as timed out."""
        status = await self.worker.run("sleep", "600", timeout=0.25)
        self.assertEqual((status.state, status.reason), (JobState.TIMED_OUT, "timed out after 0.25 s"))
        self.assertEqual((status.signal, status.tree), ("SIGTERM", "terminated"))

    async def test_long_timeout(self) -> None:
        """Years are as good a timeout, and as good a grace, as seconds."""
        years = 10 * 365 * 86400.0
        status = await self.worker.run("sh", "-c", "sleep 600 & exit 3", timeout=years, stop_grace=years, linger=0.0)
        self.assertEqual((status.state, status.exit_code), (JobState.FAILED, 3))
        self.assertEqual(status.tree, "terminated")

    async def test_stopped_with_success(self) -> None:
        """A job that ends well when it is asked to stop was stopped all the same."""
        job = await self.worker.start("bash", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
        await self.worker.lines(job, 1)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.exit_code, status.reason), (JobState.STOPPED, 0, "stopped"))

    async def test_stop_before_the_exit_was_known(self) -> None:
        """A job that ends by itself between being asked to stop and being told was stopped."""
        job = await self.worker.start("sh", "-c", UNTIL_TOLD)
        shim, main = self.worker.shim(job).pid, self.worker.spool(job).read_start()["pid"]
        os.kill(shim, signal.SIGSTOP)
        await self.worker.runner.stop(job, wait=False)
        self.worker.tell(job)
        await gone(main)
        os.kill(shim, signal.SIGCONT)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.reason), (JobState.STOPPED, "exit status 3"))

    async def test_stop_of_a_held_job(self) -> None:
        """A job held by SIGSTOP can act on TERM."""
        job = await self.worker.start(
            "bash", "-c", "trap 'exit 5' TERM; echo up; kill -STOP $$; sleep 600", stop_grace=30.0
        )
        await self.worker.lines(job, 1)
        self.assertEqual((await self.worker.runner.stop(job, wait=True)).exit_code, 5)

    async def test_stop_of_a_stubborn_tree(self) -> None:
        """What ignores TERM, double-forked and left the session is gone within the grace and two seconds."""
        job = await self.worker.start(sys.executable, "-c", stubborn())
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        before = time.monotonic()
        status = await self.worker.runner.stop(job, wait=True)
        self.assertTrue(all(map(is_gone, pids)), pids)
        self.assertLess(time.monotonic() - before, GRACE + 2)
        self.assertGreaterEqual(time.monotonic() - before, GRACE)
        self.assertEqual((status.state, status.signal), (JobState.STOPPED, "SIGKILL"))
        self.assertEqual((status.tree, status.leftover), ("killed", ()))

    async def test_what_is_left_at_the_end(self) -> None:
        """Processes the job leaves are ended, though they hold its output; the exit code stays the job's."""
        job = await self.worker.start(sys.executable, "-c", stubborn(main="sys.exit(7)"), linger=0.0)
        pids = [int(line) for line in await self.worker.lines(job, 2)]
        before = time.monotonic()
        status = await self.worker.ended(job)
        self.assertLess(time.monotonic() - before, GRACE + 2)
        self.assertTrue(all(map(is_gone, pids)), pids)
        self.assertEqual((status.state, status.exit_code, status.tree), (JobState.FAILED, 7, "killed"))
        self.assertEqual(status.stdout_bytes, len(self.worker.output(job)))
        self.assertEqual((status.reason, status.background_ended), ("exit status 7", 2))

    async def test_what_is_left_and_obeys(self) -> None:
        """A background process that obeys TERM costs no grace."""
        before = time.monotonic()
        status = await self.worker.run("sh", "-c", "sleep 600 & exit 0", stop_grace=50.0, linger=0.0)
        self.assertEqual((status.state, status.tree), (JobState.SUCCEEDED, "terminated"))
        self.assertLess(time.monotonic() - before, 20)


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
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        marks.restore()
        self.worker.tell(job)
        self.assertEqual((await self.worker.ended(job)).reason, "exit status 3")


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
        """It may ask again, as often as it likes."""
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


class StartTests(RunningCase):
    """What a job is given, and what it is told when it can't be started."""

    async def refused(self, *command: str, **spec: object) -> str:
        status = await self.worker.run(*command, **spec)
        self.assertEqual((status.state, status.started_at, status.exit_code), (JobState.FAILED, None, None))
        return status.reason

    async def test_environment(self) -> None:
        """The environment is the base, the job's own, and nothing of the worker's."""
        os.environ["OF_THE_WORKER"] = "x"
        self.addCleanup(os.environ.pop, "OF_THE_WORKER")
        job = await self.worker.start("/usr/bin/env", job_id=f"env-{os.getpid()}", env={"A": "b c\nd=é"})
        await self.worker.ended(job)
        expected = {**base_environment(), "PYTHONUNBUFFERED": "1", "SCHEDULER_JOB_ID": job, "A": "b c\nd=é"}
        lines = "".join(f"{name}={value}\n" for name, value in expected.items())
        self.assertEqual(sorted(self.worker.output(job).split(b"\n")), sorted(lines.encode().split(b"\n")))

    async def test_descriptors(self) -> None:
        """A job has its three streams and no other descriptor, and its input is empty."""
        job = await self.worker.start("/bin/sh", "-c", "cd /proc/self/fd; echo *; readlink 0")
        await self.worker.ended(job)
        numbers, stdin = self.worker.output(job).decode().splitlines()
        self.assertEqual((numbers, stdin), ("0 1 2 3", "/dev/null"))  # 3: the shell looking

    async def test_signals_and_umask(self) -> None:
        """Signals have their default actions, none is blocked, and the umask is 022 where the spool has none."""
        job = await self.worker.start("sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status; umask")
        await self.worker.ended(job)
        _, blocked, _, ignored, umask = self.worker.output(job).split()
        of_libc = 3 << 31  # 32 and 33, which it keeps for itself and posix_spawn leaves ignored
        self.assertEqual((int(blocked, 16), int(ignored, 16) & ~of_libc, umask), (0, 0, b"0022"))

    async def test_umask(self) -> None:
        """The umask is the worker's, unless the job has one of its own."""
        create = spools.create

        def create_with_umask(folder: str, making_in: str, record: Record, *others: object) -> None:
            create(folder, making_in, record | {"umask": 0o027}, *others)

        self.patch(spools, "create", create_with_umask)
        for own, expected in ((None, b"0027\n"), (0o077, b"0077\n"), (0, b"0000\n")):
            job = await self.worker.start("sh", "-c", "umask", umask=own)
            await self.worker.ended(job)
            self.assertEqual(self.worker.output(job), expected)

    async def test_session(self) -> None:
        """A job that signals its whole group reaches itself and not its shim."""
        status = await self.worker.run("sh", "-c", "kill -USR1 0; sleep 600")
        self.assertEqual((status.state, status.signal), (JobState.FAILED, "SIGUSR1"))

    async def test_stdin_and_script(self) -> None:
        """A script is run by its ``#!`` line, with its arguments and its input."""
        script = b'#!/bin/sh\necho "$1"\ncat\npwd\n'
        job = await self.worker.start(script=script, args=("a b", "c"), stdin=b"\x00\xffin\n")
        self.assertEqual((await self.worker.ended(job)).reason, "")
        self.assertEqual(self.worker.output(job), b"a b\n\x00\xffin\n" + self.worker.spool(job).work.encode() + b"\n")

    async def test_own_folder(self) -> None:
        """Without ``cwd`` a job is in an empty folder of its own; with one, there."""
        job = await self.worker.start("sh", "-c", "ls -A; touch mine")
        await self.worker.ended(job)
        self.assertEqual(self.worker.output(job), b"")
        self.assertEqual(os.listdir(self.worker.spool(job).work), ["mine"])
        job = await self.worker.start("pwd", cwd="/usr")
        await self.worker.ended(job)
        self.assertEqual(self.worker.output(job), b"/usr\n")

    async def test_no_such_folder(self) -> None:
        """A ``cwd`` that is not there, is no folder, or is relative is a reason."""
        self.assertEqual(await self.refused("true", cwd="/no/such"), "cwd '/no/such': not found")
        self.assertEqual(await self.refused("true", cwd="/etc/passwd"), "cwd '/etc/passwd': Not a directory")
        self.assertIn("absolute", await self.refused("true", cwd="etc"))

    async def test_no_such_program(self) -> None:
        """A program that is not there, or that the kernel does not run, is a reason that names it."""
        self.assertIn("'/no/such' not found", await self.refused("/no/such"))
        for content, problem in (
            ("no program\n", "Exec format error"),
            ("#!/no/such/interpreter\n", "the interpreter it names was not found"),
        ):
            path = os.path.join(self.state_dir, "program")
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            os.chmod(path, 0o700)
            self.assertEqual(await self.refused(path), f"command {path!r}: {problem}")

    async def test_too_much(self) -> None:
        """Arguments beyond what the kernel takes are a reason."""
        self.assertIn("Argument list too long", await self.refused("true", "x" * 200_000))

    async def test_private(self) -> None:
        """The spool is for its owner alone, whatever the umask, and with it the work folder, which is for all users."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        job = await self.worker.start(script=b"#!/bin/sh\ntrue\n", stdin=b"x")
        await self.worker.ended(job)
        folder = self.worker.spool(job).folder
        modes = {name: os.stat(os.path.join(folder, name)).st_mode & 0o777 for name in [".", *os.listdir(folder)]}
        self.assertEqual(modes.pop("work"), 0o777)
        self.assertGreater(set(modes), {".", "script", "stdin", "job.json", "exit.json", "lock", "stdout"})
        self.assertEqual({name for name, mode in modes.items() if mode & 0o077}, set())


class AnotherUserTests(RunningCase):
    """A job that goes on as another user, as a root worker's may."""

    #: The user nobody, in no group.
    AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

    async def setUp(self) -> None:
        await super().setUp()
        tried = subprocess.run([*self.AS_NOBODY, "true"], capture_output=True, check=False, text=True)
        if tried.returncode:
            raise SkipTest(f"another user can't be had here: {tried.stderr.strip()}")

    async def test_output_by_name(self) -> None:
        """It can write to its output by the names /dev/stdout and /dev/stderr."""
        job = await self.worker.start(*self.AS_NOBODY, "sh", "-c", "echo one > /dev/stdout; echo two >> /dev/stderr")
        self.assertEqual((await self.worker.ended(job)).reason, "")
        self.assertEqual(self.worker.output(job), b"one\n")
        self.assertEqual(self.worker.output(job, Stream.STDERR), b"two\n")

    async def test_output_is_write_only(self) -> None:
        """It can't read by those names what was written to them."""
        job = await self.worker.start(*self.AS_NOBODY, "sh", "-c", "cat < /dev/stdout")
        self.assertEqual((await self.worker.ended(job)).state, JobState.FAILED)
        self.assertIn(b"Permission denied", self.worker.output(job, Stream.STDERR))

    async def test_work_folder(self) -> None:
        """It can use the work folder, and only from inside: the spool around it is closed to it."""
        job = await self.worker.start(
            "sh", "-c", f'echo mine > roots; {" ".join(self.AS_NOBODY)} sh -c "$1"', "sh",
            'mkdir a && echo x > a/b && mv a c && cat c/b && ! rm -f roots && ! ls "$PWD/.."',
        )  # fmt: skip
        status = await self.worker.ended(job)
        self.assertEqual((status.reason, self.worker.output(job)), ("", b"x\n"))


class OutputTests(RunningCase):
    """What the job writes is in the spool."""

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
        """What is in the pipe when the job has ended is not lost, however much."""
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
        """What ignores TERM is killed after the grace, wherever it went."""
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
        await self.worker.drop()
        self.worker = await self.next_life(output_limit=5000)
        for own, limit in ((None, 5000), (9000, 5000), (600, 600)):
            status = await self.worker.run("yes", output_limit=own)
            self.check(status, limit)
            (report,) = await self.worker.runner.describe([status.job_id])
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
    """A disk with no room left."""

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
        await self.worker.drop()
        self.worker = await self.next_life(spool_min_free="50%")
        filler = (await self.full("exec yes")).job_id
        late = f"late-{os.getpid()}"
        short = await self.assertFailure(self.worker.runner.start(late, JobSpec(command="true"), None), Unavailable)
        self.assertIn("less than the 50% of spool_min_free", str(short))
        self.assertEqual((self.worker.runner.running(), os.listdir(self.worker.jobs_dir)), ((), [filler]))
        with self.assertRaises(NotFound):
            self.worker.runner.query(late)
        known: Deferred[None] = Deferred()
        acknowledged = self.worker.runner._acknowledged
        self.worker.runner._acknowledged = lambda found: (acknowledged(found), known.callback(None))
        self.worker.runner.acknowledge([filler])
        await known
        started = await self.worker.runner.start(late, JobSpec(command="true"), None)
        self.assertEqual(started.job_id, late)
        await self.worker.ended(late)
        self.assertEqual(os.listdir(self.worker.jobs_dir), [late])
        with self.assertRaises(OutputPruned):
            self.worker.output(filler)

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
        self.assertEqual(self.worker.runner.running(), ())
        os.truncate(self.worker.spool(filler).output("stdout"), 0)
        started = await self.worker.runner.start(late, JobSpec(command="true"), None)
        self.assertEqual(started.job_id, late)


class DyingTests(RunningCase):
    """Parts that are killed."""

    async def test_shim(self) -> None:
        """Of a job whose shim was killed nothing is left, and it is lost: no code is invented."""
        job = await self.worker.start(sys.executable, "-c", stubborn())
        pids = [int(line) for line in await self.worker.lines(job, 3)]
        os.kill(self.worker.shim(job).pid, 9)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.reason), (JobState.LOST, "no record"))
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
        self.patch(spools, "START_DEADLINE", 0.5)
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
        """Where no zygote ever answers the start is one that failed, which a shim that comes late does not begin."""
        self.patch(spools, "START_DEADLINE", 0.3)
        await self.worker.run("true")
        begun = self.worker.launcher._start

        def hanging() -> socket.socket:
            requests = begun()
            os.kill(self.worker.launcher.pid, signal.SIGSTOP)
            return requests

        self.worker.launcher._start = hanging
        os.kill(self.worker.launcher.pid, signal.SIGSTOP)
        job = await self.worker.start("true")
        status = self.worker.runner.query(job)
        self.assertEqual(status.state, JobState.FAILED)
        self.assertIn("could not be started: no shim answered within 0.3 s", status.reason)
        self.worker.launcher._start = begun
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)

    async def ready(self) -> int:
        """The shim that waits for a job."""
        busy = {self.worker.shim(job_id) for job_id in os.listdir(self.worker.jobs_dir)}
        while True:
            for each in proctree.alive():
                if each.parent == self.worker.launcher.pid and each.identity not in busy:
                    return each.pid
            await later(0.01)

    async def test_ready_shim(self) -> None:
        """The shim that waits for a job may be killed, and is not ended by TERM; without its zygote it ends."""
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        ready = await self.ready()
        os.kill(ready, signal.SIGKILL)
        await gone(ready)
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        ready = await self.ready()
        os.kill(ready, signal.SIGTERM)
        self.assertEqual(self.worker.shim((await self.worker.run("true")).job_id).pid, ready)
        ready = await self.ready()
        os.kill(self.worker.launcher.pid, signal.SIGKILL)
        await gone(ready)

    async def test_ready_shim_hangs(self) -> None:
        """One that gets a job and does not begin it is not waited for, and does not begin it later."""
        self.patch(spools, "START_DEADLINE", 0.5)
        self.assertEqual((await self.worker.run("true")).state, JobState.SUCCEEDED)
        ready = await self.ready()
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
