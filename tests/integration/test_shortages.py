"""A machine that can't start processes now: nothing runs, nothing stays of a start, and the same start works later."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase, TestCase

from scheduler.errors import Unavailable
from scheduler.model import JobSpec, JobState
from scheduler.worker import starting
from scheduler.worker.shim import handoff
from tests.integration.running import Running, RunningCase, gone, ready_shim
from tests.integration.scenario import play
from tests.namespaces import as_other_user, in_namespaces

PROCESSES = resource.RLIMIT_NPROC

NOT_NOW = "the worker's machine can't start a job now"


@contextlib.contextmanager
def without_processes(pid: int) -> Iterator[None]:
    """Keep a process without root's rights from starting others."""
    soft, hard = resource.prlimit(pid, PROCESSES)
    resource.prlimit(pid, PROCESSES, (0, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, PROCESSES, (soft, hard))


async def refused(worker: Running) -> str:
    """Why a start is refused; there is no such job then, and the same start runs it once when it is possible."""
    try:
        await worker.runner.start("job", JobSpec(command="sh", args=("-c", "echo ran")), None)
    except Unavailable as error:
        assert not os.path.exists(worker.spool("job").folder), os.listdir(worker.spool("job").folder)
        assert worker.jobs.running() == ()
        assert worker.jobs.find("job") is None
        return str(error)
    raise AssertionError("it was started")


def equal(first: object, second: object) -> None:
    assert first == second, first


async def process_limit(worker: Running) -> None:
    """Zygote, shim and worker can start no process, one after the other."""
    await worker.run("true", job_id="before")
    zygote, ready = worker.launcher.pid, await ready_shim(worker)
    with without_processes(zygote):
        os.kill(ready, 9)
        await gone(ready)
        why = await refused(worker)
        equal(why, f"{NOT_NOW}: no process can be forked: Resource temporarily unavailable")
    await worker.run("true", job_id="between")
    with without_processes(await ready_shim(worker)):
        why = await refused(worker)
        program = os.path.realpath(str(shutil.which("sh")))
        equal(why, f"{NOT_NOW}: command '{program}': Resource temporarily unavailable")
    os.kill(zygote, 9)
    await gone(zygote)
    with without_processes(os.getpid()):
        why = await refused(worker)
        assert why.endswith("can't be started: Resource temporarily unavailable"), why
    status = await worker.run("sh", "-c", "echo ran", job_id="job")
    equal((status.state, worker.output("job")), (JobState.SUCCEEDED, b"ran\n"))


async def unwritable(worker: Running) -> None:
    """The folder of jobs takes no file."""
    os.chmod(worker.jobs_dir, 0o500)
    equal(await refused(worker), "the job's spool can't be used: Permission denied")
    os.chmod(worker.jobs_dir, 0o700)
    equal((await worker.run("true", job_id="job")).state, JobState.SUCCEEDED)


async def read_only(worker: Running) -> None:
    """The file system of that folder takes nothing any more."""
    for options in (["--bind", worker.jobs_dir], ["-o", "remount,ro,bind"]):
        subprocess.run(["mount", *options, worker.jobs_dir], check=True)
    equal(await refused(worker), "the job's spool can't be used: Read-only file system")


class MachineTests(TestCase):
    """Real limits, in processes of their own."""

    timeout = 60

    def setUp(self) -> None:
        self.state_dir = tempfile.mkdtemp()  # where another user gets to
        self.addCleanup(os.system, f"rm -rf {self.state_dir}")

    async def test_processes(self) -> None:
        """Where the zygote can't fork, the shim can't spawn, or no zygote can be started, the cause is told."""
        await play(self, "process_limit", self.state_dir, as_other_user(self.state_dir))

    async def test_folder(self) -> None:
        """Where the state folder may not be written."""
        await play(self, "unwritable", self.state_dir, as_other_user(self.state_dir))

    async def test_read_only(self) -> None:
        """Where it can't be."""
        await play(self, "read_only", self.state_dir, in_namespaces(f"mount -t tmpfs none {self.state_dir}"))


class ShortageTests(RunningCase):
    async def test_no_interpreter(self) -> None:
        """Where the worker's interpreter is gone that is told."""
        self.patch(sys, "executable", "/no/such/python")
        why = await refused(self.worker)
        self.assertEqual(why, f"{NOT_NOW}: /no/such/python can't be started: No such file or directory")

    async def test_broken_interpreter(self) -> None:
        """Where it ends at once the start says where to look, whenever that shows."""
        broken = os.path.join(self.state_dir, "python")
        with open(broken, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 1\n")
        os.chmod(broken, 0o755)
        self.patch(sys, "executable", broken)
        self.assertIn(f"see {self.worker.log}", await refused(self.worker))
        self.patch(handoff, "send", lambda *_: False)
        wanted = f"{NOT_NOW}: {broken} ended at once, see {self.worker.log}"
        self.assertEqual(await refused(self.worker), wanted)

    async def test_log_of_the_shims(self) -> None:
        """Where the log of the shims can't be written the start names it."""
        os.mkdir(self.worker.log)
        self.addCleanup(os.rmdir, self.worker.log)
        wanted = f"{NOT_NOW}: {self.worker.log} can't be opened: Is a directory"
        self.assertEqual(await refused(self.worker), wanted)

    async def test_fault_of_the_command(self) -> None:
        """A command that can't be run for what it is has failed: that is no shortage."""
        program = os.path.join(self.state_dir, "program")
        with open(program, "wb") as file:
            file.write(b"\x7fELF and nothing more")
        os.chmod(program, 0o755)
        faults = ((program,), "Exec format error"), (("true", "x" * 200_000), "Argument list too long")
        for arguments, problem in faults:
            status = await self.worker.run(*arguments)
            self.assertIs(status.state, JobState.FAILED)
            self.assertIn(problem, status.reason)

    async def test_worker_killed_meanwhile(self) -> None:
        """A start that met a shortage, and whose worker ended before it removed the spool, is none in the next life."""
        status = await self.worker.run("true", job_id="job")
        spool = self.worker.spool("job")
        record = spool.read_exit()
        await self.worker.drop()
        spool.write_exit(record | {"state": "failed", "shortage": "no memory"})
        self.worker = await self.next_life()
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        self.assertEqual((await self.worker.run("true", job_id="job")).state, status.state)

    async def test_same_start_meanwhile(self) -> None:
        """A spool with that record that could not be removed does not keep the same start from running the job."""
        await self.worker.run("true", job_id="job")
        spool = self.worker.spool("job")
        await self.worker.drop()
        aside = self.mktemp()
        os.rename(spool.folder, aside)
        self.worker = await self.next_life()
        os.rename(aside, spool.folder)
        spool.write_exit(spool.read_exit() | {"state": "failed", "shortage": "no memory"})
        self.assertEqual((await self.worker.run("echo", "ran", job_id="job")).state, JobState.SUCCEEDED)
        self.assertEqual(self.worker.output("job"), b"ran\n")

    async def test_late_shim(self) -> None:
        """A shim that was told to begin and hangs does not run what was refused meanwhile, when it goes on."""
        await self.worker.run("true")
        ready = await ready_shim(self.worker)
        os.kill(ready, 19)
        patches = self.patch(starting, "START_DEADLINE_SECONDS", 0.3), self.patch(starting, "MAX_LAUNCHES", 1)
        self.assertEqual(await refused(self.worker), f"{NOT_NOW}: no shim answered within 0.3 s")
        for patch in patches:  # the next start may take its time
            patch.restore()
        status = await self.worker.run("sh", "-c", "echo ran", job_id="job")
        os.kill(ready, 18)
        await gone(ready)
        self.assertEqual((status.state, self.worker.output("job")), (JobState.SUCCEEDED, b"ran\n"))


class RefusalTests(SynchronousTestCase):
    """A start is told that it begins nothing."""

    def test_refusal_behind_a_reset(self) -> None:
        """The reason is heard though what was sent before was not read."""
        ours, theirs = handoff.pair()
        self.addCleanup(ours.close)
        handoff.let_begin(ours)
        handoff.refuse(theirs, os.strerror(errno.EAGAIN))
        theirs.close()
        self.assertEqual(handoff.refusal(ours), os.strerror(errno.EAGAIN))

    def test_closed(self) -> None:
        """An end that was only closed said nothing."""
        for sent in (False, True):
            ours, theirs = handoff.pair()
            self.addCleanup(ours.close)
            if sent:
                handoff.let_begin(ours)
            theirs.close()
            self.assertEqual(handoff.refusal(ours), "")
