"""Which worker a job runs on: a pure function of what is known."""

from __future__ import annotations

from collections.abc import Callable, Collection

from attrs import evolve, frozen

from scheduler.errors import NoFreeSlot, NoMatch
from scheduler.model import JobSpec, Target, Worker, WorkerState

Label = tuple[str, str]

#: Workers that one message names.
_MAX_WORKERS_NAMED = 3


@frozen
class Requirement:
    """What a job needs of a worker."""

    #: Its id or name; ``None``: any with the labels.
    worker: str | None
    labels: frozenset[Label]
    #: Whether a core worker will do: it can be told the job whole.
    fits_core: bool
    #: Of ``scheduler.model.FEATURES``, those that it must have.
    features: frozenset[str] = frozenset()

    @classmethod
    def of(cls, spec: JobSpec, target: Target) -> Requirement:
        """That of a job."""
        return cls(target.worker, frozenset((target.selector or {}).items()), spec.fits_core, spec.features)

    def met_by(self, worker: Worker) -> bool:
        """Whether the worker could run such a job, were it there and had nothing else to do.

        One without any slots takes only what names it.
        """
        if not worker.takes(self):
            return False
        if self.worker is not None:
            return self.worker in {worker.id, worker.name}
        return worker.slots != 0 and self.labels <= worker.labels.items()

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in sorted(self.labels)) or "any worker"


def lacking(needed: JobSpec | Requirement, worker: Worker) -> str:
    """What a worker would have to be able to do to run such a job, and is not; ``""``: it can do all."""
    if worker.is_core and not needed.fits_core:
        return "more than a command and a path"
    return ", ".join(sorted(needed.features - worker.features))


def without_match(requirement: Requirement, workers: Collection[Worker]) -> str:
    """A sentence that says why none of these takes jobs and meets a requirement that names no worker; all are given."""
    if not workers:
        return "no worker is registered"
    draining = sorted(worker.name for worker in workers if worker.draining and requirement.met_by(worker))
    if draining:
        names = ", ".join(draining[:_MAX_WORKERS_NAMED]) + (", ..." if len(draining) > _MAX_WORKERS_NAMED else "")
        return f"every worker that matches the selector ({requirement}) is draining: {names}"
    workers = [worker for worker in workers if not worker.draining]
    unlimited = evolve(requirement, features=frozenset())
    if any(unlimited.met_by(worker) for worker in workers):
        return f"no worker that matches the selector ({requirement}) supports {', '.join(sorted(requirement.features))}"
    return f"no worker matches the selector ({requirement})"


def has_slot(worker: Worker, load: int) -> bool:
    """Whether placement may put one more job on it; ``load`` is how many of its jobs have not ended."""
    return worker.slots is None or load < worker.slots


def place(
    requirement: Requirement,
    workers: Collection[Worker],
    load: Callable[[str], int],
    withheld: Callable[[Worker], bool] = lambda _: False,
) -> Worker:
    """The least loaded worker that meets the requirement and has a free slot; ties go to the lower name.

    ``load`` is given a worker's id; one that is ``withheld`` takes no job now, though it has a slot.

    Raises ``NoMatch`` when no worker matches, whether reachable or not, and
    ``NoFreeSlot`` when those that match can't take a job now. One that is draining
    does not match.
    """
    matching = [worker for worker in workers if not worker.draining and requirement.met_by(worker)]
    if not matching:
        raise NoMatch(without_match(requirement, workers))
    online = [worker for worker in matching if worker.state is WorkerState.ONLINE]
    if not online:
        raise NoFreeSlot(f"no worker that matches the selector ({requirement}) can be reached")
    loads = [(load(worker.id), worker.name, worker.id, worker) for worker in online]
    with_slots = [entry for entry in loads if has_slot(entry[3], entry[0])]
    if not with_slots:
        raise NoFreeSlot(f"every worker that matches the selector ({requirement}) has all its slots taken")
    free = [entry for entry in with_slots if not withheld(entry[3])]
    if not free:
        raise NoFreeSlot(f"no worker that matches the selector ({requirement}) takes a job now")
    return min(free, key=lambda entry: entry[:3])[3]
