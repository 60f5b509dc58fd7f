"""The plan of a run, made before it begins: its workers, its faults, and the acts of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


class Fault(Protocol):
    """A fault at a given time; ``str()`` describes it."""

    @property
    def at(self) -> float:
        """The time in seconds."""
        ...

    def strike(self, world: World) -> None:
        """Cause the fault. It is healed later, by itself."""


class Act(Protocol):
    """An act of a client at a given time; ``str()`` describes it."""

    @property
    def at(self) -> float:
        """The time in seconds."""
        ...

    def begin(self, world: World) -> None:
        """Begin the act."""


@frozen
class PlannedWorker:
    """A worker of ours."""

    name: str
    slots: int = 2
    labels: Mapping[str, str] = field(factory=dict)


@frozen
class PlannedCoreWorker:
    """A core worker beside ours."""

    name: str
    #: Whether it deregisters when it is stopped.
    deregisters: bool = False
    #: Whether its jobs outlive its process, and the next process knows them.
    jobs_run_on: bool = False


@frozen
class Plan:
    """The whole plan. ``length``: seconds after which all faults are over, and no client begins anything new."""

    length: float
    workers: Sequence[PlannedWorker]
    faults: Sequence[Fault]
    acts: Sequence[Act]
    #: The share of messages that travel slowly even in good weather.
    slow: float = 0.02
    core_workers: Sequence[PlannedCoreWorker] = ()
