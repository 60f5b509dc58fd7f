"""Followers, the stream they share, and what holds it up."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from scheduler.cluster.output.follower import READ_MAX_BYTES
from scheduler.cluster.output.live import HELD_UP_MAX_SECONDS
from scheduler.errors import NotFound, ShuttingDown, Unreachable
from scheduler.interfaces import IOutputReader, IWorkerClient
from scheduler.model import Stream
from tests.unit.cluster.output_case import KEY, WINDOW, OutputTestCase


class FollowTests(OutputTestCase):
    def test_interfaces(self) -> None:
        """A follower and the double of the client provide their interfaces."""
        self.assertTrue(verifyObject(IOutputReader, self.open()))
        self.assertTrue(verifyObject(IWorkerClient, self.client))

    def test_live(self) -> None:
        """A read waits for bytes and gets them as they come."""
        reading = self.open().read()
        self.client.flow(10)
        self.assertNoResult(reading)
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 0, 5)

    def test_size(self) -> None:
        """A chunk tells how long the stream was known to be."""
        reader = self.open()
        self.write(30)
        self.client.flow(10)
        self.assertEqual(self.successResultOf(reader.read()).size, 30)

    def test_end(self) -> None:
        """The last chunk is marked as the end, and then nothing is left of the follower."""
        reader = self.open()
        reading = reader.read()
        self.write(5)
        self.spool.ended = True
        self.client.flow(10)
        self.assert_gives(reading, 0, 5, end=True)
        self.assert_idle()
        self.failureResultOf(reader.read(), CancelledError)

    def test_end_alone(self) -> None:
        """A job that ends without more output ends its readers with an empty chunk."""
        _, reading = self.under_way(5)
        self.spool.ended = True
        self.client.flow(10)
        self.assert_gives(reading, 5, 0, end=True)

    def test_end_lets_the_stream_end(self) -> None:
        """A stream that came to its end is not cancelled."""
        self.open().read()
        self.spool.ended = True
        self.client.flow(10)
        (stream,) = self.client.streams
        self.assertFalse(stream.cancelled)

    def test_starts_at_own_offset(self) -> None:
        """A single follower gets a stream from its own offset on, and nothing is pulled."""
        self.write(50)
        reading = self.open(20).read()
        self.client.flow(10)
        self.assertEqual((self.client.streams[0].offset, self.client.reads_made), (50, 0))
        self.assert_gives(reading, 20, 10)

    def test_one_stream_for_all(self) -> None:
        """The worker streams an output once for all its followers, and each gets every byte."""
        readings = [self.open().read() for _ in range(5)]
        self.write(10)
        self.client.flow(10)
        for reading in readings:
            self.assert_gives(reading, 0, 10)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 0))

    def test_streams_are_apart(self) -> None:
        """Stdout and stderr of a job are followed apart."""
        self.open()
        self.outputs.open("j-1", Stream.STDERR, 0)
        self.assertEqual([stream.key[1] for stream in self.client.running()], [Stream.STDOUT, Stream.STDERR])

    def test_id_on_worker(self) -> None:
        """The worker is asked by the id it chose."""
        self.change_job(remote_id="theirs")
        self.open()
        self.assertEqual(self.client.stream().key[0], "theirs")

    def test_cancelled_after_last(self) -> None:
        """The stream is cancelled when its last follower left, not before."""
        first, second = self.open(), self.open()
        first.close()
        self.client.stream()
        second.close()
        self.assert_idle()
        self.assertTrue(self.client.streams[0].cancelled)

    def test_begins_anew(self) -> None:
        """A follower that comes after all have left gets a new stream."""
        self.open().close()
        self.write(5)
        reading = self.open().read()
        self.client.flow(10)
        self.assert_gives(reading, 0, 5)

    def test_large_chunk(self) -> None:
        """A read gives at most ``READ_MAX_BYTES`` bytes."""
        self.window = 4 * READ_MAX_BYTES
        self.setUp()
        self.spool.data = bytes(READ_MAX_BYTES + 10)
        reader = self.open()
        self.client.flow(2 * READ_MAX_BYTES)
        self.assert_gives(reader.read(), 0, READ_MAX_BYTES)
        self.assert_gives(reader.read(), READ_MAX_BYTES, 10)


class LeaveTests(OutputTestCase):
    def test_close_cancels_the_read(self) -> None:
        """Closing fails a read that waits, and may be done twice."""
        reader = self.open()
        reading = reader.read()
        reader.close()
        reader.close()
        self.failureResultOf(reading, CancelledError)
        self.assert_idle()

    def test_cancelling_the_read_closes(self) -> None:
        """A client that hangs up cancels its read; that frees everything."""
        reader = self.open()
        reading = reader.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.failureResultOf(reader.read(), CancelledError)
        self.assert_idle()

    def test_cancelling_a_pull(self) -> None:
        """A follower that is cancelled while it pulls cancels its call to the worker."""
        self.end_job()
        reading = self.open().read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assert_idle()

    def test_others_stay(self) -> None:
        """A follower that leaves takes nothing from the others, even while chunks are handed out."""
        first, second = self.open(), self.open()
        first.read().addCallback(lambda _: second.close())
        cancelled = second.read()
        third = self.open().read()
        self.write(5)
        self.client.flow(10)
        self.failureResultOf(cancelled, CancelledError)
        self.assert_gives(third, 0, 5)

    def test_last_leaves_while_served(self) -> None:
        """The last follower may leave when it is handed its bytes."""
        reader = self.open()
        reader.read().addCallback(lambda _: reader.close())
        self.write(WINDOW)
        self.client.flow(WINDOW)
        self.assert_idle()

    def test_shut_down(self) -> None:
        """Every follower fails with ``ShuttingDown`` at shutdown, now or at its next read."""
        waiting, dawdling = self.open(), self.open()
        reading = waiting.read()
        self.outputs.shut_down()
        self.failureResultOf(reading, ShuttingDown)
        self.failureResultOf(dawdling.read(), ShuttingDown)
        self.assertRaises(ShuttingDown, self.open)
        self.failureResultOf(self.outputs.read(*KEY, 0, 10), ShuttingDown)
        self.assert_idle()


class WindowTests(OutputTestCase):
    def test_inside(self) -> None:
        """A later follower inside the window is served from it, without a call."""
        fast = self.open()
        self.write(50)
        self.client.flow(10)
        self.successResultOf(fast.read())
        self.assert_gives(self.open(20).read(), 20, 30)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 0))

    def run_ahead(self, size: int) -> IOutputReader:
        """A fast follower that has read ``size`` bytes."""
        fast = self.open()
        self.write(size)
        while fast.offset < size:
            self.client.flow(10)
            self.successResultOf(fast.read())
        return fast

    def test_behind_pulls_until_inside(self) -> None:
        """A follower behind the window pulls, one call in flight, until it is back in."""
        self.run_ahead(300)
        slow = self.open()
        reading = slow.read()
        self.assertEqual([read.args[2] for read in self.client.reads], [0])
        self.client.answer(150)
        self.assert_gives(reading, 0, 150)
        self.assertEqual(self.client.reads, [])
        reading = slow.read()
        self.client.answer(60)
        self.assert_gives(reading, 150, 60)
        self.assert_gives(slow.read(), 210, 90)
        waiting = slow.read()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(waiting, 300, 5)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 2))

    def test_pulled_to_the_stream(self) -> None:
        """A follower that pulled just up to the end of the window waits for the stream there."""
        self.run_ahead(300)
        self.write(5)
        slow = self.open()
        reading = slow.read()
        self.client.answer(300)
        self.successResultOf(reading)
        waiting = slow.read()
        self.client.flow(10)
        self.assert_gives(waiting, 300, 5)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 1))

    def test_back_in(self) -> None:
        """A follower that is back in the window waits for the stream like all others, also when that is begun again."""
        self.run_ahead(300)
        slow = self.open()
        reading = slow.read()
        self.client.answer(250)
        self.successResultOf(reading)
        self.assert_gives(slow.read(), 250, 50)
        self.client.stream().cut(Unreachable("w-1"))
        slow.read()
        self.clock.advance(1)
        self.assertEqual((self.client.stream().offset, self.client.reads_made), (300, 1))

    def test_joins_at_the_end(self) -> None:
        """A follower that begins at the end of an ended stream gets the end without a call."""
        self.open()
        self.write(10)
        self.spool.ended = True
        self.client.flow(10)
        self.assert_gives(self.open(10).read(), 10, 0, end=True)
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 0))

    def test_slow_holds_nobody_up(self) -> None:
        """A slow follower falls out of the window; the fast one reads on without a pause, and both get everything."""
        slow = self.open()
        fast = self.run_ahead(500)
        self.assertFalse(self.client.stream().held)
        self.assertEqual((fast.offset, self.client.reads_made), (500, 0))
        got = b""
        while len(got) < 500:
            reading = slow.read()
            if self.client.reads:
                self.client.answer(70)
            got += self.successResultOf(reading).data
        self.assertEqual(got, self.spool.data)
        self.assertEqual(len(self.client.streams), 1)

    def test_ahead_moves_the_stream(self) -> None:
        """A follower at the live end moves a stream there that is far behind; followers that it leaves pull."""
        self.write(500)
        first = self.open()
        self.client.flow(10)
        self.assertTrue(self.client.stream().held)
        late = self.open(500).read()
        self.client.answer()
        self.assertEqual(self.client.stream().offset, 500)
        self.write(5)
        self.client.flow(10)
        self.assert_gives(late, 500, 5)
        reading = first.read()
        self.client.answer(40)
        self.assert_gives(reading, 0, 40)

    def test_ahead_moves_those_who_wait(self) -> None:
        """A follower that waits where the stream was before it is moved is woken."""
        waiting = self.run_ahead(10).read()
        self.write(490)
        self.open(500).read()
        self.client.answer()
        self.client.answer(40)
        self.assert_gives(waiting, 10, 40)

    def test_ahead_waits_for_a_near_stream(self) -> None:
        """A follower a little ahead of the stream waits for it, and the stream is no longer held up."""
        self.write(120)
        self.open()
        self.client.flow(10)
        self.assertTrue(self.client.stream().held)
        reading = self.open(120).read()
        self.client.answer()
        self.assertFalse(self.client.stream().held)
        self.client.flow(10)
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 120, 5)
        self.assertEqual(len(self.client.streams), 1)

    def test_reads_that_end_at_the_live_end(self) -> None:
        """After a pull that reached the live end the stream goes on from there, without an empty call."""
        self.write(10)
        self.open().close()
        self.run_ahead(300).close()
        reader = self.open()
        self.client.stream().cut(NotFound("job", "j-1"))
        self.clock.advance(1)
        reading = reader.read()
        self.client.answer()
        self.successResultOf(reading)
        reader.read()
        self.assertEqual((self.client.stream().offset, self.client.reads_made), (310, 1))


class PressureTests(OutputTestCase):
    def test_held_up(self) -> None:
        """While the only follower is half a window behind, the stream is held up, so that it stays inside."""
        reader = self.open()
        self.write(500)
        self.client.flow(10)
        self.assertTrue(self.client.stream().held)
        self.assertEqual(self.client.stream().offset, WINDOW // 2 + 10)
        self.successResultOf(reader.read())
        self.assertFalse(self.client.stream().held)
        self.client.flow(10)
        self.assertTrue(self.client.stream().held)
        self.assertEqual(self.client.reads_made, 0)

    def test_follows_to_the_end(self) -> None:
        """A follower that reads at its own pace gets a long output by one stream alone."""
        reader = self.open()
        self.write(2000)
        while reader.offset < 2000:
            self.client.flow(10)
            self.clock.advance(HELD_UP_MAX_SECONDS / 2)
            self.successResultOf(reader.read())
        self.assertEqual((len(self.client.streams), self.client.reads_made), (1, 0))

    def test_let_go(self) -> None:
        """A stream that is held up for ``HELD_UP_MAX_SECONDS`` is cancelled, and its window emptied."""
        reader = self.open()
        self.write(500)
        self.client.flow(10)
        stream = self.client.stream()
        self.clock.advance(HELD_UP_MAX_SECONDS)
        self.assertEqual((stream.cancelled, stream.held), (True, False))
        self.assertEqual(self.outputs.bytes_held, 0)
        self.assertEqual(self.house.timers(), 0)
        reading = reader.read()
        self.client.answer(400)
        self.assert_gives(reading, 0, 400)
        reading = reader.read()
        self.client.answer(100)
        self.assert_gives(reading, 400, 100)
        reading = reader.read()
        self.write(5)
        self.client.flow(10)
        self.assert_gives(reading, 500, 5)

    def test_fastest_counts(self) -> None:
        """A stream that is held up for one follower goes on when another one comes near enough."""
        self.open()
        fast = self.open()
        self.write(500)
        self.client.flow(10)
        self.assertTrue(self.client.stream().held)
        self.successResultOf(fast.read())
        self.assertFalse(self.client.stream().held)

    def test_last_leaves_while_held(self) -> None:
        """A stream that is held up is cancelled when its last follower leaves."""
        reader = self.open()
        self.write(500)
        self.client.flow(10)
        stream = self.client.stream()
        reader.close()
        self.assertFalse(stream.held)
        self.assert_idle()
