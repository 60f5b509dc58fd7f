"""Steps of a client after its submission: each is one request or a few, some time after the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from scheduler.errors import NotFound
from scheduler.model import Job
from scheduler.request_keys import RequestKey
from tests.simulation.clients import AGAIN, TRIES, Reply, answer_of, ask, pause
from tests.simulation.streams import attend

if TYPE_CHECKING:
    from tests.simulation.acts import Submit
    from tests.simulation.world import World


class Step(Protocol):
    """A step. The steps of a client do not wait for each other."""

    @property
    def after(self) -> float:
        """Seconds after the answer."""
        ...

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        """Carry out the step."""


@frozen
class Query:
    """Queries the job, by the name of its worker."""

    after: float

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        job = world.judge.facts.shown.get(job_id)
        worker = "" if job is None else job.worker_name or ""
        await ask(world, "query", lambda service: service.query(worker, job_id), job_id, worker, detail=worker)


@frozen
class Look:
    """Asks for the job as the scheduler knows it."""

    after: float

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        await ask(world, "job", lambda service: service.job(job_id), job_id)


@frozen
class Stop:
    """Stops the job; repeats this until the stop is accepted."""

    after: float

    async def do(self, world: World, submitted: Submit | None, job_id: str) -> None:
        world.judge.stop_asked(job_id)
        while world.loop.now < world.clients_end:
            reply = await ask(world, "stop", lambda service: service.stop(job_id), job_id)
            if reply.answered or isinstance(reply.error, NotFound):
                return
            await pause(world, AGAIN)


@frozen
class Wait:
    """Waits for the end of the job, or of its last attempt, for at most so many ``seconds``."""

    after: float
    seconds: float
    attempts: bool = False
    hang_up: float | None = None

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        def request(service: Any) -> Deferred[Job]:
            wait = service.wait_for_attempts if self.attempts else service.wait
            waiting: Deferred[Job] = wait(job_id, self.seconds)
            leave = attend(world, job_id) if self.seconds else _nothing
            return waiting.addBoth(lambda result: (leave(), result)[1])

        name = "wait_for_attempts" if self.attempts else "wait"
        await ask(
            world,
            name,
            request,
            job_id,
            f"{self.seconds:.1f} s",
            seconds=self.seconds + 60.0,
            detail=self.seconds,
            hang_up=self.hang_up,
        )


@frozen
class Signal:
    """Sends the main process a signal."""

    after: float
    signal: str

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        run = world.judge.facts.run_of(job_id)
        before = 0 if run is None else len(run.signals)
        await ask(
            world,
            "signal",
            lambda service: service.signal(job_id, self.signal, "main"),
            job_id,
            self.signal,
            detail=(run, before),
        )


@frozen
class Remove:
    """Removes the job once it has ended, then asks for it."""

    after: float

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        world.judge.removal_asked(job_id)
        for _ in range(TRIES):
            reply = await ask(world, "remove", lambda service: service.remove(job_id), job_id)
            if reply.answered and reply.value:
                await ask(world, "job", lambda service: service.job(job_id), job_id)
                return
            await pause(world, AGAIN)


@frozen
class Resubmit:
    """Repeats the request with the same key; with ``other`` as its content, which must be refused."""

    after: float
    other: bool = False

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        if submitted.key is None:
            return
        key = RequestKey(submitted.key, "another request" if self.other else submitted.ticket, submitted.by)
        reply: Reply = await ask(
            world,
            "resubmit",
            lambda service: answer_of(submitted.asked(world, service, key)),
            job_id,
            f"key={submitted.key}{' with another body' if self.other else ''}",
            detail=self.other,
        )
        if reply.answered and not self.other:
            world.judge.acknowledged(submitted.ticket, reply.value)


def _nothing() -> None:
    """Called for a client that does not attend the job."""
