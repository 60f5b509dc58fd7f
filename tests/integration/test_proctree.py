"""Processes as /proc shows them: that a signal reaches the one that is meant, or nobody."""

import os
import signal
import subprocess
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker.shim import proctree
from scheduler.worker.shim.spool import ProcessId


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
        """A process that is gone gets no signal."""
        self.sleeper.kill()
        self.sleeper.wait()
        self.assertIsNone(proctree.open_pidfd(self.identity))
        proctree.send(self.identity, signal.SIGKILL)

    def test_another_with_its_id(self) -> None:
        """A process that began at another time is not the one that is meant, and no descriptor stays behind."""
        before = sorted(os.listdir("/proc/self/fd"))
        proctree.send(ProcessId(self.identity.pid, self.identity.starttime + 1), signal.SIGKILL)
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
        self.assertIsNone(proctree.open_pidfd(ProcessId(thread.native_id, 1)))


class TreeTests(SynchronousTestCase):
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
            return proctree.Process(ProcessId(pid, 0), parent, pid, False)

        everybody = [process(2, 1), process(3, 2), process(4, 3), process(5, 1), process(6, 5)]
        self.assertEqual({each.pid for each in proctree.descendants([2], everybody)}, {3, 4})
        self.assertEqual({each.pid for each in proctree.descendants([2, 5], everybody)}, {3, 4, 6})

    def test_descends(self) -> None:
        """A process descends from its parent and from all above, and not from one that it is above, or beside."""
        parent = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
        self.addCleanup(parent.communicate)
        self.addCleanup(parent.kill)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        self.addCleanup(os.kill, child, signal.SIGKILL)
        found = [proctree.process(pid) for pid in (os.getpid(), parent.pid, child)]
        here, above, below = (each.identity for each in found if each is not None)
        self.assertTrue(proctree.descends(below, above))
        self.assertTrue(proctree.descends(below, here))
        self.assertFalse(proctree.descends(above, below))
        self.assertFalse(proctree.descends(below, above._replace(starttime=1)))
        self.assertFalse(proctree.descends(below._replace(starttime=1), here))

    def descends(self, *seen: proctree.Process | None) -> bool:
        """Whether process 4 descends from 2, by what successive looks show; no look is left over."""
        looks = iter(seen)

        def look(pid: int) -> proctree.Process | None:
            found = next(looks)
            self.assertIn(pid, (pid, found and found.pid))
            return found

        answer = proctree.descends(ProcessId(4, 0), ProcessId(2, 0), look)
        self.assertEqual(list(looks), [])
        return answer

    def test_descends_while_ids_change(self) -> None:
        """An id that is another process's by the time of the look does not make a stranger a descendant."""

        def seen(pid: int, parent: int, started: int = 0) -> proctree.Process:
            return proctree.Process(ProcessId(pid, started), parent, pid, False)

        four, three, two = seen(4, 3), seen(3, 2), seen(2, 1)
        self.assertTrue(self.descends(four, three, four, two, three))
        # Its parent ended before the look, and the id went to a child of 2.
        self.assertFalse(self.descends(four, three, seen(4, 1), seen(1, 0), seen(4, 1)))
        # It was adopted meanwhile, by 2 itself.
        self.assertTrue(self.descends(four, None, seen(4, 2), two, seen(4, 2)))
        # It ended; the one above ended, and it is looked at anew.
        self.assertFalse(self.descends(four, three, None))
        self.assertFalse(self.descends(four, three, seen(4, 3, started=9)))
        self.assertTrue(self.descends(four, three, four, two, None, seen(4, 2), two, seen(4, 2)))
        # An id of 2 that is not that of 2 any more; a parent that can't be seen.
        self.assertFalse(self.descends(four, three, four, seen(2, 1, started=9), three))
        self.assertFalse(self.descends(four, None, four))
