"""What a failure means to a follower, and to one who asks for what is there."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from scheduler.cluster.reader import GIVE_UP, GIVE_UP_ON_FAULTS
from scheduler.cluster.tail import FIRST_DELAY, LAST_DELAY
from scheduler.errors import (
    DeadlineExceeded,
    NotFound,
    OffsetBeyondEnd,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.interfaces import IOutputReader
from scheduler.model import Chunk, JobState, WorkerState
from tests.unit.cluster.output_case import KEY, OutputTestCase
from tests.unit.cluster.values import a_job

CUT = Unreachable("w-1", sent=True)


class ResumeTests(OutputTestCase):
    def under_way(self) -> tuple[IOutputReader, Deferred[Chunk]]:
        """One that has read 10 bytes and waits for more."""
        reader = self.open()
        self.write(10)
        self.client.flow(10)
        self.successResultOf(reader.read())
        return reader, reader.read()

    def test_where_it_was(self) -> None:
        """A stream that is cut is begun again after a moment, at the offset reached."""
        _, reading = self.under_way()
        self.write(5)
        self.client.stream().cut(CUT)
        self.assertEqual(self.client.running(), [])
        self.clock.advance(FIRST_DELAY)
        self.client.flow(10)
        self.assertEqual(self.client.streams[-1].offset, 15)
        self.assert_gives(reading, 10, 5)
        self.assertEqual(self.client.reads_made, 0)

    def test_deadline(self) -> None:
        """A stream that came to its deadline is begun again like one that was cut."""
        self.under_way()
        self.client.stream().cut(DeadlineExceeded("StreamJob", 3600.0))
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(self.client.stream().offset, 10)

    def test_end_without_end(self) -> None:
        """A stream that ends, but not with the end, was cut."""
        _, reading = self.under_way()
        self.client.stream().cut(None)
        self.assertNoResult(reading)
        self.clock.advance(FIRST_DELAY)
        self.assertEqual(self.client.stream().offset, 10)

    def test_wrong_offset(self) -> None:
        """Bytes of another place than was due are not taken; after a pull the stream is begun again."""
        _, reading = self.under_way()
        for skew in (1, -1):
            stream = self.client.stream()
            stream.send(Chunk(b"wrong", 10 + skew))
            self.assertNoResult(reading)
            self.assertTrue(stream.cancelled)
            self.clock.advance(LAST_DELAY)
            self.client.answer()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 10, 5)

    def test_ever_more_slowly(self) -> None:
        """Tries come ever more slowly, but never more than ``LAST_DELAY`` apart, until a byte comes."""
        reader, reading = self.under_way()
        tried = []
        for _ in range(10):
            started = self.clock.seconds()
            self.client.stream().cut(CUT)
            while not self.client.running():
                self.clock.advance(0.05)
            tried.append(self.clock.seconds() - started)
        self.assertEqual(tried, sorted(tried))
        self.assertAlmostEqual(tried[0], FIRST_DELAY)
        self.assertAlmostEqual(tried[-1], LAST_DELAY, delta=0.1)
        self.write(1)
        self.client.flow(10)
        self.successResultOf(reading)
        reader.read()
        self.client.stream().cut(CUT)
        self.clock.advance(FIRST_DELAY)
        self.client.stream()

    def test_long_silence_is_no_failure(self) -> None:
        """A stream that ran for long without a byte was fine: the next cut is the first."""
        self.under_way()
        for _ in range(8):
            self.client.stream().cut(CUT)
            self.clock.pump([LAST_DELAY])
        self.clock.advance(2 * LAST_DELAY)
        self.client.stream().cut(CUT)
        self.clock.advance(FIRST_DELAY)
        self.client.stream()

    def test_worker_comes_back(self) -> None:
        """A worker that can't be reached is not called; when it is back, its streams are begun at once."""
        _, reading = self.under_way()
        self.set_worker(WorkerState.UNREACHABLE)
        self.client.stream().cut(CUT)
        self.change_job(state=JobState.UNKNOWN, unknown_since=1.0)
        self.clock.pump([LAST_DELAY] * 100)
        self.assertEqual(len(self.client.streams), 1)
        self.write(5)
        self.set_worker(WorkerState.ONLINE)
        self.client.flow(10)
        self.assert_gives(reading, 10, 5)

    def test_restart_unnoticed(self) -> None:
        """A worker that was never missed: its registration begins its streams at once."""
        self.under_way()
        for _ in range(5):
            self.client.stream().cut(CUT)
            self.clock.advance(LAST_DELAY)
        self.client.stream().cut(CUT)
        self.set_worker(WorkerState.ONLINE)
        self.client.stream()

    def test_worker_goes_and_registers_again(self) -> None:
        """A worker that deregistered may register again under its id; its followers wait for it."""
        _, reading = self.under_way()
        self.registry.remove_worker("w-1")
        self.outputs.worker_changed("w-1")
        self.client.stream().cut(CUT)
        self.clock.pump([LAST_DELAY] * 100)
        self.write(5)
        self.set_worker(WorkerState.ONLINE)
        self.client.flow(10)
        self.assert_gives(reading, 10, 5)

    def test_ended_meanwhile(self) -> None:
        """The rest of a job that ended while its worker was away is pulled, however long that took."""
        _, reading = self.under_way()
        self.set_worker(WorkerState.UNREACHABLE)
        self.client.stream().cut(CUT)
        self.clock.pump([LAST_DELAY] * 100)
        self.write(5)
        self.end_job()
        self.clock.advance(1)
        self.set_worker(WorkerState.ONLINE)
        self.client.answer()
        self.assert_gives(reading, 10, 5, end=True)
        self.assert_idle()

    def test_others_wait_too(self) -> None:
        """All followers of a stream that was cut go on by one new stream."""
        readings = [self.under_way()[1]]
        readings += [self.open(10).read() for _ in range(3)]
        self.client.stream().cut(CUT)
        self.clock.advance(FIRST_DELAY)
        self.write(5)
        self.client.flow(10)
        for reading in readings:
            self.assert_gives(reading, 10, 5)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (2, 0))

    def test_pull_fails(self) -> None:
        """A pull that fails is made again, with the bytes in order."""
        self.end_job()
        self.write(20)
        reader = self.open()
        reading = reader.read()
        self.client.answer(10)
        self.successResultOf(reading)
        for error in (CUT, DeadlineExceeded("ReadOutput", 10.0), WorkerFault("w-1", "oh")):
            reading = reader.read() if reading.called else reading
            self.client.fail_read(error)
            self.assertNoResult(reading)
            self.clock.advance(LAST_DELAY / 2)
        self.client.answer()
        self.assert_gives(reading, 10, 10, end=True)

    def test_pull_succeeds_between(self) -> None:
        """Failures before bytes came are forgiven: the next try is soon again."""
        self.end_job()
        self.write(20)
        reader = self.open(1)
        reading = reader.read()
        for _ in range(4):
            self.client.fail_read(WorkerFault("w-1", "oh"))
            self.clock.advance(LAST_DELAY / 4)
        self.client.answer(9)
        self.successResultOf(reading)
        reading = reader.read()
        self.client.fail_read(WorkerFault("w-1", "oh"))
        self.clock.advance(FIRST_DELAY)
        self.client.answer()
        self.assert_gives(reading, 10, 10, end=True)

    def test_pull_of_another_place(self) -> None:
        """A pull answered with bytes of another place is a fault, and made again."""
        self.end_job()
        self.write(20)
        reading = self.open().read()
        self.client.reads.pop().answer.callback(Chunk(b"wrong", 3, size=20))
        self.assertNoResult(reading)
        self.clock.advance(FIRST_DELAY)
        self.client.answer()
        self.assert_gives(reading, 0, 20, end=True)

    def test_not_started_yet(self) -> None:
        """The worker of a job that is still being started is not asked before it was."""
        self.registry.put_job(a_job("j-1b", JobState.STARTING))
        reading = self.outputs.open("j-1b", KEY[1], 0).read()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.client.streams, [])
        job = a_job("j-1b", JobState.RUNNING)
        self.registry.put_job(job)
        self.outputs.job_changed(job)
        self.assertEqual(self.client.stream().key[0], "j-1b")
        self.assertNoResult(reading)

    def test_never_came_to_be(self) -> None:
        """A job whose start never left is no job, and neither is its output."""
        self.registry.put_job(a_job("j-1b", JobState.STARTING))
        reading = self.outputs.open("j-1b", KEY[1], 0).read()
        self.registry.remove_job("j-1b")
        self.clock.advance(LAST_DELAY)
        self.failureResultOf(reading, NotFound)
        self.assert_idle()


