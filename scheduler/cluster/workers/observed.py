"""A worker client that tells ``Liveness`` whether each call succeeded."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from scheduler.cluster.workers.liveness import Liveness
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, Stream, Worker


@implementer(IWorkerClient)
class ObservedClient:
    """Passes every call on to ``client``, and its outcome to ``liveness``."""

    def __init__(self, client: IWorkerClient, liveness: Liveness) -> None:
        self._client = client
        self._liveness = liveness

    def probe(self, worker: Worker) -> Deferred[None]:
        return self._liveness.observe(worker.id, self._client.probe(worker), is_probe=True)

    def answers(self, worker: Worker) -> Deferred[bool | None]:
        return self._client.answers(worker)  # the process may not have registered

    def start_job(
        self, worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None = None
    ) -> Deferred[JobStatus]:
        def observed(answer: Deferred[JobStatus]) -> None:
            assert late is not None
            late(self._liveness.observe(worker.id, answer))

        start = self._client.start_job(worker, job, None if late is None else observed)
        return self._liveness.observe(worker.id, start)

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        return self._liveness.observe(worker.id, self._client.stop_job(worker, job_id))

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        return self._liveness.observe(worker.id, self._client.signal_job(worker, job_id, signal, to))

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._liveness.observe(worker.id, self._client.remove_job(worker, job_id))

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        return self._liveness.observe(worker.id, self._client.query_job(worker, job_id, seal))

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        return self._liveness.observe(worker.id, self._client.read_output(worker, job_id, stream, offset, size))

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver, starting: bool = False
    ) -> IOutputStream:
        # A stream is long-lived. The calls that follow show what cut it.
        return self._client.stream_output(worker, job_id, stream, offset, deliver, starting)

    def forget(self, worker_id: str) -> None:
        self._client.forget(worker_id)
