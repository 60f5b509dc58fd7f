"""Watching files grow, with the kernel's inotify and the real reactor."""

import ast
import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from scheduler.errors import ShuttingDown
from scheduler.worker import watch
from scheduler.worker.watch import OutputWatch
from tests.namespaces import in_namespaces


class Watcher:
    """Counts its calls and tells, a turn of the reactor later, when one more has come."""

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.calls = 0
        self._then = then
        self._waiting: list[Deferred[None]] = []

    def __call__(self) -> None:
        self.calls += 1
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            reactor.callLater(0, deferred.callback, None)
        if self._then is not None:
            self._then()

    def next(self) -> Deferred[None]:
        """Fires at the next call."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred


def watched_inodes(descriptor: int) -> int:
    """How many watches the kernel holds for this instance."""
    return Path(f"/proc/self/fdinfo/{descriptor}").read_text().count("inotify wd:")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class WatchTests(TestCase):
    """Somebody writes, somebody else is told."""

    def setUp(self) -> None:
        self.watch = OutputWatch(reactor)
        self.addCleanup(self.watch.close)
        folder = Path(self.mktemp())
        folder.mkdir()
        self.file = folder / "stdout"
        self.file.touch()
        self.other = folder / "stderr"
        self.other.touch()

    def write(self, data: bytes, file: Path | None = None) -> None:
        with open(file or self.file, "ab", buffering=0) as output:
            output.write(data)

    @contextlib.contextmanager
    def file_growing_by_splice(self) -> Iterator[Callable[[bytes], None]]:
        """As a shim writes: from a pipe into a file that is not opened to append."""
        read_end, write_end = os.pipe()
        output = os.open(self.file, os.O_WRONLY)

        def write(data: bytes) -> None:
            os.write(write_end, data)
            os.splice(read_end, output, len(data))

        try:
            yield write
        finally:
            for descriptor in (read_end, write_end, output):
                os.close(descriptor)

    def test_interface(self) -> None:
        """It is what the reactor takes it for."""
        verifyObject(IReadDescriptor, self.watch)

    async def test_byte_written(self) -> None:
        """One byte is told within a fraction of a second; a file nobody wrote to is not mentioned."""
        watcher, elsewhere = Watcher(), Watcher()
        self.watch.add(str(self.file), watcher)
        self.watch.add(str(self.other), elsewhere)
        began = time.monotonic()
        told = watcher.next()
        self.write(b"x")
        await told
        self.assertLess(time.monotonic() - began, 1)
        self.assertEqual((watcher.calls, elsewhere.calls), (1, 0))

    async def test_spliced(self) -> None:
        """Bytes that were moved in by splice are told as well, each time."""
        watcher = Watcher()
        self.watch.add(str(self.file), watcher)
        with self.file_growing_by_splice() as write:
            for count in (1, 2, 3):
                told = watcher.next()
                write(b"some bytes")
                await told
                self.assertEqual(watcher.calls, count)

    async def test_many_writes_are_one_call(self) -> None:
        """All that was written before the reactor looked is told once."""
        watcher = Watcher()
        self.watch.add(str(self.file), watcher)
        told = watcher.next()
        for _ in range(50):
            self.write(b"x")
            self.write(b"x", self.other)
        await told
        self.assertEqual(watcher.calls, 1)

    async def test_watched_twice(self) -> None:
        """Two who watch one file are both told, by whatever name they know it, and share a watch of the kernel."""
        link = self.file.with_name("link")
        link.symlink_to(self.file.absolute())
        first, second = Watcher(), Watcher()
        leave = self.watch.add(str(self.file), first)
        self.watch.add(str(link), second)
        self.assertEqual(watched_inodes(self.watch.fileno()), 1)
        both = (first.next(), second.next())
        self.write(b"x")
        for told in both:
            await told
        leave()
        told = second.next()
        self.write(b"x")
        await told
        self.assertEqual((first.calls, second.calls), (1, 2))

    async def test_leaving(self) -> None:
        """Who left is not called; the kernel's watch goes with the last, and leaving twice harms nobody."""
        watcher = Watcher()
        leave = self.watch.add(str(self.file), Watcher())
        leave()
        leave()
        self.assertEqual(watched_inodes(self.watch.fileno()), 0)
        self.watch.add(str(self.file), watcher)
        leave()
        told = watcher.next()
        self.write(b"x")
        await told

    async def test_leaving_while_called(self) -> None:
        """Who is sent away by another one's call is not called, and who comes during one is not either."""
        late = Watcher()
        watchers: list[Watcher] = []
        leaves: list[Callable[[], None]] = []

        def send_the_others_away() -> None:
            for leave in leaves:
                leave()
            self.watch.add(str(self.file), late)

        for _ in range(3):
            watchers.append(Watcher(send_the_others_away))
            leaves.append(self.watch.add(str(self.file), watchers[-1]))
        witness = Watcher()
        self.watch.add(str(self.other), witness)
        told = witness.next()
        self.write(b"x")
        self.write(b"x", self.other)
        await told
        self.assertEqual(sum(watcher.calls for watcher in watchers), 1)
        self.assertEqual(late.calls, 0)

    async def test_failing_watcher(self) -> None:
        """A watcher that fails keeps nobody from being told, and the failure is logged."""

        def fail() -> None:
            raise RuntimeError("no")

        failing, fine = Watcher(fail), Watcher()
        self.watch.add(str(self.file), failing)
        self.watch.add(str(self.file), fine)
        for count in (1, 2):
            told = (failing.next(), fine.next())
            self.write(b"x")
            for each in told:
                await each
            self.assertEqual((failing.calls, fine.calls), (count, count))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    async def test_overflow(self) -> None:
        """When the kernel's queue overflows, everybody is told to look, and watching goes on."""
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        if limit > 100_000:
            self.skipTest("the queue of this kernel is too long to fill")
        bystander = self.file.with_name("never written")
        bystander.touch()
        watcher = Watcher()
        self.watch.add(str(self.file), Watcher())
        self.watch.add(str(self.other), Watcher())
        self.watch.add(str(bystander), watcher)
        told = watcher.next()
        # Taking turns, as an event like the last one in the queue is not queued again.
        files = [os.open(file, os.O_WRONLY) for file in (self.file, self.other)]
        for _ in range(limit // 2 + 10):
            for file in files:
                os.write(file, b"x")
        for file in files:
            os.close(file)
        await told
        told = watcher.next()
        self.write(b"x", bystander)
        await told

    async def test_file_deleted(self) -> None:
        """When a file goes its watchers are told once more, and the others go on."""
        watcher, other = Watcher(), Watcher()
        leave = self.watch.add(str(self.file), watcher)
        self.watch.add(str(self.other), other)
        told = watcher.next()
        self.file.unlink()
        await told
        leave()
        told = other.next()
        self.write(b"x", self.other)
        await told
        self.assertEqual(watcher.calls, 1)

    def test_no_such_file(self) -> None:
        """A file that is not there can't be watched."""
        self.assertRaises(FileNotFoundError, self.watch.add, str(self.file.with_name("no")), Watcher())

    def test_descriptors(self) -> None:
        """Nothing is open before the first watch, one descriptor after, however many are watched, none once closed."""
        before = open_descriptors()
        for _ in range(5):
            self.watch.add(str(self.file), Watcher())
            self.watch.add(str(self.other), Watcher())
        self.assertEqual(open_descriptors(), before + 1)
        self.assertFalse(os.get_inheritable(self.watch.fileno()))
        self.watch.close()
        self.assertEqual(open_descriptors(), before)

    def test_closed(self) -> None:
        """Once closed it can be left, and closed again, but not joined."""
        leave = self.watch.add(str(self.file), Watcher())
        self.watch.close()
        self.watch.close()
        leave()
        self.assertRaises(ShuttingDown, self.watch.add, str(self.file), Watcher())


#: Follows a file that grows; run where the kernel gives this user no instance of inotify.
_WITHOUT_INOTIFY = """
import sys
from twisted.internet import reactor
from twisted.logger import globalLogPublisher, formatEvent
from scheduler.worker.watch import OutputWatch

warnings = []
globalLogPublisher.addObserver(lambda event: warnings.append(formatEvent(event)))
path = sys.argv[1]
watch = OutputWatch(reactor)

def told():
    watch.close()
    print(warnings)
    reactor.stop()

watch.add(path, lambda: None)
watch.add(path, told)
with open(path, "ab") as output:
    output.write(b"x")
reactor.callLater(20, reactor.stop)
reactor.run()
"""


class ShortageTests(TestCase):
    """The kernel has no watch to give."""

    def setUp(self) -> None:
        self.watch = OutputWatch(reactor)
        self.addCleanup(self.watch.close)
        self.file = Path(self.mktemp())
        self.file.write_bytes(b"some")
        self.refusals = {"inotify_add_watch": errno.ENOSPC}
        self.patch(watch, "POLL_INTERVAL_SECONDS", 0.01)
        self.real_call = watch.call_inotify
        self.patch(watch, "call_inotify", self.call)

    def call(self, function: str, *arguments: int | bytes) -> int:
        if function in self.refusals:
            raise OSError(self.refusals[function], function)
        return self.real_call(function, *arguments)

    async def grow(self, watcher: Watcher) -> None:
        told = watcher.next()
        with self.file.open("ab") as output:
            output.write(b"x")
        await told

    async def test_no_instance(self) -> None:
        """Where the user has all instances of inotify, a growing file is noticed all the same; one warning says why."""
        command = [sys.executable, "-c", _WITHOUT_INOTIFY, str(self.file)]
        command = in_namespaces("echo 0 > /proc/sys/user/max_inotify_instances", *command)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        out, errors, code = await getProcessOutputAndValue(command[0], command[1:], env)
        self.assertEqual((errors, code), (b"", 0))
        (warning,) = [line for line in ast.literal_eval(out.decode()) if "inotify" in line]
        self.assertIn("Too many open files: output that is followed is looked for every 0.5 s", warning)

    async def test_no_watch(self) -> None:
        """Each growth is told; with nobody left, and once the file is gone, there is nothing to look at."""
        for refused, number in (("inotify_add_watch", errno.ENOSPC), ("inotify_init1", errno.EMFILE)):
            self.refusals = {refused: number}
            watcher, other = Watcher(), Watcher()
            leave, leave_other = self.watch.add(str(self.file), watcher), self.watch.add(str(self.file), other)
            await self.grow(watcher)
            leave_other()
            await self.grow(watcher)
            self.assertEqual((watcher.calls, other.calls), (2, 1))
            told = watcher.next()
            self.file.unlink()
            await told
            leave()
            leave()
            self.file.write_bytes(b"some")
            self.assertFalse(self.watch.polling)

    async def test_other_files(self) -> None:
        """What the kernel watches stays watched, and a later file is watched again when there are watches again."""
        watched, later = Watcher(), Watcher()
        self.refusals = {}
        self.watch.add(str(self.file), watched)
        self.refusals = {"inotify_add_watch": errno.ENOSPC}
        leave = self.watch.add(str(self.file), Watcher())
        await self.grow(watched)
        leave()
        self.refusals = {}
        self.watch.add(str(self.file), later)
        await self.grow(later)
        self.assertFalse(self.watch.polling)

    def test_closed(self) -> None:
        """Once closed nothing is looked at any more."""
        self.watch.add(str(self.file), Watcher())
        self.watch.close()
        self.assertFalse(self.watch.polling)

    def test_other_errors(self) -> None:
        """Another error is no shortage."""
        self.refusals = {"inotify_add_watch": errno.EACCES}
        self.assertRaises(OSError, self.watch.add, str(self.file), Watcher())
