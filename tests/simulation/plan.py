"""What is planned for a run, before it begins: its workers, its faults, and what clients do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


class Fault(Protocol):
    """Something that goes wrong at a time; ``str()`` of it says what, for people."""

    @property
    def at(self) -> float:
        """Seconds."""
        ...

    def strike(self, world: World) -> None:
        """It happens; what it breaks it heals itself, later."""


class Act(Protocol):
    """Something that a client does at a time; ``str()`` of it says what, for people."""

    @property
    def at(self) -> float:
        """Seconds."""
        ...

    def begin(self, world: World) -> None:
        """It begins to do it."""


@frozen
class PlannedWorker:
    """One of our workers."""

    name: str
    slots: int = 2
    labels: Mapping[str, str] = field(factory=dict)


@frozen
class PlannedCoreWorker:
    """A core worker beside ours."""

    name: str
    #: It deregisters when it is stopped.
    deregisters: bool = False
    #: Its jobs run on when its process ends, and the next one knows them; else they end with it.
    jobs_run_on: bool = False


@frozen
class Plan:
    """All of it. ``length`` in seconds: then all faults are over, and no client does anything new."""

    length: float
    workers: Sequence[PlannedWorker]
    faults: Sequence[Fault]
    acts: Sequence[Act]
    #: Share of the messages that travel slowly even in good weather.
    slow: float = 0.02
    core_workers: Sequence[PlannedCoreWorker] = ()
