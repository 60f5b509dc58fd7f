"""A store that lives as long as the process: for tests, and for the URL ``memory:``."""

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


@implementer(IStore)
class MemoryStore(Service):
    """A store in memory. Every save is committed at once. As a service it has nothing to start or stop."""

    def __init__(self) -> None:
        #: Kind -> id -> record.
        self.kept: dict[str, dict[str, Any]] = {"job": {}, "worker": {}, "removed": {}, "token": {}}
        self.commit_count = 0
        self.counting = False
        self.set_back_to: int | None = None

    def load(self) -> Deferred[Loaded]:
        self.counting = False
        return succeed(self.loaded())

    def loaded(self) -> Loaded:
        jobs, workers, removed, tokens = (tuple(self.kept[kind].values()) for kind in self.kept)
        light = tuple(job.trimmed() for job in jobs)
        return Loaded(light, workers, removed, self.commit_count, self.set_back_to, tokens=tokens)

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
                before: Any = self.kept[ref.kind].get(ref.id)
                is_new = before is None or not isinstance(record, Job)
                self.kept[ref.kind][ref.id] = record if is_new else evolve(record, spec=before.spec)
        return succeed(None)
