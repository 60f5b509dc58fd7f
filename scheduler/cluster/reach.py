"""The worker of a job, to be called now, or the error that says why it can't be."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from scheduler.cluster.registry import Registry
from scheduler.errors import Unreachable
from scheduler.model import Job, Worker, WorkerState


@frozen
class Reach:
    """One for each scheduler. ``why_unreachable``: in words that end a sentence, of a worker that is not online."""

    registry: Registry
    why_unreachable: Callable[[Worker], str]

    def worker_of(self, job: Job) -> Worker:
        """The worker of a job, if calls to it succeed; ``Unreachable``."""
        worker = self.registry.find_worker(job.worker_id)
        if worker is None:
            raise Unreachable(job.worker_name or job.worker_id or "none")
        self.check(worker)
        return worker

    def check(self, worker: Worker) -> None:
        """``Unreachable`` if it is not online."""
        if worker.state is not WorkerState.ONLINE:
            raise self.error(worker)

    def error(self, worker: Worker) -> Unreachable:
        """The error for one that is not online."""
        return Unreachable(worker.name, reason=self.why_unreachable(worker))
