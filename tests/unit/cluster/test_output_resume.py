"""A follower goes on where it was after its stream was cut."""

from __future__ import annotations

from scheduler.cluster.output.failures import RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS
from scheduler.errors import DeadlineExceeded, NotFound, Unreachable, WorkerFault
from scheduler.messages import Chunk
from scheduler.model import JobState, Ref, WorkerState
from tests.unit.cluster.output_case import KEY, OutputTestCase
from tests.unit.cluster.values import a_job, a_worker

CUT = Unreachable("w-1", sent=True)


class ResumeTests(OutputTestCase):
    def test_where_it_was(self) -> None:
        """A stream that is cut is begun again after a moment, at the offset reached."""
        _, reading = self.under_way()
        self.write(5)
        self.client.stream().cut(CUT)
        self.assertEqual(self.client.running(), [])
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.client.flow(10)
        self.assertEqual(self.client.streams[-1].offset, 15)
        self.assert_gives(reading, 10, 5)
        self.assertEqual(self.client.reads_made, 0)

    def test_deadline(self) -> None:
        """A stream that came to its deadline is begun again like one that was cut."""
        self.under_way()
        self.client.stream().cut(DeadlineExceeded("StreamJob", 3600.0))
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.assertEqual(self.client.stream().offset, 10)

    def test_end_without_end(self) -> None:
        """A stream that ends, but not with the end, was cut."""
        _, reading = self.under_way()
        self.client.stream().cut(None)
        self.assertNoResult(reading)
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.assertEqual(self.client.stream().offset, 10)

    def test_wrong_offset(self) -> None:
        """A chunk at a wrong offset is not taken; after a pull the stream is begun again."""
        _, reading = self.under_way()
        for skew in (1, -1):
            stream = self.client.stream()
            stream.send(Chunk(b"wrong", 10 + skew))
            self.assertNoResult(reading)
            self.assertTrue(stream.cancelled)
            self.clock.advance(RETRY_MAX_SECONDS)
            self.client.answer()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 10, 5)

    def test_ever_more_slowly(self) -> None:
        """The delay between tries grows up to ``RETRY_MAX_SECONDS``, until a byte comes."""
        reader, reading = self.under_way()
        tried = []
        for _ in range(10):
            started = self.clock.seconds()
            self.client.stream().cut(CUT)
            while not self.client.running():
                self.clock.advance(0.05)
            tried.append(self.clock.seconds() - started)
        self.assertEqual(tried, sorted(tried))
        self.assertAlmostEqual(tried[0], RETRY_FIRST_SECONDS)
        self.assertAlmostEqual(tried[-1], RETRY_MAX_SECONDS, delta=0.1)
        self.write(1)
        self.client.flow(10)
        self.successResultOf(reading)
        reader.read()
        self.client.stream().cut(CUT)
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.client.stream()

    def test_long_silence_is_no_failure(self) -> None:
        """A cut after a long stream without a byte counts as the first failure."""
        self.under_way()
        for _ in range(8):
            self.client.stream().cut(CUT)
            self.clock.pump([RETRY_MAX_SECONDS])
        self.clock.advance(2 * RETRY_MAX_SECONDS)
        self.client.stream().cut(CUT)
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.client.stream()

    def test_worker_comes_back(self) -> None:
        """A worker that can't be reached is not called; when it is back, its streams are begun at once."""
        _, reading = self.under_way()
        self.set_worker(WorkerState.UNREACHABLE)
        self.client.stream().cut(CUT)
        self.change_job(state=JobState.UNKNOWN, unknown_since=1.0)
        self.clock.pump([RETRY_MAX_SECONDS] * 100)
        self.assertEqual(len(self.client.streams), 1)
        self.write(5)
        self.set_worker(WorkerState.ONLINE)
        self.client.flow(10)
        self.assert_gives(reading, 10, 5)

    def test_restart_unnoticed(self) -> None:
        """The registration of a worker that restarted unnoticed begins its streams at once."""
        self.under_way()
        for _ in range(5):
            self.cut(CUT)
        self.client.stream().cut(CUT)
        self.house.add(a_worker(nonce="of the next process"))
        self.client.stream()

    def test_worker_goes_and_registers_again(self) -> None:
        """A worker that deregistered may register again under its id; its followers wait for it."""
        _, reading = self.under_way()
        self.ledger.learn(Ref("worker", "w-1"))
        self.client.stream().cut(CUT)
        self.clock.pump([RETRY_MAX_SECONDS] * 100)
        self.write(5)
        self.set_worker(WorkerState.ONLINE)
        self.client.flow(10)
        self.assert_gives(reading, 10, 5)

    def test_ended_meanwhile(self) -> None:
        """The rest of a job that ended while its worker was away is pulled, however long that took."""
        _, reading = self.under_way()
        self.set_worker(WorkerState.UNREACHABLE)
        self.client.stream().cut(CUT)
        self.clock.pump([RETRY_MAX_SECONDS] * 100)
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
        self.clock.advance(RETRY_FIRST_SECONDS)
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
            self.clock.advance(RETRY_MAX_SECONDS / 2)
        self.client.answer()
        self.assert_gives(reading, 10, 10, end=True)

    def test_pull_succeeds_between(self) -> None:
        """The delay is short again after bytes came."""
        self.end_job()
        self.write(20)
        reader = self.open(1)
        reading = reader.read()
        for _ in range(4):
            self.client.fail_read(WorkerFault("w-1", "oh"))
            self.clock.advance(RETRY_MAX_SECONDS / 4)
        self.client.answer(9)
        self.successResultOf(reading)
        reading = reader.read()
        self.client.fail_read(WorkerFault("w-1", "oh"))
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.client.answer()
        self.assert_gives(reading, 10, 10, end=True)

    def test_pull_of_another_place(self) -> None:
        """A pull answered with bytes of another place is a fault, and made again."""
        self.end_job()
        self.write(20)
        reading = self.open().read()
        self.client.next_read().answer.callback(Chunk(b"wrong", 3, size=20))
        self.assertNoResult(reading)
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.client.answer()
        self.assert_gives(reading, 0, 20, end=True)

    def test_being_started(self) -> None:
        """The worker of a job that is being started is asked to wait for it; if it does not, it is asked again."""
        self.house.add(a_job("j-1b", JobState.STARTING))
        reading = self.outputs.open("j-1b", KEY[1], 0).read()
        self.assertTrue(self.client.stream().starting)
        self.client.stream().cut(NotFound("job", "j-1b"))
        self.assertEqual(self.client.running(), [])
        job = a_job("j-1b", JobState.RUNNING)
        self.house.add(job)
        self.assertEqual((self.client.stream().key[0], self.client.reads), ("j-1b", []))
        self.assertFalse(self.client.stream().starting)
        self.assertNoResult(reading)

    def test_never_came_to_be(self) -> None:
        """The output of a job that was dropped before its start was sent is not found."""
        self.house.add(a_job("j-1b", JobState.STARTING))
        reading = self.outputs.open("j-1b", KEY[1], 0).read()
        self.ledger.learn(Ref("job", "j-1b"))
        self.cut(NotFound("job", "j-1b"))
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_never_came_to_be_silently(self) -> None:
        """The output of a dropped job is not found at once, even if the worker does not answer."""
        job = a_job("j-1b", JobState.STARTING)
        self.house.add(job)
        reading = self.outputs.open("j-1b", KEY[1], 0).read()
        self.ledger.learn(job.ref)
        self.house.settle()
        self.failureResultOf(reading, NotFound)
        self.assert_idle()

    def test_queued_again(self) -> None:
        """A job that is queued again is not awaited on the worker that did not start it."""
        self.ledger.learn(Ref("job", "j-1"))
        self.house.add(a_job("j-1", JobState.STARTING, target=None))
        reading = self.open().read()
        before = self.client.stream()
        self.change_job(state=JobState.QUEUED, worker_id=None, worker_name=None)
        self.house.add(a_worker("w-2"))
        self.change_job(state=JobState.STARTING, worker_id="w-2", worker_name="w-2")
        self.change_job(state=JobState.RUNNING)
        self.assertIsNot(self.client.stream(), before)
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 0, 5)
