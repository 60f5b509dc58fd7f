"""Which worker a job runs on: a pure function of what is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from scheduler.errors import Conflict, NoFreeSlot
from scheduler.model import JobSpec, Worker, WorkerState


@frozen
class Candidate:
    """A worker and its load: how many of its jobs have not ended."""

    worker: Worker
    load: int
    #: Others come first, or it took no job a moment ago.
    withheld: bool = False

    @property
    def free(self) -> bool:
        """Whether placement may put one more job on it."""
        return not self.withheld and (self.worker.slots is None or self.load < self.worker.slots)


def place(spec: JobSpec, selector: Mapping[str, str], candidates: Iterable[Candidate]) -> Worker:
    """The least loaded worker that has every label of ``selector`` and a free slot; ties go to the lower name.

    A worker of the fixed part is a candidate only for a job it can be told whole.

    Raises ``Conflict`` when no worker matches, whether reachable or not, and
    ``NoFreeSlot`` when those that match can't take a job now. One that is draining,
    or has no slots at all, does not match.
    """
    wanted = ", ".join(f"{key}={value}" for key, value in sorted(selector.items())) or "any worker"
    matching = [candidate for candidate in candidates if _matches(candidate.worker, spec, selector)]
    if not matching:
        raise Conflict(f"no worker matches the selector ({wanted})")
    online = [candidate for candidate in matching if candidate.worker.state is WorkerState.ONLINE]
    if not online:
        raise NoFreeSlot(f"no worker that matches the selector ({wanted}) can be reached")
    free = [candidate for candidate in online if candidate.free]
    if not free:
        raise NoFreeSlot(f"every worker that matches the selector ({wanted}) has all its slots taken")
    return min(free, key=lambda candidate: (candidate.load, candidate.worker.name, candidate.worker.id)).worker


def _matches(worker: Worker, spec: JobSpec, selector: Mapping[str, str]) -> bool:
    return (
        not worker.draining
        and worker.slots != 0
        and (spec.classic or not worker.classic)
        and all(worker.labels.get(key) == value for key, value in selector.items())
    )
