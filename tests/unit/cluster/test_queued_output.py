"""The output of jobs that wait."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from scheduler.cluster.jobs.dispatcher import SWEEP_INTERVAL_SECONDS
from scheduler.model import JobState, Stream
from tests.unit.cluster.queue_case import QueueTestCase


class FollowingTests(QueueTestCase):
    def test_follow(self) -> None:
        """A follower of a queued job reads nothing until it runs, and then its output; nothing is polled before."""
        job = self.queued()
        reader = self.cluster.open_output(job.id, Stream.STDOUT, 0)
        reading = reader.read()
        self.settle()
        self.assertEqual(self.house.timers(), 2)  # its time, and a look at the workers
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 10)
        self.assertNoResult(reading)
        self.assertEqual(self.house.timers(), 2)
        self.end(self.first)
        self.taken()
        self.assertEqual(self.take("stream_output").args, (job.id, Stream.STDOUT, 0))
        reader.close()
        self.failureResultOf(reading, CancelledError)

    def test_never_started(self) -> None:
        """The output of a job that ended in the queue is empty, and ends properly, whoever asks for it when."""
        job = self.queued()
        reading = self.cluster.open_output(job.id, Stream.STDOUT, 0).read()
        self.successResultOf(self.cluster.stop(job.id))
        self.settle()
        for chunk in (
            self.successResultOf(reading),
            self.successResultOf(self.cluster.open_output(job.id, Stream.STDERR, 0).read()),
            self.successResultOf(self.cluster.read_output(job.id, Stream.STDOUT, 0, 10)),
        ):
            self.assertEqual((chunk.data, chunk.offset, chunk.end), (b"", 0, True))

    def test_snapshot(self) -> None:
        """The output of a queued job is empty now, and not at its end."""
        job = self.queued()
        chunk = self.successResultOf(self.cluster.read_output(job.id, Stream.STDOUT, 0, 10))
        self.assertEqual((chunk.data, chunk.end), (b"", False))

    def test_wait(self) -> None:
        """A wait for the end of a queued job lasts until its end."""
        job = self.queued()
        waiting = self.cluster.wait(job.id, 300)
        self.end(self.first)
        self.end(self.taken())
        self.assertIs(self.successResultOf(waiting).state, JobState.SUCCEEDED)
