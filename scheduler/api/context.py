"""Common objects of the handlers: the scheduler, clocks, reader of excerpts, and the streams and waits under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from attrs import Factory, define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from scheduler import wire
from scheduler.api.answers import Answer
from scheduler.api.bodies import Held, answer_of
from scheduler.api.door import Door
from scheduler.api.excerpts import ExcerptReader
from scheduler.api.quotas import Followers
from scheduler.errors import ShuttingDown, StoreFailed
from scheduler.interfaces import IScheduler
from scheduler.model import Job, JobState
from scheduler.reading import Object
from scheduler.security.interfaces import ITokens
from scheduler.security.permitted import Permitted
from scheduler.security.principals import Principal
from scheduler.security.trail import Audit

T = TypeVar("T")

#: The result of a handler: a complete response, or a resource that writes one as its client reads.
Reply = Answer | Resource


class UnderWay:
    """Streams and long polls, which would not end soon by themselves: at shutdown each one is ended.

    ``held`` counts the bytes that clients have yet to read.
    """

    def __init__(self) -> None:
        self.held = Held()
        self._ends: set[Callable[[], None]] = set()

    def add(self, end: Callable[[], None]) -> None:
        """Have ``end`` called at shutdown, unless it is discarded before."""
        self._ends.add(end)

    def discard(self, end: Callable[[], None]) -> None:
        """Forget ``end``: its stream or wait is over."""
        self._ends.discard(end)

    def end(self) -> None:
        for end in list(self._ends):
            end()


@define(eq=False)
class Context:
    """The collaborators of all handlers of an app; ``wall_time`` gives POSIX times, ``clock`` runs timers.

    Nothing changes it. It is not frozen because each request makes one, and making a frozen one takes thrice as long.
    """

    scheduler: IScheduler
    door: Door
    clock: IReactorTime
    wall_time: Callable[[], float]
    under_way: UnderWay
    followers: Followers
    #: ``None``: acts are not recorded, in a test.
    audit: Audit | None = None
    excerpts: ExcerptReader = field(
        default=Factory(lambda self: ExcerptReader(self.scheduler, self.clock, self.described), takes_self=True)
    )

    @property
    def tokens(self) -> ITokens:
        return self.door.tokens

    def of(self, principal: Principal) -> Context:
        """The context for a request of that principal, which has the scheduler as the principal sees it."""
        return Context(
            Permitted(self.scheduler, principal),
            self.door,
            self.clock,
            self.wall_time,
            self.under_way,
            self.followers,
            self.audit,
            self.excerpts,
        )

    def job_json(self, job: Job) -> Object:
        """The JSON of a job as every answer shows it, with the reason why it is queued."""
        return wire.job_json(job, self.scheduler.waiting_for(job) if job.state is JobState.QUEUED else None)

    async def shown(self, jobs: Sequence[Job]) -> list[Object]:
        """The JSON of jobs, with the parts that only the store has, unless the store fails."""
        if any(job.spec.stored for job in jobs):
            with suppress(StoreFailed):
                jobs = await self.scheduler.with_specs(jobs)
        return [self.job_json(job) for job in jobs]

    async def described(self, job: Job, output: int | None = None) -> Object:
        """The JSON of one job as in ``shown``, with the last ``output`` bytes of its streams if that is given."""
        if output is not None:
            return await self.excerpts.job(job, output)
        (shown,) = await self.shown([job])
        return shown

    async def document(self, parts: AsyncIterator[bytes]) -> Reply:
        """Answer with the JSON document that consists of ``parts``, which may be large."""
        return await answer_of(parts, self.under_way.held)

    async def stopped(self, stopping: Deferred[Job], job_id: str) -> Job:
        """Wait for a stop, and return the job; at shutdown, the job as it is if the stop is recorded for later."""

        def recorded() -> Job:
            last = self.scheduler.last_attempt(job_id)
            if last.over or last.stop_requested_at is None:  # over: its leftover processes are being looked at
                raise ShuttingDown()
            return self.scheduler.job(job_id)

        return await self.unless_shut_down(stopping, recorded)

    async def unless_shut_down(self, waiting: Deferred[T], instead: Callable[[], T] | None = None) -> T:
        """Wait for a result. At shutdown the wait is cancelled; returns ``instead()``, or raises ``ShuttingDown``."""
        ending = False

        def end() -> None:
            nonlocal ending
            ending = True
            waiting.cancel()

        self.under_way.add(end)
        try:
            return await waiting
        except CancelledError:
            if not ending:
                raise
            if instead is None:
                raise ShuttingDown() from None
            return instead()
        finally:
            self.under_way.discard(end)
