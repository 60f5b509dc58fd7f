"""Choice of the worker for a job: pure functions of the registry's current state.

The least loaded worker comes first. The order of workers is that of ``candidates.place_of``, also for the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from attrs import evolve

from scheduler.cluster.candidates import PRESENT, Candidates, Standing
from scheduler.cluster.requirement import Requirement
from scheduler.errors import NoFreeSlot, NoMatch, SchedulerError
from scheduler.model import Job, JobSpec, Worker

#: Workers that one message names.
_MAX_WORKERS_NAMED = 3


def lacking(needed: JobSpec | Requirement, worker: Worker) -> str:
    """The abilities that the job needs and the worker lacks, as text; ``""``: it lacks none."""
    if worker.is_core and not needed.fits_core:
        return "more than a command and a path"
    return ", ".join(sorted(needed.features - worker.features))


def missing_labels(requirement: Requirement, worker: Worker) -> str:
    """The labels that the job needs and the worker does not have, as text; ``""``: it has all."""
    return ", ".join(f"{key}={value}" for key, value in sorted(requirement.labels - worker.labels.items()))


def may_run(job: Job, worker: Worker) -> bool:
    """Whether a job that was given to a worker may begin there, as this worker is now."""
    return worker.takes(job.spec) if job.target is None else Requirement.of(job.spec, job.target).fits(worker)


def could_take(job: Job, worker: Worker) -> bool:
    """Whether the job could be placed on that worker if the worker were online and idle."""
    return job.target is not None and Requirement.of(job.spec, job.target).met_by(worker)


def without_match(requirement: Requirement, candidates: Candidates) -> str:
    """The sentence that says why no worker that takes jobs meets the requirement, which names no worker."""
    if not candidates:
        return "no worker is registered"
    draining = candidates.each(requirement, (Standing.DRAINING,))
    named = [worker.name for worker in islice(draining, _MAX_WORKERS_NAMED + 1)]
    if named:
        names = ", ".join(named[:_MAX_WORKERS_NAMED]) + (", ..." if len(named) > _MAX_WORKERS_NAMED else "")
        return f"every worker that matches the selector ({requirement}) is draining: {names}"
    if candidates.any(evolve(requirement, features=frozenset()), PRESENT):
        return f"no worker that matches the selector ({requirement}) supports {', '.join(sorted(requirement.features))}"
    return f"no worker matches the selector ({requirement})"


def refusal(requirement: Requirement, candidates: Candidates) -> SchedulerError:
    """The error for a requirement, which names no worker, that no worker can meet now.

    ``NoMatch`` if no worker matches, reachable or not; ``NoFreeSlot`` if those that match can't take a job now. A
    worker that is draining does not match.
    """
    if candidates.any(requirement, (Standing.FREE, Standing.HELD)):
        return NoFreeSlot(f"no worker that matches the selector ({requirement}) takes a job now")
    if candidates.any(requirement, (Standing.FULL, Standing.FULL_AND_HELD)):
        return NoFreeSlot(f"every worker that matches the selector ({requirement}) has all its slots taken")
    if candidates.any(requirement, (Standing.UNREACHABLE,)):
        return NoFreeSlot(f"no worker that matches the selector ({requirement}) can be reached")
    return NoMatch(without_match(requirement, candidates))


def place(
    requirement: Requirement, candidates: Candidates, withheld: Callable[[Worker], bool] = lambda _: False
) -> Worker:
    """The least loaded worker that meets the requirement and has a free slot; of equal loads, the first by name.

    A worker that is ``withheld`` takes no job now, though it has a slot. Raises the ``refusal`` if none is left.
    """
    for worker in candidates.each(requirement, (Standing.FREE,)):
        if not withheld(worker):
            return worker
    raise refusal(requirement, candidates)
