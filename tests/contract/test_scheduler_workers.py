"""What every scheduler does with workers and their jobs' output, for the HTTP API."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from scheduler.errors import (
    Conflict,
    NoFreeSlot,
    NotFound,
    OffsetBeyondEnd,
    OutputGone,
    StoreFailed,
    Unreachable,
    Unsupported,
)
from scheduler.interfaces import IOutputReader, Readiness
from scheduler.messages import Chunk
from scheduler.model import Disk, Job, JobState, QueueTerms, Stream, Target, WorkerState
from tests.contract.scheduler_worlds import W1, Contract, for_every_provider
from tests.house import ECHO, EPOCH


class Workers(Contract):
    def test_all(self) -> None:
        """All are listed by name, with what they said of themselves."""
        self.world.add_worker("b", slots=2, labels={"gpu": "yes"})
        self.world.add_worker("a", core=True)
        views = self.scheduler.workers()
        self.assertEqual([view.worker.name for view in views], ["a", "b", "w1"])
        self.assertEqual([view.worker.slots for view in views], [None, 2, None])
        self.assertEqual([view.worker.is_core for view in views], [True, False, False])
        self.assertEqual(views[1].worker.labels, {"name": "b", "gpu": "yes"})
        self.assertEqual({view.worker.state for view in views}, {WorkerState.ONLINE})

    def test_one(self) -> None:
        """One is found by id or name."""
        self.world.add_worker("w2")
        self.assertEqual(self.scheduler.worker("w1").worker.id, "id-w1")
        self.assertEqual(self.scheduler.worker("id-w1").worker.name, "w1")
        self.assertEqual(self.scheduler.worker("id-w2").worker.name, "w2")

    def test_the_machine(self) -> None:
        """A worker is shown with its disk and its clock, once it has told of them."""
        worker = self.scheduler.worker("w1").worker
        self.assertEqual((worker.disk, worker.clock_difference), (None, None))
        self.world.describes("w1", -3.25, Disk(1000, 500, 100, 50))
        worker = self.scheduler.worker("w1").worker
        self.assertEqual((worker.disk, worker.clock_difference), (Disk(1000, 500, 100, 50), -3.25))

    def test_running_jobs(self) -> None:
        """A worker is shown with the number of its jobs that have not ended, those unknown too."""
        self.world.add_worker("w2")
        self.submit()
        self.submit()
        self.ended()
        self.assertEqual([view.running_jobs for view in self.scheduler.workers()], [2, 0])
        self.world.lose("w1")
        view = self.scheduler.worker("w1")
        self.assertEqual((view.worker.state, view.running_jobs), (WorkerState.UNREACHABLE, 2))

    def test_not_found(self) -> None:
        """One that nobody knows is not found, whatever is to be done with it."""
        with self.assertRaises(NotFound) as caught:
            self.scheduler.worker("nobody")
        self.assertEqual((caught.exception.kind, caught.exception.name), ("worker", "nobody"))
        for method in (self.scheduler.drain, self.scheduler.resume, self.scheduler.forget):
            self.assertEqual(self.refusal(NotFound, method, "nobody").kind, "worker")

    def test_drain(self) -> None:
        """Drained and resumed by id or name, as often as anybody likes; what runs goes on."""
        job = self.submit()
        for method, draining in ((self.scheduler.drain, True), (self.scheduler.resume, False)):
            for name in ("w1", "id-w1"):
                view = self.successResultOf(method(name))
                self.assertEqual((view.worker.draining, view.running_jobs), (draining, 1))
                self.assertEqual(self.scheduler.worker("w1"), view)
        self.assertIs(self.state(job), JobState.RUNNING)

    def test_draining_stays(self) -> None:
        """One that is drained still is when it is back."""
        self.successResultOf(self.scheduler.drain("w1"))
        self.world.lose("w1")
        self.world.find("w1")
        self.assertTrue(self.scheduler.worker("w1").worker.draining)

    def test_offline(self) -> None:
        """One that deregistered is listed as it was, with the reason; a selector finds it, and jobs wait for it."""
        self.world.add_worker("w2", slots=2, labels={"gpu": "yes"})
        before = self.successResultOf(self.scheduler.drain("w2"))
        self.world.deregister("w2")
        view = self.scheduler.worker("w2")
        self.assertEqual((view.worker.state, view.running_jobs), (WorkerState.OFFLINE, 0))
        self.assertRegex(view.reason or "", r"^it deregistered at 20..-..-..T..:..:..Z$")
        for field in ("id", "name", "labels", "slots", "draining"):
            self.assertEqual(getattr(view.worker, field), getattr(before.worker, field))
        self.assertEqual(self.scheduler.readiness(), Readiness((), 1))
        self.successResultOf(self.scheduler.resume("w2"))
        gpu = Target(selector={"gpu": "yes"})
        self.refusal(NoFreeSlot, self.scheduler.submit, ECHO, gpu)
        self.refusal(Unreachable, self.scheduler.submit, ECHO, Target(worker="w2"))
        job = self.successResultOf(self.scheduler.submit(ECHO, gpu, QueueTerms(queue_timeout=600.0)))
        waiting = self.scheduler.waiting_for(job)
        assert waiting is not None
        self.assertEqual((job.state, waiting.why), (JobState.QUEUED, "unreachable"))
        self.world.find("w2")
        self.world.flow()
        self.assertIs(self.state(job), JobState.RUNNING)
        self.assertIs(self.scheduler.worker("w2").worker.state, WorkerState.ONLINE)

    def test_forget_offline(self) -> None:
        """One that deregistered can be forgotten."""
        self.world.deregister("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.assertEqual(self.scheduler.workers(), ())

    def test_forget_online(self) -> None:
        """One that is online is not forgotten, and keeps its jobs."""
        job = self.submit()
        self.refusal(Conflict, self.scheduler.forget, "w1")
        self.assertIs(self.state(job), JobState.RUNNING)
        self.assertEqual(self.scheduler.worker("w1").running_jobs, 1)

    def test_forget(self) -> None:
        """One that is forgotten is known no more; its jobs are, and those that had not ended are lost."""
        ended, job = self.ended(), self.submit()
        wait = self.scheduler.wait(job.id, 30)
        self.world.lose("w1")
        self.assertIsNone(self.successResultOf(self.scheduler.forget("w1")))
        self.assertEqual(self.scheduler.workers(), ())
        self.refusal(NotFound, self.scheduler.forget, "w1")
        self.world.settle()
        lost = self.successResultOf(wait)
        self.assertEqual((lost.state, lost.reason, lost.unknown_since), (JobState.LOST, "forgotten", None))
        self.assertEqual(lost.finished_at, EPOCH + 2)
        self.assertEqual([self.scheduler.job(job.id), self.scheduler.job(ended.id)], [lost, ended])

    def test_readiness(self) -> None:
        """Ready is ready with any number of workers, and says how many can be reached."""
        self.world.add_worker("w2")
        self.assertEqual(self.scheduler.readiness(), Readiness((), 2))
        self.world.lose("w1")
        self.world.lose("w2")
        self.assertEqual(self.scheduler.readiness(), Readiness((), 0))

    def test_not_ready(self) -> None:
        """While the store fails, as the last submission showed, it is not ready, and says why."""
        self.world.store_fails("disk full")
        self.refusal(StoreFailed, self.scheduler.submit, ECHO, W1)
        readiness = self.scheduler.readiness()
        self.assertFalse(readiness.ready)
        self.assertIn("disk full", " ".join(readiness.reasons))


class Following(Contract):
    """Output as it comes."""

    def open(self, job: Job, offset: int = 0, stream: Stream = Stream.STDOUT) -> IOutputReader:
        return self.scheduler.open_output(job.id, stream, offset)

    def read(self, reader: IOutputReader) -> Deferred[Chunk]:
        """What a read comes to, after a while."""
        reading: Deferred[Chunk] = reader.read()
        self.world.flow()
        return reading

    def assert_reads(self, reader: IOutputReader, data: bytes, end: bool = False) -> None:
        """Chunks that follow each other give exactly that; only the last one may be the end."""
        start, got, ended = reader.offset, b"", False
        while len(got) < len(data) or (end and not ended):
            self.assertFalse(ended)
            chunk = self.successResultOf(self.read(reader))
            self.assertEqual(chunk.offset, start + len(got))
            got += chunk.data
            ended = chunk.end
            self.assertEqual(reader.offset, start + len(got))
        self.assertEqual((got, ended), (data, end))

    def test_interface(self) -> None:
        """A reader is one."""
        self.assertTrue(verifyObject(IOutputReader, self.open(self.submit())))

    def test_live(self) -> None:
        """A reader gets what is there, then what comes, of its stream alone, and an end."""
        job = self.submit()
        self.world.write(job, b"before")
        reader = self.open(job)
        self.assert_reads(reader, b"before")
        for data in (b"\0\xff", b"\n", b"more"):
            reading = self.read(reader)
            self.assertNoResult(reading)
            self.world.write(job, b"other", Stream.STDERR)
            self.world.flow()
            self.assertNoResult(reading)
            self.world.write(job, data)
            self.world.flow()
            self.assertEqual(self.successResultOf(reading).data, data)
        self.world.end(job)
        self.assert_reads(reader, b"", end=True)
        errors = self.open(job, 0, Stream.STDERR)
        self.assert_reads(errors, b"other" * 3, end=True)
        for ended in (reader, errors):
            ended.close()
        self.assertEqual(self.world.readers(), 0)

    def test_end_while_it_waits(self) -> None:
        """The end comes to a read that waits for bytes."""
        job = self.submit()
        reading = self.read(self.open(job))
        self.assertNoResult(reading)
        self.world.end(job)
        self.world.flow()
        self.assertEqual(self.successResultOf(reading), Chunk(b"", 0, True))

    def test_ended(self) -> None:
        """The output of a job that has ended is read to its end, from any offset."""
        job = self.ended(output=b"hello")
        for offset in range(6):
            self.assert_reads(self.open(job, offset), b"hello"[offset:], end=True)
        self.assert_reads(self.open(job, 0, Stream.STDERR), b"", end=True)

    def test_cut(self) -> None:
        """The end of output that was cut says why, to those who follow it and to those who come later."""
        job = self.submit()
        self.world.write(job, b"hello")
        under_way = self.open(job)
        self.assert_reads(under_way, b"hello")
        reading = self.read(under_way)
        self.world.end(job, output_error="stdout: No space left on device")
        self.world.flow()
        ends = [reading, *(self.read(self.open(job, offset)) for offset in (0, 4, 5))]
        for offset, end in zip((5, 0, 4, 5), ends, strict=True):
            chunk = self.successResultOf(end)
            self.assertEqual((chunk.data, chunk.end), (b"hello"[offset:], True))
            self.assertEqual(chunk.cut, "stdout: No space left on device")
        errors = self.successResultOf(self.read(self.open(job, 0, Stream.STDERR)))
        self.assertEqual((errors.data, errors.cut), (b"", "stdout: No space left on device"))
        self.assertEqual(self.scheduler.job(job.id).output_error, "stdout: No space left on device")

    def test_side_by_side(self) -> None:
        """Each reader has a place of its own; one that closes disturbs nobody."""
        job = self.submit()
        self.world.write(job, b"hello")
        first, second, third = self.open(job), self.open(job, 3), self.open(job, 5)
        self.assert_reads(second, b"lo")
        self.assert_reads(first, b"hello")
        first.close()
        self.world.write(job, b" world")
        self.world.end(job)
        self.assert_reads(third, b" world", end=True)
        self.assert_reads(second, b" world", end=True)

    def test_beyond_end(self) -> None:
        """An offset past the end is told, with how much there is, when it is read from."""
        running = self.submit()
        self.world.write(running, b"abc")
        for job in (running, self.ended(output=b"abc")):
            error = self.failureResultOf(self.read(self.open(job, 9)), OffsetBeyondEnd).value
            self.assertEqual((error.offset, error.size), (9, 3))

    def test_refused(self) -> None:
        """No job, or a worker that can't do it: refused before anything is read."""
        with self.assertRaises(NotFound) as caught:
            self.scheduler.open_output("nothing", Stream.STDOUT, 0)
        self.assertEqual(caught.exception.kind, "job")
        self.world.add_worker("old", core=True)
        job = self.submit(Target(worker="old"))
        with self.assertRaises(Unsupported):
            self.open(job)

    def test_cancel(self) -> None:
        """Cancelling a read closes the reader; closing it again is nothing."""
        job = self.submit()
        reader = self.open(job)
        reading = self.read(reader)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertEqual((self.world.readers(), self.world.timers()), (0, 0))
        reader.close()

    def test_close(self) -> None:
        """Closing a reader cancels its read, and leaves nothing; it may be closed twice."""
        job = self.submit()
        reader = self.open(job)
        reading = self.read(reader)
        reader.close()
        reader.close()
        self.failureResultOf(reading, CancelledError)
        self.assertEqual((self.world.readers(), self.world.timers()), (0, 0))

    def test_worker_away(self) -> None:
        """A reader of a job that has not ended waits for its worker, however long, and goes on where it was."""
        job = self.submit()
        self.world.write(job, b"one")
        reader = self.open(job)
        self.assert_reads(reader, b"one")
        reading = self.read(reader)
        self.world.lose("w1")
        late = self.read(self.open(job, 1))
        self.world.clock.pump([60.0] * 10)
        self.assertNoResult(reading)
        self.world.find("w1")
        self.world.write(job, b"two")
        self.world.flow()
        for waited, offset, data in ((reading, 3, b"two"), (late, 1, b"netwo")):
            chunk = self.successResultOf(waited)
            self.assertEqual(chunk.offset, offset)
            self.assertTrue(chunk.data and data.startswith(chunk.data), chunk)

    def test_lost(self) -> None:
        """The output of a job that is lost can't be had: not by one who waits for it, nor by one who comes."""
        job = self.submit()
        reading = self.read(self.open(job))
        self.world.lose("w1")
        self.assertNoResult(reading)
        self.successResultOf(self.scheduler.forget("w1"))
        self.world.flow()
        self.failureResultOf(reading, OutputGone, Unreachable)
        self.failureResultOf(self.read(self.open(job)), OutputGone)

    def test_orphan(self) -> None:
        """The output of an orphan is read on, and comes to its end with it."""
        job = self.submit()
        self.world.write(job, b"one")
        self.world.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.world.come_back("w1")
        reader = self.open(job)
        first = self.successResultOf(self.read(reader))
        self.assertEqual((first.data, first.end), (b"one", False))
        self.world.write(job, b"two")
        self.world.flow()
        second = self.successResultOf(self.read(reader))
        self.assertEqual((second.data, second.offset), (b"two", 3))
        self.successResultOf(self.scheduler.stop(job.id))
        self.world.flow()
        self.assertTrue(self.successResultOf(self.read(reader)).end)


