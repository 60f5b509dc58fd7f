"""A store that lives as long as the process: for tests, and for the URL ``memory:``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from scheduler.commits import next_timeline
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, JobSpec, Ref
from scheduler.security.audit import Act, Anchor, AuditFilter, AuditPage, Entry, chained

#: Entries of the audit that are kept, the last ones.
ENTRIES_MAX = 10_000


@implementer(IStore)
class MemoryStore(Service):
    """A store in memory. Every save is committed at once. As a service it has nothing to start or stop."""

    def __init__(self) -> None:
        #: Kind -> id -> record.
        self.kept: dict[str, dict[str, Any]] = {"job": {}, "worker": {}, "removed": {}, "token": {}}
        self.commit_count = 0
        self.counting = False
        self.set_back_to: int | None = None
        #: Act -> its entry, in order.
        self.audit: dict[Act, Entry] = {}
        self._heard: Callable[[Sequence[Entry]], None] = lambda _: None

    def load(self) -> Deferred[Loaded]:
        self.counting = False
        return succeed(self.loaded())

    def loaded(self) -> Loaded:
        jobs, workers, removed, tokens = (tuple(self.kept[kind].values()) for kind in self.kept)
        light, head = tuple(job.trimmed() for job in jobs), self.audit_head()
        return Loaded(light, workers, removed, self.commit_count, self.set_back_to, head, tokens=tokens)

    def audit_head(self) -> Anchor:
        return next(reversed(self.audit.values())).anchor if self.audit else Anchor()

    def on_entries(self, heard: Callable[[Sequence[Entry]], None]) -> None:
        self._heard = heard

    def read_audit(self, which: AuditFilter, limit: int, before: int | None = None) -> Deferred[AuditPage]:
        below = [each for each in reversed(self.audit.values()) if before is None or each.seq < before]
        found = tuple(each for each in below if which.matches(each.act))
        return succeed(AuditPage(found[:limit], found[limit - 1].seq if len(found) > limit else None))

    def _append(self, acts: Iterable[Act]) -> None:
        new = chained(self.audit_head(), (act for act in dict.fromkeys(acts) if act not in self.audit))
        self.audit.update((entry.act, entry) for entry in new)
        while len(self.audit) > ENTRIES_MAX:
            del self.audit[next(iter(self.audit))]
        if new:
            self._heard(new)

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

    def save(self, records: Iterable[Record | Act]) -> Deferred[None]:
        records = list(records)
        self.commit_count += self.counting and bool(records)
        self._append(record for record in records if isinstance(record, Act))
        for record in records:
            if isinstance(record, Act):
                continue
            if isinstance(record, Ref):
                self.kept[record.kind].pop(record.id, None)
            else:
                ref = record.ref
                before: Any = self.kept[ref.kind].get(ref.id)
                is_new = before is None or not isinstance(record, Job)
                self.kept[ref.kind][ref.id] = record if is_new else evolve(record, spec=before.spec)
        return succeed(None)
