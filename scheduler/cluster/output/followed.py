"""A job whose output is followed, as the registry knows it."""

from __future__ import annotations

from attrs import define

from scheduler.cluster.reach import Reach
from scheduler.model import Job, Worker


@define(eq=False)
class FollowedJob:
    """The job and its worker; there is one for both streams of a job."""

    reach: Reach
    _job: Job

    @property
    def job(self) -> Job:
        """The job as it is known now, or was when it was last known."""
        self._job = self.reach.registry.find_job(self._job.id) or self._job
        return self._job

    @property
    def worker(self) -> Worker | None:
        return self.reach.registry.find_worker(self._job.worker_id)

    @property
    def void(self) -> bool:
        """Whether there is no such job: its start was given up before anything was sent."""
        return self.reach.registry.find_job(self._job.id) is None and not self._job.state.final

    @property
    def end_is_sure(self) -> bool:
        """Whether the end of a stream is that of all that the job wrote, unless it is marked as cut.

        A worker of an earlier version, which reports no features, does not mark it. With such a worker only the end
        of the job tells.
        """
        worker = self.worker
        return self.job.over or (worker is not None and bool(worker.features))
