"""The worker of a job if it can be called, or the error that says why not."""

from __future__ import annotations

from attrs import frozen

from scheduler.cluster.registry import Registry
from scheduler.errors import Unreachable
from scheduler.model import Job, Worker


@frozen
class Reach:
    """Checks that workers can be called."""

    registry: Registry

    def worker_of(self, job: Job) -> Worker:
        """The worker of a job. Raises ``Unreachable`` if it is not known, or not online."""
        worker = self.registry.workers.find(job.worker_id)
        if worker is None:
            raise Unreachable(job.worker_name or job.worker_id or "none")
        self.check(worker)
        return worker

    def check(self, worker: Worker) -> None:
        """Raise ``Unreachable`` if the worker is not online."""
        if not self.registry.presences.of(worker.id).is_online:
            raise self.error(worker)

    def error(self, worker: Worker) -> Unreachable:
        """The error for a worker that is not online."""
        return Unreachable(worker.name, reason=self.registry.presences.of(worker.id).reason)