class Reading(Contract):
    """Output as it is."""

    def read(self, job: Job, offset: int, size: int, stream: Stream = Stream.STDOUT) -> Chunk:
        return self.successResultOf(self.scheduler.read_output(job.id, stream, offset, size))

    def test_running(self) -> None:
        """What is there, as much as was asked for, and how much there is; of a job that runs it is no end."""
        job = self.submit()
        self.world.write(job, b"hello\0\xff")
        self.world.write(job, b"err", Stream.STDERR)
        self.assertEqual(self.read(job, 1, 3), Chunk(b"ell", 1, False, 7))
        self.assertEqual(self.read(job, 0, 100), Chunk(b"hello\0\xff", 0, False, 7))
        self.assertEqual(self.read(job, 7, 1), Chunk(b"", 7, False, 7))
        self.assertEqual(self.read(job, 0, 9, Stream.STDERR), Chunk(b"err", 0, False, 3))

    def test_ended(self) -> None:
        """Of a job that has ended, what reaches to the end says so."""
        job = self.ended(output=b"hello")
        self.assertEqual(self.read(job, 0, 4), Chunk(b"hell", 0, False, 5))
        self.assertEqual(self.read(job, 4, 9), Chunk(b"o", 4, True, 5))
        self.assertEqual(self.read(job, 5, 9), Chunk(b"", 5, True, 5))
        self.assertEqual(self.read(job, 0, 9, Stream.STDERR), Chunk(b"", 0, True, 0))

    def test_length(self) -> None:
        """Size 0 asks for the length alone, running or ended."""
        job = self.submit()
        self.assertEqual(self.read(job, 0, 0), Chunk(b"", 0, False, 0))
        self.world.write(job, b"hello")
        self.assertEqual(self.read(job, 0, 0), Chunk(b"", 0, False, 5))
        self.world.end(job)
        self.assertEqual(self.read(job, 0, 0), Chunk(b"", 0, False, 5))

    def test_much(self) -> None:
        """However much is asked for, some comes, and the next goes on after it."""
        data = bytes(range(256)) * 4 * 4096
        job = self.ended(output=data)
        got = b""
        while len(got) < len(data):
            chunk = self.read(job, len(got), 1 << 40)
            self.assertEqual((bool(chunk.data), chunk.offset, chunk.size), (True, len(got), len(data)))
            got += chunk.data
            self.assertEqual(chunk.end, len(got) == len(data))
        self.assertTrue(got == data)

    def test_beyond_end(self) -> None:
        """An offset past the end is told, with how much there is."""
        running = self.submit()
        self.world.write(running, b"abc")
        for job in (running, self.ended(output=b"abc")):
            error = self.refusal(OffsetBeyondEnd, self.scheduler.read_output, job.id, Stream.STDOUT, 4, 1)
            self.assertEqual((error.offset, error.size), (4, 3))

    def test_refused(self) -> None:
        """No job, or a worker that can't do it."""
        error = self.refusal(NotFound, self.scheduler.read_output, "nothing", Stream.STDOUT, 0, 1)
        self.assertEqual(error.kind, "job")
        self.world.add_worker("old", core=True)
        job = self.submit(Target(worker="old"))
        self.refusal(Unsupported, self.scheduler.read_output, job.id, Stream.STDOUT, 0, 1)

    def test_unreachable(self) -> None:
        """Without its worker there is no output, but what is known to be none is answered."""
        running, ended = self.submit(), self.ended(output=b"abc")
        self.world.lose("w1")
        for job in (running, ended):
            self.refusal(Unreachable, self.scheduler.read_output, job.id, Stream.STDOUT, 0, 1)
        self.assertEqual(self.read(ended, 3, 1), Chunk(b"", 3, True, 3))
        self.refusal(OffsetBeyondEnd, self.scheduler.read_output, ended.id, Stream.STDOUT, 4, 1)

    def test_lost(self) -> None:
        """The output of a job that is lost can't be had."""
        job = self.submit()
        self.world.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.refusal(OutputGone, self.scheduler.read_output, job.id, Stream.STDOUT, 0, 1)

    def test_forgotten(self) -> None:
        """The output of a job that ended went with its worker."""
        job = self.ended(output=b"abc")
        self.world.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.refusal(OutputGone, self.scheduler.read_output, job.id, Stream.STDOUT, 0, 1)
        self.assertEqual(self.read(job, 3, 1), Chunk(b"", 3, True, 3))


globals().update(for_every_provider(Workers, Following, Reading))
