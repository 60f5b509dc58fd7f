"""Zygote and shims are out of reach of the jobs, which run as the same user."""

import contextlib
import os
import signal
import subprocess
import sys

from twisted.trial.unittest import SkipTest

from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import ProcessId, Spool
from tests.integration.running import ProcessCase, RunningCase, ask, gone, later

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

#: A job's attempts to reach its shim, each with "denied" if it fails, and then to read its own environment.
REACH = """
for each in environ mem maps fd/0; do head -c1 /proc/$PPID/$each > /dev/null 2>&1 || echo denied; done
ls /proc/$PPID/fd > /dev/null 2>&1 || echo denied
cat /proc/$$/environ > /dev/null && echo own
sleep 600
"""


class EnvironmentTests(RunningCase):
    """The environment of zygote and shims."""

    async def test_empty(self) -> None:
        """Both are empty, whatever the worker's own is."""
        if os.geteuid() != 0:
            raise SkipTest("only root may read it: they are not dumpable")
        os.environ["OF_THE_WORKER"] = "secret"
        self.addCleanup(os.environ.pop, "OF_THE_WORKER")
        job = await self.worker.start("sleep", "600")
        shim = self.worker.spool(job).begun_by()
        assert shim is not None
        zygote = proctree.process(shim.pid).parent
        for pid in (shim.pid, zygote):
            with open(f"/proc/{pid}/environ", "rb") as file:
                self.assertEqual(file.read(), b"")


def interpreter() -> str:
    """The path of a Python that another user can run with this code. Raises ``SkipTest`` if there is none."""
    for python in ("/usr/bin/python3", sys.executable):
        tried = subprocess.run(
            [*AS_NOBODY, python, "-c", "import tests.integration.running"],
            env={"PYTHONPATH": path(), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
            cwd="/",
        )
        if not tried.returncode:
            return python
    raise SkipTest(f"another user can't be had here, or can't run this code: {tried.stderr.decode()[-300:]}")


def path() -> str:
    """The module path, without the standard library: another interpreter has its own."""
    return os.pathsep.join(
        os.path.abspath(each) for each in sys.path if each.endswith("site-packages") or each in ROOTS
    )


#: Where this code is.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOTS = ("", ROOT)


class UnprivilegedTests(ProcessCase):
    """Workers that run as an ordinary user, from whom the files of their shims in /proc are withheld."""

    async def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root, to become another user")
        self.python = interpreter()
        await super().setUp()
        await self.worker.drop()
        os.chmod(os.path.dirname(self.state_dir), 0o711)
        for folder, _, files in os.walk(self.state_dir):
            for name in ("", *files):
                os.chown(os.path.join(folder, name), NOBODY, NOBODY)

    def ordinary(self) -> subprocess.Popen[bytes]:
        """Start a worker as an ordinary user."""
        process = subprocess.Popen(
            [*AS_NOBODY, self.python, "-m", "tests.integration.worker_process", self.state_dir],
            cwd="/",
            env={"PYTHONPATH": path(), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start(self, process: subprocess.Popen[bytes], job_id: str, *command: str) -> tuple[Spool, ProcessId]:
        """Start a job; answers its spool and its shim."""
        ask(process, job_id, *command)
        self.assertEqual(process.stdout.readline(), f"{job_id}\n".encode())
        spool = self.worker.spool(job_id)
        shim = spool.begun_by()
        assert shim is not None
        return spool, shim

    async def test_out_of_reach(self) -> None:
        """A job can neither read the memory and descriptors of its shim nor its environment, and can read its own."""
        spool, shim = self.start(self.ordinary(), "j1", "sh", "-c", REACH)
        while not (said := await self.said(spool)).endswith("own\n"):
            pass
        self.assertEqual(said, "denied\n" * 5 + "own\n")
        started = spool.read_start()
        assert started is not None
        zygote = proctree.process(shim.pid).parent
        owners = [os.stat(f"/proc/{pid}/environ").st_uid for pid in (zygote, shim.pid, started["pid"])]
        self.assertEqual(owners, [0, 0, NOBODY])

    async def said(self, spool: Spool) -> str:
        await later(0.01)
        with open(spool.output("stdout"), encoding="ascii") as file:
            return file.read()

    async def test_taken_back(self) -> None:
        """The next process of the worker takes the job back, stops it, and sees a shim that was killed."""
        first = self.ordinary()
        (stopped, _), (lost, shim) = (self.start(first, job, "sleep", "600") for job in ("j1", "j2"))
        first.kill()
        first.wait()
        second = self.ordinary()
        self.start(second, "j3", "true")  # so all was recovered
        stopped.ask_stop()
        proctree.send(stopped.begun_by(), signal.SIGTERM)
        proctree.send(shim, signal.SIGKILL)
        for spool, state in ((stopped, "stopped"), (lost, "lost")):
            while not (ended := spool.read_exit()):
                await later(0.01)
            self.assertEqual(ended["state"], state)

    async def test_left_behind(self) -> None:
        """Processes that a killed shim left are ended: the variable that marks the processes of its job can be read."""
        first = self.ordinary()
        spool, shim = self.start(first, "j1", "sh", "-c", "setsid sleep 600 & sleep 600")
        zygote = proctree.process(shim.pid).parent
        first.kill()
        first.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(zygote, signal.SIGKILL)  # or it would end them
        await gone(zygote)
        proctree.send(shim, signal.SIGKILL)
        await gone(shim.pid)
        self.start(self.ordinary(), "j2", "true")
        while not (ended := spool.read_exit()):
            await later(0.01)
        self.assertEqual((ended["state"], ended["tree"], ended["leftover"]), ("lost", "killed", []))
