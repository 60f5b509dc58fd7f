"""The registry, its durable copy, and all who want to know of a change.

Every change of a worker or a job goes through here, so that no path forgets to
save it or to wake those who wait for it. A new job is committed first and
visible after; a change of a known one is visible at once, and whoever must not
speak before it is durable waits for the Deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.cluster import lifecycle
from scheduler.cluster.registry import Registry
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record, Removed
from scheduler.model import IdempotencyKey, Job, Worker

T = TypeVar("T")

#: Finished jobs kept in memory; the oldest are dropped beyond.
KEEP_FINISHED = 10_000


class Ledger:
    """One for each scheduler; ``store_problem`` is why the last save failed, ``""`` if it did not."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, wall_time: Callable[[], float], store: IStore, keep_finished: int = KEEP_FINISHED
    ) -> None:
        self.registry = Registry()
        #: POSIX time, for people to read.
        self.now = wall_time
        self.store_problem = ""
        self._clock = clock
        self._store = store
        self._keep_finished = keep_finished
        # what a failed save left behind; goes with the next
        self._unsaved: list[Record] = []
        # those who wait for the end of a job, and those who wait until it is over
        self._ends: dict[str, list[Deferred[Job]]] = {}
        self._overs: dict[str, list[Deferred[Job]]] = {}
        self._job_listeners: list[Callable[[Job], None]] = []
        self._worker_listeners: list[Callable[[str], None]] = []

    def load(self) -> Deferred[None]:
        """Take over what the store holds; before anything else."""

        def take(loaded: Loaded) -> None:
            for worker in loaded.workers:
                self.registry.put_worker(worker)
            for job in loaded.jobs:
                self.registry.put_job(job)
            for key in loaded.keys:
                self.registry.put_key(key)

        return self._store.load().addCallback(take)

    def listen(self, on_job: Callable[[Job], None], on_worker: Callable[[str], None]) -> None:
        """Call these after each change: with the new job, with the id of the worker."""
        self._job_listeners.append(on_job)
        self._worker_listeners.append(on_worker)

    def add_job(self, job: Job, key: IdempotencyKey | None = None) -> Deferred[None]:
        """Commit a new job, with the key of its request, and only then let them be seen.

        If it has a worker already, the load of that one counts it from now on.
        """
        worker_id = job.worker_id
        if worker_id is not None:
            self.registry.reserve(worker_id)

        def show(_: None) -> None:
            self._put(job)
            if key is not None:
                self.registry.put_key(key)

        def release(result: T) -> T:
            if worker_id is not None:
                self.registry.release(worker_id)
            return result

        records: list[Record] = [job] if key is None else [job, key]
        return self._commit(records, again=False).addCallback(show).addBoth(release)

    def update_jobs(self, jobs: Iterable[Job], keys: Iterable[IdempotencyKey] = ()) -> Deferred[None]:
        """Put changed or adopted jobs and changed keys, and let go of the oldest jobs beyond the limit.

        What follows a job that ends, its next attempt, comes with it: nobody ever sees one without the other.
        Fires once these and all changes before them are durable, even if none of these is one.
        """
        changed = [job for job in jobs if self.registry.find_job(job.id) != job]
        changed += self._next_attempts(changed)
        for job in changed:
            self._put(job)
        changed_keys = [key for key in keys if self.registry.find_key(key.key) != key]
        for key in changed_keys:
            self.registry.put_key(key)
        removed: list[Record] = []
        for job_id in self.registry.surplus(self._keep_finished):
            removed += self._remove(job_id)
        return self._commit([*changed, *changed_keys, *removed])

    def _next_attempts(self, changed: list[Job]) -> list[Job]:
        found = []
        for job in changed:
            before = self.registry.find_job(job.id)
            following = lifecycle.next_attempt(job, self.now())
            if following is not None and before is not None and not before.state.final:
                found.append(following)
        return found

    def update_job(self, job: Job) -> Deferred[None]:
        """One, like ``update_jobs``."""
        return self.update_jobs([job])

    def drop_job(self, job: Job) -> Deferred[None]:
        """It never came to be, and the key of its request is free again."""
        removed = self._remove(job.id)
        self._wake(self._ends, job)
        self._wake(self._overs, job)
        for listener in self._job_listeners:
            listener(job)
        return self._commit(removed)

    def update_worker(self, worker: Worker) -> Deferred[None]:
        """Put it, and save it."""
        self.note_worker(worker)
        return self._commit([worker])

    def note_worker(self, worker: Worker) -> None:
        """Put what is only true for the moment, like a sign of life: it comes often, and is not saved."""
        self.registry.put_worker(worker)
        for listener in self._worker_listeners:
            listener(worker.id)

    def remove_worker(self, worker_id: str) -> Deferred[None]:
        """Its jobs stay."""
        self.registry.remove_worker(worker_id)
        for listener in self._worker_listeners:
            listener(worker_id)
        return self._commit([Removed("worker", worker_id)])

    def wait(self, job_id: str, seconds: float) -> Deferred[Job]:
        """The job at its end, or as it is after ``seconds``; ``NotFound`` is raised."""
        job = self.registry.job(job_id)
        return succeed(job) if job.state.final else self._wait(self._ends, job, seconds)

    def wait_over(self, job_id: str, seconds: float) -> Deferred[Job]:
        """The same of the time when nothing of the job is known to run, which for an orphan comes later."""
        job = self.registry.job(job_id)
        return succeed(job) if job.over else self._wait(self._overs, job, seconds)

    def _wait(self, who: dict[str, list[Deferred[Job]]], job: Job, seconds: float) -> Deferred[Job]:
        job_id = job.id
        ended: Deferred[Job] = Deferred()
        who.setdefault(job_id, []).append(ended)

        def as_it_is(_reason: object, _seconds: float) -> Job:
            return self.registry.find_job(job_id) or job

        def leave(result: T) -> T:
            waiting = who.get(job_id, [])
            if ended in waiting:
                waiting.remove(ended)
            if not waiting:
                who.pop(job_id, None)
            return result

        return ended.addTimeout(seconds, self._clock, as_it_is).addBoth(leave)

    def _remove(self, job_id: str) -> list[Record]:
        """Forget a job and its key; what there is to save of that."""
        key = self.registry.key_of(job_id)
        self.registry.remove_job(job_id)
        return [Removed("job", job_id), *([] if key is None else [Removed("key", key.key)])]

    def _put(self, job: Job) -> None:
        self.registry.put_job(job)
        if job.state.final:
            self._wake(self._ends, job)
        if job.over:
            self._wake(self._overs, job)
        for listener in self._job_listeners:
            listener(job)

    @staticmethod
    def _wake(who: dict[str, list[Deferred[Job]]], job: Job) -> None:
        for waiting in who.pop(job.id, []):
            waiting.callback(job)

    def _commit(self, records: Sequence[Record], again: bool = True) -> Deferred[None]:
        """Save these after all that failed before; ``again`` keeps them for the next save if this one fails too."""
        carried, self._unsaved = self._unsaved, []

        def saved(_: None) -> None:
            self.store_problem = ""

        def failed(reason: Failure) -> Failure:
            reason.trap(StoreFailed)
            self._unsaved = [*carried, *(records if again else []), *self._unsaved]
            if not self.store_problem:
                self._log.error("the store fails: {why}", why=str(reason.value))
            self.store_problem = str(reason.value)
            return reason

        return self._store.save([*carried, *records]).addCallbacks(saved, failed)
