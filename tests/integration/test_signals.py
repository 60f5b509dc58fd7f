"""Signals that clients send to jobs: whom they reach, and whom never."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SkipTest, TestCase

from scheduler.errors import Conflict, JobNotRunning, Unavailable
from scheduler.model import JobState
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import Spool
from tests.integration.running import Running, RunningCase, edit, gone, later
from tests.integration.scenario import play

#: Seconds no test lasts.
LONG = 600.0

#: Three processes that say who they are, and after USR1 and HUP once more: the main one, its child, and an orphan
#: that has left the session. The last line is the main one's; it ends when it is told to.
TREE = """
import os, signal, time
def heard(number, _):
    os.write(1, f"{name} {signal.Signals(number).name}\\n".encode())
def stay():
    for number in (signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, heard)
    os.write(1, f"{name}\\n".encode())
    while name != "main" or not os.path.exists("told"):
        time.sleep(0.02)
    os._exit(3)
name = "child"
if not os.fork():
    stay()
name = "orphan"
if not os.fork():
    os.setsid()
    if not os.fork():
        stay()
    os._exit(0)
name = "main"
stay()
"""


class SignalTests(RunningCase):
    """``IJobRunner.signal`` with real processes."""

    async def tree(self, **spec: object) -> str:
        job = await self.worker.start(sys.executable, "-c", TREE, **spec)
        await self.worker.lines(job, 3)
        return job

    async def heard(self, job: str, count: int) -> list[str]:
        """Wait for so many lines; answers the words after the names of the processes, sorted."""
        lines = [line.decode() for line in await self.worker.lines(job, 3 + count)]
        return sorted(lines[3:])

    async def test_main(self) -> None:
        """By default a signal reaches the main process alone."""
        job = await self.tree()
        await self.worker.runner.signal(job, "SIGUSR1", "main")
        self.assertEqual(await self.heard(job, 1), ["main SIGUSR1"])
        await self.worker.runner.signal(job, "SIGHUP", "main")
        self.assertEqual(await self.heard(job, 2), ["main SIGHUP", "main SIGUSR1"])

    async def test_tree(self) -> None:
        """To the tree it reaches each process once, also one that left the session and its parents."""
        job = await self.tree()
        await self.worker.runner.signal(job, "SIGUSR1", "tree")
        self.assertEqual(await self.heard(job, 3), ["child SIGUSR1", "main SIGUSR1", "orphan SIGUSR1"])

    async def test_next_life(self) -> None:
        """A worker process that took the job back knows whom to signal."""
        job = await self.tree()
        await self.restart()
        await self.worker.runner.signal(job, "SIGUSR1", "main")
        self.assertEqual(await self.heard(job, 1), ["main SIGUSR1"])

    async def test_lingering(self) -> None:
        """After the end of the main process the tree can be signalled, and the main process is said to be gone."""
        job = await self.tree(linger=LONG)
        main = self.worker.spool(job).read_start()["pid"]
        self.worker.tell(job)
        await gone(main)
        while proctree.process(main) is not None:  # reaped
            await later(0.01)
        error = await self.assertFailure(self.worker.runner.signal(job, "SIGUSR1", "main"), JobNotRunning)
        self.assertEqual(error.state, "past the end of its main process")
        await self.worker.runner.signal(job, "SIGUSR1", "tree")
        self.assertEqual(await self.heard(job, 2), ["child SIGUSR1", "orphan SIGUSR1"])
        await self.worker.runner.signal(job, "SIGKILL", "tree")
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.exit_code, status.tree), (JobState.FAILED, 3, "exited"))

    async def test_killed(self) -> None:
        """A job that a signal ends has failed by it; one that was asked to stop before is stopped."""
        job = await self.worker.start("sleep", "600")
        await self.worker.runner.signal(job, "SIGTERM", "main")
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.signal), (JobState.FAILED, "SIGTERM"))
        self.assertEqual((status.reason, status.tree), ("signal: terminated", "exited"))
        job = await self.worker.start("bash", "-c", "trap '' TERM; echo up; sleep 600", stop_grace=LONG)
        await self.worker.lines(job, 1)
        await self.worker.runner.stop(job, wait=False)
        await self.worker.runner.signal(job, "SIGKILL", "tree")
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.signal), (JobState.STOPPED, "SIGKILL"))

    async def test_held(self) -> None:
        """A job that was held goes on when it is told to."""
        job = await self.tree()
        main = self.worker.spool(job).read_start()["pid"]
        await self.worker.runner.signal(job, "SIGSTOP", "main")
        await self.state(main, "T")
        await self.worker.runner.signal(job, "SIGUSR1", "main")
        await self.worker.runner.signal(job, "SIGCONT", "main")
        self.assertEqual(await self.heard(job, 1), ["main SIGUSR1"])

    @staticmethod
    async def state(pid: int, letter: str) -> None:
        while True:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == letter:
                    return
            await later(0.01)

    async def test_nobody_else(self) -> None:
        """A process that is not the job's gets none, whatever the spool says of it."""
        stranger = subprocess.Popen(["sleep", "600"])
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        found = proctree.process(stranger.pid)
        assert found is not None
        job = await self.worker.start("sleep", "600")
        for changes in (
            {"pid": stranger.pid, "starttime": found.identity.starttime},
            {"pid": stranger.pid},
            {"starttime": 1},
        ):
            record = self.worker.spool(job).read_start()
            edit(self.worker.spool(job).start_path, **changes)
            await self.assertFailure(self.worker.runner.signal(job, "SIGKILL", "main"), JobNotRunning)
            edit(self.worker.spool(job).start_path, **record)
        self.assertIsNone(stranger.poll())
        self.assertEqual(self.worker.jobs.running(), (job,))

    async def test_main_not_known(self) -> None:
        """Where the disk was too full to note who the main process is, only the tree can be signalled."""
        job = await self.worker.start("sleep", "600")
        os.unlink(self.worker.spool(job).start_path)
        error = await self.assertFailure(self.worker.runner.signal(job, "SIGKILL", "main"), Conflict)
        self.assertIn("signal the tree", str(error))
        await self.worker.runner.signal(job, "SIGKILL", "tree")
        self.assertEqual((await self.worker.ended(job)).signal, "SIGKILL")

    async def test_no_descriptors(self) -> None:
        """A worker that can't look at the processes now says so, and sends nothing."""
        job = await self.tree()
        listdir = self.patch(proctree.os, "listdir", self.refuse)
        await self.assertFailure(self.worker.runner.signal(job, "SIGKILL", "tree"), Unavailable)
        listdir.restore()
        pidfd_open = self.patch(os, "pidfd_open", self.refuse)
        error = await self.assertFailure(self.worker.runner.signal(job, "SIGKILL", "tree"), Conflict)
        self.assertIn("SIGKILL can't be sent to 3 processes", str(error))
        self.assertIn("Too many open files", str(error))
        pidfd_open.restore()
        self.assertEqual(self.worker.jobs.running(), (job,))

    @staticmethod
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")


