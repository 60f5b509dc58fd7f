"""The pump's own promise: emptying a pipe comes to an end."""

import fcntl
import os

from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker.pump import Pump


class FilledAgain(Pump):
    """Its pipe is full again as soon as it was emptied."""

    moved = 0

    def move(self, most: int = 1) -> int:
        self.moved += most
        return most


class DrainTests(SynchronousTestCase):
    """The end of a job's output."""

    def pump(self, kind: type[Pump]) -> Pump:
        path = self.mktemp()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        pump = kind(path)
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
        """What is in the pipe is in the file, and the writer is told that nobody reads any more."""
        pump = self.pump(Pump)
        os.write(pump.write_end, b"abc")
        pump.move()
        os.write(pump.write_end, b"def")
        pump.drain()
        with open(self.path, "rb") as file:
            self.assertEqual((file.read(), pump.error), (b"abcdef", ""))
        with self.assertRaises(BrokenPipeError):
            os.write(pump.write_end, b"g")
