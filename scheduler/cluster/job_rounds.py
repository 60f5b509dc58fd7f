"""Rounds of calls to a worker about its jobs, one job after the other, in which no job blocks the others for ever.

A failed call about one job says little about the worker: a third-party worker may answer a call about one job with
UNAVAILABLE, late or never, and answer all other calls properly. So if no answer came, a probe decides: if calls to the
worker succeed, the round goes on with the next job, else it ends. A round begins with the job after the one at which
the last round ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred

from scheduler.cluster.registry import Registry
from scheduler.deferreds import Rounds
from scheduler.errors import Busy, DeadlineExceeded, SchedulerError, Unreachable
from scheduler.model import Job

T = TypeVar("T")


class JobRounds:
    """Makes the rounds: at most one for each worker at a time."""

    def __init__(self, what: str, registry: Registry, probed: Callable[[str], Deferred[None]]) -> None:
        """``what``: the purpose, for the log. ``probed(worker_id)`` fires when a probe of that worker has ended."""
        self._registry = registry
        self._probed = probed
        self._rounds = Rounds(what)
        # worker id -> the place (time, id) of the job at which its last round ended early
        self._ended_at: dict[str, tuple[float, str]] = {}

    @property
    def idle(self) -> bool:
        """Whether no round is under way."""
        return self._rounds.idle

    def begin(self, worker_id: str, jobs: Callable[[], list[Job]], call: Callable[[Job], Awaitable[T]]) -> None:
        """Call ``call`` with each of ``jobs``, oldest first, unless a round of that worker is under way.

        ``call`` gets the job as it was when the round began. An error that it raises may end the round, no more.
        """
        self._rounds.begin(worker_id, partial(self._round, worker_id, jobs, call))

    async def _round(self, worker_id: str, jobs: Callable[[], list[Job]], call: Callable[[Job], Awaitable[T]]) -> None:
        ended_at = self._ended_at.pop(worker_id, None)
        in_order = jobs()
        if ended_at is not None:
            in_order.sort(key=lambda job: (_place(job) <= ended_at, _place(job)))
        for job in in_order:
            try:
                await call(job)
            except Busy:
                self._end(worker_id, job)
                return
            except (Unreachable, DeadlineExceeded):
                if not await self._answers(worker_id):
                    self._end(worker_id, job)
                    return
            except SchedulerError:
                continue  # the other jobs are not affected

    async def _answers(self, worker_id: str) -> bool:
        if self._registry.presences.of(worker_id).is_online:
            await self._probed(worker_id)
        return self._registry.presences.of(worker_id).is_online

    def _end(self, worker_id: str, job: Job) -> None:
        known = {each: place for each, place in self._ended_at.items() if self._registry.workers.find(each)}
        self._ended_at = {**known, worker_id: _place(job)}


def _place(job: Job) -> tuple[float, str]:
    return job.created_at, job.id
