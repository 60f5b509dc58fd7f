"""Links that are cut, and messages that are late or lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class Partition:
    """The link between the scheduler and a worker's machine is cut, in one direction or both."""

    at: float
    worker: str
    seconds: float
    to_worker: bool
    to_scheduler: bool

    def __str__(self) -> str:
        ways = [way for way, cut in (("to it", self.to_worker), ("from it", self.to_scheduler)) if cut]
        return f"worker {self.worker} is cut off ({' and '.join(ways)}) for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        there, here = world.nodes[self.worker].machine.name, world.scheduler_machine.name
        links = [link for link, cut in (((here, there), self.to_worker), ((there, here), self.to_scheduler)) if cut]
        for link in links:
            world.network.cut[link] = None

        def heal() -> None:
            for link in links:
                world.network.cut.pop(link, None)

        world.loop.after(self.seconds, heal)


@frozen
class Unanswered:
    """Workers' answers to calls of that name are lost. With ``reset``, the caller sees the connection fail at once."""

    at: float
    call: str
    seconds: float
    reset: bool

    def __str__(self) -> str:
        how = "the connection is reset" if self.reset else "the answer is lost"
        return f"for {self.seconds:.1f} s, {how} when a worker answers a {self.call}"

    def strike(self, world: World) -> None:
        calls = world.network.reset if self.reset else world.network.unanswered
        calls[self] = (world.scheduler_machine.name, self.call)
        world.heal_after(self.seconds, lambda: calls.pop(self, None))


@frozen
class Storm:
    """Messages are late and lost."""

    at: float
    seconds: float
    slow: float
    slowest: float
    lost_requests: float
    lost_answers: float

    def __str__(self) -> str:
        return (
            f"for {self.seconds:.1f} s, {self.slow:.0%} of the messages take up to {self.slowest:.1f} s, and "
            f"{self.lost_requests:.0%} of the requests and {self.lost_answers:.0%} of the answers are lost"
        )

    def strike(self, world: World) -> None:
        world.network.storms[self] = evolve(
            world.network.calm,
            slow=self.slow,
            slowest=self.slowest,
            lost_requests=self.lost_requests,
            lost_answers=self.lost_answers,
        )
        world.loop.after(self.seconds, world.network.storms.pop, self, None)
