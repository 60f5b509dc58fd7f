"""The registry and its durable copy.

Every change of a worker or a job goes through here, so that no path forgets to
save it or to publish it (``changes``). A new job is committed first and
visible after, and so is the end of one: a final state that was seen never
changes, not even by a crash. Any other change is visible at once, and whoever
must not speak before it is durable waits for the Deferred.

What fails to be saved is saved later (``saving``). Two things are not: a new job
has then never been, and an end that was decided here is not decided. An end that
a worker reported is saved later and shown then (``endings``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from scheduler.cluster import lifecycle
from scheduler.cluster.changes import ChangeFeed, JobChanged, WorkerChanged
from scheduler.cluster.endings import Ending, Endings
from scheduler.cluster.registry import Registry
from scheduler.cluster.saving import Saving
from scheduler.cluster.specs import Specs
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import IdempotencyKey, Job, JobState, Ref, Worker, WorkerState

T = TypeVar("T")

#: Finished jobs kept at most; beyond, those that ended first go. Each takes about 1 KiB of memory.
MAX_FINISHED_JOBS = 100_000

#: The key that a removed job leaves whose request had none. No client can send it: it is not printable.
_TOMBSTONE = "removed\n{}"

#: Why a job is ``unknown`` before its worker has called again.
RESTARTED = "the scheduler was restarted"


class Ledger:
    """One for each scheduler."""

    def __init__(
        self, clock: IReactorTime, wall_time: Callable[[], float], store: IStore, keep_finished: int = MAX_FINISHED_JOBS
    ) -> None:
        self.registry = Registry()
        self.feed = ChangeFeed(clock)
        #: Called within the change with each job that becomes queued: no new job may overtake it until it is heard of.
        self.enter_queue: Callable[[Job], None] = lambda _: None
        #: POSIX time, for people to read.
        self.now = wall_time
        self._store = store
        self._keep_finished = keep_finished
        # nothing changes the jobs of these any more
        self._endings = Endings(self.registry, self._put)
        self._saving = Saving(clock, store, self._present, self._endings.caught_up)
        self.specs = Specs(self.registry, store)
        #: The count of commits when this process began, and that after which the store was set back, if it ever was.
        self.loaded_count = 0
        self.set_back_to: int | None = None
        # ids of jobs whose removals are being saved: likewise
        self._leaving: set[str] = set()

    @property
    def store_problem(self) -> str:
        """Why nothing can be saved at present; ``""``: it can."""
        return self._saving.problem

    @property
    def idle(self) -> bool:
        """Whether nothing is being saved."""
        return not (self._endings or self._leaving) and self._saving.idle

    def load(self) -> Deferred[None]:
        """Take over what the store holds; before anything else.

        No worker is online before it calls, and what was starting or running is ``unknown`` until its worker tells.
        """

        def take(loaded: Loaded) -> None:
            now = self.now()
            for worker in loaded.workers:
                is_expected = worker.deregistered_at is None
                state = WorkerState.UNREACHABLE if is_expected else WorkerState.OFFLINE
                self.registry.put_worker(evolve(worker, state=state))
            for job in sorted(lifecycle.linked(loaded.jobs), key=lambda job: job.finished_at or 0):
                self.registry.put_job(lifecycle.unknown(job, RESTARTED, now))
            for key in sorted(loaded.keys, key=lambda key: key.removed_at or 0):
                self.registry.put_key(key)
            self.loaded_count, self.set_back_to = loaded.commit_count, loaded.set_back_to
            self._store.restore_from(self._everything)

        return self._store.load().addCallback(take)

    def _everything(self) -> Loaded:
        """What the store has to hold, less what is being saved."""
        known, held = self.registry.everything(), self._endings.records()
        jobs = {record.id: record for record in (*known.jobs, *held) if isinstance(record, Job)}
        keys = {record.key: record for record in (*known.keys, *held) if isinstance(record, IdempotencyKey)}
        return Loaded(tuple(jobs.values()), known.workers, tuple(keys.values()))

    def close(self) -> Deferred[None]:
        """Save what is owed, if that is possible now; fires when nothing more will be tried."""
        return self._saving.close()

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
                self.registry.put_key(key.trimmed())

        def release(result: T) -> T:
            if worker_id is not None:
                self.registry.release(worker_id)
            return result

        records: list[Record] = [job] if key is None else [job, key]
        return self._saving.save(records).addCallback(show).addBoth(release)

    def update_jobs(self, jobs: Iterable[Job], keys: Iterable[IdempotencyKey] = ()) -> Deferred[None]:
        """Put changed or adopted jobs and changed keys, and let go of the oldest jobs beyond the limit.

        What follows a job that ends, its next attempt, comes with it: nobody ever sees one without the other.
        Fires once these and all changes before them are durable, even if none of these is one. With ``StoreFailed``
        an end of a job that was known is held, and shown once it is saved; see ``unsaved_end``.
        """
        return self._update(jobs, keys, decided=False)

    def update_job(self, job: Job) -> Deferred[None]:
        """One, like ``update_jobs``."""
        return self.update_jobs([job])

    def note_job(self, job: Job) -> None:
        """Put a job of which nobody waits until that is saved: most often, its worker tells the same again."""
        if not self._is_settled(job.id):
            self._put(job)
            self._saving.note(job)

    def conclude_jobs(self, jobs: Iterable[Job], keys: Iterable[IdempotencyKey] = ()) -> Deferred[None]:
        """Like ``update_jobs``, of ends that are decided here: with ``StoreFailed`` the jobs are as they were."""
        return self._update(jobs, keys, decided=True)

    def conclude_job(self, job: Job) -> Deferred[None]:
        """One, like ``conclude_jobs``."""
        return self.conclude_jobs([job])

    def unsaved_end(self, job_id: str) -> StoreFailed | None:
        """Why the end of that job, which is known, could not be saved yet; ``None``: there is no such end."""
        return self._endings.failure(job_id)

    def unsaved_ends(self) -> list[Job]:
        """The jobs whose ends are known and could not be saved yet, at their ends."""
        return self._endings.held()

    def _update(self, jobs: Iterable[Job], keys: Iterable[IdempotencyKey], decided: bool) -> Deferred[None]:
        find, gone = self.registry.find_job, self.registry.was_removed
        linked = lifecycle.told_attempts(jobs, find, self._endings.following, self._is_settled, gone, self.now())
        listed = [job for job in linked if not self._is_settled(job.id)]
        told = {job.id for job in listed}
        known = [self._followed(job, told) for job in listed]
        ends = [Ending(job, next_one) for job, next_one in known if job.state.final and not self._has_ended(job.id)]
        following = [ending.following for ending in ends if ending.following is not None]
        changed = [job for job, _ in known if self.registry.find_job(job.id) != job.trimmed()]
        for ending in ends:
            self._endings.begin(ending)
        for job in changed:
            if job.id not in self._endings:
                self._put(job)
        changed_keys = [key for key in (key.trimmed() for key in keys) if self.registry.find_key(key.key) != key]
        free = [key for key in changed_keys if not self._endings.add_key(key)]
        for key in free if not decided else ():
            self.registry.put_key(key)
        removed = [
            record
            for job_id in self.registry.surplus(self._keep_finished - sum(not ending.job.is_adopted for ending in ends))
            for record in self._remove(job_id)
        ]

        def settle(result: T) -> T:
            for ending in ends:
                self._endings.settle(ending, result, decided)
            for key in free if decided and not isinstance(result, Failure) else ():
                if self.registry.find_job(key.job_id) is not None:
                    self.registry.put_key(key)
            return result

        return self._saving.save([*changed, *following, *changed_keys, *removed]).addBoth(settle)

    def _present(self, ref: Ref) -> Record:
        """What is to be saved under that name now."""
        return self._endings.find(ref) or self.registry.find(ref) or ref

    def adopted(self, worker_id: str) -> tuple[int, int]:
        """How many jobs were adopted of that worker, and of all; those whose ends are being saved count."""
        ending = [job for job in self._endings.jobs() if job.is_adopted and self.registry.find_job(job.id) is None]
        own = sum(job.worker_id == worker_id for job in ending)
        return self.registry.adopted(worker_id) + own, self.registry.adopted() + len(ending)

    def is_ending(self, job_id: str) -> bool:
        """Whether the end of that job is known, and is not shown yet as it is not durable."""
        return job_id in self._endings

    def _is_settled(self, job_id: str) -> bool:
        """Whether its end, or its removal, is known and not durable: nothing else of it is saved after that."""
        return job_id in self._endings or job_id in self._leaving

    def _has_ended(self, job_id: str) -> bool:
        job = self.registry.find_job(job_id)
        return job is not None and job.state.final

    def _followed(self, job: Job, told: Collection[str]) -> tuple[Job, Job | None]:
        """The job as it is saved, and its next attempt if it ends now and is to have one that is not ``told`` of."""
        following: Job | None = None
        if self._ends_now(job):
            job, following = lifecycle.followed(job, self.now())
        if job.state.final:
            job = evolve(job, spec=job.spec.without_input())
        if following is None or following.id in told or self.registry.was_removed(following.id):
            return job, None
        return job, following if self.registry.find_job(following.id) is None else None

    def _ends_now(self, job: Job) -> bool:
        known = self.registry.find_job(job.id)
        return job.state.final and known is not None and not known.state.final

    def drop_job(self, job: Job) -> Deferred[None]:
        """It never came to be, and the key of its request is free again."""
        return self._saving.save(self._remove(job.id))

    def remove_jobs(self, job_ids: Iterable[str]) -> Deferred[None]:
        """They are kept no longer, nor are their keys."""
        return self._saving.save([record for job_id in job_ids for record in self._remove(job_id)])

    def request_removal(self, job: Job, when: float | None) -> Deferred[None]:
        """Commit that a job that is over is to be removed, or is not, and only then have it so."""

        def show(_: None) -> None:
            now = self.registry.find_job(job.id)
            if now is not None and not self._is_settled(job.id):
                self.note_job(evolve(now, remove_requested_at=when))  # it may have been saved as it was meanwhile

        return self._saving.save([evolve(job, remove_requested_at=when)]).addCallback(show)

    async def request_stop(self, job_id: str, when: float, why: str) -> None:
        """Commit that a job is to be stopped, and only then have it so; nothing of one that ended, or is to be stopped.

        ``NotFound``; with ``StoreFailed`` it is not to be stopped.
        """
        while True:
            job = self.registry.job(job_id)
            asked = lifecycle.asked_to_stop(job, when, why)
            if asked is job or job.over or self._is_settled(job_id):
                return
            await self._saving.save([asked])
            if self.registry.find_job(job_id) == job and not self._is_settled(job_id):
                self._put(asked)
                return  # else it may have been saved as it was meanwhile

    def remove_for_client(self, job_id: str) -> Deferred[None]:
        """Commit that a client removed a job, and only then have it gone; its key stays, and says so."""
        key = self.registry.key_of(job_id) or IdempotencyKey(_TOMBSTONE.format(job_id), "", job_id)
        key = evolve(key, answer=None, removed_at=self.now())
        self._leaving.add(job_id)

        def vanish(_: None) -> None:
            job = self.registry.find_job(job_id)
            surplus = [key.key]
            if job is not None:  # else its time was over meanwhile, and that of its key
                self.registry.remove_job(job_id)
                self.registry.put_key(key)
                self.feed.publish(JobChanged(job, None))
                surplus = self.registry.surplus_keys(self._keep_finished)
            self.remove_keys(surplus).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later

        def over(result: T) -> T:
            self._leaving.discard(job_id)
            return result

        return self._saving.save([Ref("job", job_id), key]).addCallback(vanish).addBoth(over)

    def remove_keys(self, keys: Iterable[str]) -> Deferred[None]:
        """Those of removed jobs, whose time is over."""
        gone = [Ref("key", key) for key in keys]
        for each in gone:
            self.registry.remove_key(each.id)
        return self._saving.save(gone) if gone else succeed(None)

    def update_worker(self, worker: Worker) -> Deferred[None]:
        """Put it, and save it."""
        self.note_worker(worker)
        return self._saving.save([worker])

    def set_draining(self, worker: Worker, draining: bool) -> Deferred[None]:
        """Commit that it takes no new jobs, or takes some again, and only then have it so."""

        def show(_: None) -> None:
            now = self.registry.find_worker(worker.id)
            if now is not None:
                now = evolve(now, draining=draining)
                self.note_worker(now)
                self._saving.note(now)  # it may have been saved as it was before meanwhile

        return self._saving.save([evolve(worker, draining=draining)]).addCallback(show)

    def note_worker(self, worker: Worker) -> None:
        """Put what is only true for the moment, like a sign of life: it comes often, and is not saved."""
        before = self.registry.find_worker(worker.id)
        self.registry.put_worker(worker)
        self.feed.publish(WorkerChanged(before, worker))

    def note_facts(self, worker: Worker) -> None:
        """Put what is only shown, and decides nothing: it is not published."""
        self.registry.put_worker(worker)

    def remove_worker(self, worker_id: str) -> Deferred[None]:
        """Its jobs stay."""
        worker = self.registry.find_worker(worker_id)
        self.registry.remove_worker(worker_id)
        self.feed.publish(WorkerChanged(worker, None))
        return self._saving.save([Ref("worker", worker_id)])

    def _remove(self, job_id: str) -> list[Record]:
        """Forget a job and its key; what there is to save of that."""
        key = self.registry.key_of(job_id)
        self._endings.forget(job_id)
        self.feed.publish(JobChanged(self.registry.job(job_id), None))
        self.registry.remove_job(job_id)
        return [Ref("job", job_id), *([] if key is None else [key.ref])]

    def _put(self, job: Job) -> None:
        job = job.trimmed()  # one that has ended was saved as it was
        before = self.registry.find_job(job.id)
        self.registry.put_job(job)
        if job.state is JobState.QUEUED:
            self.enter_queue(job)
        self.feed.publish(JobChanged(before, job))
