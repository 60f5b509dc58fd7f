"""Polling of core workers about their jobs, about once a second.

A core worker sends no heartbeats, so the scheduler asks it whether its jobs have ended. Each worker has its own round,
one question at a time, so a slow worker holds up no other. A question without an answer holds up the other jobs of its
worker for the deadline of one call in each round (``scheduler.cluster.job_rounds``). A job whose start is under way is
not asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.job_rounds import JobRounds
from scheduler.cluster.registry import Registry
from scheduler.daemon.services import Periodic
from scheduler.daemon.sweep import Sweep
from scheduler.model import Job

#: Seconds between the rounds of one worker.
POLL_INTERVAL_SECONDS = 1.0


@define(eq=False, slots=False)
class Polling(Periodic):
    """Asks every online core worker about each of its unfinished jobs."""

    _clock: IReactorTime
    _registry: Registry
    #: Takes the ids of a worker and a job, and records the answer.
    _query: Callable[[str, str], Deferred[Job]]
    #: Whether a start of the job with that id is under way.
    _starting: Callable[[str], bool]
    #: As of ``JobRounds``.
    _probed: Callable[[str], Deferred[None]]

    def __attrs_post_init__(self) -> None:
        super().__init__(self._clock, POLL_INTERVAL_SECONDS, self._look)
        self._sweep = Sweep(self._clock, self._ask)
        self._rounds = JobRounds("asking about the jobs", self._registry, self._probed)

    def stopService(self) -> None:
        super().stopService()
        self._sweep.stop()

    @property
    def idle(self) -> bool:
        """Whether no worker is being asked."""
        return self._rounds.idle

    def _look(self) -> None:
        self._sweep.begin(self._registry.workers.core())

    def _ask(self, worker_id: str) -> None:
        if self._registry.presences.of(worker_id).is_online:
            self._rounds.begin(worker_id, partial(self._asked_about, worker_id), partial(self._ask_about, worker_id))

    def _asked_about(self, worker_id: str) -> list[Job]:
        return [job for job in self._registry.jobs.unfinished(worker_id) if not self._starting(job.id)]

    def _ask_about(self, worker_id: str, job: Job) -> Deferred[Job]:
        return self._query(worker_id, job.id)
