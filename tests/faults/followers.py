"""Readers that follow a job's output to its end, and resume after a cut."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from tests.faults.client import CUT, Api, Bytes, Changed, End, Gone, Item, Opened
from tests.faults.history import History

#: Seconds of silence after which a reader reconnects, and seconds between two attempts.
_SILENCE = 15.0
_PAUSE = 0.1


@define
class _Connection:
    """A request of a reader, and its answer so far."""

    began: float
    #: The time of the answer.
    opened: float | None = None
    via: str = "raw"
    first: str | None = None
    states: list[str] = field(factory=list)
    #: The requested offset of each stream.
    begins: Mapping[str, int] = field(factory=dict)

    def note(self, item: Item) -> None:
        """Record an item of the answer."""
        if isinstance(item, Opened):
            self.opened = self.opened or time.monotonic()
            return
        name = {Changed: "job", Bytes: "output", End: "end"}.get(type(item))
        self.first = self.first or name
        if isinstance(item, Changed):
            self.states.append(item.job["state"])
        if isinstance(item, End) and item.job is not None:
            self.states.append(item.job["state"])


@frozen
class Answer:
    """Output of a job in the answer to its start, complete at that time. Bytes may wait in it for long."""

    began: float
    opened: float
    items: Iterator[Item]


@frozen
class Reading:
    """A reader's request: both streams as events, or one raw, each from some offset on."""

    events: bool = False
    stream: str = "stdout"
    begin: int = 0
    error_begin: int = 0

    def begins(self) -> dict[str, int]:
        """The requested offset of each stream that is read."""
        if self.events:
            return {"stdout": self.begin, "stderr": self.error_begin}
        return {self.stream: self.begin if self.stream == "stdout" else self.error_begin}


@frozen
class Followers:
    """All readers of one load. ``without_output`` are jobs whose output a fault has destroyed."""

    api: Api
    history: History
    without_output: set[str] = field(factory=set, init=False)

    def follow(
        self,
        job: str,
        reader: str,
        reading: Reading = Reading(),
        patience: float = 120.0,
        answer: Answer | None = None,
    ) -> None:
        """Read a job's output to its end, beginning with ``answer``, and resume after each cut.

        ``answer`` is stdout from the first byte on.
        """
        reached = reading.begins() if answer is None else {"stdout": 0}
        deadline = time.monotonic() + patience
        while job not in self.without_output and time.monotonic() < deadline:
            connection = _Connection(time.monotonic(), via="events" if reading.events else "raw", begins=dict(reached))
            if answer is not None:
                connection = _Connection(answer.began, answer.opened, begins=dict(reached))
            try:
                for item in answer.items if answer else self._items(job, reading, reached):
                    connection.note(item)
                    if isinstance(item, Bytes):
                        self._read_some(connection, job, reader, item)
                        reached[item.stream] = item.offset + len(item.data)
                    elif isinstance(item, Changed):
                        self.history.see(item.job, connection.began, "events")
                    elif self._over(item, job, reader, reached, connection):
                        return
            except CUT:
                pass
            finally:
                self._attended(job, reader, connection)
            if answer is not None:
                answer, reading = None, Reading(reading.events)
                reached = {**reading.begins(), **reached}
            time.sleep(_PAUSE)
        if job not in self.without_output:
            stream, at = next(iter(reached.items()))
            connection = _Connection(time.monotonic(), begins=reached)
            error = f"no end within {patience:g} s"
            self._read_some(connection, job, reader, Bytes(at, b"", stream), error=error)

    def _items(self, job: str, reading: Reading, reached: Mapping[str, int]) -> Iterator[Item]:
        """The items of one more request."""
        if reading.events:
            return self.api.events(job, reached["stdout"], _SILENCE, reached["stderr"])
        return self.api.follow(job, reached[reading.stream], _SILENCE, reading.stream)

    def _over(self, item: Item, job: str, reader: str, reached: Mapping[str, int], connection: _Connection) -> bool:
        """Whether the item is the last."""
        if isinstance(item, Gone) and item.status == 404:
            self.history.add("see", connection.began, job=job, status=404, via="output")
        elif isinstance(item, Gone):
            ((stream, begin), *others) = connection.begins.items()
            fields = {"job": job, "status": item.status, "problem": item.problem}
            for _, other in others:  # an answer to a request for both streams does not say which one it is about
                fields["offset"] = other
            self.history.add("output", connection.began, stream=stream, begin=begin, **fields)
        if isinstance(item, End):
            for stream, at in reached.items():
                self._read_some(connection, job, reader, Bytes(at, b"", stream), end=True, via=connection.via)
            if item.job is not None:
                self.history.see(item.job, connection.began, "events")
        return isinstance(item, (Gone, End))

    def _attended(self, job: str, reader: str, connection: _Connection) -> None:
        if connection.opened is not None:
            states: Sequence[str] = connection.states
            how = {"via": connection.via, "first": connection.first, "states": states}
            self.history.add("attend", connection.opened, job=job, reader=reader, **how)

    def _read_some(self, connection: _Connection, job: str, reader: str, some: Bytes, **more: Any) -> None:
        digest = hashlib.sha256(some.data).hexdigest()
        fields = {"stream": some.stream, "begin": connection.begins.get(some.stream), "offset": some.offset}
        fields |= {"length": len(some.data), "sha256": digest, **more}
        self.history.add("read", connection.began, job=job, reader=reader, **fields)
