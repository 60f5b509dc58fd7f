"""What the handlers share: the scheduler, the clocks, and the streams and waits that are under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from scheduler.api.answers import Answer, job_json
from scheduler.api.bodies import PiecedBody, answer_of
from scheduler.api.idempotency import REPLAYED, key_of
from scheduler.api.streams import StreamResource, UnderWay
from scheduler.errors import ShuttingDown, StoreFailed
from scheduler.fields import Object
from scheduler.interfaces import IScheduler
from scheduler.messages import RequestKey
from scheduler.model import Job

T = TypeVar("T")

#: What a handler answers.
Reply = Answer | StreamResource | PiecedBody


@frozen
class Context:
    """One for each app; ``wall_time`` gives POSIX times, ``clock`` runs timers."""

    scheduler: IScheduler
    clock: IReactorTime
    wall_time: Callable[[], float]
    under_way: UnderWay

    def key_of(self, request: Request, route: str, body: Object) -> tuple[RequestKey | None, bool]:
        """The request's key, and whether it was answered before: then its answer says so."""
        key = key_of(request.requestHeaders, route, body)
        again = key is not None and self.scheduler.replays(key)
        if again:
            request.setHeader(REPLAYED, b"true")
        return key, again

    def job_json(self, job: Job) -> Object:
        """A job as every answer shows it."""
        return job_json(self.scheduler, job)

    async def filled(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """The jobs with what the store alone has of them; while the store fails, as they are."""
        if not any(job.spec.stored for job in jobs):
            return jobs
        try:
            return await self.scheduler.with_specs(jobs)
        except StoreFailed:
            return jobs

    async def described(self, job: Job) -> Object:
        """The JSON of one job, the same in every answer."""
        (job,) = await self.filled([job])
        return self.job_json(job)

    async def document(self, parts: AsyncIterator[bytes]) -> Reply:
        """A JSON document of these parts, which may be large."""
        return await answer_of(parts, self.under_way.held)

    async def ended(
        self, wait: Callable[[str, float], Deferred[Job]], now: Callable[[str], Job], job_id: str, seconds: float
    ) -> Job:
        """The job at its end, or as it is after ``seconds``, or as it is ``now`` when this process is to end."""
        try:
            return await self.unless_shut_down(wait(job_id, seconds))
        except ShuttingDown:
            return now(job_id)

    async def stopped(self, stopping: Deferred[Job], job_id: str) -> Job:
        """What comes of a stop; when this process is to end, the job as it is, if the stop was recorded for later."""
        try:
            return await self.unless_shut_down(stopping)
        except ShuttingDown:
            last = self.scheduler.last_attempt(job_id)
            if last.over or last.stop_requested_at is None:  # over: what it left is being looked at
                raise
            return self.scheduler.job(job_id)

    async def unless_shut_down(self, waiting: Deferred[T]) -> T:
        """What is waited for; ``ShuttingDown`` when this process is to end before it comes."""
        ending = False

        def end() -> None:
            nonlocal ending
            ending = True
            waiting.cancel()

        self.under_way.add(end)
        try:
            return await waiting
        except CancelledError:
            if ending:
                raise ShuttingDown() from None
            raise
        finally:
            self.under_way.discard(end)
