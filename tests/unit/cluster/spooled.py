"""A worker client that answers from spools in memory, one step at a time, as the test tells it to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from scheduler.errors import OffsetBeyondEnd, Unreachable
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, Stream, Worker


@define
class Spool:
    """One stream of one job, as its worker has it."""

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


@implementer(IOutputStream)
@define(eq=False)
class RunningStream:
    """A StreamJob call. Holds to the rule: no chunk while the last one's Deferred has not fired."""

    key: tuple[str, Stream]
    offset: int
    deliver: Deliver
    finished: Deferred[None] = field(factory=Deferred)
    cancelled: bool = False
    over: bool = False
    held_by: Deferred[None] | None = None

    @property
    def held(self) -> bool:
        return self.held_by is not None and not self.held_by.called

    def cancel(self) -> None:
        self.cancelled = True

    def send(self, chunk: Chunk) -> None:
        assert not self.held
        self.offset = chunk.next_offset
        self.held_by = self.deliver(chunk)
        if chunk.end:
            self.over = True
            self.finished.callback(None)

    def cut(self, error: Exception | None) -> None:
        """End it, with ``None`` as if that were all."""
        self.over = True
        if error is None:
            self.finished.callback(None)
        else:
            self.finished.errback(error)


@define
class PendingRead:
    """A ReadOutput call; the chunk is made when it is answered."""

    key: tuple[str, Stream]
    offset: int
    size: int
    answer: Deferred[Chunk] = field(factory=Deferred)


@implementer(IWorkerClient)
class SpooledClient:
    """``refuse`` is raised by the next stream, if it is set."""

    def __init__(self) -> None:
        self.spools: dict[tuple[str, Stream], Spool] = defaultdict(Spool)
        #: Every stream ever begun.
        self.streams: list[RunningStream] = []
        self.reads: list[PendingRead] = []
        self.reads_made = 0
        self.refuse: Exception | None = None

    def running(self) -> list[RunningStream]:
        """Streams that were neither cancelled nor came to an end."""
        return [stream for stream in self.streams if not stream.cancelled and not stream.over]

    def stream(self) -> RunningStream:
        """The only one that runs."""
        (stream,) = self.running()
        return stream

    def flow(self, size: int) -> bool:
        """Send what there is on every stream that runs, in chunks of ``size``, until held up; whether any was sent."""
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

    def answer(self, at_most: int = 1 << 30) -> None:
        """The oldest read, with at most so many bytes."""
        read = self.reads.pop(0)
        if read.answer.called:
            return  # cancelled
        try:
            chunk = self.spools[read.key].chunk(read.offset, min(read.size, at_most))
        except OffsetBeyondEnd as error:
            read.answer.errback(error)
        else:
            read.answer.callback(chunk)

    def fail_read(self, error: Exception) -> None:
        """The oldest."""
        read = self.reads.pop(0)
        if not read.answer.called:
            read.answer.errback(error)

    def go_down(self) -> None:
        """Everything under way is cut, as when the worker process is killed."""
        for stream in self.running():
            stream.cut(Unreachable("w-1", sent=True))
        for _ in range(len(self.reads)):
            self.fail_read(Unreachable("w-1", sent=True))

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        read = PendingRead((job_id, stream), offset, size)
        self.reads.append(read)
        self.reads_made += 1
        return read.answer

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver
    ) -> IOutputStream:
        if self.refuse is not None:
            refuse, self.refuse = self.refuse, None
            raise refuse
        running = RunningStream((job_id, stream), offset, deliver)
        self.streams.append(running)
        return running

    def probe(self, worker: Worker) -> Deferred[None]:
        raise NotImplementedError

    def start_job(self, worker: Worker, job: Job, sent: Callable[[], None] | None = None) -> Deferred[JobStatus]:
        raise NotImplementedError

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        raise NotImplementedError

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        raise NotImplementedError

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        raise NotImplementedError

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        raise NotImplementedError

    def forget(self, worker_id: str) -> None:
        raise NotImplementedError
