"""The registry and its durable copy: every change of a job, a worker or a token is made here, by one of three verbs.

| verb | who decided | visible | if the store fails |
| --- | --- | --- | --- |
| ``decide`` | the scheduler | after the commit | nothing happens |
| ``learn`` | nobody: it has happened | at once; an end: after the commit | it is true, and saved later |
| ``see`` | a clock | at once | it is never saved |

- ``decide`` is for a new job, an end that no worker reported, a removal that a client asks for, and a new token; as
  ``amend`` for a part of a record: a drain, the request of a removal, a stop that no client asked for.
- ``learn`` is for a report of a worker, an unanswered start, a dispatch, a stop that a client asks for, a registration,
  a use of a token and its revocation, and a record that never came to be or is kept no longer.
- ``see`` is for the presence of a worker.

A dispatch is learned, not decided: a stop that comes during its commit must find the job ``starting``. If it found the
job ``queued``, it would end the job, and the start would be sent all the same.

The end of a job becomes visible when it is durable (``endings``). Saves that fail are repeated (``saving``). Every
change that becomes visible is published (``changes``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import TypeVar, cast

from attrs import define, evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster import lifecycle
from scheduler.cluster.changes import Change, ChangeFeed, JobChanged, PresenceChanged, WorkerChanged
from scheduler.cluster.endings import Ending, Endings
from scheduler.cluster.registry import Registry
from scheduler.cluster.saving import Saving
from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Loaded, Record
from scheduler.model import Job, JobSpec, JobState, Presence, Ref, RemovedJob, Worker
from scheduler.security.audit import Act, Anchor
from scheduler.security.token import Token

T = TypeVar("T")
R = TypeVar("R", Job, Worker)

#: Finished jobs kept at most; beyond, those that ended first go. Each takes about 1 KiB of memory.
MAX_FINISHED_JOBS = 100_000

#: Why a job is ``unknown`` before its worker has called again.
RESTARTED = "the scheduler was restarted"


@define
class _Plan:
    """The changes that one call makes, by kind."""

    ends: list[Ending]
    #: The jobs that are not as they were, at their ends those that end.
    jobs: list[Job]
    others: list[Worker | RemovedJob | Token]
    #: The names of what goes.
    gone: list[Ref]
    #: All of these but what becomes visible with an end.
    visible: list[Record]

    def records(self) -> list[Record]:
        """All records to be saved."""
        following = [ending.following for ending in self.ends if ending.following is not None]
        return [*self.jobs, *following, *self.others, *self.gone]


class Ledger:
    """The ledger of one scheduler."""

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
        #: The ends that are not durable yet; nothing else changes the jobs of these.
        self.endings = Endings(self.registry, self._show)
        self._saving = Saving(clock, store, self._present, self.endings.caught_up)
        #: The count of commits when this process began, and that after which the store was set back, if it ever was.
        self.loaded_count = 0
        self.set_back_to: int | None = None
        #: The last entry of the audit when this process began.
        self.audit_head = Anchor()
        # ids of the jobs whose removals are being saved; nothing else changes these jobs either
        self._leaving: set[str] = set()

    @property
    def store_problem(self) -> str:
        """Why nothing can be saved at present; ``""``: it can."""
        return self._saving.problem

    @property
    def idle(self) -> bool:
        """Whether nothing is being saved."""
        return not (self.endings or self._leaving) and self._saving.idle

    def load(self) -> Deferred[None]:
        """Take over what the store holds; called before anything else.

        No worker is online before it calls. A job that was starting or running is ``unknown`` until its worker reports.
        """

        def take(loaded: Loaded) -> None:
            now = self.now()
            for worker in loaded.workers:
                self.registry.put_worker(worker)
            for job in sorted(lifecycle.linked(loaded.jobs), key=lambda job: job.finished_at or 0):
                self.registry.put_job(lifecycle.unknown(job, RESTARTED, now))
            for removed in sorted(loaded.removed, key=lambda removed: removed.removed_at):
                self.registry.put_removed(removed)
            self.registry.tokens.update((token.id, token) for token in loaded.tokens)
            self.loaded_count, self.set_back_to = loaded.commit_count, loaded.set_back_to
            self.audit_head = loaded.audit_head
            self._store.restore_from(everything)

        def everything() -> Loaded:
            """All that the store has to hold, less what is being saved."""
            known = self.registry.everything()
            jobs = {job.id: job for job in (*known.jobs, *self.endings.jobs())}
            return evolve(known, jobs=tuple(jobs.values()))

        return self._store.load().addCallback(take)

    def with_specs(self, jobs: Sequence[Job]) -> Deferred[tuple[Job, ...]]:
        """See ``IScheduler.with_specs``; one read of the store, or none.

        For an ended job, only a few KiB of ``args`` and ``env`` stay in memory (``Job.trimmed``); the store has all.
        """
        partial = {job.id for job in jobs if job.spec.stored}
        here = {job_id: job.spec for job_id in partial if (job := self.registry.jobs.find(job_id)) is not None}
        here = {job_id: spec.without_input() for job_id, spec in here.items() if not spec.stored}

        def filled(read: Mapping[str, JobSpec]) -> tuple[Job, ...]:
            specs = {**read, **here}
            return tuple(evolve(job, spec=specs.get(job.id, job.spec)) if job.spec.stored else job for job in jobs)

        if partial == here.keys():
            return succeed(filled({}))
        return self._store.read_specs(partial - here.keys()).addCallback(filled)

    def close(self) -> Deferred[None]:
        """Save what is not saved yet, if that is possible now; fires when nothing more will be tried."""
        return self._saving.close()

    # -- the verbs

    def decide(self, *records: Record) -> Deferred[None]:
        """Commit a decision, and only then make it visible. After ``StoreFailed`` nothing has happened.

        Until then a new job counts into the load of its worker, and nothing else changes a job that ends or goes. The
        next attempt of a job that ends comes with its end. A ``Ref`` says that a job goes, and leaves a ``RemovedJob``.
        """
        plan = self._plan(records)
        known = {job.id: self.registry.jobs.find(job.id) for job in plan.jobs}
        loaded = [job.worker_id for job in plan.jobs if job.worker_id is not None and known[job.id] is None]
        leaving = {ref.id for ref in plan.gone}
        self._leaving |= leaving
        for worker_id in loaded:
            self.registry.reserve(worker_id)

        def is_outdated(record: Record) -> bool:
            return isinstance(record, Job) and self.registry.jobs.find(record.id) is not known[record.id]

        def show(_: None) -> None:
            for record in filter(is_outdated, plan.visible):
                self._saving.note(record)  # the store gets it as it is now
            self._show(*(record for record in plan.visible if not is_outdated(record)))
            removed = self.registry.removed
            if surplus := max(0, len(removed) - self._keep_finished):
                self.learn(*(each.ref for each in islice(removed.values(), surplus))).addErrback(
                    lambda reason: reason.trap(StoreFailed)
                )

        def over(result: T) -> T:
            self._leaving -= leaving
            for worker_id in loaded:
                self.registry.release(worker_id)
            return result

        return self._save(plan, decided=True).addCallback(show).addBoth(over)

    async def amend(self, record: R, change: Callable[[R], R]) -> None:
        """Decide a change of one record. If the record changes during the commit, ``change`` is applied to the new one.

        Nothing happens to a record that is gone, nor to a job whose end is known.
        """
        while (before := self._open(record)) is not None:
            after = change(before)
            if after == before:
                return
            await self._saving.save([after], decided=True)
            now = self._open(record)
            if now is not None and change(now) == after:
                self._show(after)
                return

    def learn(self, *records: Record, lazily: bool = False) -> Deferred[None]:
        """Make facts visible, and save them. After ``StoreFailed`` they are saved later, and an end is visible then.

        Fires when they and all earlier changes are durable, also where they are nothing new. The end of a job comes
        with its next attempt. A ``Ref`` says that a record is gone.

        ``lazily``: for jobs that have not ended, if nobody waits until they are saved.
        """
        if lazily:
            for record in records:
                if not (isinstance(record, Job) and self._is_settled(record.id)):
                    self._show(record)
                    self._saving.note(record)
            return succeed(None)
        plan = self._plan(records)
        self._show(*plan.visible)
        return self._save(plan, decided=False)

    def see(self, worker_id: str, presence: Presence) -> None:
        """Let be seen what is true of a registered worker for the moment."""
        before = self.registry.see(worker_id, presence)
        if before is not None:
            self.feed.publish(PresenceChanged(worker_id, before, presence))

    def settled(self) -> Deferred[None]:
        """Fires when all earlier changes are durable; fails with ``StoreFailed`` if they can't be saved now."""
        return self._saving.save([])

    def record(self, act: Act) -> None:
        """Have the audit record an act that changed nothing, with the next commit."""
        self._saving.record(act)

    # -- how

    def _plan(self, records: Sequence[Record]) -> _Plan:
        """Sort the changes out, and keep the ends among them from now on."""
        others = [record for record in records if isinstance(record, Worker | RemovedJob | Token)]
        gone = [record for record in records if isinstance(record, Ref)]
        jobs, ends = self._jobs_after([record for record in records if isinstance(record, Job)])
        for ending in ends:
            self.endings.begin(ending)
        visible_jobs = [job for job in jobs if job.id not in self.endings] if ends else jobs
        return _Plan(ends, jobs, others, gone, [*visible_jobs, *others, *gone])

    def _jobs_after(self, jobs: list[Job]) -> tuple[list[Job], list[Ending]]:
        """The jobs that change, as they are saved, and the ends among them."""
        find, gone = self.registry.jobs.find, self.registry.removed.__contains__
        if any(job.state.final or find(job.id) is None for job in jobs):  # else none begins or ends
            jobs = lifecycle.told_attempts(jobs, find, self.endings.following, self._is_settled, gone, self.now())
        listed = [job for job in jobs if not self._is_settled(job.id)]
        told = {job.id for job in listed}
        changed, ends = [], []
        for job in listed:
            before = find(job.id)
            after, following = self._followed(job, before, told)
            if after.state.final and not (before is not None and before.state.final):
                ends.append(Ending(after, following))
            if before != after.trimmed():
                changed.append(after)
        return changed, ends

    def _followed(self, job: Job, before: Job | None, told: Collection[str]) -> tuple[Job, Job | None]:
        """The job as it is saved, and the next attempt that it gets by ending now, unless that is ``told`` of."""
        following: Job | None = None
        if job.state.final and before is not None and not before.state.final:
            job, following = lifecycle.followed(job, self.now())
        if job.state.final:
            job = evolve(job, spec=job.spec.without_input())
        if following is None or following.id in told or following.id in self.registry.removed:
            return job, None
        return job, following if self.registry.jobs.find(following.id) is None else None

    def _save(self, plan: _Plan, decided: bool) -> Deferred[None]:
        """Save the changes, and let go of the oldest finished jobs beyond the limit."""
        most = self._keep_finished - sum(not ending.job.is_adopted for ending in plan.ends)
        records = plan.records()
        if surplus := [Ref("job", job_id) for job_id in self.registry.jobs.finished.surplus(most)]:
            records += surplus
            self._show(*surplus)

        def settle(result: T) -> T:
            for ending in plan.ends:
                self.endings.settle(ending, result, decided)
            return result

        saved = self._saving.save(records, decided)
        return saved.addBoth(settle) if plan.ends else saved

    def _show(self, *records: Record) -> None:
        """Put the records into the registry, and publish the changes."""
        for change in list(map(self._apply, records)):
            if change is not None:
                self.feed.publish(change)

    def _apply(self, record: Record) -> Change | None:
        registry = self.registry
        if isinstance(record, Job):
            job, before = record.trimmed(), registry.jobs.find(record.id)  # one that has ended was saved as it was
            registry.put_job(job)
            if job.state is JobState.QUEUED:
                self.enter_queue(job)
            return JobChanged(before, job)
        if isinstance(record, Worker):
            known = registry.workers.find(record.id)
            registry.put_worker(record)
            return WorkerChanged(known, record) if record != known else None
        if isinstance(record, RemovedJob):
            registry.put_removed(record)
            return None
        if isinstance(record, Token):
            registry.tokens[record.id] = record
            return None
        gone = registry.find(record)
        if isinstance(gone, Job):
            self.endings.forget(gone.id)
            registry.remove_job(gone.id)
            return JobChanged(gone, None)
        if isinstance(gone, Worker):
            registry.remove_worker(gone.id)
            return WorkerChanged(gone, None)
        if isinstance(gone, Token):
            del registry.tokens[gone.id]
        elif gone is not None:
            registry.drop_removed(gone)
        return None

    def _present(self, ref: Ref) -> Record:
        """The current record under that key, to be saved; if there is none, ``ref`` itself, which removes it."""
        return self.endings.find(ref) or self.registry.find(ref) or ref

    def _open(self, record: R) -> R | None:
        """The record as it is now, if it is there and may change."""
        is_settled = isinstance(record, Job) and self._is_settled(record.id)
        return None if is_settled else cast("R | None", self.registry.find(record.ref))

    def _is_settled(self, job_id: str) -> bool:
        """Whether the job's end or removal is known and not durable yet: then no other change of the job is saved."""
        return job_id in self.endings or job_id in self._leaving
