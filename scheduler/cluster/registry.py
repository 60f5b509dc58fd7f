"""All workers and jobs the scheduler knows, in memory: plain methods on plain values.

It holds no socket, no disk and no clock; the reactor thread owns it. It knows
the order of jobs, who holds a name, and how loaded a worker is; and it refuses
a transition that ``scheduler.model`` does not allow, because that is a bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import TypeVar, cast

from scheduler.cluster.candidates import Candidates
from scheduler.cluster.listing import Listing
from scheduler.cluster.presences import Presences
from scheduler.errors import NotFound
from scheduler.interfaces import Loaded
from scheduler.model import TRANSITIONS, Job, Presence, Ref, RemovedJob, Worker

K = TypeVar("K")


class Registry:
    """Workers and jobs by id, and what is left of jobs that clients removed."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self.presences = Presences(self._workers)
        #: The workers as placement sees them; see ``Backoff.candidates``.
        self.candidates = Candidates(self._workers)
        self._in_backoff: set[str] = set()
        # ids of the core workers; a dict, for its order
        self._core: dict[str, None] = {}
        # ids of workers by name, and by address
        self._named: dict[str, set[str]] = {}
        # of workers whose id is not made from their folder id: the id made from it -> the id that they have
        self._of_folder: dict[str, str] = {}
        self._at: dict[str, set[str]] = {}
        self._jobs: dict[str, Job] = {}
        #: The jobs in order.
        self.listing = Listing(self._jobs, self.worker)
        # worker id -> ids of its jobs that have not ended there
        self._unfinished: dict[str | None, set[str]] = {}
        # ids of workers among these that were not known when their jobs were put there
        self._strays: dict[str, None] = {}
        # worker id -> ids of its unfinished jobs that were asked to stop
        self._stopping: dict[str | None, set[str]] = {}
        # worker id -> ids of its jobs that have ended there and are to be removed
        self._removing: dict[str | None, set[str]] = {}
        # ids of finished jobs in the order of their ends, those placed and those adopted; dicts, for their order
        self._finished: dict[str, None] = {}
        self._finished_adopted: dict[str, None] = {}
        # how many jobs there are of each worker, and how many adopted ones
        self._of_worker: Counter[str | None] = Counter()
        self._adopted: Counter[str | None] = Counter()
        self._reserved: Counter[str] = Counter()
        # in the order of removal
        self._removed: dict[str, RemovedJob] = {}
        # the text of the key of a request -> the job that came from it, or what is left of that
        self._of_key: dict[str, Ref] = {}
        # kind -> its records by id
        self._records: Mapping[str, Mapping[str, Job | Worker | RemovedJob]] = {
            "job": self._jobs,
            "worker": self._workers,
            "removed": self._removed,
        }

    def find(self, ref: Ref) -> Job | Worker | RemovedJob | None:
        """The record of that name; ``None`` where there is none."""
        return self._records[ref.kind].get(ref.id)

    def everything(self) -> Loaded:
        """All records there are."""
        return Loaded(tuple(self._jobs.values()), tuple(self._workers.values()), tuple(self._removed.values()))

    # -- workers

    def workers(self) -> list[Worker]:
        """All workers, by name."""
        return sorted(self._workers.values(), key=lambda worker: (worker.name, worker.id))

    def worker_ids(self) -> list[str]:
        """The ids of all workers, in the order in which they came."""
        return list(self._workers)

    def core_workers(self) -> list[str]:
        """Ids of the core workers, in the order in which they came."""
        return list(self._core)

    def find_worker(self, worker_id: str | None) -> Worker | None:
        """The worker with that id; ``None``: there is none."""
        return self._workers.get(worker_id) if worker_id else None

    def find_registered(self, worker_id: str | None) -> Worker | None:
        """The worker with that id; ``None``: there is none, or it has deregistered."""
        worker = self.find_worker(worker_id)
        return None if worker is None or worker.is_offline else worker

    def presence(self, worker_id: str) -> Presence:
        """The presence of a worker; one that is not known is unreachable."""
        return self.presences.of(worker_id)

    def see(self, worker_id: str, presence: Presence) -> Presence | None:
        """Set the presence of a registered worker. Returns the one before, if that decides otherwise about jobs."""
        before = self.presences.see(worker_id, presence)
        if before is not None:
            self._refile(worker_id)
        return before

    def worker(self, name: str) -> Worker:
        """The worker with that id or name: the online one, else the last seen. Raises ``NotFound`` if there is none."""
        if name in self._workers:
            return self._workers[name]
        named = self.named(name)
        if not named:
            raise NotFound("worker", name)
        return max(named, key=self.presences.preference)

    def has_worker(self, name: str) -> bool:
        """Whether there is a worker with that id or name."""
        return name in self._workers or name in self._named

    def named(self, name: str) -> list[Worker]:
        """All workers with that name, by id."""
        return [self._workers[worker_id] for worker_id in sorted(self._named.get(name, ()))]

    def called(self, name: str) -> list[Worker]:
        """All workers with that id or name."""
        found = {worker.id: worker for worker in self.named(name)}
        by_id = self.find_worker(name)
        return list(found.values()) if by_id is None else list((found | {name: by_id}).values())

    def of_folder(self, folder: str) -> Worker | None:
        """The worker that keeps an older id, although its folder id makes the id ``folder``; ``None``: none does."""
        return self._workers.get(self._of_folder.get(folder, ""))

    def at_address(self, address: str) -> list[Worker]:
        """All workers whose last known address this is, by id."""
        return [self._workers[worker_id] for worker_id in sorted(self._at.get(address, ()))]

    def put_worker(self, worker: Worker) -> None:
        """Add a worker, or replace the one with its id."""
        known = self._workers.get(worker.id)
        if known is None or (known.name, known.address) != (worker.name, worker.address):
            self._unlist_worker(known)
            self._named.setdefault(worker.name, set()).add(worker.id)
            self._at.setdefault(worker.address, set()).add(worker.id)
        if worker.folder and worker.folder != worker.id:
            self._of_folder[worker.folder] = worker.id
        if worker.is_core:
            self._core.setdefault(worker.id)
        else:
            self._core.pop(worker.id, None)
        self.presences.put_worker(worker)
        self._workers[worker.id] = worker
        self._refile(worker.id)

    def remove_worker(self, worker_id: str) -> None:
        """Remove a worker; its jobs stay."""
        worker = self._workers.pop(worker_id)
        self._unlist_worker(worker)
        self.presences.remove_worker(worker_id)
        self._core.pop(worker_id, None)
        if self._of_folder.get(worker.folder) == worker_id:
            del self._of_folder[worker.folder]
        self.candidates.remove(worker_id)
        if worker_id in self._unfinished:
            self._strays.setdefault(worker_id)

    def set_backoff(self, worker_id: str, in_backoff: bool) -> None:
        """Note whether the worker, known or not, is in backoff: placement leaves it out while it is."""
        if in_backoff:
            self._in_backoff.add(worker_id)
        else:
            self._in_backoff.discard(worker_id)
        self._refile(worker_id)

    def _refile(self, worker_id: str | None) -> None:
        worker = self.find_worker(worker_id)
        if worker is not None:
            in_backoff = worker.id in self._in_backoff
            self.candidates.put(worker, self.presence(worker.id), self.load(worker.id), in_backoff)

    def _unlist_worker(self, worker: Worker | None) -> None:
        if worker is not None:
            _discard(self._named, worker.name, worker.id)
            _discard(self._at, worker.address, worker.id)

    def load(self, worker_id: str) -> int:
        """The number of the worker's jobs that have not ended, including those reserved."""
        return len(self._unfinished.get(worker_id, ())) + self._reserved[worker_id]

    def running_jobs(self, worker_id: str) -> int:
        """The number of the worker's jobs that have not ended."""
        return len(self._unfinished.get(worker_id, ()))

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
        self._reserved[worker_id] -= 1
        if not self._reserved[worker_id]:
            del self._reserved[worker_id]
        self._refile(worker_id)

    # -- jobs

    def job(self, job_id: str) -> Job:
        """The job with that id. Raises ``NotFound`` if there is none."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound("job", job_id) from None

    def find_job(self, job_id: str) -> Job | None:
        """The job with that id; ``None``: there is none."""
        return self._jobs.get(job_id)

    def attempts(self, job_id: str) -> Iterator[Job]:
        """The job and its later attempts, in order, as far as they are known."""
        found = self.find_job(job_id)
        while found is not None:
            yield found
            found = self.find_job(found.retried_by or "")

    def last_attempt(self, job_id: str) -> Job:
        """The last known attempt of the job. Raises ``NotFound`` if the job is not known."""
        *_, last = (self.job(job_id), *self.attempts(job_id))
        return last

    @property
    def queued(self) -> int:
        """The number of queued jobs: those that have not ended and have no worker."""
        return len(self._unfinished.get(None, ()))

    def unfinished(self, worker_id: str | None) -> list[Job]:
        """The worker's jobs that have not ended there, orphans among them, oldest first; ``None``: the queued jobs."""
        return self._oldest_first(self._unfinished.get(worker_id, ()))

    def busy(self) -> list[str]:
        """Ids of the workers, known or not, with jobs that have not ended there."""
        return [worker_id for worker_id in self._unfinished if worker_id is not None]

    def busy_elsewhere(self) -> list[str]:
        """The ids of unknown workers with unfinished jobs, in the order in which they were found."""
        self._strays = {each: None for each in self._strays if each in self._unfinished and each not in self._workers}
        return list(self._strays)

    def awaited_by_stops(self) -> list[str]:
        """Ids of the workers, known or not, with unfinished jobs that were asked to stop."""
        return [worker_id for worker_id in self._stopping if worker_id is not None]

    def stopping(self, worker_id: str) -> list[Job]:
        """The unfinished jobs of the worker that were asked to stop, oldest first."""
        return self._oldest_first(self._stopping.get(worker_id, ()))

    def removing(self, worker_id: str) -> list[Job]:
        """The ended jobs of the worker that are to be removed when it can be told, oldest first."""
        return self._oldest_first(self._removing.get(worker_id, ()))

    def awaited_by_removals(self) -> list[str]:
        """Ids of the workers, known or not, with ended jobs that are to be removed."""
        return [worker_id for worker_id in self._removing if worker_id is not None]

    def _oldest_first(self, job_ids: Iterable[str]) -> list[Job]:
        return sorted((self._jobs[job_id] for job_id in job_ids), key=lambda job: (job.created_at, job.id))

    def put_job(self, job: Job) -> None:
        """Add a job, or replace the one with its id. Raises ``ValueError`` for an illegal transition."""
        old = self._jobs.get(job.id)
        if old is not None:
            if job.state is not old.state and job.state not in TRANSITIONS[old.state]:
                raise ValueError(f"job {job.id}: {old.state.value} may not become {job.state.value}")
            self._unlist(old)
            if old.is_adopted is not job.is_adopted:
                self._finished_like(old).pop(job.id, None)
        self._jobs[job.id] = job
        if job.key is not None:
            self._of_key.setdefault(job.key.key, job.ref)
        self.listing.put(job, old)
        self._list(job)
        self._refile(job.worker_id)
        if old is not None and old.worker_id != job.worker_id:
            self._refile(old.worker_id)

    def adopted(self, worker_id: str | None = None) -> int:
        """The number of adopted jobs, which workers reported first: of that worker, or of all."""
        return self._adopted.total() if worker_id is None else self._adopted[worker_id]

    def has_jobs_of(self, worker_id: str) -> bool:
        """Whether there is a job of that worker, which need not be known."""
        return self._of_worker[worker_id] > 0

    def remove_job(self, job_id: str) -> None:
        """Remove a job and its key, as if it had never been. Raises ``NotFound`` if there is none."""
        job = self.job(job_id)
        self._drop_key(job)
        self._unlist(job)
        self._finished_like(job).pop(job_id, None)
        del self._jobs[job_id]
        self.listing.remove(job)
        self._refile(job.worker_id)

    def put_removed(self, removed: RemovedJob) -> None:
        """A client removed that job, or once more. Its key, if it has one, counts before that of any other job."""
        self._removed.pop(removed.job_id, None)
        self._removed[removed.job_id] = removed
        if removed.key is not None:
            self._of_key[removed.key.key] = removed.ref

    def drop_removed(self, removed: RemovedJob) -> None:
        """As if that job had never been."""
        del self._removed[removed.job_id]
        self._drop_key(removed)

    def was_removed(self, job_id: str) -> bool:
        """Whether a client removed the job of that id, and not long ago."""
        return job_id in self._removed

    def removed(self) -> Iterator[RemovedJob]:
        """The rests of removed jobs, in the order of removal; do not change the registry meanwhile."""
        return iter(self._removed.values())

    def surplus_removed(self, keep: int) -> list[Ref]:
        """The names of these beyond the ``keep`` that were removed last, oldest first."""
        return [removed.ref for removed in islice(self._removed.values(), max(0, len(self._removed) - keep))]

    def find_key(self, key: str) -> Job | RemovedJob | None:
        """The job of the request with that key, or what is left of it; ``None`` where there is none."""
        ref = self._of_key.get(key)
        return None if ref is None else cast("Job | RemovedJob", self.find(ref))

    def _drop_key(self, record: Job | RemovedJob) -> None:
        if record.key is not None and self._of_key.get(record.key.key) == record.ref:
            del self._of_key[record.key.key]

    def _finished_like(self, job: Job) -> dict[str, None]:
        return self._finished_adopted if job.is_adopted else self._finished

    def _list(self, job: Job) -> None:
        self._of_worker[job.worker_id] += 1
        if job.is_adopted:
            self._adopted[job.worker_id] += 1
        if job.over:
            self._finished_like(job).setdefault(job.id)
            if job.remove_requested_at is not None:
                self._removing.setdefault(job.worker_id, set()).add(job.id)
            return
        self._finished_like(job).pop(job.id, None)
        self._unfinished.setdefault(job.worker_id, set()).add(job.id)
        if job.worker_id is not None and job.worker_id not in self._workers:
            self._strays.setdefault(job.worker_id)
        if job.stop_requested_at is not None:
            self._stopping.setdefault(job.worker_id, set()).add(job.id)

    def _unlist(self, job: Job) -> None:
        for index in (self._unfinished, self._stopping, self._removing):
            _discard(index, job.worker_id, job.id)
        for count in (self._of_worker, self._adopted) if job.is_adopted else (self._of_worker,):
            count[job.worker_id] -= 1
            if not count[job.worker_id]:
                del count[job.worker_id]

    def surplus(self, keep: int) -> list[str]:
        """Ids of the finished jobs beyond the ``keep`` that ended last, oldest first; adopted jobs do not count."""
        excess = len(self._finished) - keep
        return [job_id for job_id, _ in zip(self._finished, range(excess), strict=False)]

    def finished(self) -> Iterator[Job]:
        """All finished jobs; do not change the registry meanwhile."""
        return map(self._jobs.__getitem__, chain(self._finished, self._finished_adopted))

    def finished_first(self, most: int, skip: int = 0) -> Iterator[Job]:
        """The jobs that ended first, ``most`` adopted and ``most`` others, without the first ``skip`` of each kind.

        Do not change the registry meanwhile.
        """
        first = (islice(ids, skip, skip + most) for ids in (self._finished, self._finished_adopted))
        return map(self._jobs.__getitem__, chain.from_iterable(first))


def _discard(index: dict[K, set[str]], key: K, its_id: str) -> None:
    """Remove the id from the set under that key, if it is there."""
    ids = index.get(key)
    if ids is not None:
        ids.discard(its_id)
        if not ids:
            del index[key]
