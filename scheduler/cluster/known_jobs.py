"""The jobs that the registry knows: by id, by worker, and those that have finished in the order of their ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice

from scheduler.cluster.indices import Index, count_down
from scheduler.cluster.listing import Listing
from scheduler.errors import NotFound
from scheduler.model import TRANSITIONS, Job, Worker


class FinishedJobs:
    """The finished jobs, in the order of their ends. Adopted jobs, which a worker reported first, are kept apart."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        """``jobs`` by id, as they are now."""
        self._jobs = jobs
        # ids of jobs; dicts, for their order
        self._placed: dict[str, None] = {}
        self._adopted: dict[str, None] = {}

    def add(self, job: Job) -> None:
        """Add a job as the last to finish, unless it is there."""
        self._like(job).setdefault(job.id)

    def discard(self, job: Job) -> None:
        """Remove a job, if it is there."""
        self._like(job).pop(job.id, None)

    def all(self) -> Iterator[Job]:
        """All finished jobs; do not change the registry meanwhile."""
        return map(self._jobs.__getitem__, chain(self._placed, self._adopted))

    def first(self, most: int, skip: int = 0) -> Iterator[Job]:
        """The jobs that ended first, ``most`` adopted and ``most`` others, without the first ``skip`` of each kind.

        Do not change the registry meanwhile.
        """
        first = (islice(ids, skip, skip + most) for ids in (self._placed, self._adopted))
        return map(self._jobs.__getitem__, chain.from_iterable(first))

    def surplus(self, keep: int) -> list[str]:
        """Ids of the finished jobs beyond the ``keep`` that ended last, oldest first; adopted jobs do not count."""
        return list(islice(self._placed, max(0, len(self._placed) - keep)))

    def _like(self, job: Job) -> dict[str, None]:
        return self._adopted if job.is_adopted else self._placed


class KnownJobs:
    """The jobs of one registry, which reports every change to it."""

    def __init__(self, worker: Callable[[str], Worker]) -> None:
        """``worker`` finds a worker by its id or name, or raises ``NotFound``."""
        self._jobs: dict[str, Job] = {}
        #: All jobs by id, as they are now.
        self.by_id: Mapping[str, Job] = self._jobs
        #: The jobs in order.
        self.listing = Listing(self._jobs, worker)
        self.finished = FinishedJobs(self._jobs)
        # worker id -> ids of its jobs that have not ended there
        self._unfinished: Index[str | None] = Index()
        # worker id -> ids of its unfinished jobs that were asked to stop
        self._stopping: Index[str | None] = Index()
        # worker id -> ids of its jobs that have ended there and are to be removed
        self._removing: Index[str | None] = Index()
        # how many jobs there are of each worker, and how many adopted ones
        self._of_worker: Counter[str | None] = Counter()
        self._adopted: Counter[str | None] = Counter()

    def get(self, job_id: str) -> Job:
        """The job with that id. Raises ``NotFound`` if there is none."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound("job", job_id) from None

    def find(self, job_id: str) -> Job | None:
        """The job with that id; ``None``: there is none."""
        return self._jobs.get(job_id)

    def attempts(self, job_id: str) -> Iterator[Job]:
        """The job and its later attempts, in order, as far as they are known."""
        found = self.find(job_id)
        while found is not None:
            yield found
            found = self.find(found.retried_by or "")

    def last_attempt(self, job_id: str) -> Job:
        """The last known attempt of the job. Raises ``NotFound`` if the job is not known."""
        *_, last = (self.get(job_id), *self.attempts(job_id))
        return last

    @property
    def queued(self) -> int:
        """The number of queued jobs: those that have not ended and have no worker."""
        return len(self._unfinished.of(None))

    def unfinished(self, worker_id: str | None) -> list[Job]:
        """The worker's jobs that have not ended there, orphans (``Job.orphan``) too, oldest first; ``None``: queued."""
        return self._oldest_first(self._unfinished.of(worker_id))

    def count_unfinished(self, worker_id: str) -> int:
        """The number of the worker's jobs that have not ended there."""
        return len(self._unfinished.of(worker_id))

    def busy(self) -> list[str]:
        """Ids of the workers, known or not, with jobs that have not ended there."""
        return [worker_id for worker_id in self._unfinished if worker_id is not None]

    def stopping(self, worker_id: str) -> list[Job]:
        """The unfinished jobs of the worker that were asked to stop, oldest first."""
        return self._oldest_first(self._stopping.of(worker_id))

    def awaited_by_stops(self) -> list[str]:
        """Ids of the workers, known or not, with unfinished jobs that were asked to stop."""
        return [worker_id for worker_id in self._stopping if worker_id is not None]

    def removing(self, worker_id: str) -> list[Job]:
        """The ended jobs of the worker that are to be removed when it can be told, oldest first."""
        return self._oldest_first(self._removing.of(worker_id))

    def awaited_by_removals(self) -> list[str]:
        """Ids of the workers, known or not, with ended jobs that are to be removed."""
        return [worker_id for worker_id in self._removing if worker_id is not None]

    def adopted(self, worker_id: str | None = None) -> int:
        """The number of adopted jobs, which workers reported first: of that worker, or of all."""
        return self._adopted.total() if worker_id is None else self._adopted[worker_id]

    def any_of(self, worker_id: str) -> bool:
        """Whether there is a job of that worker, which need not be known."""
        return self._of_worker[worker_id] > 0

    def put(self, job: Job) -> None:
        """Add a job, or replace the one with its id. Raises ``ValueError`` for an illegal transition."""
        old = self._jobs.get(job.id)
        if old is not None and job.state is not old.state and job.state not in TRANSITIONS[old.state]:
            raise ValueError(f"job {job.id}: {old.state.value} may not become {job.state.value}")
        self._jobs[job.id] = job
        self.listing.put(job, old)
        if old is None:
            self._list(job)
        elif _facts(old) != _facts(job):
            self._unlist(old)
            if not job.over or old.is_adopted is not job.is_adopted:
                self.finished.discard(old)
            self._list(job)

    def remove(self, job_id: str) -> None:
        """Remove a job, which is known."""
        job = self._jobs.pop(job_id)
        self._unlist(job)
        self.finished.discard(job)
        self.listing.remove(job)

    def _oldest_first(self, job_ids: Iterable[str]) -> list[Job]:
        return sorted((self._jobs[job_id] for job_id in job_ids), key=lambda job: (job.created_at, job.id))

    def _list(self, job: Job) -> None:
        self._of_worker[job.worker_id] += 1
        if job.is_adopted:
            self._adopted[job.worker_id] += 1
        if not job.over:
            self._unfinished.add(job.worker_id, job.id)
            if job.stop_requested_at is not None:
                self._stopping.add(job.worker_id, job.id)
        else:
            self.finished.add(job)
            if job.remove_requested_at is not None:
                self._removing.add(job.worker_id, job.id)

    def _unlist(self, job: Job) -> None:
        for index in (self._unfinished, self._stopping, self._removing):
            index.discard(job.worker_id, job.id)
        for count in (self._of_worker, self._adopted) if job.is_adopted else (self._of_worker,):
            count_down(count, job.worker_id)


def _facts(job: Job) -> tuple[object, ...]:
    """Facts that decide in which indices the job is."""
    asked = job.stop_requested_at is None, job.remove_requested_at is None
    return job.worker_id, job.over, job.is_adopted, asked
