"""Acts of clients. Each act is one client with one aim, which repeats its request where that is safe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from scheduler.errors import KeyInUse, KeyUnsettled, SchedulerError, StartUnanswered
from scheduler.interfaces import Accepted
from scheduler.model import Job, JobSpec, Stream, Submission
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING, QueueTerms, Target
from scheduler.views import JobFilter
from tests.simulation.clients import AGAIN, TRIES, answer_of, ask, carry_out, pause
from tests.simulation.follow import Follow, Follower, hung_up
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.network import CallFailed
from tests.simulation.steps import Step
from tests.simulation.streams import serve_run

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class Submit:
    """Submits a job, once, with further steps. ``key``: the client repeats the request until it is answered.

    ``by``: the principal of the client, whose key it is.
    """

    at: float
    ticket: str
    job: JobPlan
    target: Target
    terms: QueueTerms = NO_WAITING
    key: str | None = None
    by: str | None = None
    then: Sequence[Step] = ()
    #: Follow the output on the connection of the request.
    follow: Follow | None = None
    #: Seconds after which the client closes the connection of its first request.
    hang_up: float | None = None
    #: Seconds until a request with a key that was not answered is repeated.
    again: float = AGAIN
    #: Seconds after the last request at which the client stops its jobs, known or not; ``None``: never.
    withdraw: float | None = None

    def __str__(self) -> str:
        where = self.target.worker or f"selector {dict(self.target.selector or {})}"
        return f"{self.ticket} submits {self.job.seconds:g} s of work for {where}"

    def spec(self) -> JobSpec:
        """The spec of the job."""
        return self.job.spec(labels={"ticket": self.ticket})

    def begin(self, world: World) -> None:
        carry_out(world, self.ticket, self._do(world))

    async def _do(self, world: World) -> None:
        job_id = await self._submit(world)
        if self.withdraw is not None:
            world.loop.after(self.withdraw, self._withdraw, world)
        if job_id is not None:
            for step in self.then:
                world.loop.after(step.after, self._step, world, step, job_id)

    def _step(self, world: World, step: Step, job_id: str) -> None:
        carry_out(world, f"{self.ticket} {type(step).__name__}", step.do(world, self, job_id))

    async def _submit(self, world: World) -> str | None:
        """The id of the job, if it was answered."""
        key = None if self.key is None else RequestKey(self.key, self.ticket, self.by)
        hang_up, follow = self.hang_up, self.follow
        for _ in range(TRIES if key is not None else 1):
            world.judge.submitting(self.ticket)
            wire = f"{self.ticket} {'' if key is None else f'key={key.key}'}"
            try:
                if follow is not None:
                    whole = evolve(follow, stream=Stream.STDOUT, begin=0)
                    job = await self._run(world, whole, key, wire)
                else:
                    call = world.ask("submit", lambda service: answer_of(self.asked(world, service, key)), wire)
                    if hang_up is not None:
                        world.loop.after(hang_up, world.network.hang_up, call, True)
                    job = await call.answer
            except StartUnanswered as error:
                world.judge.not_answered(self.ticket, error)
                return error.job_id
            except CallFailed as error:
                if error.why != "refused":
                    world.judge.not_answered(self.ticket)
            except (KeyInUse, KeyUnsettled) as error:
                world.judge.not_answered(self.ticket, error)
            except SchedulerError as error:
                world.judge.refused(self.ticket, error)
            else:
                world.judge.acknowledged(self.ticket, job)
                return job.id
            hang_up = follow = None
            await pause(world, self.again)
            if world.loop.now > world.submissions_end:
                break
        return None

    def asked(self, world: World, service: Any, key: RequestKey | None) -> Deferred[Accepted]:
        """The submission, as the scheduler accepts it."""
        accepted: Deferred[Accepted] = service.submit(
            Submission(self.spec(), world.target(self.target), self.terms, key, self.by)
        )
        return accepted

    async def _run(self, world: World, follow: Follow, key: RequestKey | None, wire: str) -> Job:
        """Submit the job, and follow its output on the same connection; the answered job."""
        answered: Deferred[Job] = Deferred()
        followers: list[Follower] = []

        def take(message: Any) -> Deferred[None] | None:
            if isinstance(message, Job):
                followers.append(follow.follower(message.id))
                world.judge.follows(followers[0])
                answered.callback(message)
                return None
            return follow.take(world, followers[0], message)

        def serve(service: Any, flow: Any) -> None:
            serve_run(world, service, flow, lambda service: self.asked(world, service, key))

        flow = world.stream("run", serve, take, wire)
        if follow.hang_up is not None:
            world.loop.after(follow.hang_up, hung_up, flow)

        def over(result: Failure | None) -> None:
            if followers:
                carry_out(world, f"{self.ticket} follows", self._followed(world, follow, followers[0], result))
            else:
                answered.errback(Failure(CallFailed("reset")) if result is None else result)

        flow.finished.addBoth(over)
        return await answered

    async def _followed(self, world: World, follow: Follow, follower: Follower, result: Failure | None) -> None:
        """Handle the end of that connection, and continue to follow."""
        await follow.until(world, follower, succeed(None) if result is None else fail(result))
        if not follower.over and follow.resumes:
            await follow.go_on(world, follower.job_id, follower)

    def _withdraw(self, world: World) -> None:
        carry_out(world, f"{self.ticket} withdraws", StopMatching(0.0, self.ticket).do(world))


@frozen
class StopMatching:
    """Stops all unfinished jobs of a ticket; the client repeats this until none is left."""

    at: float
    ticket: str

    def __str__(self) -> str:
        return f"all jobs of {self.ticket} are to be stopped"

    def begin(self, world: World) -> None:
        carry_out(world, "stop matching", self.do(world))

    async def do(self, world: World) -> None:
        """Stop them."""
        world.judge.ticket_withdrawn(self.ticket)
        which = JobFilter(labels={"ticket": self.ticket})
        request = partial(_stop_matching, which=which)
        while world.loop.now < world.clients_end:
            reply = await ask(world, "stop_matching", request, wire=self.ticket, detail=self.ticket)
            if reply.answered and not reply.value:
                return
            await pause(world, AGAIN)


def _stop_matching(service: Any, which: JobFilter) -> Any:
    return service.stop_matching(which)


@frozen
class ListJobs:
    """Lists all jobs, ``limit`` at a time, with a pause of so many seconds between the pages."""

    at: float
    limit: int
    pause: float

    def __str__(self) -> str:
        return f"jobs are listed, {self.limit} at a time"

    def begin(self, world: World) -> None:
        carry_out(world, "list", self._do(world))

    async def _do(self, world: World) -> None:
        existing = world.judge.existing()
        listed: list[str] = []
        cursor: str | None = None
        for _ in range(1000):
            request = partial(_page, limit=self.limit, cursor=cursor)
            reply = await ask(world, "jobs", request, wire=f"from {cursor}")
            if reply.answered:
                listed += [job.id for job in reply.value.jobs]
                cursor = reply.value.next
                if cursor is None:
                    world.judge.listed(existing, listed)
                    return
            elif world.loop.now > world.clients_end:
                return
            await pause(world, self.pause)


def _page(service: Any, limit: int, cursor: str | None) -> Any:
    return service.jobs(JobFilter(), limit, cursor)


@frozen
class Drain:
    """Drains a worker, or with ``resume`` resumes it; the client repeats this until it is done."""

    at: float
    worker: str
    resume: bool = False

    def __str__(self) -> str:
        return f"worker {self.worker} is to be {'resumed' if self.resume else 'drained'}"

    def begin(self, world: World) -> None:
        carry_out(world, "drain", self._do(world))

    async def _do(self, world: World) -> None:
        if not self.resume:
            reply = await ask(world, "drain", lambda service: service.drain(self.worker), wire=self.worker)
            if reply.answered:
                world.judge.drained(self.worker, reply.value.worker.id)
            return
        for _ in range(TRIES):
            world.judge.resume_asked(self.worker)
            reply = await ask(world, "resume", lambda service: service.resume(self.worker), wire=self.worker)
            if reply.answered:
                return
            await pause(world, AGAIN)


@frozen
class Forget:
    """Forgets a worker that is not online."""

    at: float
    worker: str

    def __str__(self) -> str:
        return f"worker {self.worker} is to be forgotten"

    def begin(self, world: World) -> None:
        carry_out(world, "forget", self._do(world))

    async def _do(self, world: World) -> None:
        if self.worker in world.names():
            world.judge.forget_asked(self.worker)
        await ask(world, "forget", lambda service: service.forget(self.worker), wire=self.worker, detail=self.worker)
