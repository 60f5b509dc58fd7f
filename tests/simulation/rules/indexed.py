"""The indices of the registry find the same as a scan of all its jobs and workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from scheduler.cluster.registry import Registry
from scheduler.errors import NotFound
from scheduler.model import FINAL, Job, JobState, Worker
from scheduler.views import JobFilter
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess

#: Filters with which the listing looks only at jobs that are not over. Together they select all of these.
_NOT_OVER = (JobFilter(states=frozenset(JobState) - FINAL), JobFilter(orphan=True))


def differences(registry: Registry) -> Iterator[str]:
    """Each disagreement between an index and a scan."""
    jobs, workers = list(registry.jobs.listing.matching(JobFilter())), registry.workers.all()
    yield from _of_jobs(registry, jobs, workers)
    yield from _of_workers(registry, workers)
    yield from _by_worker(registry, jobs, workers)
    yield from _of_keys(registry, jobs)


def _of_jobs(registry: Registry, jobs: list[Job], workers: list[Worker]) -> Iterator[str]:
    if [(job.created_at, job.id) for job in jobs] != sorted(((job.created_at, job.id) for job in jobs), reverse=True):
        yield "jobs are not listed newest first"
    unfinished = [job for job in jobs if not job.over]
    removing = [job for job in jobs if job.over and job.remove_requested_at is not None]
    where = {job.worker_id for job in jobs} | {worker.id for worker in workers} | {None}
    for worker_id in sorted(where, key=str):
        its = {job.id for job in unfinished if job.worker_id == worker_id}
        yield from _unlike(f"unfinished jobs of {worker_id}", registry.jobs.unfinished(worker_id), its)
        if worker_id is None:
            continue
        stopping = {job.id for job in unfinished if job.id in its and job.stop_requested_at is not None}
        yield from _unlike(f"jobs to be stopped of {worker_id}", registry.jobs.stopping(worker_id), stopping)
        gone = {job.id for job in removing if job.worker_id == worker_id}
        yield from _unlike(f"jobs to be removed of {worker_id}", registry.jobs.removing(worker_id), gone)
        if registry.jobs.count_unfinished(worker_id) != len(its):
            yield f"worker {worker_id} has {registry.jobs.count_unfinished(worker_id)} jobs, and there are {len(its)}"
    queued = [job for job in unfinished if job.worker_id is None]
    if registry.jobs.queued != len(queued):
        yield f"{registry.jobs.queued} jobs are queued, and there are {len(queued)}"
    busy = {job.worker_id for job in unfinished if job.worker_id is not None}
    if set(registry.jobs.busy()) != busy:
        yield f"busy are {sorted(registry.jobs.busy())}, and there are jobs of {sorted(busy)}"
    if set(registry.jobs.awaited_by_removals()) != {job.worker_id for job in removing if job.worker_id is not None}:
        yield f"removals wait for {sorted(registry.jobs.awaited_by_removals())}"
    yield from _unlike("finished jobs", registry.jobs.finished.all(), {job.id for job in jobs if job.over})
    listed = chain(*(registry.jobs.listing.matching(which) for which in _NOT_OVER))
    yield from _unlike("jobs that are not over", listed, {job.id for job in unfinished})
    for job in jobs:
        found = registry.jobs.listing.page(JobFilter(id_prefix=job.id[:8]), len(jobs), None).jobs
        if job not in found:
            yield f"job {job.id} is not found by the beginning of its id"


def _of_workers(registry: Registry, workers: list[Worker]) -> Iterator[str]:
    for worker in workers:
        namesakes = [other for other in workers if other.name == worker.name]
        if sorted(each.id for each in registry.workers.named(worker.name)) != sorted(each.id for each in namesakes):
            yield f"worker {worker.id} is not found by its name {worker.name}"
        there = [other for other in workers if other.address == worker.address]
        if sorted(each.id for each in registry.workers.at_address(worker.address)) != sorted(each.id for each in there):
            yield f"worker {worker.id} is not found by its address {worker.address}"


def _by_worker(registry: Registry, jobs: list[Job], workers: list[Worker]) -> Iterator[str]:
    named = {job.id: job.target.worker for job in jobs if job.target is not None}
    called = {job.id: {job.worker_id, job.worker_name, named.get(job.id)} for job in jobs}
    names = {worker.id for worker in workers} | {worker.name for worker in workers} | set().union(*called.values())
    for name in sorted(names - {None}, key=str):
        there = {job_id for job_id, its in called.items() if name in its}
        if registry.workers.has(name):
            owner = registry.workers.get(name)
            there = {job.id for job in jobs if (job.worker_id or named.get(job.id)) in (owner.id, owner.name)}
        try:
            yield from _unlike(f"jobs of {name}", registry.jobs.listing.matching(JobFilter(worker=name)), there)
        except NotFound:
            yield f"{name} is refused as the name of no worker or job"


def _of_keys(registry: Registry, jobs: list[Job]) -> Iterator[str]:
    left = list(registry.removed.values())
    keys = Counter(record.key.name for record in (*jobs, *left) if record.key is not None)
    for record in (*jobs, *left):
        if record.key is not None and registry.find_key(record.key) != record:
            yield f"{record.ref} is not found by its key"
    for key_name, count in keys.items():
        if count > 1:
            yield f"key {key_name} is that of {count} jobs"
    for removed in left:
        job = registry.jobs.find(removed.job_id)
        if job is not None and job.state is not JobState.LOST:  # a lost job that ran all the same is listed again
            yield f"job {removed.job_id} was removed, and is there"


def _unlike(what: str, found: Iterable[Job], there: set[str]) -> Iterator[str]:
    ids = [job.id for job in found]
    if len(ids) != len(set(ids)) or set(ids) != there:
        yield f"{what}: {ids} are found, and there are {sorted(there)}"


class Indexed(Rule):
    """Scans everything after a start and when all sides agree, and at the end, when no worker has load."""

    def loaded(self, scheduler: SchedulerProcess) -> None:
        self._scan(scheduler)

    def agreed(self) -> None:
        self._scan(self.facts.world.scheduler)

    def rested(self) -> None:
        scheduler = self.facts.world.scheduler
        self._scan(scheduler)
        if scheduler is not None:
            registry = scheduler.parts.ledger.registry
            for worker in registry.workers.all():
                jobs = registry.jobs.unfinished(worker.id)
                run_on = sum(job.orphan and job.id in self.facts.excused for job in jobs)  # lost for a valid reason
                if registry.load(worker.id) != run_on:
                    self.broken("load", f"worker {worker.name} has a load of {registry.load(worker.id)} at the end")

    def _scan(self, scheduler: SchedulerProcess | None) -> None:
        if scheduler is not None:
            for what in differences(scheduler.parts.ledger.registry):
                self.broken("indices", what)
