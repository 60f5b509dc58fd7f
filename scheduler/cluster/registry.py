"""All workers, jobs and tokens that the scheduler knows, in memory: plain methods on plain values.

The registry holds no socket, no disk and no clock; the reactor thread owns it. The ledger alone changes it. Workers,
jobs and the rests of removed jobs are kept apart. What follows from more than one of them is kept here: the load of a
worker, the workers as placement sees them, the keys of requests. An illegal transition of a job (``scheduler.model``)
is refused, because that is a bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import cast

from scheduler.cluster.candidates import Candidates
from scheduler.cluster.indices import count_down
from scheduler.cluster.known_jobs import KnownJobs
from scheduler.cluster.known_workers import KnownWorkers
from scheduler.interfaces import Loaded
from scheduler.model import Job, Presence, Ref, RemovedJob, Worker
from scheduler.request_keys import RequestKey
from scheduler.security.token import Token


class Registry:
    """The workers and jobs of one scheduler."""

    def __init__(self) -> None:
        self.workers = KnownWorkers()
        self.presences = self.workers.presences
        self.jobs = KnownJobs(self.workers.get)
        self._removed: dict[str, RemovedJob] = {}
        #: The rests of jobs that clients removed not long ago, by the ids of these, in the order of removal.
        self.removed: Mapping[str, RemovedJob] = self._removed
        #: By id; changed only by the ledger.
        self.tokens: dict[str, Token] = {}
        #: The workers as placement sees them; see ``Backoff.candidates``.
        self.candidates = Candidates(self.workers.by_id)
        self._in_backoff: set[str] = set()
        # worker id -> how many jobs that are not committed yet count into its load
        self._reserved: Counter[str] = Counter()
        # ids of workers with unfinished jobs that were not known when their jobs were put there; a dict, for its order
        self._strays: dict[str, None] = {}
        # the name of the key of a request -> the job that came from it, or what is left of that
        self._of_key: dict[tuple[str | None, str], Ref] = {}
        # kind -> its records by id
        self._records: Mapping[str, Mapping[str, Job | Worker | RemovedJob | Token]] = {
            "job": self.jobs.by_id,
            "worker": self.workers.by_id,
            "removed": self.removed,
            "token": self.tokens,
        }

    def find(self, ref: Ref) -> Job | Worker | RemovedJob | Token | None:
        """The record of that name; ``None`` where there is none."""
        return self._records[ref.kind].get(ref.id)

    def find_key(self, key: RequestKey) -> Job | RemovedJob | None:
        """The job of the principal's request with that key, or what is left of it; ``None`` where there is none.

        A key whose principal is not known counts for every principal that has not used it.
        """
        ref = self._of_key.get(key.name) or self._of_key.get((None, key.key))
        return None if ref is None else cast("Job | RemovedJob", self.find(ref))

    def everything(self) -> Loaded:
        """All records there are."""
        jobs, workers, removed = self.jobs.by_id, self.workers.by_id, self.removed
        tokens = tuple(self.tokens.values())
        return Loaded(tuple(jobs.values()), tuple(workers.values()), tuple(removed.values()), tokens=tokens)

    # -- workers

    def put_worker(self, worker: Worker) -> None:
        """Add a worker, or replace the one with its id."""
        self.workers.put(worker)
        self._refile(worker.id)

    def remove_worker(self, worker_id: str) -> None:
        """Remove a worker; its jobs stay."""
        self.workers.remove(worker_id)
        self.candidates.remove(worker_id)
        if self.jobs.count_unfinished(worker_id):
            self._strays.setdefault(worker_id)

    def see(self, worker_id: str, presence: Presence) -> Presence | None:
        """Set the presence of a registered worker. Returns the one before, if that decides otherwise about jobs."""
        before = self.presences.see(worker_id, presence)
        if before is not None:
            self._refile(worker_id)
        return before

    def set_backoff(self, worker_id: str, in_backoff: bool) -> None:
        """Note whether the worker, known or not, is in backoff: placement leaves it out while it is."""
        if in_backoff:
            self._in_backoff.add(worker_id)
        else:
            self._in_backoff.discard(worker_id)
        self._refile(worker_id)

    def load(self, worker_id: str) -> int:
        """The number of the worker's jobs that have not ended, including those reserved."""
        return self.jobs.count_unfinished(worker_id) + self._reserved[worker_id]

    @property
    def idle(self) -> bool:
        """Whether no load is reserved."""
        return not self._reserved

    def reserve(self, worker_id: str) -> None:
        """Count a job that is not committed yet, and so is not in the registry, into the worker's load."""
        self._reserved[worker_id] += 1
        self._refile(worker_id)

    def release(self, worker_id: str) -> None:
        """Undo one ``reserve``."""
        count_down(self._reserved, worker_id)
        self._refile(worker_id)

    def busy_elsewhere(self) -> list[str]:
        """The ids of unknown workers with unfinished jobs, in the order in which they were found."""
        busy, known = self.jobs.count_unfinished, self.workers.by_id
        self._strays = {each: None for each in self._strays if busy(each) and each not in known}
        return list(self._strays)

    def _refile(self, worker_id: str | None) -> None:
        worker = self.workers.find(worker_id)
        if worker is not None:
            in_backoff = worker.id in self._in_backoff
            self.candidates.put(worker, self.presences.of(worker.id), self.load(worker.id), in_backoff)

    # -- jobs

    def put_job(self, job: Job) -> None:
        """Add a job, or replace the one with its id. Raises ``ValueError`` for an illegal transition."""
        old = self.jobs.find(job.id)
        self.jobs.put(job)
        if job.key is not None:
            self._of_key.setdefault(job.key.name, job.ref)
        if job.worker_id is not None and not job.over and job.worker_id not in self.workers.by_id:
            self._strays.setdefault(job.worker_id)
        self._refile(job.worker_id)
        if old is not None and old.worker_id != job.worker_id:
            self._refile(old.worker_id)

    def remove_job(self, job_id: str) -> None:
        """Remove a job and its key, as if it had never been. Raises ``NotFound`` if there is none."""
        job = self.jobs.get(job_id)
        self._drop_key(job)
        self.jobs.remove(job_id)
        self._refile(job.worker_id)

    def put_removed(self, removed: RemovedJob) -> None:
        """Note that a client removed a job, or once more. Its key, if it has one, counts before that of another job."""
        self._removed.pop(removed.job_id, None)
        self._removed[removed.job_id] = removed
        if removed.key is not None:
            self._of_key[removed.key.name] = removed.ref

    def drop_removed(self, removed: RemovedJob) -> None:
        """Drop what is left of a removed job, as if that had never been."""
        del self._removed[removed.job_id]
        self._drop_key(removed)

    def _drop_key(self, record: Job | RemovedJob) -> None:
        if record.key is not None and self._of_key.get(record.key.name) == record.ref:
            del self._of_key[record.key.name]
