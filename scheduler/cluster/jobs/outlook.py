"""The reasons for which queued jobs wait, and the number of jobs that go before each.

Theory of operation. The reason follows from the workers that could run the job, so it is the same for all jobs in one
line of ``scheduler.cluster.jobs.lines``. It is found out once for each line, and kept until a worker, a job or the
lines change, or a backoff that it counted ends. A page of a thousand queued jobs looks at the workers a few times, and
beyond that costs each job a few searches in sorted lists.

The words: ``no-free-slot`` (all slots are taken), ``turn`` (a worker is free, but other jobs go first), ``backoff``
(workers could not start jobs, or say that they take none), ``unreachable``, ``draining``, ``no-match`` (no known worker
has the labels and features that the job needs), ``delay`` (the job is not due yet), ``store-failing``.

The position of a job counts the jobs that go before it and compete with it for a worker: those of its own line, and
those of every other line that one of its workers serves.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from scheduler import units
from scheduler.cluster.candidates import Standing, Tally
from scheduler.cluster.jobs.backoff import Backoff
from scheduler.cluster.jobs.lines import Lines, WaitingLine, ahead
from scheduler.cluster.jobs.placement import lacking, missing_labels, without_match
from scheduler.cluster.jobs.queue import Queue
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.requirement import Requirement
from scheduler.errors import StoreFailed
from scheduler.model import Job, JobState, Worker
from scheduler.views import WaitingFor


def why_of(tally: Tally) -> str:
    """The reason why a job waits for these workers, as a word for programs: the one that could end first."""
    if tally.count[Standing.FREE]:
        return "turn"
    if tally.count[Standing.FULL]:
        return "no-free-slot"
    if tally.held:
        return "backoff"
    return "unreachable" if tally.count[Standing.UNREACHABLE] else "draining"


def sentence(tally: Tally, held_by: str) -> str:
    """The workers that could run a job, by what keeps each from taking it now.

    ``held_by``: the reason of the first worker that is held; ``""``: it has none.
    """
    total, full, unreachable = tally.total, tally.count[Standing.FULL], tally.count[Standing.UNREACHABLE]

    def some(count: int, one: str, many: str) -> str:
        who = "it" if total == 1 else "all" if count == total else count
        return f"{who} {one if count == 1 else many}" if count else ""

    because = f" ({held_by})" if held_by else ""
    slots = "its only slot" if tally.slots == 1 else f"all {tally.slots} slots"
    parts = [
        some(tally.count[Standing.DRAINING], "is draining", "are draining"),
        some(unreachable, "can't be reached", "can't be reached"),
        some(tally.held, f"takes no job now{because}", f"take no job now{because}"),
        some(full, f"has {slots} taken", f"have {slots} taken"),
        some(tally.count[Standing.FREE], "has a free slot", "have a free slot"),
    ]
    if unreachable == total > 1:
        parts = ["none can be reached"]
    if full == total:
        parts = [f"{slots} {'is' if tally.slots == 1 else 'are'} taken"]
    matching = "1 worker matches" if total == 1 else f"{total} workers match"
    return f"{matching}; {', '.join(filter(None, parts))}"


@frozen
class _Facts:
    """The facts that hold for all jobs with one requirement."""

    why: str
    detail: str
    #: The lines whose jobs compete with these jobs.
    lines: Collection[WaitingLine]
    #: By the clock, how long it is true if nothing changes.
    until: float | None = None
    #: The slot of a job that has ended would be free if the end could be saved.
    unsaved_end: bool = False


class Outlook:
    """Tells why jobs wait; there is one for each scheduler."""

    def __init__(self, clock: IReactorTime, ledger: Ledger, waiting: Lines, queue: Queue, backoff: Backoff) -> None:
        self._clock = clock
        self._ledger = ledger
        self._registry = ledger.registry
        self._waiting = waiting
        self._queue = queue
        self._backoff = backoff
        self._facts: dict[Requirement, _Facts] = {}
        # of the lines that they are about, and the number of the last change that they count in
        self._version = (0, 0)

    @property
    def idle(self) -> bool:
        """Whether nothing is kept about jobs that wait."""
        return not self._facts or self._version != self._current_version()

    def of(self, job: Job) -> WaitingFor | None:
        """The reason why the job waits; ``None`` if it is not queued now."""
        current = self._registry.jobs.find(job.id)
        if current is None or current.state is not JobState.QUEUED or current.target is None:
            return None
        requirement, place = self._waiting.standing(current)
        facts = self._facts_of(requirement)
        before = ahead(facts.lines, place)
        why, detail = self._delayed(current) or self._saving_fails(facts) or (facts.why, facts.detail)
        if why == "turn":
            first = "it is next" if not before else "1 job goes first" if before == 1 else f"{before} jobs go first"
            detail = f"{detail}; {first}"
        return WaitingFor(why, detail, before + 1)

    def _delayed(self, job: Job) -> tuple[str, str] | None:
        seconds = self._queue.due_in(job.id)
        if not seconds:
            return None
        due = units.format_moment(self._ledger.now() + seconds)
        when = f"at {due}, in {units.format_duration(round(seconds) or 1)}"
        return "delay", f"the next attempt is due {when}"

    def _saving_fails(self, facts: _Facts) -> tuple[str, str] | None:
        problem = self._ledger.store_problem
        if problem and (facts.why in {"turn", "backoff"} or facts.unsaved_end):
            return "store-failing", StoreFailed.sentence(problem)
        return None

    def _facts_of(self, requirement: Requirement) -> _Facts:
        if self._version != self._current_version():
            self._facts.clear()
            self._version = self._current_version()
        facts = self._facts.get(requirement)
        if facts is None or (facts.until is not None and self._clock.seconds() >= facts.until):
            facts = self._facts[requirement] = self._find_out(requirement)
        return facts

    def _current_version(self) -> tuple[int, int]:
        return self._waiting.version, self._ledger.feed.seq

    def _holds_a_slot(self, requirement: Requirement) -> bool:
        """Whether an ended job whose end can't be saved yet has a slot that a job with that requirement could take."""
        held_by = {job.worker_id for job in self._ledger.endings.held()}
        workers = map(self._registry.workers.find, held_by)
        return any(worker is not None and requirement.met_by(worker) for worker in workers)

    def _find_out(self, requirement: Requirement) -> _Facts:
        if requirement.worker is not None:
            return self._facts_of_named(requirement, requirement.worker)
        candidates = self._backoff.candidates
        tally = candidates.tally(requirement)
        if tally.total < len(self._waiting.by_requirement):
            lines = self._waiting.competing(requirement, candidates.each(requirement, tuple(Standing)))
        else:
            lines = self._waiting.competing_for_many(requirement, self._registry)
        if not tally.total:
            return _Facts("no-match", without_match(requirement, candidates), lines)
        held = next(candidates.each(requirement, (Standing.HELD, Standing.FULL_AND_HELD)), None)
        until = None if held is None else self._backoff.next_end
        why, detail = why_of(tally), sentence(tally, "" if held is None else self._held_by(held))
        return _Facts(why, detail, lines, until, why == "no-free-slot" and self._holds_a_slot(requirement))

    def _facts_of_named(self, requirement: Requirement, name: str) -> _Facts:
        """The facts about jobs that name a worker; they need no free slot of it."""
        called = self._registry.workers.called(name)
        matching = [worker for worker in called if requirement.met_by(worker)]
        lines = self._waiting.competing(requirement, matching)
        if not called:
            return _Facts("unreachable", f"worker {name!r} is not registered now", lines)
        worker = max(matching or called, key=self._registry.presences.preference)
        who = f"worker {worker.name!r}"
        if lack := lacking(requirement, worker):
            return _Facts("no-match", f"{who} does not support {lack}", lines)
        if missing := missing_labels(requirement, worker):
            return _Facts("no-match", f"{who} does not have the labels {missing}", lines)
        if worker.draining:
            return _Facts("draining", f"{who} is draining", lines)
        if not self._registry.presences.of(worker.id).is_online:
            why = "can't be reached" if worker.deregistered_at is None else "deregistered, and is not back"
            return _Facts("unreachable", f"{who} {why}", lines)
        end = self._backoff.ends(worker.id)
        if end is None:
            return _Facts("turn", f"{who} can take it", lines)
        return _Facts("backoff", f"{who} takes no job now ({self._held_by(worker)})", lines, end)

    def _held_by(self, worker: Worker) -> str:
        """The reason why a worker that is held takes no job; ``""``: it gave none."""
        return self._registry.presences.of(worker.id).refusing or self._backoff.reason(worker.id) or ""
