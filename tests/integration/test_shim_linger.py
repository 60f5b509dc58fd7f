"""The process tree of a job after its main process has ended, or was asked to end."""

import os
import signal
import subprocess
import sys

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest

from scheduler.messages import JobStatus
from scheduler.model import STOP_SIGNALS, JobState
from scheduler.worker import launcher
from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import ProcessId
from tests.integration.running import GRACE, RunningCase, later

#: Seconds no test lasts: what is waited for so long would be a failure.
LONG = 600.0

#: Waits in the background for ``Running.tell``, and then goes on.
TOLD = "while [ ! -e told ]; do sleep 0.02; done"


class LingerTests(RunningCase):
    """After the main process has ended, the rest may continue until the output is at its end."""

    async def lingering(self, job_id: str) -> None:
        """Until the main process was reaped, and its shim waits for what comes next."""
        main, shim = self.worker.spool(job_id).read_start()["pid"], self.worker.shim(job_id).pid
        while proctree.process(main) is not None or _state(shim) != "S":
            await later(0.01)

    async def test_tee(self) -> None:
        """Output that a filter still holds at the end of the main process is kept."""
        source = "exec > >(tee -a log) 2>&1; echo step 1; echo FATAL; exit 3"
        runs = [Deferred.fromCoroutine(self.worker.run("bash", "-c", source)) for _ in range(30)]
        for status in await gatherResults(runs):
            self.assertEqual(self.worker.output(status.job_id), b"step 1\nFATAL\n")
            self.assertEqual((status.exit_code, status.reason), (3, "exit status 3"))
            self.assertEqual((status.tree, status.background_ended), ("exited", 0))

    async def test_pipeline_in_the_background(self) -> None:
        """The output of a pipeline that the main process does not wait for is kept."""
        lines = b"".join(b"%d\n" % number for number in range(200_000, 0, -1))
        for merge in (False, True):
            status = await self.worker.run("bash", "-c", "seq 200000 | sort -rn & exit 0", merge_stderr=merge)
            self.assertEqual(self.worker.output(status.job_id), lines)
            self.assertEqual((status.state, status.reason), (JobState.SUCCEEDED, ""))
            self.assertEqual((status.tree, status.background_ended), ("exited", 0))

    async def test_running_meanwhile(self) -> None:
        """Until then the job runs, and output is moved as it comes, whatever becomes of the worker."""
        source = f"echo up; ({TOLD}; echo down) & exit 4"
        job = await self.worker.start("sh", "-c", source, linger=LONG)
        await self.lingering(job)
        self.assertEqual(self.worker.jobs.running(), (job,))
        self.assertEqual(await self.worker.lines(job, 1), [b"up"])
        await self.restart()
        self.assertEqual(self.worker.jobs.running(), (job,))
        self.worker.tell(job)
        status = await self.worker.ended(job)
        self.assertEqual((status.exit_code, self.worker.output(job)), (4, b"up\ndown\n"))
        self.assertGreaterEqual(status.finished_at, status.started_at)

    async def test_one_pipe_is_enough(self) -> None:
        """The shim waits as long as one of the pipes is open, whichever it is."""
        for other in (">", "2>"):
            number = ">&2" if other == ">" else ""
            source = f"(sleep 0.3; echo late {number}) {other} /dev/null & exit 0"
            status = await self.worker.run("sh", "-c", source, linger=LONG)
            self.assertEqual((status.stdout_bytes + status.stderr_bytes, status.reason), (5, ""))

    async def test_daemon(self) -> None:
        """A process that has closed both pipes is ended at once, and the job names their number."""
        source = "sleep 600 > /dev/null 2>&1 & exec > /dev/null 2>&1; sleep 600 & exit 0"
        status = await self.worker.run("sh", "-c", source, linger=LONG)
        self.assertEqual((status.state, status.tree, status.background_ended), (JobState.SUCCEEDED, "terminated", 2))
        self.assertEqual(status.reason, "2 background processes were ended after the main process")

    async def test_time_is_up(self) -> None:
        """A process that still has a pipe when the time is up is ended, and its output up to then is kept."""
        source = "(echo up; exec sleep 600) & exit 0"
        status = await self.worker.run("sh", "-c", source, linger=1.0)
        self.assertEqual((status.state, status.tree, status.background_ended), (JobState.SUCCEEDED, "terminated", 1))
        self.assertEqual(status.reason, "1 background process was ended after the main process")
        self.assertEqual(self.worker.output(status.job_id), b"up\n")
        self.assertGreaterEqual(status.finished_at - status.started_at, 1.0)

    async def test_no_time(self) -> None:
        """With no time at all the rest is ended at once; a reason of the main process's own stays."""
        status = await self.worker.run("sh", "-c", "sleep 600 & exit 3", linger=0.0)
        self.assertEqual((status.reason, status.background_ended, status.tree), ("exit status 3", 1, "terminated"))

    async def test_begun_while_asked_to_end(self) -> None:
        """A process that began when the others were asked to end, and is killed, counts like these."""
        source = (
            "import os, signal\n"
            "def end(*_):\n"
            "    if not os.fork(): signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()\n"
            "    os._exit(0)\n"
            "ready, told = os.pipe()\n"
            "if not os.fork(): signal.signal(signal.SIGTERM, end); os.write(told, b'1'); signal.pause()\n"
            "os.read(ready, 1); os._exit(0)"
        )
        status = await self.worker.run(sys.executable, "-c", source, linger=0.0, stop_grace=GRACE)
        self.assertEqual((status.tree, status.background_ended), ("killed", 2))

    async def test_stop(self) -> None:
        """A stop ends the wait and changes nothing else: the job had ended by itself."""
        job = await self.worker.start("sh", "-c", "sleep 600 & exit 0", linger=LONG)
        await self.lingering(job)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.exit_code, status.background_ended), (JobState.SUCCEEDED, 0, 1))

    async def test_timeout(self) -> None:
        """The timeout, which counts from the start, ends the linger."""
        status = await self.worker.run("sh", "-c", "sleep 600 & exit 3", linger=LONG, timeout=1.0)
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "exit status 3"))
        self.assertEqual((status.background_ended, status.tree), (1, "terminated"))

    async def test_limit(self) -> None:
        """Too much output ends the linger; it is cut, and the job says so."""
        source = f"({TOLD}; exec yes) & exit 0"
        job = await self.worker.start("sh", "-c", source, linger=LONG, output_limit=1000)
        await self.lingering(job)
        self.worker.tell(job)
        status = await self.worker.ended(job)
        self.assertEqual((status.state, status.exit_code, status.stdout_bytes), (JobState.SUCCEEDED, 0, 1000))
        self.assertEqual(status.output_error, "output limit of 1000 bytes reached")

    async def test_none_after_a_stop(self) -> None:
        """After a stop nothing lingers, and what is ended then is not counted."""
        source = "sleep 600 & trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"
        job = await self.worker.start("bash", "-c", source, linger=LONG)
        await self.worker.lines(job, 1)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.reason, status.background_ended), (JobState.STOPPED, "stopped", 0))


