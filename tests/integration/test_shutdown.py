"""The end of a process that goes wrong."""

import os
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

#: A reactor that is told to stop by what then blocks it for ever, and a thread that does not end either.
HANGS = """
import threading
from twisted.internet import reactor
from scheduler.daemon.services import Ordered, Step
from scheduler.daemon.startup import end_after, end_with_failure
for_ever = threading.Event()
threading.Thread(target=for_ever.wait).start()
parts = Ordered(reactor, 1.0, end_after, end_with_failure)
Step(stop=for_ever.wait).setServiceParent(parts)
parts.startService()
reactor.addSystemEventTrigger("before", "shutdown", parts.stopService)
reactor.callWhenRunning(reactor.stop)
reactor.run()
"""

#: A start that fails when the reactor runs already.
FAILS_LATE = """
from twisted.internet import reactor, task
from scheduler.daemon.services import Ordered, Step
from scheduler.daemon.startup import end_after, end_with_failure
def fail():
    raise OSError("no database")
parts = Ordered(reactor, 1.0, end_after, end_with_failure)
Step(start=lambda: task.deferLater(reactor, 0, fail)).setServiceParent(parts)
parts.startService()
reactor.run()
"""


def run(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class EndTests(SynchronousTestCase):
    def test_blocked_reactor(self) -> None:
        """A process whose reactor is blocked at the stop ends all the same, a second after its time, and says why."""
        began = time.monotonic()
        done = run(HANGS)
        self.assertEqual((done.returncode, done.stderr), (1, "shutdown_timeout is over: ending with what hangs\n"))
        self.assertGreater(time.monotonic() - began, 2.0)

    def test_late_failure(self) -> None:
        """A process whose start fails when it has begun to run ends as a failure, so that it is started again."""
        self.assertEqual(run(FAILS_LATE).returncode, 1)
