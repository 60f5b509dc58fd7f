"""The log of a real twistd that runs a service of ours: in the foreground, as a daemon, rotated."""

import json
import os
import subprocess
import sys
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

import scheduler

PLUGIN = """
from twisted.application.service import ServiceMaker
probe = ServiceMaker("probe", "probe_tap", "Logs a little and ends.", "probe")
"""

TAP = """
import os, signal
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.logger import Logger
from twisted.python import usage
from scheduler.daemon.logs import LoggingService

log = Logger("probe")

class Options(usage.Options):
    optParameters = [["format", "f", "text", ""], ["level", "l", "info", ""]]
    optFlags = [["rotate", "r", ""]]

class Probe(Service):
    def __init__(self, rotate):
        self.rotate = rotate

    def startService(self):
        log.info("hello {who}", who="w\\x1b[1m\\n2", worker_id="w1")
        print("printed")
        if self.rotate:
            os.kill(os.getpid(), signal.SIGUSR1)
        reactor.callLater(0, log.info, "started")
        reactor.callLater(0.05, reactor.stop)

    def stopService(self):
        log.info("stopped")

def makeService(options):
    log.info("made")
    root = LoggingService(reactor, options.parent, options["format"], options["level"])
    Probe(options["rotate"]).setServiceParent(root)
    return root
"""

LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info |warn |error|critical|debug) +\S+: .*"


@frozen
class Ran:
    """The result of a twistd."""

    code: int
    stdout: str
    stderr: str


class TwistdTests(TestCase):
    """twistd uses our observer, and only that."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        plugins = self.folder / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "probe_plugin.py").write_text(PLUGIN)
        (self.folder / "probe_tap.py").write_text(TAP)
        self.log = self.folder / "probe.log"

    def twistd(self, *arguments: str) -> Deferred[Ran]:
        """Run it until all its processes have ended, the daemon too."""
        found = os.pathsep.join([str(self.folder), str(Path(scheduler.__file__).parent.parent)])
        environment = {**os.environ, "PYTHONPATH": found, "PYTHONDONTWRITEBYTECODE": "1"}

        def run_thd() -> Ran:
            # The daemon keeps the write end of this pipe, so the pipe ends with it.
            alive, keep = os.pipe()
            try:
                ran = subprocess.run(
                    [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments],
                    cwd=self.folder,
                    env=environment,
                    pass_fds=(keep,),
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
            finally:
                os.close(keep)
            with os.fdopen(alive, "rb") as pipe:
                pipe.read()
            return Ran(ran.returncode, ran.stdout, ran.stderr)

        return deferToThread(run_thd)

    def check(self, written: str) -> None:
        """Each event is there once, as one line of ours, from the first that was logged to the last."""
        lines = written.splitlines()
        for line in lines:
            self.assertRegex(line, f"^{LINE}$")
        said = [line.split(": ", 1)[1] for line in lines]
        self.assertEqual(said[0], "made")
        self.assertEqual(said.count("hello w\\x1b[1m\\n2 worker_id=w1"), 1)
        self.assertEqual(said.count("printed"), 1)
        self.assertEqual(said[-1], "stopped")

    async def test_foreground(self) -> None:
        """In the foreground the log goes to stdout, and nowhere else."""
        ran = await self.twistd("-n", "--pidfile=", "probe")
        self.assertEqual((ran.code, ran.stderr), (0, ""))
        self.check(ran.stdout)

    async def test_json(self) -> None:
        """As JSON every line is an object."""
        ran = await self.twistd("-n", "--pidfile=", "probe", "--format", "json")
        records = [json.loads(line) for line in ran.stdout.splitlines()]
        (hello,) = (record for record in records if record.get("who"))
        self.assertEqual((hello["who"], hello["worker_id"], hello["level"]), ("w\x1b[1m\n2", "w1", "info"))
        self.assertEqual(records[-1]["message"], "stopped")

    async def test_level(self) -> None:
        """Below the level nothing is written, not even what twistd says."""
        ran = await self.twistd("-n", "--pidfile=", "probe", "--level", "warn")
        self.assertEqual((ran.code, ran.stdout, ran.stderr), (0, "", ""))

    async def test_daemon(self) -> None:
        """A daemon writes to the given file, and nothing to its terminal."""
        ran = await self.twistd("--logfile", str(self.log), "--pidfile", "probe.pid", "probe")
        self.assertEqual((ran.code, ran.stdout, ran.stderr), (0, "", ""))
        self.check(self.log.read_text())

    async def test_rotated(self) -> None:
        """SIGUSR1 begins a new file."""
        await self.twistd("-n", "--pidfile=", "--logfile", str(self.log), "probe", "--rotate")
        self.check(Path(f"{self.log}.1").read_text() + self.log.read_text())
        self.assertIn("stopped", self.log.read_text())

    async def test_other_logger(self) -> None:
        """The logger of twistd's options is used instead."""
        (self.folder / "probe_logger.py").write_text(
            "import sys\nfrom twisted.logger import jsonFileLogObserver\n"
            "def own():\n    return jsonFileLogObserver(sys.stdout, '')\n"
        )
        ran = await self.twistd("-n", "--pidfile=", "--logger", "probe_logger.own", "probe")
        formats = [json.loads(line)["log_format"] for line in ran.stdout.splitlines()]
        self.assertEqual(formats.count("hello {who}"), 1)

    async def test_unwritable(self) -> None:
        """A log file that can't be written is one line on stderr and exit code 1."""
        ran = await self.twistd("--logfile", "no/such.log", "probe")
        self.assertEqual(
            (ran.code, ran.stderr), (1, "--logfile no/such.log: can't be written: No such file or directory\n")
        )