async def unpermitted(worker: Running) -> None:
    """A job with two processes, one of which runs as another user and may not be signalled."""
    job = await worker.start("sh", "-c", f"{OTHER_USERS} & echo $!; exec sleep 600")
    (other,) = map(int, await worker.lines(job, 1))
    await becomes_another_users(other)
    error = await failure(worker.runner.signal(job, "SIGUSR1", "tree"))
    expected = f"SIGUSR1 can't be sent to 1 process of job {job!r} (it runs as another user: {other}); it was sent to 1"
    assert str(error) == expected, error
    await gone(worker.spool(job).read_start()["pid"])
    error = await failure(worker.runner.signal(job, "SIGUSR1", "tree"))
    assert str(error) == expected.partition(";")[0], error
    os.mkdir(os.path.join(os.path.dirname(worker.jobs_dir), "played"))


async def failure(call: object) -> Conflict:
    try:
        await call
    except Conflict as error:
        return error
    raise AssertionError("it was sent")


async def becomes_another_users(pid: int) -> None:
    """Once that process runs as the other user."""
    while os.stat(f"/proc/{pid}").st_uid != NOBODY:
        await later(0.01)


NOBODY = 65534
OTHER_USERS = f"setpriv --reuid={NOBODY} --clear-groups sleep 600"


class UnpermittedTests(TestCase):
    """A setuid program of the job may not be signalled by the worker's user."""

    timeout = 60

    async def test_another_user(self) -> None:
        """The answer says to which processes a signal could not be sent, and why, and how many got it."""
        weak = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]
        tried = subprocess.run([*weak, "sh", "-c", OTHER_USERS.replace("600", "0")], capture_output=True, check=False)
        if tried.returncode:
            raise SkipTest("a process of another user can't be had here")
        state_dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, state_dir)
        try:
            await play(self, "unpermitted", state_dir, weak)
        finally:
            jobs = os.path.join(state_dir, "jobs")
            for spool in (Spool(os.path.join(jobs, job)) for job in os.listdir(jobs)):
                shim = spool.begun_by()
                for each in proctree.of_spool(spool.folder, 0):
                    proctree.send(each.identity, signal.SIGKILL)
                if shim is not None:
                    await gone(shim.pid)
        self.assertTrue(os.path.exists(os.path.join(state_dir, "played")))