class EndTests(OutputTestCase):
    def test_ended_job_is_pulled(self) -> None:
        """The output of an ended job is read by calls alone, one at a time, to its end."""
        self.write(50)
        self.end_job()
        reader = self.open()
        reading = reader.read()
        self.assertEqual(len(self.client.reads), 1)
        self.client.answer(30)
        self.assert_gives(reading, 0, 30)
        self.assertEqual(self.client.reads, [])
        reading = reader.read()
        self.client.answer(30)
        self.assert_gives(reading, 30, 20, end=True)
        self.assertEqual(self.client.streams, [])
        self.assert_idle()

    def test_known_length(self) -> None:
        """Where the length of the output is known, its end needs no call."""
        self.end_job(stdout_bytes=0)
        self.set_worker(WorkerState.UNREACHABLE)
        self.assert_gives(self.open().read(), 0, 0, end=True)
        self.assertEqual(self.client.reads_made, 0)

    def test_length_so_far(self) -> None:
        """What a running job was said to have written is not the end."""
        self.change_job(stdout_bytes=5)
        self.write(10)
        reading = self.open(5).read()
        self.client.flow(10)
        self.assert_gives(reading, 5, 5)

    def test_told_of_the_end(self) -> None:
        """A follower who has it all is let go when the job is known to have ended there, even if its stream is cut."""
        self.write(10)
        reader = self.open()
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        self.client.stream().cut(CUT)
        self.end_job(stdout_bytes=10)
        self.assert_gives(reading, 10, 0, end=True)
        self.assert_idle()

    def test_failed_to_start(self) -> None:
        """A job that could not start has an output: none."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.end_job(JobState.FAILED)
        self.client.fail_read(NotFound("job", "j-1"))
        self.assert_gives(reading, 0, 0, end=True)
        self.assert_idle()

    def test_no_record_yet(self) -> None:
        """While the job has not ended, a worker that does not know it may be told of it yet."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.clock.advance(LAST_DELAY)
        self.client.fail_read(NotFound("job", "j-1"))
        self.clock.advance(LAST_DELAY)
        self.write(5)
        self.client.answer()
        self.assert_gives(reading, 0, 5)

    def test_spool_is_gone(self) -> None:
        """Where the worker has no record of an ended job any more, its output is not found."""
        self.end_job(stdout_bytes=10)
        reading = self.open().read()
        self.client.fail_read(NotFound("job", "j-1"))
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_lost_with_its_output(self) -> None:
        """A lost job of which its worker has no record is no more: its output can't be had."""
        reading = self.open().read()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.change_job(state=JobState.LOST, reason="no record")
        self.client.fail_read(NotFound("job", "j-1"))
        self.assertIn("no record", str(self.failureResultOf(reading, Unavailable).value))
        self.assert_idle()

    def test_lost_but_its_output(self) -> None:
        """What a lost job has written before is read like that of any other."""
        self.write(10)
        self.end_job(JobState.LOST, reason="rebooted")
        reading = self.open().read()
        self.client.answer()
        self.assert_gives(reading, 0, 10, end=True)

    def test_lost_with_its_worker(self) -> None:
        """Followers of a job whose worker was forgotten fail as soon as the stream has gone too."""
        self.write(10)
        reader = self.open()
        self.client.flow(10)
        self.successResultOf(reader.read())
        reading = reader.read()
        self.change_job(state=JobState.LOST, reason="forgotten")
        self.assertNoResult(reading)
        self.registry.remove_worker("w-1")
        self.client.stream().cut(CUT)
        self.outputs.worker_changed("w-1")
        self.assertIn("forgotten", str(self.failureResultOf(reading, Unavailable).value))
        self.assert_idle()

    def test_ended_and_unreachable(self) -> None:
        """Who follows an ended job whose worker can't be reached is told so at once."""
        self.end_job()
        self.set_worker(WorkerState.UNREACHABLE)
        self.failureResultOf(self.open().read(), Unreachable)
        self.registry.remove_worker("w-1")
        self.failureResultOf(self.open().read(), Unreachable)
        self.assert_idle()

    def test_gives_up(self) -> None:
        """A follower under way waits for the worker of an ended job, but not for ever."""
        self.write(20)
        self.end_job()
        reader = self.open()
        reading = reader.read()
        self.client.answer(10)
        self.successResultOf(reading)
        self.set_worker(WorkerState.UNREACHABLE)
        reading = reader.read()
        self.clock.pump([1.0] * int(GIVE_UP - 2 * LAST_DELAY))
        self.assertNoResult(reading)
        self.clock.pump([1.0] * int(3 * LAST_DELAY))
        self.failureResultOf(reading, Unreachable)
        self.assert_idle()

    def test_end_that_does_not_come(self) -> None:
        """A worker that never says where the output of an ended job ends is given up too."""
        self.write(10)
        self.end_job()
        self.spool.ended = False
        reader = self.open(10)
        reading = reader.read()
        self.client.answer()
        self.failureResultOf(reading, Unavailable)
        self.assert_idle()

    def test_faults(self) -> None:
        """A worker that answers with faults alone is given up, even while the job runs."""
        reading = self.open().read()
        self.client.stream().cut(WorkerFault("w-1", "disk"))
        while not reading.called:
            self.clock.advance(0.5)
            for _ in self.client.reads[:]:
                self.client.fail_read(WorkerFault("w-1", "disk"))
            self.assertLess(self.clock.seconds(), GIVE_UP_ON_FAULTS + 2 * LAST_DELAY)
        self.failureResultOf(reading, WorkerFault)
        self.assertGreaterEqual(self.clock.seconds(), GIVE_UP_ON_FAULTS)
        self.assert_idle()

    def test_only_pulls(self) -> None:
        """Where the worker has no streams, but its output can be read, it is polled."""
        reading = self.open().read()
        for _ in range(3):
            self.client.stream().cut(Unsupported("w-1", "StreamJob"))
            self.clock.advance(LAST_DELAY)
            self.client.answer()
        self.assertNoResult(reading)
        self.client.stream().cut(Unsupported("w-1", "StreamJob"))
        self.write(5)
        self.clock.advance(LAST_DELAY)
        self.client.answer()
        self.assert_gives(reading, 0, 5)

    def test_unsupported(self) -> None:
        """Where it can do neither, the follower is told."""
        reading = self.open().read()
        self.client.stream().cut(Unsupported("w-1", "StreamJob"))
        self.clock.advance(LAST_DELAY)
        self.client.fail_read(Unsupported("w-1", "ReadOutput"))
        self.failureResultOf(reading, Unsupported)
        self.assert_idle()

    def test_beyond_the_end(self) -> None:
        """An offset past what there is, is refused: by the worker, or without it where the length is known."""
        reading = self.open(10).read()
        self.client.stream().cut(OffsetBeyondEnd(10, 0))
        self.clock.advance(LAST_DELAY)
        self.client.answer()
        self.failureResultOf(reading, OffsetBeyondEnd)
        self.end_job(stdout_bytes=5)
        self.failureResultOf(self.open(10).read(), OffsetBeyondEnd)
        self.assert_idle()

    def test_bug(self) -> None:
        """What is no error of ours is logged, fails those who run into it, and leaves nothing behind."""
        reading = self.open().read()
        self.client.stream().cut(ZeroDivisionError())
        self.clock.advance(LAST_DELAY)
        self.client.fail_read(ZeroDivisionError())
        self.failureResultOf(reading, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assert_idle()


class SnapshotTests(OutputTestCase):
    def read(self, offset: int = 0, size: int = 100) -> Deferred[Chunk]:
        return self.outputs.read(*KEY, offset, size)

    def test_asks_the_worker(self) -> None:
        """What is there is one call, for just the bytes wanted."""
        self.write(50)
        reading = self.read(10, 20)
        self.client.answer()
        self.assert_gives(reading, 10, 20)

    def test_length(self) -> None:
        """No bytes wanted: the length alone."""
        self.write(50)
        reading = self.read(0, 0)
        self.client.answer()
        self.assertEqual(self.successResultOf(reading), Chunk(b"", 0, size=50))

    def test_errors_pass(self) -> None:
        """The worker's answer is the answer."""
        for error in (OffsetBeyondEnd(5, 0), CUT, DeadlineExceeded("ReadOutput", 10.0), WorkerFault("w-1", "oh")):
            reading = self.read(5)
            self.client.fail_read(error)
            self.failureResultOf(reading, type(error))

    def test_unknown_job(self) -> None:
        """A job that is not known is not found."""
        self.failureResultOf(self.outputs.read("j-2", KEY[1], 0, 1), NotFound)

    def test_unreachable(self) -> None:
        """A worker that can't be reached, or is known no more, is not called."""
        self.set_worker(WorkerState.UNREACHABLE)
        self.failureResultOf(self.read(), Unreachable)
        self.registry.remove_worker("w-1")
        self.failureResultOf(self.read(), Unreachable)
        self.assertEqual(self.client.reads_made, 0)

    def test_no_worker(self) -> None:
        """A job that was never given to a worker has no output that can be had."""
        self.registry.put_job(a_job("j-3", JobState.LOST, reason="forgotten"))
        self.registry.remove_worker("w-1")
        reading = self.outputs.read("j-3", KEY[1], 0, 1)
        self.assertIn("forgotten", str(self.failureResultOf(reading, Unavailable).value))

    def test_not_started(self) -> None:
        """A job that is being started has written nothing yet; that is not its end."""
        self.registry.put_job(a_job("j-3", JobState.STARTING))
        chunk = self.successResultOf(self.outputs.read("j-3", KEY[1], 0, 10))
        self.assertEqual(chunk, Chunk(b"", 0))
        self.failureResultOf(self.outputs.read("j-3", KEY[1], 1, 10), OffsetBeyondEnd)

    def test_known_length(self) -> None:
        """Behind the known length there is nothing to ask for."""
        self.write(10)
        self.end_job(stdout_bytes=10)
        self.assertEqual(self.successResultOf(self.read(10)), Chunk(b"", 10, end=True, size=10))
        self.failureResultOf(self.read(11), OffsetBeyondEnd)
        self.assertEqual(self.client.reads_made, 0)

    def test_no_record(self) -> None:
        """Without a record on the worker: nothing, of a job that never started; not now; lost; or not found."""
        for state, outcome in (
            (JobState.RUNNING, Unavailable),
            (JobState.FAILED, None),
            (JobState.LOST, Unavailable),
            (JobState.SUCCEEDED, NotFound),
        ):
            job = a_job(f"j-{state.value}", state)
            self.registry.put_job(job)
            reading = self.outputs.read(job.id, KEY[1], 0, 10)
            self.client.fail_read(NotFound("job", job.id))
            if outcome is None:
                self.assertEqual(self.successResultOf(reading), Chunk(b"", 0, end=True))
            else:
                self.failureResultOf(reading, outcome)

    def test_cancel(self) -> None:
        """One that goes away cancels the call."""
        reading = self.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertTrue(self.client.reads[0].answer.called)
