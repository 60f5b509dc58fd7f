"""Processes as /proc shows them: that a signal reaches the one that is meant, or nobody."""

import os
import signal
import subprocess
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker import proctree
from scheduler.worker.spool import Identity


class SignalTests(SynchronousTestCase):
    """Signals go to exactly one process."""

    def setUp(self) -> None:
        self.sleeper = subprocess.Popen(["sleep", "600"])
        self.addCleanup(self.sleeper.wait)
        self.addCleanup(self.sleeper.kill)
        found = proctree.process(self.sleeper.pid)
        assert found is not None
        self.identity = found.identity

    def test_that_one(self) -> None:
        """A signal reaches the process."""
        proctree.send(self.identity, signal.SIGUSR1)
        self.assertEqual(self.sleeper.wait(), -signal.SIGUSR1)

    def test_gone(self) -> None:
        """Of a process that is gone there is nothing to signal."""
        self.sleeper.kill()
        self.sleeper.wait()
        self.assertIsNone(proctree.open_pidfd(self.identity))
        proctree.send(self.identity, signal.SIGKILL)

    def test_another_with_its_id(self) -> None:
        """A process that began at another time is not the one that is meant, and no descriptor stays behind."""
        before = sorted(os.listdir("/proc/self/fd"))
        proctree.send(Identity(self.identity.pid, self.identity.starttime + 1), signal.SIGKILL)
        self.assertIsNone(self.sleeper.poll())
        self.assertEqual(sorted(os.listdir("/proc/self/fd")), before)

    def test_thread_with_its_id(self) -> None:
        """An id that is a thread's now is no process."""
        ended = threading.Event()
        thread = threading.Thread(target=ended.wait)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(ended.set)
        assert thread.native_id is not None
        self.assertIsNone(proctree.open_pidfd(Identity(thread.native_id, 1)))


class TreeTests(SynchronousTestCase):
    """Who descends from whom."""

    def test_name(self) -> None:
        """A process is read right whatever its name holds."""
        name = "a) R 1 (b"
        script = f"import sys; open('/proc/self/comm', 'w').write({name!r}); print(flush=True); sys.stdin.read()"
        child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(child.communicate)
        assert child.stdout is not None
        child.stdout.readline()
        found = proctree.process(child.pid)
        assert found is not None
        self.assertEqual((found.pid, found.parent, found.ended), (child.pid, os.getpid(), False))

    def test_descendants(self) -> None:
        """All generations below the roots, none beside them."""

        def process(pid: int, parent: int) -> proctree.Process:
            return proctree.Process(Identity(pid, 0), parent, pid, False)

        everybody = [process(2, 1), process(3, 2), process(4, 3), process(5, 1), process(6, 5)]
        self.assertEqual({each.pid for each in proctree.descendants([2], everybody)}, {3, 4})
        self.assertEqual({each.pid for each in proctree.descendants([2, 5], everybody)}, {3, 4, 6})
