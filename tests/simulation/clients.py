"""The common part of a run's clients: requests, pauses, and reports to the judge."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred

from scheduler.errors import SchedulerError
from scheduler.interfaces import Accepted
from scheduler.model import Job
from tests.simulation.network import CallFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds between the attempts of a client that may repeat its request, and the number of attempts.
AGAIN = 3.0
TRIES = 40


@frozen
class Reply:
    """The result of one request about ``job_id`` (``""``: about none); times by the loop's clock, in seconds.

    ``error`` is the error in the answer, or ``CallFailed`` without an answer; otherwise ``value`` is the answer.
    ``detail`` is the part of the request that is needed to judge the answer.
    """

    name: str
    job_id: str
    asked_at: float
    answered_at: float
    value: Any = None
    error: Exception | None = None
    detail: Any = None

    @property
    def answered(self) -> bool:
        """Whether the request succeeded."""
        return self.error is None

    @property
    def refused(self) -> bool:
        """Whether the scheduler answered with an error."""
        return isinstance(self.error, SchedulerError)


def answer_of(submitting: Deferred[Accepted]) -> Deferred[Job]:
    """The job as the request of a submission is answered."""
    return submitting.addCallback(lambda accepted: accepted.answered)


def carry_out(world: World, name: str, act: Coroutine[Deferred[Any], Any, None]) -> None:
    """Run a client's act; an error that no client may see is a finding."""
    Deferred.fromCoroutine(act).addErrback(lambda reason: world.judge.crashed(name, reason))


async def pause(world: World, seconds: float) -> None:
    """Do nothing for that time."""
    over: Deferred[None] = Deferred()
    world.loop.after(seconds, over.callback, None)
    await over


async def ask(
    world: World,
    name: str,
    request: Callable[[Any], Any],
    job_id: str = "",
    wire: str = "",
    seconds: float = 90.0,
    detail: Any = None,
    hang_up: float | None = None,
) -> Reply:
    """Make a request, and report its result to the judge.

    The client gives it up after so many ``seconds``, and closes its connection after ``hang_up`` seconds.
    """
    asked_at = world.loop.now
    call = world.ask(name, request, f"job={job_id} {wire}".strip() if job_id else wire, seconds)
    if hang_up is not None:
        world.loop.after(hang_up, world.network.hang_up, call, True)
    value, failure = None, None
    try:
        value = await call.answer
    except (CallFailed, SchedulerError) as error:
        failure = error
    reply = Reply(name, job_id, asked_at, world.loop.now, value, failure, detail)
    world.judge.replied(reply)
    return reply
