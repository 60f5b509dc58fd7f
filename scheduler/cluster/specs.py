"""The specs of jobs as their clients gave them.

For an ended job, only a few KiB of ``args`` and ``env`` stay in memory (``JobSpec.trimmed``); the store has all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from scheduler.cluster.registry import Registry
from scheduler.interfaces import IStore
from scheduler.model import Job, JobSpec


class Specs:
    """Completes specs of which memory holds only a part."""

    def __init__(self, registry: Registry, store: IStore) -> None:
        self._registry = registry
        self._store = store

    def fill(self, jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        """See ``IScheduler.with_specs``; one read of the store, or none."""
        partial = {job.id for job in jobs if job.spec.stored}
        here = {job_id: job.spec for job_id in partial if (job := self._registry.jobs.find(job_id)) is not None}
        here = {job_id: spec.without_input() for job_id, spec in here.items() if not spec.stored}

        def filled(read: Mapping[str, JobSpec]) -> tuple[Job, ...]:
            specs = {**read, **here}
            return tuple(evolve(job, spec=specs.get(job.id, job.spec)) if job.spec.stored else job for job in jobs)

        if partial == here.keys():
            return succeed(filled({}))
        return self._store.read_specs(partial - here.keys()).addCallback(filled)
