"""The needs of a job, as a value that can be compared, and be a key of mappings."""

from __future__ import annotations

from attrs import frozen

from scheduler.model import JobSpec, Worker
from scheduler.terms import Target

Label = tuple[str, str]


@frozen
class Requirement:
    """The needs of a job: a worker has to meet all of them."""

    #: The id or name of a worker; ``None``: any worker with the labels.
    worker: str | None
    #: The labels that the worker must have, also if it is named.
    labels: frozenset[Label]
    #: Whether a core worker is enough: the core protocol can carry the whole job.
    fits_core: bool
    #: The features, of ``scheduler.model.FEATURES``, that the worker must have.
    features: frozenset[str] = frozenset()

    @classmethod
    def of(cls, spec: JobSpec, target: Target) -> Requirement:
        """The requirement of a job."""
        return cls(target.worker, frozenset((target.selector or {}).items()), spec.fits_core, spec.features)

    def met_by(self, worker: Worker) -> bool:
        """Whether the worker could run a job with this requirement if it were online and idle.

        A worker without slots takes only jobs that name it.
        """
        if not self.fits(worker):
            return False
        return worker.slots != 0 if self.worker is None else self.worker in {worker.id, worker.name}

    def fits(self, worker: Worker) -> bool:
        """Whether the worker has the labels and can do what the job needs, whichever worker the job names."""
        return worker.takes(self) and self.labels <= worker.labels.items()

    def suits(self, is_core: bool, features: frozenset[str]) -> bool:
        """Whether a worker with these features can run a job with this requirement; ``is_core``: a core worker."""
        return (self.fits_core or not is_core) and self.features <= features

    def covers(self, other: Requirement) -> bool:
        """Whether every worker that meets the other requirement meets this one; neither names a worker."""
        return (
            (self.fits_core or not other.fits_core) and self.labels <= other.labels and self.features <= other.features
        )

    def joined(self, other: Requirement) -> Requirement:
        """A requirement that a worker meets if it meets both; the other names no worker."""
        return Requirement(
            self.worker, self.labels | other.labels, self.fits_core and other.fits_core, self.features | other.features
        )

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in sorted(self.labels)) or "any worker"
