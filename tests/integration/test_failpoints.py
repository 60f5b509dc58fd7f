"""Failpoints, each in a process of its own that is to die."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import scheduler
from scheduler.daemon import failpoints

ROOT = Path(scheduler.__file__).parent

PASSING = """
from scheduler.daemon import failpoints
for number in range(3):
    print(number, flush=True)
    failpoints.hit("worker.before-ack-written")
"""


def passed(setting: str) -> tuple[str, int, str]:
    """Run a process that passes a point three times; answers its output, its exit status and its errors."""
    done = subprocess.run(
        [sys.executable, "-c", PASSING],
        env={"SCHEDULER_FAILPOINTS": setting, "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.replace("\n", ""), done.returncode, done.stderr


class FailpointTests(SynchronousTestCase):
    """The time of a process's death."""

    def test_off(self) -> None:
        """Without the variable, or if it names another point, nothing happens."""
        self.assertEqual(passed(""), ("012", 0, ""))
        self.assertEqual(passed("worker.before-start-answer"), ("012", 0, ""))

    def test_first(self) -> None:
        """A named point kills at once, like -9."""
        self.assertEqual(passed("scheduler.before-answer,worker.before-ack-written"), ("0", -signal.SIGKILL, ""))

    def test_counted(self) -> None:
        """With a number it kills at that pass, and not if that pass never comes."""
        self.assertEqual(passed("worker.before-ack-written:3"), ("012", -signal.SIGKILL, ""))
        self.assertEqual(passed("worker.before-ack-written:4"), ("012", 0, ""))

    def test_misspelt(self) -> None:
        """An unknown name ends the process before it does anything."""
        printed, code, complaint = passed("worker.before-ack")
        self.assertEqual((printed, code), ("", 1))
        self.assertIn("'worker.before-ack' is none of scheduler.after-commit-before-rpc", complaint)

    def test_all_are_passed_somewhere(self) -> None:
        """Every point that can be named is in the code, and every one in the code can be named."""
        code = "".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if path.name != "failpoints.py")
        self.assertEqual(
            set(re.findall(r'"((?:scheduler|worker|shim)\.(?:before|after)-[a-z-]+)"', code)), failpoints.POINTS
        )
