"""Faults of the state folders of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class Eviction:
    """A worker has no room for ended jobs: it removes those that were acknowledged."""

    at: float
    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"worker {self.worker} keeps no acknowledged job for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        if self.worker not in world.workers:
            return  # a core worker gets no acknowledgement
        folder = world.workers[self.worker].folder
        folder.evictions[self] = None
        for spool in list(folder.spools.values()):
            folder.evict(spool)
        world.loop.after(self.seconds, folder.evictions.pop, self, None)