def _state(pid: int) -> str:
    """``R``: it runs; ``S``: it waits."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(") ")[2][0]


class StopSignalTests(RunningCase):
    """Which signal asks a job to end, and whom."""

    #: Says which signal it gets, and then calls ``end``.
    HANDLE = """
import os, signal
def say(number, frame):
    os.write(1, f"{name} {signal.Signals(number).name}\\n".encode())
    end()
for each in STOP_SIGNALS:
    signal.signal(signal.Signals[each], say)
""".replace("STOP_SIGNALS", repr(STOP_SIGNALS))

    #: The main process ends after its child.
    MAIN = """
read, write = os.pipe()
if os.fork():
    name = "main"
    def end():
        os.close(write)
        os.wait()
        os._exit(7)
    os.write(1, b"up\\n")
    while True:
        signal.pause()
name = "child"
os.close(write)
"""

    #: The child ends when it is signalled itself.
    EACH_ITSELF = (
        HANDLE
        + MAIN
        + """
def end():
    os._exit(0)
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
    )

    #: The child ends when its parent lets it.
    BY_MAIN = (
        HANDLE
        + MAIN
        + """
def end():
    pass
os.write(1, b"up\\n")
os.read(read, 1)
os.write(1, b"child ended\\n")
os._exit(0)
"""
    )

    async def stopped(self, source: str, lines: int, **spec: object) -> tuple[JobStatus, list[bytes]]:
        job = await self.worker.start(sys.executable, "-c", source, **spec)
        await self.worker.lines(job, lines)
        status = await self.worker.runner.stop(job, wait=True)
        return status, sorted(self.worker.output(job).splitlines())

    async def test_signals(self) -> None:
        """A stop sends the signal that the job names, to its whole tree."""
        for name in STOP_SIGNALS:
            status, said = await self.stopped(self.EACH_ITSELF, 2, stop_signal=name, stop_grace=LONG)
            self.assertEqual((status.state, status.exit_code), (JobState.STOPPED, 7))
            self.assertEqual(said, [b"child " + name.encode(), b"main " + name.encode(), b"up", b"up"])

    async def test_main_alone(self) -> None:
        """With ``stop_mode`` main it goes to the main process alone, which sees to its children."""
        for name in ("SIGTERM", "SIGINT"):
            status, said = await self.stopped(self.BY_MAIN, 2, stop_signal=name, stop_mode="main", stop_grace=LONG)
            self.assertEqual((status.state, status.exit_code, status.tree), (JobState.STOPPED, 7, "terminated"))
            self.assertEqual(said, [b"child ended", b"main " + name.encode(), b"up", b"up"])

    async def test_main_is_held(self) -> None:
        """A main process that is held by SIGSTOP can act on it."""
        job = await self.worker.start(
            "bash", "-c", "trap 'exit 5' INT; echo up; kill -STOP $$; sleep 600 & wait",
            stop_signal="SIGINT", stop_mode="main", stop_grace=30.0,
        )  # fmt: skip
        await self.worker.lines(job, 1)
        self.assertEqual((await self.worker.runner.stop(job, wait=True)).exit_code, 5)

    async def test_main_does_not_obey(self) -> None:
        """After the grace everybody is killed."""
        source = "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nos.write(1, b'up\\n')\n"
        status, _ = await self.stopped(source + "while True: signal.pause()", 2, stop_mode="main")
        self.assertEqual((status.state, status.tree, status.signal), (JobState.STOPPED, "killed", "SIGKILL"))
        self.assertGreaterEqual(status.finished_at - status.started_at, GRACE)

    async def test_after_main(self) -> None:
        """When the main process has ended, filters may finish what they hold."""
        source = "exec > >(sed -u s/^/:/); trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"
        job = await self.worker.start("bash", "-c", source, stop_mode="main", stop_grace=LONG)
        await self.worker.lines(job, 1)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, self.worker.output(job)), (JobState.STOPPED, b":up\n:bye\n"))

    async def test_closed_after_main(self) -> None:
        """A process that has closed the pipes is killed without the grace."""
        source = "trap '' TERM; sleep 600 > /dev/null 2>&1 & trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"
        job = await self.worker.start("bash", "-c", source, stop_mode="main", stop_grace=LONG)
        await self.worker.lines(job, 1)
        status = await self.worker.runner.stop(job, wait=True)
        self.assertEqual((status.state, status.exit_code, status.tree), (JobState.STOPPED, 0, "killed"))

    async def test_linger(self) -> None:
        """The processes that are left after the linger get the stop signal; with ``stop_mode`` main, TERM."""
        source = self.HANDLE + (
            "if os.fork(): os._exit(0)\nname = 'rest'\ndef end(): os._exit(0)\nos.write(1, b'up\\n')\n"
            "while True: signal.pause()"
        )
        for mode, expected in (("tree", b"rest SIGHUP"), ("main", b"rest SIGTERM")):
            job = await self.worker.start(
                sys.executable, "-c", source, stop_signal="SIGHUP", stop_mode=mode, linger=1.0, stop_grace=LONG
            )
            status = await self.worker.ended(job)
            self.assertEqual(self.worker.output(job).splitlines(), [b"up", expected])
            self.assertEqual((status.state, status.background_ended), (JobState.SUCCEEDED, 1))


