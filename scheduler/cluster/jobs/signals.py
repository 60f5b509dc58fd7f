"""Signals to jobs that run: passed on to the worker at once, or refused.

A signal is sent at most once. Unlike a stop, it is not kept for later: its effect on a job depends on the moment. If
the answer was lost, the signal may have arrived.
"""

from __future__ import annotations

from twisted.logger import Logger

from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.reach import Reach
from scheduler.errors import DeadlineExceeded, JobNotRunning, NotFound, Unsupported
from scheduler.interfaces import IWorkerClient
from scheduler.model import JobState

#: What a core worker lacks.
CAPABILITY = "sending signals to jobs"


class Signals:
    """Sends signals to jobs; there is one for each scheduler."""

    _log = Logger()

    def __init__(self, client: IWorkerClient, flights: Flights, reach: Reach) -> None:
        self._client = client
        self._flights = flights
        self._reach = reach

    async def send(self, job_id: str, name: str, to: str) -> None:
        """See ``IScheduler.signal``."""
        job = await self._flights.settled(job_id)
        if job.over or job.state is JobState.QUEUED:
            raise JobNotRunning(job_id, job.state.value)
        worker = self._reach.worker_of(job)
        if worker.is_core:
            raise Unsupported(worker.name, CAPABILITY)
        try:
            await self._client.signal_job(worker, job.id_on_worker, name, to)
        except NotFound:
            raise JobNotRunning(job_id, "not known to its worker") from None
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"{name} to job {job_id}", error.seconds, job_id) from error
        self._log.info("{signal} was sent to job {job_id} ({to})", signal=name, job_id=job_id, to=to)
