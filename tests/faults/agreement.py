"""Finds out whether scheduler and workers agree about every job, and how long this takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from attrs import field, frozen

from tests.faults.case import FINAL
from tests.faults.checker import disagrees
from tests.faults.client import Document
from tests.faults.daemons import Cluster, Daemon
from tests.faults.evidence import exit_record, spool_folders
from tests.faults.history import History

#: Seconds: a worker without contact tries again at least this often (the cap of its backoff).
BACKOFF = 5.0


@frozen
class Agreement:
    """Compares the two sides repeatedly. A job that is final and equal on both sides is not compared again."""

    cluster: Cluster
    history: History
    _settled: set[str] = field(factory=set, init=False)

    @property
    def limit(self) -> float:
        """The promised seconds: two heartbeats (a third of the lease each) and the longest backoff."""
        return 2 * self.cluster.lease / 3 + BACKOFF

    def wait(self, healed: float, patience: float = 1.0, idle: bool = False) -> float | None:
        """Seconds from ``healed`` until all agree, recorded in the history; ``None``: they do not.

        ``patience`` multiplies the limit. With ``idle``, every job must also have ended.
        """
        limit = self.limit * patience
        differences = ["not looked at"]
        while differences and time.monotonic() < healed + limit + 20:
            differences = list(self.differences(idle))
            if differences:
                time.sleep(0.05)
        seconds = None if differences else time.monotonic() - healed
        self.history.add("agree", healed, seconds=seconds, limit=limit, differences=differences[:20])
        return seconds

    def differences(self, idle: bool = False) -> Iterator[str]:
        """The present differences."""
        states = self.cluster.api.worker_states()
        for worker in self.cluster.workers:
            if (state := states.get(worker.name)) != "online":
                yield f"{worker.name} is {state or 'not there'}"
        jobs = self.cluster.api.jobs()
        if jobs is None:
            yield "the scheduler does not answer"
            return
        spooled: set[str] = set()
        for worker in self.cluster.workers:
            yield from self._spools(worker, jobs, spooled, idle)
        for job, shown in jobs.items():
            if shown["remove_requested_at"]:
                yield f"job {job} is to be removed"
            if job not in spooled and shown["state"] not in FINAL and (idle or shown["state"] != "queued"):
                yield f"job {job} is {shown['state']} and on no worker"

    def _spools(self, worker: Daemon, jobs: dict[str, Document], spooled: set[str], idle: bool) -> Iterator[str]:
        for folder in spool_folders(worker.state):
            job = folder.name
            if job in worker.copied:
                continue
            spooled.add(job)
            if job in self._settled:
                continue
            if job not in jobs:
                yield f"job {job} of {worker.name} is not known"
                continue
            record = exit_record(folder)
            state = jobs[job]["state"]
            if difference := disagrees(record, jobs[job]):
                yield f"job {job} {difference}"
            elif record is not None:
                self._settled.add(job)
            elif idle or state != "running":
                yield f"job {job} is {state} and runs on {worker.name}"
