"""Queries: a job as its worker says it is now."""

from __future__ import annotations

from attrs import frozen

from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.reach import Reach
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.errors import NotFound
from scheduler.model import Job, JobState


@frozen
class Queries:
    """Asks the workers of jobs; there is one for each scheduler."""

    _flights: Flights
    _reach: Reach
    _reconciler: Reconciler

    async def query(self, job: Job) -> Job:
        """The job, after its worker was asked about it, unless it is final or queued. See ``IScheduler.query``."""
        registry = self._reach.registry
        if job.state.final or job.state is JobState.QUEUED:
            return job
        self._reach.worker_of(job)
        starting = self._flights.over(job.id)
        if starting is not None:
            await starting
            job = registry.jobs.get(job.id)
            if job.state is JobState.QUEUED or job.id in self._flights:
                return job  # that start never left: to ask would seal the id against the next
        if not job.state.final:
            await self._reconciler.ask(self._reach.worker_of(job), job)  # it may have gone to another worker
        return registry.jobs.get(job.id)

    def job_on(self, worker: str, job_id: str) -> Job:
        """The job, if it is that worker's, which may be gone or renamed. Raises ``NotFound`` if it is not."""
        registry = self._reach.registry
        job = registry.jobs.find(job_id)
        if job is not None and worker in {job.worker_id, job.worker_name}:
            return job
        if registry.workers.get(worker).id == (job and job.worker_id):
            return registry.jobs.get(job_id)
        raise NotFound("job", job_id)
