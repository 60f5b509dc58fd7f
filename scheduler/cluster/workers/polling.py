"""Jobs of workers that can't tell when one ends: they are asked, about once a second.

A worker that speaks only the core protocol sends no heartbeats, so
the end of its jobs is polled. Each worker has a round of its own, one question
at a time, so one that is slow holds up no other. A job that is not answered for holds up the others of its worker
for the deadline of a call in each round (``scheduler.cluster.job_rounds``). One whose start is under way is left to
that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.job_rounds import JobRounds
from scheduler.cluster.registry import Registry
from scheduler.daemon.services import Periodic
from scheduler.daemon.sweep import Sweep
from scheduler.model import Job, WorkerState

#: Seconds between the rounds of one worker.
POLL_INTERVAL_SECONDS = 1.0


class Polling(Periodic):
    """Asks every online core worker about each of its unfinished jobs."""

    def __init__(
        self,
        clock: IReactorTime,
        registry: Registry,
        query: Callable[[str, str], Deferred[Job]],
        starting: Callable[[str], bool],
        probed: Callable[[str], Deferred[None]],
    ) -> None:
        """``query`` takes a worker's id and a job's, and records the answer.

        ``starting`` says of the job of an id whether its start is under way; ``probed`` is as of ``JobRounds``.
        """
        super().__init__(clock, POLL_INTERVAL_SECONDS, self._look)
        self._registry = registry
        self._sweep = Sweep(clock, self._ask)
        self._query = query
        self._starting = starting
        self._rounds = JobRounds("asking about the jobs", registry, probed)

    def stopService(self) -> None:
        super().stopService()
        self._sweep.stop()

    @property
    def idle(self) -> bool:
        """Whether no worker is being asked."""
        return self._rounds.idle

    def _look(self) -> None:
        self._sweep.begin(self._registry.core_workers())

    def _ask(self, worker_id: str) -> None:
        worker = self._registry.find_worker(worker_id)
        if worker is not None and worker.state is WorkerState.ONLINE:
            self._rounds.begin(worker_id, partial(self._asked_about, worker_id), partial(self._ask_about, worker_id))

    def _asked_about(self, worker_id: str) -> list[Job]:
        return [job for job in self._registry.unfinished(worker_id) if not self._starting(job.id)]

    def _ask_about(self, worker_id: str, job: Job) -> Deferred[Job]:
        return self._query(worker_id, job.id)
