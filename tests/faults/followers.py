"""Readers that follow a job's output to its end, and come back where they were cut."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field, frozen

from tests.faults.client import CUT, Api, Bytes, Changed, End, Gone, Item, Opened
from tests.faults.history import History

#: Seconds that a reader hears nothing before it comes again, and between two tries.
_SILENCE = 15.0
_PAUSE = 0.1


@define
class _Connection:
    """One request of a reader, as far as it was answered."""

    began: float
    #: When it was answered.
    opened: float | None = None
    via: str = "raw"
    first: str | None = None
    states: list[str] = field(factory=list)

    def note(self, item: Item) -> None:
        """What it brought."""
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
    """The output of a job as the answer to its start, which was whole at that time. Bytes may wait in it long."""

    began: float
    opened: float
    items: Iterator[Item]


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
        events: bool = False,
        patience: float = 120.0,
        answer: Answer | None = None,
    ) -> None:
        """Read a job's stdout to its end, by ``answer`` as far as that goes, resumed as often as it is cut."""
        reached, deadline = 0, time.monotonic() + patience
        while job not in self.without_output and time.monotonic() < deadline:
            source = self.api.events if events else self.api.follow
            connection = _Connection(time.monotonic(), via="events" if events else "raw")
            if answer is not None:
                connection = _Connection(answer.began, answer.opened)
            try:
                for item in answer.items if answer else source(job, reached, _SILENCE):
                    connection.note(item)
                    if isinstance(item, Bytes):
                        self._read_some(connection.began, job, reader, item)
                        reached = item.offset + len(item.data)
                    elif isinstance(item, Changed):
                        self.history.see(item.job, connection.began, "events")
                    elif self._over(item, job, reader, reached, connection):
                        return
            except CUT:
                pass
            finally:
                self._attended(job, reader, connection)
            answer = None
            time.sleep(_PAUSE)
        if job not in self.without_output:
            error = f"no end within {patience:g} s"
            self._read_some(time.monotonic(), job, reader, Bytes(reached, b""), error=error)

    def _over(self, item: Item, job: str, reader: str, reached: int, connection: _Connection) -> bool:
        """Whether nothing follows it."""
        if isinstance(item, Gone) and item.status == 404:
            self.history.add("see", connection.began, job=job, status=404, via="output")
        if isinstance(item, End):
            self._read_some(connection.began, job, reader, Bytes(reached, b""), end=True, via=connection.via)
            if item.job is not None:
                self.history.see(item.job, connection.began, "events")
        return isinstance(item, (Gone, End))

    def _attended(self, job: str, reader: str, connection: _Connection) -> None:
        if connection.opened is not None:
            states: Sequence[str] = connection.states
            how = {"via": connection.via, "first": connection.first, "states": states}
            self.history.add("attend", connection.opened, job=job, reader=reader, **how)

    def _read_some(self, began: float, job: str, reader: str, some: Bytes, **more: Any) -> None:
        digest = hashlib.sha256(some.data).hexdigest()
        fields = {"offset": some.offset, "length": len(some.data), "sha256": digest, **more}
        self.history.add("read", began, job=job, reader=reader, **fields)
