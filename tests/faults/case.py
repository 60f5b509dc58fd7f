"""A run as the checker sees it: its history by job, and its evidence. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from attrs import field, frozen

from tests.faults import job as load_job
from tests.faults.evidence import Evidence, Run, Spool
from tests.faults.history import Event

FINAL = frozenset({"succeeded", "failed", "stopped", "timed_out", "lost"})

#: Seconds for agreement after a fault, unless an experiment sets another limit.
AGREEMENT = 7.0


@frozen
class Violation:
    """A broken promise."""

    #: ``P1`` to ``P9``, or a further demand of an experiment.
    promise: str
    text: str
    job: str | None = None
    #: The lines of the history that prove it.
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f", history {', '.join(map(str, self.lines))}" if self.lines else ""
        return f"{self.promise} job {self.job or '-'}{where}: {self.text}"


@frozen(slots=False)
class Case:
    """A run as the checker sees it."""

    events: Sequence[Event]
    evidence: Evidence = field(factory=Evidence)

    def of(self, *ops: str) -> list[Event]:
        """The events of these kinds."""
        return [event for event in self.events if event.op in ops]

    @cached_property
    def acknowledged(self) -> dict[str, Event]:
        """The first acknowledgement of each job."""
        found: dict[str, Event] = {}
        for event in self.events:
            if event.acknowledged and event.job is not None:
                found.setdefault(event.job, event)
        return found

    @cached_property
    def sights(self) -> dict[str, list[Event]]:
        """All observations of each job."""
        found = defaultdict(list)
        for event in self.of("see", "answer", "last"):
            if event.job is not None:
                found[event.job].append(event)
        return dict(found)

    @cached_property
    def last(self) -> dict[str, Event]:
        """Each job at the end of the run."""
        return {event.job: event for event in self.of("last") if event.job is not None}

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """The processes of each job."""
        found = defaultdict(list)
        for run in self.evidence.runs:
            found[run.job].append(run)
        return dict(found)

    @cached_property
    def spools(self) -> dict[str, Spool]:
        """The spool of each job."""
        return {spool.job: spool for spool in self.evidence.spools}

    @cached_property
    def seeds(self) -> dict[str, tuple[int, int]]:
        """The seed and lines of each job whose request is known."""
        return {job: (event.seed, event.lines or 0) for job, event in self.requests.items() if event.seed is not None}

    @cached_property
    def requests(self) -> dict[str, Event]:
        """The request of each job, even if it was not answered: the job's own evidence names it, too.

        A retry has the request of the first attempt.
        """
        asked = [event for event in self.of("start") if event.status != 410]  # 410: repeated after the removal
        starts = {event.ticket: event for event in asked}
        found = {run.job: starts[run.ticket] for run in self.evidence.runs if run.ticket in starts}
        for event in reversed(asked):
            if event.job is not None:
                found[event.job] = event
        for job in self.sights:
            if (first := self.attempts(job)[0]) in found:
                found.setdefault(job, found[first])
        return found

    @cached_property
    def _before(self) -> dict[str, str]:
        """The previous attempt of each job that is a retry."""
        shown = [sight for sights in self.sights.values() for sight in sights if sight.seen]
        pairs = [(sight.job, sight.seen.get("retry_of")) for sight in shown if sight.seen]
        pairs += [(sight.seen.get("retried_by"), sight.job) for sight in shown if sight.seen]
        return {after: before for after, before in pairs if after and before}

    def attempts(self, job: str) -> list[str]:
        """The attempts up to this job, in order, as far as they were seen. For most jobs, only the job itself."""
        found = [job]
        while (before := self._before.get(found[0])) is not None and before not in found:
            found.insert(0, before)
        return found

    @cached_property
    def retried(self) -> frozenset[str]:
        """Jobs of requests that were retried."""
        firsts = {self.attempts(after)[0] for after in self._before}
        return frozenset(job for job in self.sights if self.attempts(job)[0] in firsts)

    @cached_property
    def unknown(self) -> frozenset[str]:
        """Jobs that no side can know any more, because the database was set back."""
        return frozenset(job for event in self.of("fault") for job in event.unknown)

    @cached_property
    def adopted(self) -> frozenset[str]:
        """Jobs that the scheduler once knew only from their workers, so it forgot whether to retry them."""
        return frozenset(job for event in self.of("fault") for job in event.adopted)

    def remembers(self, event: Event) -> bool:
        """Whether the scheduler could know all its earlier answers when this was requested.

        It can't between a database that is set back and the agreement after that.
        """
        known = True
        for other in self.of("fault", "agree"):
            if other.t <= event.t:
                known = not other.set_back if known else other.op == "agree"
            elif other.op == "fault" and other.set_back:
                break
        return known

    @cached_property
    def destroyed(self) -> frozenset[str]:
        """Jobs that a fault may have destroyed."""
        return frozenset(job for event in self.of("fault") for job in event.jobs)

    @cached_property
    def without_output(self) -> frozenset[str]:
        """Jobs whose output may be missing: a fault may have destroyed it, or their worker may not keep it."""
        short = {event.worker for event in self.of("keeps")}
        theirs = {job for job, spool in self.spools.items() if spool.worker in short}
        theirs |= {job for job, last in self.last.items() if last.seen and last.seen["worker_name"] in short}
        return frozenset(theirs.union(*(event.outputs for event in self.of("fault"))))

    @cached_property
    def stops(self) -> frozenset[str]:
        """Jobs whose stop was requested, or that of another attempt."""
        asked = {event.job for event in self.of("stop")}
        stopped = {job for job in asked if job is not None}
        firsts = {self.attempts(job)[0] for job in stopped}
        return frozenset(stopped | {job for job in self.sights if self.attempts(job)[0] in firsts})

    def due(self, since: float, within: float = 0.0) -> float:
        """The latest time for something that is due ``within`` so long after ``since``, allowing for agreement after
        faults.

        Infinite during a fault.
        """
        due, broken = since + within, None
        for event in self.of("fault", "heal"):
            if event.op == "fault":
                broken = event.t if broken is None else broken
            elif broken is not None:
                if broken < due + self.limit:
                    due = max(due, event.t + within)
                broken = None
        return float("inf") if broken is not None and broken < due + self.limit else due + self.limit

    @cached_property
    def limit(self) -> float:
        """Seconds for agreement after a fault."""
        return max([AGREEMENT, *(event.limit or 0.0 for event in self.of("agree"))])

    @cached_property
    def removals(self) -> dict[str, list[Event]]:
        """The requests to remove each job."""
        found = defaultdict(list)
        for event in self.of("remove"):
            found[event.job or ""].append(event)
        return dict(found)

    @cached_property
    def removed(self) -> dict[str, Event]:
        """The first answer that a job is removed: 204, or 404 if its removal was requested before."""
        found: dict[str, Event] = {}
        for job, asked in self.removals.items():
            for event in asked:
                again = any(other.began < event.began for other in asked)
                if event.status == 204 or (event.status == 404 and again):
                    found.setdefault(job, event)
        return found

    def whole(self, job: str, stream: str = "stdout") -> int | None:
        """Bytes printed by a job that ended by itself. ``None``: it or its filter did not, or the output could not be
        written.
        """
        filtered = stream == "stdout" and job in self.requests and self.requests[job].filtered
        if filtered and (job in self.stops or job in self.destroyed):
            return None
        _, lines = self.seeds[job]
        if not any(run.code not in (None, load_job.BROKEN) for run in self.runs.get(job, ())):
            return None
        return load_job.LINE * (lines if stream == "stdout" else -(-lines // load_job.ERROR_EVERY))

    def calm(self, event: Event) -> bool:
        """Whether there was no fault, and both sides agreed, for the whole duration of an event."""
        after = [other for other in self.of("fault", "agree") if other.t <= event.began]
        meanwhile = [other for other in self.of("fault") if event.began <= other.t <= event.t]
        settled = not after or (after[-1].op == "agree" and after[-1].seconds is not None)
        return settled and not meanwhile
