"""The end of a process whose own way out leads nowhere."""

import os
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

#: A reactor that is told to stop by what then blocks it for ever, and a thread that does not end either.
HANGS = """
import threading
from twisted.internet import reactor
from scheduler.services import Ordered, Step
from scheduler.startup import end_after
for_ever = threading.Event()
threading.Thread(target=for_ever.wait).start()
parts = Ordered(reactor, 1.0, end_after)
Step(stop=for_ever.wait).setServiceParent(parts)
parts.startService()
reactor.addSystemEventTrigger("before", "shutdown", parts.stopService)
reactor.callWhenRunning(reactor.stop)
reactor.run()
"""


class LastResortTests(SynchronousTestCase):
    def test_blocked_reactor(self) -> None:
        """A process whose reactor is blocked at the stop ends all the same, a second after its time, and says why."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", HANGS],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (1, "shutdown_timeout is over: ending with what hangs\n"))
        self.assertGreater(time.monotonic() - began, 2.0)
