"""The shim with real processes: how jobs start and what they are given, and how they end."""

import os
import signal
import subprocess
import sys
import time
from contextvars import copy_context

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest

from scheduler.daemon.logs import REQUEST_ID
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState, Stream
from scheduler.worker.environment import own_variables
from tests.integration.running import GRACE, UNTIL_TOLD, RunningCase, gone, is_gone, later, stubborn


class EndTests(RunningCase):
    """The state, code and reason of a job's end."""

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
        """Processes that ignore TERM, double-forked and left the session are gone within the grace and two seconds."""
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


class StartTests(RunningCase):
    """The environment and files of a job, and the reasons of starts that fail."""

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
        given = {"PYTHONUNBUFFERED": "1", "A": "b c\nd=é"}
        mark = {"SCHEDULER_JOB_ID": job, "SCHEDULER_SPOOL": self.worker.spool(job).folder}
        expected = {**own_variables(), **given, **mark}
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
        await self.restart(umask=0o027)
        for own, expected in ((None, b"0027\n"), (0o077, b"0077\n"), (0, b"0000\n")):
            job = await self.worker.start("sh", "-c", "umask", umask=own)
            await self.worker.ended(job)
            self.assertEqual(self.worker.output(job), expected)

    async def test_name(self) -> None:
        """A program is called by the name that was asked for, as a shell does it: its messages begin with that."""
        for command, name in (("sh", b"sh"), ("/bin/sh", b"/bin/sh")):
            job = await self.worker.start(command, "-c", "echo $0")
            self.assertEqual(await self.worker.lines(job, 1), [name])

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
        """The owner alone gets into the spool, with any umask, so work folder and stdin may be open to all."""
        self.addCleanup(os.umask, os.umask(0))
        job = await self.worker.start(script=b"#!/bin/sh\ntrue\n", stdin=b"x")
        await self.worker.ended(job)
        folder = self.worker.spool(job).folder
        modes = {name: os.stat(os.path.join(folder, name)).st_mode & 0o777 for name in [".", *os.listdir(folder)]}
        self.assertEqual((modes.pop("work"), modes.pop("stdin")), (0o777, 0o644))
        self.assertGreater(set(modes), {".", "script", "job.json", "exit.json", "lock", "stdout"})
        self.assertEqual({name for name, mode in modes.items() if mode & 0o077}, set())


class RequestTests(RunningCase):
    async def test_end(self) -> None:
        """The end of a job does not belong to the request: a heartbeat about it does not carry the request's id."""
        seen: list[str] = []
        self.worker.jobs.on_end(lambda: seen.append(REQUEST_ID.get()))

        def start(command: str) -> Deferred[JobStatus]:
            REQUEST_ID.set("r1")
            return self.worker.runner.start("", JobSpec(command=command), None)

        status = await copy_context().run(start, "true")
        await self.worker.ended(status.job_id)
        await later(0)  # this listener is the last one
        self.assertEqual(seen, [""])
        await copy_context().run(start, "no-such-program")
        self.assertEqual(seen, ["", "r1"])  # it ended at once, as the answer to the request


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
        """A job of another user can write to its output by the names /dev/stdout and /dev/stderr."""
        job = await self.worker.start(*self.AS_NOBODY, "sh", "-c", "echo one > /dev/stdout; echo two >> /dev/stderr")
        self.assertEqual((await self.worker.ended(job)).reason, "")
        self.assertEqual(self.worker.output(job), b"one\n")
        self.assertEqual(self.worker.output(job, Stream.STDERR), b"two\n")

    async def test_input_by_name(self) -> None:
        """A job of another user can read its input by the name /dev/stdin."""
        job = await self.worker.start(*self.AS_NOBODY, "cat", "/dev/stdin", stdin=b"given")
        status = await self.worker.ended(job)
        self.assertEqual((status.reason, self.worker.output(job)), ("", b"given"))

    async def test_output_is_write_only(self) -> None:
        """A job of another user can't read its own output by those names."""
        job = await self.worker.start(*self.AS_NOBODY, "sh", "-c", "cat < /dev/stdout")
        self.assertEqual((await self.worker.ended(job)).state, JobState.FAILED)
        self.assertIn(b"Permission denied", self.worker.output(job, Stream.STDERR))

    async def test_work_folder(self) -> None:
        """A job of another user can use the work folder, but not the spool around it."""
        job = await self.worker.start(
            "sh", "-c", f'echo mine > roots; {" ".join(self.AS_NOBODY)} sh -c "$1"', "sh",
            'mkdir a && echo x > a/b && mv a c && cat c/b && ! rm -f roots && ! ls "$PWD/.."',
        )  # fmt: skip
        status = await self.worker.ended(job)
        self.assertEqual((status.reason, self.worker.output(job)), ("", b"x\n"))
