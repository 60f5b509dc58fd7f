"""A run as the checker looks at it: its history by job, and its evidence. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from attrs import field, frozen

from tests.faults import job as load_job
from tests.faults.evidence import Evidence, Run, Spool
from tests.faults.history import Event

FINAL = frozenset({"succeeded", "failed", "stopped", "timed_out", "lost"})

#: Seconds for agreement after a fault, where no experiment says how many.
AGREEMENT = 7.0


@frozen
class Violation:
    """A promise that was not kept."""

    #: ``P1`` to ``P9``, or what an experiment demands beside them.
    promise: str
    text: str
    job: str | None = None
    #: Lines of the history that show it.
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f", history {', '.join(map(str, self.lines))}" if self.lines else ""
        return f"{self.promise} job {self.job or '-'}{where}: {self.text}"


@frozen(slots=False)
class Case:
    """A run as the checker looks at it."""

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
        """All that was seen of each job."""
        found = defaultdict(list)
        for event in self.of("see", "answer", "last"):
            if event.job is not None:
                found[event.job].append(event)
        return dict(found)

    @cached_property
    def last(self) -> dict[str, Event]:
        """Each job when everything was over."""
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
        """Each job's folder."""
        return {spool.job: spool for spool in self.evidence.spools}

    @cached_property
    def seeds(self) -> dict[str, tuple[int, int]]:
        """Seed and lines of each job whose request is known."""
        return {job: (event.seed, event.lines or 0) for job, event in self.requests.items() if event.seed is not None}

    @cached_property
    def requests(self) -> dict[str, Event]:
        """The request that each job came of, whether its answer arrived or not: the job's own evidence tells, too.

        An attempt that follows another came of the same request.
        """
        asked = [event for event in self.of("start") if event.status != 410]  # that is a request sent again, too late
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
        """The job before each that is another attempt of it."""
        shown = [sight for sights in self.sights.values() for sight in sights if sight.seen]
        pairs = [(sight.job, sight.seen.get("retry_of")) for sight in shown if sight.seen]
        pairs += [(sight.seen.get("retried_by"), sight.job) for sight in shown if sight.seen]
        return {after: before for after, before in pairs if after and before}

    def attempts(self, job: str) -> list[str]:
        """The attempts up to this job, from the first on, as far as they were seen; of most jobs, that job alone."""
        found = [job]
        while (before := self._before.get(found[0])) is not None and before not in found:
            found.insert(0, before)
        return found

    @cached_property
    def retried(self) -> frozenset[str]:
        """Jobs of requests that were tried again."""
        firsts = {self.attempts(after)[0] for after in self._before}
        return frozenset(job for job in self.sights if self.attempts(job)[0] in firsts)

    @cached_property
    def unknown(self) -> frozenset[str]:
        """Jobs of which nobody can know any more, as the database was set back."""
        return frozenset(job for event in self.of("fault") for job in event.unknown)

    @cached_property
    def adopted(self) -> frozenset[str]:
        """Jobs that the scheduler knew from their workers alone at some time: it forgot whether to try them again."""
        return frozenset(job for event in self.of("fault") for job in event.adopted)

    def remembers(self, event: Event) -> bool:
        """Whether the scheduler can know all that it had answered before that was asked.

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
        """Jobs whose output need not be there: a fault may have destroyed it, or their worker may not keep it."""
        short = {event.worker for event in self.of("keeps")}
        theirs = {job for job, spool in self.spools.items() if spool.worker in short}
        theirs |= {job for job, last in self.last.items() if last.seen and last.seen["worker_name"] in short}
        return frozenset(theirs.union(*(event.outputs for event in self.of("fault"))))

    @cached_property
    def stops(self) -> frozenset[str]:
        """Jobs whose stop somebody asked for, or that of another attempt."""
        asked = {event.job for event in self.of("stop")}
        stopped = {job for job in asked if job is not None}
        firsts = {self.attempts(job)[0] for job in stopped}
        return frozenset(stopped | {job for job in self.sights if self.attempts(job)[0] in firsts})

    def due(self, since: float, within: float = 0.0) -> float:
        """When what is due so long after then has to be done at the latest, if both sides agree once a fault is over.

        Infinite where a fault is not over.
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
        """What was asked for the removal of each job."""
        found = defaultdict(list)
        for event in self.of("remove"):
            found[event.job or ""].append(event)
        return dict(found)

    @cached_property
    def removed(self) -> dict[str, Event]:
        """The first answer that said that a job is removed: by 204, or by 404 where that was asked for before."""
        found: dict[str, Event] = {}
        for job, asked in self.removals.items():
            for event in asked:
                again = any(other.began < event.began for other in asked)
                if event.status == 204 or (event.status == 404 and again):
                    found.setdefault(job, event)
        return found

    def whole(self, job: str, stream: str = "stdout") -> int | None:
        """Bytes a job printed that came to its end; ``None``: it did not or could not, or its filter may not have."""
        filtered = stream == "stdout" and job in self.requests and self.requests[job].filtered
        if filtered and (job in self.stops or job in self.destroyed):
            return None
        _, lines = self.seeds[job]
        if not any(run.code not in (None, load_job.BROKEN) for run in self.runs.get(job, ())):
            return None
        return load_job.LINE * (lines if stream == "stdout" else -(-lines // load_job.ERROR_EVERY))

    def calm(self, event: Event) -> bool:
        """Whether all was well, and both sides agreed, from the beginning of an event to its end."""
        after = [other for other in self.of("fault", "agree") if other.t <= event.began]
        meanwhile = [other for other in self.of("fault") if event.began <= other.t <= event.t]
        settled = not after or (after[-1].op == "agree" and after[-1].seconds is not None)
        return settled and not meanwhile
