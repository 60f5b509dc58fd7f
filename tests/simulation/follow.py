"""Clients that read the output of a job: all of it, live, or a part of the present output."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, frozen
from twisted.internet.defer import Deferred

from scheduler.errors import NotFound, OffsetBeyondEnd, OutputPruned, SchedulerError, Unsupported
from scheduler.model import Stream
from tests.simulation.clients import ask, pause
from tests.simulation.flows import Flow
from tests.simulation.network import CallFailed
from tests.simulation.streams import OutputCutShort, serve_follow

if TYPE_CHECKING:
    from tests.simulation.acts import Submit
    from tests.simulation.world import World

#: Seconds until a follower resumes after a cut.
RESUME = 1.0


@define(eq=False)
class Follower:
    """A client that reads one stream of a job, from ``offset`` on; ``over`` is why it stopped reading."""

    job_id: str
    stream: Stream
    began: int
    offset: int
    over: str = ""
    #: The time of its present request, by the loop's clock.
    asked_at: float = 0.0
    #: Whether it reads until it has everything, however often it is cut.
    stubborn: bool = True


@frozen
class Follow:
    """Follows a stream of the job from an offset on, and resumes after cuts.

    ``slow``: seconds that the client takes for each message. It hangs up once after ``hang_up`` seconds, for good
    unless it ``resumes``.
    """

    after: float
    stream: Stream = Stream.STDOUT
    begin: int = 0
    slow: float = 0.0
    hang_up: float | None = None
    resumes: bool = True

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        await self.go_on(world, job_id, self.follower(job_id))

    def follower(self, job_id: str) -> Follower:
        """A follower that has read nothing."""
        return Follower(job_id, self.stream, self.begin, self.begin, stubborn=self.resumes)

    async def go_on(self, world: World, job_id: str, follower: Follower) -> None:
        """Read on from the follower's offset."""
        world.judge.follows(follower)
        hang_up = self.hang_up
        while not follower.over and world.loop.now < world.clients_end:
            follower.asked_at = world.loop.now
            serve = partial(_serve, world, job_id, self.stream, follower.offset)
            take = partial(self.take, world, follower)
            over = world.stream("follow", serve, take, f"job={job_id} {self.stream.value} from {follower.offset}")
            if hang_up is not None:
                world.loop.after(hang_up, hung_up, over)
                hang_up = None
            await self.until(world, follower, over.finished)
            if follower.over:
                return
            if not self.resumes:
                follower.over = "it hung up, or was cut"
                return
            await pause(world, RESUME)

    async def until(self, world: World, follower: Follower, finished: Deferred[None]) -> None:
        """Wait for the end of one connection, and handle it."""
        try:
            await finished
        except OutputCutShort as error:
            follower.over = str(error) or "cut"
            world.judge.output_over(follower, cut=follower.over)
        except (NotFound, Unsupported, OffsetBeyondEnd, OutputPruned) as error:
            follower.over = str(error)
            world.judge.output_refused(follower, error)
        except SchedulerError as error:
            world.judge.output_refused(follower, error)
        except CallFailed:
            return
        else:
            follower.over = "the end"
            world.judge.output_over(follower, cut="")

    def take(self, world: World, follower: Follower, message: tuple[int, bytes]) -> Deferred[None] | None:
        """Take a message of the stream."""
        offset, data = message
        world.judge.delivered(follower, offset, data)
        follower.offset = offset + len(data)
        if not self.slow:
            return None
        taken: Deferred[None] = Deferred()
        world.loop.after(self.slow, taken.callback, None)
        return taken


def _serve(world: World, job_id: str, stream: Stream, offset: int, service: Any, flow: Flow) -> None:
    serve_follow(world, service, flow, job_id, stream, offset)


def hung_up(flow: Flow) -> None:
    """Close the client's connection."""
    if not flow.finished.called:
        flow.cancel()
        flow.finished.errback(CallFailed("reset"))


@frozen
class Read:
    """Reads at most ``size`` bytes of the present output, from an offset on."""

    after: float
    offset: int
    size: int

    async def do(self, world: World, submitted: Submit, job_id: str) -> None:
        run = world.judge.facts.run_of(job_id)
        there = 0 if run is None else run.lines(world.loop.now)

        def request(service: Any) -> Any:
            return service.read_output(job_id, Stream.STDOUT, self.offset, self.size)

        wire = f"from {self.offset}, {self.size} bytes"
        await ask(world, "read", request, job_id, wire, detail=(self.offset, self.size, there))
