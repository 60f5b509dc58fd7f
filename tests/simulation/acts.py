"""What clients do: each act is one client with one aim, which asks again where that is safe."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred

from scheduler.errors import SchedulerError, StartUnanswered
from scheduler.interfaces import RequestKey
from scheduler.model import NO_WAITING, Job, QueueTerms, Target
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.network import CallFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds between the tries of a client that may ask again, and how often it does.
AGAIN = 3.0
TRIES = 40


def carry_out(world: World, name: str, act: Coroutine[Deferred[Any], Any, None]) -> None:
    """Have a client do it; an error that no client may see is a finding."""
    Deferred.fromCoroutine(act).addErrback(lambda reason: world.judge.crashed(name, reason))


async def pause(world: World, seconds: float) -> None:
    """Do nothing for a while."""
    over: Deferred[None] = Deferred()
    world.loop.after(seconds, over.callback, None)
    await over


@frozen
class Submit:
    """Wants a job run, once, and then perhaps something of it. ``key``: it asks again until it knows."""

    at: float
    ticket: str
    job: JobPlan
    target: Target
    terms: QueueTerms = NO_WAITING
    key: str | None = None
    #: Seconds after the answer; ``None``: never.
    stop_after: float | None = None
    query_after: float | None = None
    #: Wait for the end for so long, when it was answered.
    wait: float | None = None
    remove: bool = False

    def __str__(self) -> str:
        where = self.target.worker or f"selector {dict(self.target.selector or {})}"
        return f"{self.ticket} submits {self.job.seconds:g} s of work for {where}"

    def begin(self, world: World) -> None:
        carry_out(world, self.ticket, self._do(world))

    async def _do(self, world: World) -> None:
        job = await self._submit(world)
        if job is None:
            return
        if self.query_after is not None:
            await pause(world, self.query_after)
            await _asked(world, "query", lambda service: service.query(job.worker_name or "", job.id), job.id)
        if self.stop_after is not None:
            await pause(world, self.stop_after)
            world.judge.stop_asked(job.id)
            for _ in range(TRIES):
                if await _asked(world, "stop", lambda service: service.stop(job.id), job.id) is not None:
                    break
                await pause(world, AGAIN)
        if self.wait is not None:
            await _asked(world, "wait", lambda service: service.wait(job.id, self.wait), job.id)
        if self.remove:
            world.judge.removal_asked(job.id)
            await _asked(world, "remove", lambda service: service.remove(job.id), job.id)

    async def _submit(self, world: World) -> Job | None:
        key = None if self.key is None else RequestKey(self.key, self.ticket)
        spec = self.job.spec(labels={"ticket": self.ticket})
        for _ in range(TRIES if key is not None else 1):
            world.judge.submitting(self.ticket)
            call = world.ask(
                "submit",
                lambda service: service.submit(spec, self.target, self.terms, key),
                f"{self.ticket} {'' if key is None else f'key={key.key}'}",
            )
            try:
                job: Job = await call.answer
            except StartUnanswered:
                world.judge.not_answered(self.ticket)
                return None
            except CallFailed as error:
                if error.why != "refused":
                    world.judge.not_answered(self.ticket)
            except SchedulerError as error:
                world.judge.refused(self.ticket, error)
            else:
                world.judge.acknowledged(self.ticket, job)
                return job
            await pause(world, AGAIN)
        return None


async def _asked(world: World, name: str, request: Any, job_id: str) -> Any:
    """The answer to a request about a job, ``None`` where there was none, or an error."""
    try:
        answer = await world.ask(name, request, f"job={job_id}", seconds=400.0 if name == "wait" else 90.0).answer
    except (CallFailed, SchedulerError):
        return None
    if isinstance(answer, Job):
        world.judge.answered(answer)
    return True if answer is None else answer


@frozen
class Drain:
    """A worker shall take no new jobs, or, ``resume``, shall take some again."""

    at: float
    worker: str
    resume: bool = False

    def __str__(self) -> str:
        return f"worker {self.worker} is to be {'resumed' if self.resume else 'drained'}"

    def begin(self, world: World) -> None:
        carry_out(world, "drain", self._do(world))

    async def _do(self, world: World) -> None:
        if self.resume:
            world.judge.resume_asked(self.worker)
        call = world.ask(
            "resume" if self.resume else "drain",
            lambda service: service.resume(self.worker) if self.resume else service.drain(self.worker),
            self.worker,
        )
        try:
            view = await call.answer
        except (CallFailed, SchedulerError):
            return
        if not self.resume:
            world.judge.drained(self.worker, view.worker.id)


@frozen
class Forget:
    """A worker shall be forgotten, if it is not online."""

    at: float
    worker: str

    def __str__(self) -> str:
        return f"worker {self.worker} is to be forgotten"

    def begin(self, world: World) -> None:
        carry_out(world, "forget", self._do(world))

    async def _do(self, world: World) -> None:
        world.judge.forget_asked(self.worker)
        try:
            await world.ask("forget", lambda service: service.forget(self.worker), self.worker).answer
        except (CallFailed, SchedulerError):
            return
