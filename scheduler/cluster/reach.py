"""The worker of a job if it can be called, or the error that says why not."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from scheduler.cluster.registry import Registry
from scheduler.errors import Unreachable
from scheduler.model import Job, Worker, WorkerState


@frozen
class Reach:
    """``why_unreachable`` gives the reason, in words that end a sentence, why a worker is not online."""

    registry: Registry
    why_unreachable: Callable[[Worker], str]

    def worker_of(self, job: Job) -> Worker:
        """The worker of a job. Raises ``Unreachable`` if it is not known, or not online."""
        worker = self.registry.find_worker(job.worker_id)
        if worker is None:
            raise Unreachable(job.worker_name or job.worker_id or "none")
        self.check(worker)
        return worker

    def check(self, worker: Worker) -> None:
        """Raise ``Unreachable`` if the worker is not online."""
        if worker.state is not WorkerState.ONLINE:
            raise self.error(worker)

    def error(self, worker: Worker) -> Unreachable:
        """The error for a worker that is not online."""
        return Unreachable(worker.name, reason=self.why_unreachable(worker))
