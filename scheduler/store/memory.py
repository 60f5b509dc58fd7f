"""A store that lives as long as the process: for tests, and for ``memory:``, where nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from scheduler.commits import next_timeline
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, JobSpec, Ref


def _with_its_first_spec(job: Job, before: Job | None) -> Job:
    return job if before is None else evolve(job, spec=before.spec)


#: Kind -> a function of the record to save and the saved one, or ``None``. It returns the record to keep.
KINDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "job": _with_its_first_spec,
    "worker": lambda worker, _: worker,
    "key": lambda key, _: key.trimmed(),
}


@implementer(IStore)
class MemoryStore(Service):
    """Commits at once. As a service it has nothing to start or stop."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.commit_count = 0
        self.counting = False
        self.set_back_to: int | None = None

    def load(self) -> Deferred[Loaded]:
        self.counting = False
        return succeed(self.loaded())

    def loaded(self) -> Loaded:
        jobs, workers, keys = (tuple(self.kept[kind].values()) for kind in ("job", "worker", "key"))
        return Loaded(tuple(job.trimmed() for job in jobs), workers, keys, self.commit_count, self.set_back_to)

    def read_specs(self, job_ids: Collection[str]) -> Deferred[Mapping[str, JobSpec]]:
        kept = self.kept["job"]
        specs = {job_id: kept[job_id].spec.without_input() for job_id in job_ids if job_id in kept}
        return succeed({job_id: spec for job_id, spec in specs.items() if not spec.stored})

    def count_commits(self, above: int = 0, set_back_to: int | None = None) -> Deferred[None]:
        self.counting = True
        if set_back_to is not None:
            self.commit_count, self.set_back_to = next_timeline(max(above, self.commit_count)), set_back_to
        else:
            self.commit_count += 1
        return succeed(None)

    def restore_from(self, everything: Callable[[], Loaded]) -> None:
        """Nothing to do: this store can't be set back."""

    def verify(self) -> Deferred[None]:
        return succeed(None)

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        records = list(records)
        self.commit_count += self.counting and bool(records)
        for record in records:
            if isinstance(record, Ref):
                self.kept[record.kind].pop(record.id, None)
            else:
                ref = record.ref
                kept = self.kept[ref.kind]
                kept[ref.id] = KINDS[ref.kind](record, kept.get(ref.id))
        return succeed(None)