class LeftoverTests(RunningCase):
    """Processes that can't be ended: a setuid program ignores the signals of the user who started it."""

    #: Another user's process, which a shim without the capability to signal others can't end. It says who it is.
    PROTECTED = "setpriv --reuid=65534 --clear-groups sh -c 'echo $$; exec sleep 600'"

    async def setUp(self) -> None:
        await super().setUp()
        # Root's shims are as helpless as another user's without this capability.
        weak = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]
        tried = subprocess.run(
            [*weak, "sh", "-c", self.PROTECTED.replace("sleep 600", "true")],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        if tried.returncode:
            raise SkipTest(f"a process of another user can't be had here: {tried.stderr.strip()}")
        path = os.path.join(self.state_dir, "weak-python")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {" ".join(weak)} {sys.executable} "$@"\n')
        os.chmod(path, 0o700)
        self.patch(launcher.sys, "executable", path)

    async def left(self, job_id: str) -> int:
        """The process that is left of a job, as its end says; it is ended."""
        status = await self.worker.ended(job_id)
        record = self.worker.spool(job_id).read_exit()
        (pid,), (started,) = status.leftover, record["leftover_started"]
        found = proctree.process(pid)
        proctree.send(ProcessId(pid, started), signal.SIGKILL)
        self.assertEqual(found.identity, ProcessId(pid, started))
        self.assertEqual(status.tree, "killed")
        return pid

    async def test_every_end(self) -> None:
        """The reason names processes that could not be ended, after the reason of the end, in every state."""
        beside = f"{self.PROTECTED} & trap 'exit 6' TERM; while :; do sleep 0.01; done"
        stopped = await self.worker.start("bash", "-c", beside)
        main_itself = await self.worker.start("sh", "-c", f"exec {self.PROTECTED}")
        timed_out = await self.worker.start("bash", "-c", beside, timeout=0.5)
        limited = await self.worker.start("sh", "-c", f"{self.PROTECTED} & sleep 0.5; exec yes", output_limit=1000)
        failed = await self.worker.start("sh", "-c", f"{self.PROTECTED} & sleep 0.5; exit 3", linger=0.0)
        succeeded = await self.worker.start("sh", "-c", f"{self.PROTECTED} & sleep 0.5; exit 0", linger=0.0)
        for job in (stopped, main_itself):
            await self.worker.lines(job, 1)
            await self.worker.runner.stop(job, wait=False)
        for job, state, reason in (
            (stopped, JobState.STOPPED, "exit status 6; "),
            (main_itself, JobState.STOPPED, "stopped; "),
            (timed_out, JobState.TIMED_OUT, "timed out after 0.5 s; "),
            (limited, JobState.FAILED, "output limit of 1000 bytes reached; "),
            (failed, JobState.FAILED, "exit status 3; "),
            (succeeded, JobState.SUCCEEDED, ""),
        ):
            pid = await self.left(job)
            status = self.worker.runner.query(job)
            self.assertEqual((status.state, status.reason), (state, f"{reason}1 process could not be ended: {pid}"))
            self.assertEqual(status.background_ended, 0)
            if job is not limited:  # whose output was cut before
                self.assertIn("stdout: still open in a process that could not be ended", status.output_error)
        self.assertIsNone(self.worker.runner.query(main_itself).exit_code)
