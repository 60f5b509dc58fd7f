"""The choice of the worker for a start: one that can take the job now, or after a wait for expected workers."""

from __future__ import annotations

from collections.abc import Collection

from attrs import define
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.expected import EXPECTED_WAIT_MAX_SECONDS, Expected
from scheduler.cluster.jobs.backoff import Backoff
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.jobs.placement import lacking, missing_labels, place, refusal
from scheduler.cluster.reach import Reach
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Requirement
from scheduler.errors import Conflict, Draining, NoFreeSlot, NoMatch, Unreachable, Unsupported
from scheduler.model import Job, JobState, Submission, Worker

#: Workers that one start is sent to in turn, at most: if none of these can take it, the others may lack the same.
MAX_WORKERS_TRIED = 10

#: Seconds that one request waits in all before its start is sent, or it is refused.
REQUEST_WAIT_MAX_SECONDS = 10.0

#: Seconds after which a start that somebody waits for is sent to no other worker.
RETRY_ELSEWHERE_MAX_SECONDS = 10.0


@define(eq=False, slots=False)
class Choice:
    """Chooses workers; one for each scheduler."""

    _clock: IReactorTime
    _registry: Registry
    #: The lines of the queued jobs that are due.
    _waiting: Lines
    _backoff: Backoff
    _expected: Expected
    _reach: Reach

    def close(self) -> None:
        """Wait for no worker any more."""
        self._expected.close()

    def now(self, wanted: Submission, newcomer: bool) -> Worker:
        """A worker that can take the job now. A ``newcomer``, which was not queued, lets waiting jobs go first.

        Raises ``NoFreeSlot`` or ``Unreachable`` if a worker may be able to later, and ``NotFound``, ``NoMatch``,
        ``Draining`` or ``Unsupported`` if none will.
        """
        spec, target, terms = wanted.spec, wanted.target, wanted.terms
        if target.worker is None:
            return self._place(wanted, newcomer, ())
        worker = self._registry.workers.get(target.worker)
        if lacks := missing_labels(Requirement.of(spec, target), worker):
            raise NoMatch(f"worker {worker.name!r} does not have the labels {lacks}")
        if worker.draining:
            raise Draining(worker.name)
        if lacks := lacking(spec, worker):
            raise Unsupported(worker.name, lacks)
        self._reach.check(worker)
        if terms.queue_timeout and (self._backoff.active(worker.id) or (newcomer and self._waiting.named(worker))):
            raise NoFreeSlot(f"other jobs wait for worker {worker.name!r}")
        return worker

    async def soon(self, wanted: Submission, newcomer: bool, since: float | None = None) -> Worker:
        """A worker as in ``now``. If none can take the job yet, this waits for workers that are expected online.

        ``since``: when the request came, by the clock; the time that it has waited already counts. Raises as ``now``.
        """
        now = self._clock.seconds()
        until = min(now + EXPECTED_WAIT_MAX_SECONDS, (now if since is None else since) + REQUEST_WAIT_MAX_SECONDS)
        while True:
            try:
                return self.now(wanted, newcomer)
            except (NoFreeSlot, Unreachable):
                left = until - self._clock.seconds()
                waiting = self._expected.wait(Requirement.of(wanted.spec, wanted.target), left)
                if waiting is None:
                    raise
            await waiting

    def elsewhere(self, job: Job, tried: Collection[str], since: float) -> Worker | None:
        """The next worker for a job; ``None``: the queue finds one, or there is none.

        ``tried``: ids of the workers that could not take it. ``since``: when its start began, by the clock.
        """
        assert job.target is not None
        from_the_queue = job.promised and job.terms.queue_timeout
        if job.target.worker is not None or from_the_queue or job.state is not JobState.STARTING:
            return None
        if len(tried) >= MAX_WORKERS_TRIED:
            return None
        if not job.promised and self._clock.seconds() - since >= RETRY_ELSEWHERE_MAX_SECONDS:
            return None
        try:
            return self._place(Submission(job.spec, job.target, job.terms), not job.promised, tried)
        except (Conflict, NoFreeSlot):
            return None

    def _place(self, wanted: Submission, newcomer: bool, tried: Collection[str]) -> Worker:
        """A worker for a job with a selector; ``tried`` are ids of workers that could not take it."""
        priority = wanted.terms.priority

        def withheld(worker: Worker) -> bool:
            return worker.id in tried or (newcomer and self._waiting.before(worker, priority))

        requirement, candidates = Requirement.of(wanted.spec, wanted.target), self._backoff.candidates
        if newcomer and self._waiting.before_all(requirement, priority):
            raise refusal(requirement, candidates)
        return place(requirement, candidates, withheld)
