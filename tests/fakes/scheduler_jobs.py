"""The jobs of the scheduler in memory, and those who read their output."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from scheduler.errors import OffsetBeyondEnd, OutputPruned
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job, Stream


@define(eq=False)
class Entry:
    """One job; those who watch it are told whenever another is assigned."""

    _job: Job
    output: dict[Stream, bytearray] = field(factory=lambda: {stream: bytearray() for stream in Stream})
    #: Its worker keeps no output of it any more.
    pruned: bool = False
    #: The streams of an ended job end; a test may keep them open.
    ended: set[Stream] = field(factory=set)
    waiting: list[Deferred[Job]] = field(factory=list)
    readers: list[FakeReader] = field(factory=list)
    watchers: dict[object, Callable[[Job], None]] = field(factory=dict)

    @property
    def job(self) -> Job:
        """As it is now."""
        return self._job

    @job.setter
    def job(self, job: Job) -> None:
        self.put(job)
        self.tell()

    def put(self, job: Job) -> None:
        """Let it be so; ``tell`` follows."""
        self._job = job

    def tell(self) -> None:
        """Those who watch."""
        for token, notify in list(self.watchers.items()):
            if token in self.watchers:
                notify(self._job)


@implementer(IOutputReader)
class FakeReader:
    """Reads what tests wrote, at most ``piece`` bytes at once; ``break_with`` fails the pending or next read."""

    def __init__(
        self, entry: Entry, stream: Stream, offset: int, piece: int, closed: Callable[[], None] = lambda: None
    ) -> None:
        """``closed`` is called when it was closed, or is over."""
        self.offset = offset
        self.closed = False
        self.reads = 0
        self._entry = entry
        self._stream = stream
        self._piece = piece
        self._leave = closed
        self._pending: Deferred[Chunk] | None = None
        self._broken: Exception | None = None

    def read(self) -> Deferred[Chunk]:
        assert self._pending is None, "one read at a time"
        assert not self.closed, "read after close"
        self.reads += 1
        pending: Deferred[Chunk] = Deferred(lambda _: self.close())
        self._pending = pending
        self.look()
        return pending

    def close(self) -> None:
        self.closed = True
        self._leave()
        if self in self._entry.readers:
            self._entry.readers.remove(self)
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.errback(CancelledError())

    def break_with(self, error: Exception) -> None:
        """Fail the pending read, or the next."""
        self._broken = error
        self.look()

    def look(self) -> None:
        """Answer the pending read if there is something."""
        if self._pending is None:
            return
        if self._broken is not None:
            pending, self._pending = self._pending, None
            self._leave()
            pending.errback(self._broken)
            return
        whole = self._entry.output[self._stream]
        if self.offset > len(whole):
            self.break_with(OffsetBeyondEnd(self.offset, len(whole)))
            return
        if self._entry.pruned and self.offset < len(whole):
            self.break_with(OutputPruned(self._entry.job.id))
            return
        data = bytes(whole[self.offset : self.offset + self._piece])
        end = self._stream in self._entry.ended and self.offset + len(data) >= len(whole)
        if data or end:
            chunk = Chunk(data, self.offset, end, len(whole), (end and self._entry.job.output_error) or "")
            self.offset += len(data)
            pending, self._pending = self._pending, None
            if end:
                self._leave()
            pending.callback(chunk)
