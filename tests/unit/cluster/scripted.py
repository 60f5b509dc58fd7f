"""A worker client whose every call waits for the test to answer it."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.model import Chunk, Job, JobStatus, Stream, Worker


@define
class Call:
    """One that waits; ``args`` are those after the worker."""

    method: str
    worker_id: str
    args: tuple[Any, ...]
    answer: Deferred[Any] = field(factory=Deferred)


@implementer(IWorkerClient)
class ScriptedClient:
    """``take`` gives the oldest call nobody took yet."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.forgotten: list[str] = []

    def take(self, method: str) -> Call:
        call = self.calls.pop(0)
        assert call.method == method, call
        return call

    def probe(self, worker: Worker) -> Deferred[None]:
        return self._call("probe", worker)

    def start_job(self, worker: Worker, job: Job) -> Deferred[JobStatus]:
        return self._call("start_job", worker, job)

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._call("stop_job", worker, job_id)

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        return self._call("query_job", worker, job_id)

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        return self._call("read_output", worker, job_id, stream, offset, size)

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver
    ) -> IOutputStream:
        raise NotImplementedError

    def forget(self, worker_id: str) -> None:
        self.forgotten.append(worker_id)

    def _call(self, method: str, worker: Worker, *args: Any) -> Deferred[Any]:
        call = Call(method, worker.id, args)
        self.calls.append(call)
        return call.answer
