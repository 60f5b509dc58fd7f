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
        """Seed and lines of each job whose id was told."""
        return {
            event.job: (event.seed, event.lines or 0)
            for event in self.of("start")
            if event.job is not None and event.seed is not None
        }

    @cached_property
    def requests(self) -> dict[str, Event]:
        """The request that each job came of, whether its answer arrived or not: the job's own evidence tells, too."""
        asked = [event for event in self.of("start") if event.status != 410]  # that is a request sent again, too late
        starts = {event.ticket: event for event in asked}
        found = {run.job: starts[run.ticket] for run in self.evidence.runs if run.ticket in starts}
        for event in reversed(asked):
            if event.job is not None:
                found[event.job] = event
        return found

    @cached_property
    def destroyed(self) -> frozenset[str]:
        """Jobs that a fault may have destroyed."""
        return frozenset(job for event in self.of("fault") for job in event.jobs)

    @cached_property
    def stops(self) -> frozenset[str]:
        """Jobs whose stop somebody asked for."""
        return frozenset(event.job for event in self.of("stop") if event.job is not None)

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
        seed, lines = self.seeds[job]
        if not any(run.code == load_job.exit_code(seed) for run in self.runs.get(job, ())):
            return None
        return load_job.LINE * (lines if stream == "stdout" else -(-lines // load_job.ERROR_EVERY))

    def calm(self, event: Event) -> bool:
        """Whether all was well, and both sides agreed, from the beginning of an event to its end."""
        after = [other for other in self.of("fault", "agree") if other.t <= event.began]
        meanwhile = [other for other in self.of("fault") if event.began <= other.t <= event.t]
        settled = not after or (after[-1].op == "agree" and after[-1].seconds is not None)
        return settled and not meanwhile
