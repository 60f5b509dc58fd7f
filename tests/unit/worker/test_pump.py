"""The pump's own promises: emptying a pipe comes to an end, and no more is moved than is allowed."""

import fcntl
import os

from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker.shim.pump import Allowance, Pump


class FilledAgain(Pump):
    """Its pipe is full again as soon as it was emptied."""

    moved = 0

    def move(self, most: int = 1) -> int:
        self.moved += most
        return most


class DrainTests(SynchronousTestCase):
    """The end of a job's output."""

    def pump(self, kind: type[Pump] = Pump, allowance: Allowance | None = None) -> Pump:
        path = self.mktemp()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        pump = kind(path, allowance or Allowance(None))
        self.addCleanup(os.close, pump.write_end)
        self.path = path
        return pump

    def test_ends(self) -> None:
        """A pipe that somebody else fills for ever is emptied once."""
        pump = self.pump(FilledAgain)
        capacity = fcntl.fcntl(pump.source, fcntl.F_GETPIPE_SZ)
        pump.drain()
        self.assertEqual((pump.moved, pump.source), (capacity, -1))

    def test_everything(self) -> None:
        """The data in the pipe is moved to the file, and the writer sees EPIPE then."""
        pump = self.pump(Pump)
        os.write(pump.write_end, b"abc")
        pump.move()
        os.write(pump.write_end, b"def")
        pump.drain()
        with open(self.path, "rb") as file:
            self.assertEqual((file.read(), pump.error), (b"abcdef", ""))
        self.assertRaises(BrokenPipeError, os.write, pump.write_end, b"g")

    def test_move_all(self) -> None:
        """All that the pipe holds is moved, though no call moves so much, and the pipe stays open."""
        pump = self.pump()
        fcntl.fcntl(pump.source, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.write(pump.write_end, b"a" * 1_000_000)
        pump.move_all()
        self.assertEqual(os.stat(self.path).st_size, 1_000_000)
        os.write(pump.write_end, b"b")
        pump.drain()
        with open(self.path, "rb") as file:
            self.assertEqual(file.read()[-2:], b"ab")

    def test_allowance(self) -> None:
        """Two pumps move as many bytes as both together may, to the last, and then close their pipes."""
        allowance = Allowance(5)
        first, second = self.pump(allowance=allowance), self.pump(allowance=allowance)
        os.write(first.write_end, b"abc")
        os.write(second.write_end, b"defg")
        self.assertEqual((first.move(), allowance.spent), (3, False))
        self.assertEqual((second.move(), allowance.spent), (2, True))
        self.assertEqual((second.move(), second.source), (0, -1))
        os.write(first.write_end, b"h")
        first.drain()
        self.assertEqual((first.source, first.error), (-1, ""))
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"de")
