"""A job ``j-1`` on worker ``w-1``, and its spool, for the tests of live output."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.output.failures import RETRY_MAX_SECONDS
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import JobState, Stream, WorkerState
from tests.house import House
from tests.unit.cluster.spooled import Spool, SpooledWorkers
from tests.unit.cluster.values import a_job, a_worker

KEY = ("j-1", Stream.STDOUT)

#: Bytes of the window in these tests; a stream is held up beyond half of it.
WINDOW = 100


class OutputTestCase(SynchronousTestCase):
    window = WINDOW

    def setUp(self) -> None:
        self.client = SpooledWorkers(Clock())
        self.house = House(lambda: 1000.0, window=self.window, workers=self.client)
        self.clock, self.ledger, self.outputs = self.house.clock, self.house.parts.ledger, self.house.parts.outputs
        self.house.add(a_worker(), a_job())

    @property
    def spool(self) -> Spool:
        return self.client.spools[KEY]

    def write(self, size: int) -> None:
        """Add bytes of which no two neighbours are the same."""
        have = len(self.spool.data)
        self.spool.data += bytes((at * 7 + at // 256) % 256 for at in range(have, have + size))

    def open(self, offset: int = 0) -> IOutputReader:
        return self.outputs.open(*KEY, offset)

    def under_way(self, size: int = 10) -> tuple[IOutputReader, Deferred[Chunk]]:
        """A follower that has read that many bytes and waits for more."""
        reader = self.open()
        self.write(size)
        self.client.flow(10)
        self.successResultOf(reader.read())
        return reader, reader.read()

    def cut(self, reason: Exception | None) -> None:
        """The stream ends, and the time until the next attempt passes."""
        self.client.stream().cut(reason)
        self.clock.advance(RETRY_MAX_SECONDS)

    def change_job(self, **changes: Any) -> None:
        self.house.add(evolve(self.house.job("j-1"), **changes))

    def end_job(self, state: JobState = JobState.SUCCEEDED, **changes: Any) -> None:
        self.spool.ended = True
        self.change_job(state=state, finished_at=1001.0, **changes)

    def set_worker(self, state: WorkerState) -> None:
        self.house.add(a_worker(), online=state is WorkerState.ONLINE)

    def assert_gives(self, reading: Deferred[Chunk], offset: int, size: int, end: bool = False, cut: str = "") -> None:
        """A read gives ``size`` bytes of the spool from ``offset`` on."""
        chunk = self.successResultOf(reading)
        expected = (offset, self.spool.data[offset : offset + size], end, cut)
        self.assertEqual((chunk.offset, chunk.data, chunk.end, chunk.cut), expected)
        self.assertEqual(len(chunk.data), size)

    def assert_idle(self) -> None:
        """Nothing is left of any follower."""
        self.assertEqual(self.client.running(), [])
        self.assertTrue(all(read.answer.called for read in self.client.reads))
        self.assertEqual(self.house.timers(), 0)
        self.assertTrue(self.outputs.idle)
