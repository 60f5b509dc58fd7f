"""A store that fails or stalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class StoreFails:
    """A share of the commits fails, some of them after they became durable."""

    at: float
    seconds: float
    share: float
    though_committed: float

    def __str__(self) -> str:
        return (
            f"for {self.seconds:.1f} s, {self.share:.0%} of the commits fail, "
            f"{self.though_committed:.0%} of those though they are durable"
        )

    def strike(self, world: World) -> None:
        world.database.troubles[self] = (self.share, self.though_committed)
        world.loop.after(self.seconds, world.database.troubles.pop, self, None)


@frozen
class StoreStalls:
    """No commit finishes for a while."""

    at: float
    seconds: float

    def __str__(self) -> str:
        return f"the store stalls for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        world.database.stalls_until = max(world.database.stalls_until, world.loop.now + self.seconds)
