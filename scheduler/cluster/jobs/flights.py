"""The starts under way: from the commit of ``starting`` until the result is recorded.

While a start of a job is under way, no query, stop or removal of the job is sent to its worker: the caller waits for
the result, or leaves the job out.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from scheduler.cluster.registry import Registry
from scheduler.deferreds import shielded
from scheduler.model import Job


class Flights:
    """The starts under way of one scheduler. Each runs to its end, even if its caller goes away."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._under_way: dict[str, Deferred[Job]] = {}
        #: Whether no new start is to begin.
        self.closed = False

    def __contains__(self, job_id: str) -> bool:
        """Whether a start of that job is under way."""
        return job_id in self._under_way

    @property
    def idle(self) -> bool:
        """Whether no start is under way."""
        return not self._under_way

    def run(self, job_id: str, start: Coroutine[Deferred[Any], Any, Job]) -> Deferred[Job]:
        """Run the start of that job, which counts as under way until it ends; fires with its result."""
        result: Deferred[Job] = Deferred()
        self._under_way[job_id] = result

        def over(outcome: Any) -> None:
            if self._under_way.get(job_id) is result:  # else one that came back is on its way again
                del self._under_way[job_id]
            result.callback(outcome)  # a Failure starts the errbacks

        Deferred.fromCoroutine(start).addBoth(over)
        return shielded(result)

    def over(self, job_id: str) -> Deferred[None] | None:
        """Fires once the start of that job is over, however it went; ``None``: no start of it is under way."""
        start = self._under_way.get(job_id)
        return None if start is None else shielded(start).addBoth(lambda _: None)

    async def settled(self, job_id: str) -> Job:
        """The job, once no start of it is under way. Raises ``NotFound`` if there is no such job."""
        job = self._registry.jobs.get(job_id)
        while (start := self.over(job_id)) is not None:
            await start
            job = self._registry.jobs.get(job_id)
        return job

    def close(self) -> Deferred[None]:
        """Let no new start begin; fires when all that are under way are over."""
        self.closed = True
        return Deferred.fromCoroutine(self._until_idle())

    async def _until_idle(self) -> None:
        while self._under_way:  # what follows a commit begins when that is over
            await DeferredList([shielded(start) for start in self._under_way.values()], consumeErrors=True)
