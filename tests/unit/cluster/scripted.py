"""A worker client whose every call waits for the test to answer it, and a store that waits when told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from scheduler.errors import StoreFailed
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient, Record
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, Stream, Worker
from scheduler.store.memory import MemoryStore


@define
class Call:
    """One that waits; ``args`` are those after the worker."""

    method: str
    worker_id: str
    args: tuple[Any, ...]
    answer: Deferred[Any] = field(factory=Deferred)
    address: str = ""


@define
@implementer(IOutputStream)
class ScriptedStream:
    """One that brings nothing."""

    finished: Deferred[None]

    def cancel(self) -> None:
        pass


@implementer(IWorkerClient)
class ScriptedClient:
    """``take`` gives the oldest call nobody took yet."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.forgotten: list[str] = []
        #: What is to be called once a start is on its way, of those that want to be told.
        self.sent: list[Callable[[], None]] = []

    def take(self, method: str) -> Call:
        call = self.calls.pop(0)
        assert call.method == method, call
        return call

    def probe(self, worker: Worker) -> Deferred[None]:
        return self._call("probe", worker)

    def start_job(self, worker: Worker, job: Job, sent: Callable[[], None] | None = None) -> Deferred[JobStatus]:
        if sent is not None:
            self.sent.append(sent)
        return self._call("start_job", worker, job)

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        return self._call("stop_job", worker, job_id)

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        return self._call("signal_job", worker, job_id, signal, to)

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._call("remove_job", worker, job_id)

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        return self._call("query_job", worker, job_id, seal)

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        return self._call("read_output", worker, job_id, stream, offset, size)

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver
    ) -> IOutputStream:
        call = Call("stream_output", worker.id, (job_id, stream, offset))
        self.calls.append(call)
        return ScriptedStream(call.answer)

    def forget(self, worker_id: str) -> None:
        self.forgotten.append(worker_id)

    def _call(self, method: str, worker: Worker, *args: Any) -> Deferred[Any]:
        call = Call(method, worker.id, args, address=worker.address)
        self.calls.append(call)
        return call.answer


class ScriptedStore(MemoryStore):
    """Commits at once, or while ``held`` when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self._waiting: list[tuple[list[Record], Deferred[None]]] = []

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        if not self.held:
            return super().save(records)
        saved: Deferred[None] = Deferred()
        self._waiting.append((list(records), saved))
        return saved

    @property
    def waits(self) -> int:
        """How many saves have not been decided."""
        return len(self._waiting)

    def commit(self) -> None:
        """What waited longest is durable."""
        records, saved = self._waiting.pop(0)
        super().save(records)
        saved.callback(None)

    def forget(self) -> None:
        """What waits will never be durable."""
        self._waiting.clear()

    def fail(self) -> None:
        """What waited longest could not be kept."""
        self._waiting.pop(0)[1].errback(StoreFailed("disk full"))
