"""Workers whose output is sent and read one step at a time, as the test tells them to."""

from __future__ import annotations

from collections import defaultdict

from attrs import define
from twisted.internet.interfaces import IReactorTime

from scheduler.errors import OffsetBeyondEnd, Unreachable
from scheduler.messages import Chunk
from scheduler.model import Stream
from tests.doubles.workers import Call, OutputStream, Workers


@define
class Spool:
    """A stream of a job on its worker."""

    data: bytes = b""
    ended: bool = False
    #: Why the job's output is not whole, as its worker says with the end.
    cut: str = ""

    def chunk(self, offset: int, size: int) -> Chunk:
        if offset > len(self.data):
            raise OffsetBeyondEnd(offset, len(self.data))
        data = self.data[offset : offset + size]
        end = self.ended and offset + len(data) == len(self.data)
        return Chunk(data, offset, end, len(self.data), self.cut if end else "")


class SpooledWorkers(Workers):
    """Holds all streams and reads; ``flow``, ``answer`` and ``fail_read`` let them go on."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.spools: dict[tuple[str, Stream], Spool] = defaultdict(Spool)
        self.hold("stream_output", "read_output")

    @property
    def reads(self) -> list[Call]:
        """Reads that wait for an answer, or were cancelled."""
        return [call for call in self.held if call.method == "read_output"]

    @property
    def reads_made(self) -> int:
        """The number of all reads so far."""
        return sum(call.method == "read_output" for call in self.calls)

    def stream(self) -> OutputStream:
        """The only stream that runs."""
        (stream,) = self.running()
        return stream

    def flow(self, size: int) -> bool:
        """Send all bytes on every running stream, in chunks of ``size``, until held up; whether any was sent."""
        sent = False
        for stream in self.running():
            spool = self.spools[stream.key]
            while stream in self.running() and not stream.held:
                chunk = spool.chunk(stream.offset, size)
                if not chunk.data and not chunk.end:
                    break
                stream.send(chunk)
                sent = True
        return sent

    def next_read(self) -> Call:
        """Take the oldest read."""
        read = self.reads[0]
        self.held.remove(read)
        return read

    def answer(self, at_most: int = 1 << 30) -> None:
        """Answer the oldest read with at most so many bytes."""
        read = self.next_read()
        if read.answer.called:
            return  # cancelled
        job_id, stream, offset, size = read.args
        try:
            chunk = self.spools[job_id, stream].chunk(offset, min(size, at_most))
        except OffsetBeyondEnd as error:
            read.answer.errback(error)
        else:
            read.answer.callback(chunk)

    def fail_read(self, error: Exception) -> None:
        """Fail the oldest read."""
        read = self.next_read()
        if not read.answer.called:
            read.answer.errback(error)

    def go_down(self) -> None:
        """Cut all streams and reads, as when the worker process is killed."""
        for stream in self.running():
            stream.cut(Unreachable("w-1", sent=True))
        for _ in range(len(self.reads)):
            self.fail_read(Unreachable("w-1", sent=True))
