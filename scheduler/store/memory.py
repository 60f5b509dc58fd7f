"""A store that lives as long as the process: for tests, and where nothing is to be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, Ref


def _with_its_first_spec(job: Job, before: Job | None) -> Job:
    return job if before is None else evolve(job, spec=before.spec)


#: Kind -> what is kept of a record; given that and the one kept before, or ``None``.
KINDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "job": _with_its_first_spec,
    "worker": lambda worker, _: worker,
    "key": lambda key, _: key.trimmed(),
}


@implementer(IStore)
class MemoryStore(Service):
    """Commits at once; as a service it has nothing to start or stop."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}

    def load(self) -> Deferred[Loaded]:
        jobs, workers, keys = (tuple(self._kept[kind].values()) for kind in ("job", "worker", "key"))
        return succeed(Loaded(tuple(job.trimmed() for job in jobs), workers, keys))

    def save(self, records: Iterable[Record]) -> Deferred[None]:
        for record in records:
            if isinstance(record, Ref):
                self._kept[record.kind].pop(record.id, None)
            else:
                ref = record.ref
                kept = self._kept[ref.kind]
                kept[ref.id] = KINDS[ref.kind](record, kept.get(ref.id))
        return succeed(None)
