"""Judges a run: from its history and its evidence to all violations of the promises P1 to P5. Pure.

Theory of operation. Only what follows from what was written down is judged. Two
observations contradict each other in time only if one request began after the
other was answered; of requests that overlap, either may have been first. What a
job did is known from its own evidence, what the scheduler said of it from the
history, and what its worker knows from the spool: each pair must agree. A job
that a fault may have destroyed, and only such a one, may be ``lost``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from attrs import field, frozen

from tests.faults import job as load_job
from tests.faults.evidence import Evidence, Run, Spool
from tests.faults.history import Event

FINAL = frozenset({"succeeded", "failed", "stopped", "timed_out", "lost"})

#: What an observation of a final state must repeat.
OUTCOME = ("state", "exit_code", "signal", "reason")


@frozen
class Violation:
    """A promise that was not kept."""

    #: ``P1`` to ``P5``, or what an experiment demands beside them.
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
        for event in self.of("see", "last"):
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
        starts = {event.ticket: event for event in self.of("start")}
        found = {run.job: starts[run.ticket] for run in self.evidence.runs if run.ticket in starts}
        return found | {event.job: event for event in self.of("start") if event.job is not None}

    @cached_property
    def destroyed(self) -> frozenset[str]:
        """Jobs that a fault may have destroyed."""
        return frozenset(job for event in self.of("fault") for job in event.jobs)

    @cached_property
    def stops(self) -> frozenset[str]:
        """Jobs whose stop somebody asked for."""
        return frozenset(event.job for event in self.of("stop") if event.job is not None)


def check(events: Sequence[Event], evidence: Evidence) -> list[Violation]:
    """All violations, by promise."""
    case = Case(events, evidence)
    return [violation for rule in RULES for violation in rule(case)]


# -- P1: an acknowledged start is never forgotten


def forgotten(case: Case) -> Iterator[Violation]:
    """Acknowledged jobs that are not there any more, or whose fate is open or was decided without them."""
    for job, start in case.acknowledged.items():
        missing = [sight for sight in case.sights.get(job, ()) if sight.status == 404 and sight.began >= start.t]
        for sight in missing[:1]:
            yield Violation("P1", f"acknowledged, then not found ({sight.via})", job, (start.number, sight.number))
        last = case.last.get(job)
        if last is None or last.seen is None:
            if not missing:
                yield Violation("P1", "acknowledged, and not there at the end", job, (start.number,))
            continue
        lines = (start.number, last.number)
        state = last.seen["state"]
        running = any(run.code is None for run in case.runs.get(job, ()))
        if state == "lost" and job not in case.destroyed:
            yield Violation("P1", f"acknowledged, and lost without a cause: {last.seen['reason']}", job, lines)
        elif state == "failed" and last.seen["exit_code"] is None and job not in {*case.runs, *case.destroyed}:
            yield Violation("P1", f"acknowledged, and never run: {last.seen['reason']}", job, lines)
        elif state not in FINAL and not (state == "running" and running) and state != "queued":
            yield Violation("P1", f"acknowledged, and {state} when everything is over", job, lines)


# -- P2: one job id never runs twice


def ran_twice(case: Case) -> Iterator[Violation]:
    """Jobs, and requests, that came to more than one run."""
    for job, runs in case.runs.items():
        if len(runs) > 1:
            yield Violation("P2", f"ran {len(runs)} times, as processes {[run.pid for run in runs]}", job)
    tickets = defaultdict(set)
    for run in case.evidence.runs:
        tickets[run.ticket].add(run.job)
    answered = defaultdict(list)
    for start in case.of("start"):
        if start.ticket is not None and start.job is not None:
            tickets[start.ticket].add(start.job)
            answered[start.ticket].append(start.number)
    for ticket, jobs in tickets.items():
        if len(jobs) > 1:
            first, *others = sorted(jobs)
            yield Violation("P2", f"request {ticket} made {others} too", first, tuple(answered[ticket]))


# -- P3: what is delivered is a prefix of the stream


def output(case: Case) -> Iterator[Violation]:
    """Bytes that are not the job's, that came at a wrong place, or that are missing."""
    readers = defaultdict(list)
    for read in case.of("read"):
        readers[read.reader].append(read)
    for reads in readers.values():
        yield from _one_reader(case, reads)
    for job, spool in case.spools.items():
        cut = spool.exit is not None and spool.exit.get("output_error")
        if spool.good != spool.size:
            yield Violation("P3", f"the spool of {spool.size} bytes is not the job's output from {spool.good} on", job)
        elif job in case.seeds and not cut and (whole := _whole(case, job)) not in (None, spool.size):
            yield Violation("P3", f"the spool has {spool.size} of {whole} bytes", job)


def _one_reader(case: Case, reads: Sequence[Event]) -> Iterator[Violation]:
    reached = reads[0].offset or 0
    for read in reads:
        job, offset, length = read.job, read.offset or 0, read.length or 0
        if job not in case.seeds:
            continue
        if offset != reached:
            kind = "a gap" if offset > reached else "a repeat"
            yield Violation("P3", f"{kind}: {reached} bytes were read, and then came {offset}", job, (read.number,))
        reached = offset + length
        expected = load_job.output(*case.seeds[job])[offset:reached]
        if hashlib.sha256(expected).hexdigest() != read.sha256:
            yield Violation("P3", f"bytes {offset} to {reached} are not the job's", job, (read.number,))
        if read.error is not None:
            yield Violation("P3", f"read to {reached}, and then {read.error}", job, (read.number,))
        if read.end:
            yield from _ended_early(case, job, read, reached)


def _ended_early(case: Case, job: str, read: Event, reached: int) -> Iterator[Violation]:
    """A proper end of a body says that this is all the job wrote, and that nothing of that was cut."""
    last = case.last.get(job)
    told, cut = (last.seen["stdout_bytes"], last.seen["output_error"]) if last and last.seen else (None, None)
    kept = case.spools[job].size if job in case.spools else _whole(case, job)
    for whole, where in ((kept, "there are"), (told, "the job is said to have written")):
        if whole not in (None, reached):
            yield Violation("P3", f"ended at {reached}, but {where} {whole} bytes", job, (read.number,))
            break
    if cut and read.via == "raw":
        yield Violation("P3", f"ended properly, but the output was cut: {cut}", job, (read.number,))


def told_output(case: Case) -> Iterator[Violation]:
    """What a job is said to have written, against what it says itself."""
    for job, last in case.last.items():
        if job not in case.seeds or last.seen is None or last.seen["state"] not in FINAL:
            continue
        told, whole = last.seen["stdout_bytes"], _whole(case, job)
        if None in (told, whole) or last.seen["output_error"]:
            continue
        if told != whole:
            yield Violation("P3", f"is said to have written {told} bytes, and wrote {whole}", job, (last.number,))


def _whole(case: Case, job: str) -> int | None:
    """Bytes a job printed that came to its end; ``None``: it did not or could not print, or its filter may not have."""
    filtered = job in case.requests and case.requests[job].filtered
    if filtered and (job in case.stops or job in case.destroyed):
        return None
    seed, lines = case.seeds[job]
    done = any(run.code == load_job.exit_code(seed) for run in case.runs.get(job, ()))
    return lines * load_job.LINE if done else None


# -- P4: an exit status is true, and a final state final


def untrue(case: Case) -> Iterator[Violation]:
    """Ends that changed, or that are not what the job says."""
    for job, sights in case.sights.items():
        final = sorted((s for s in sights if s.seen and s.seen["state"] in FINAL), key=lambda sight: sight.t)
        if not final:
            continue
        first = final[0]
        outcome = _outcome(first)
        for sight in final[1:]:
            if _outcome(sight) != outcome:
                yield Violation("P4", f"was {_outcome(sight)}, and {outcome} before", job, (first.number, sight.number))
                break
        for sight in sights:
            if sight.seen and sight.seen["state"] not in FINAL and sight.began > first.t:
                text = f"was {sight.seen['state']} after it was {first.seen and first.seen['state']}"
                yield Violation("P4", text, job, (first.number, sight.number))
                break
        yield from _against_evidence(case, job, first)


def _outcome(sight: Event) -> tuple[object, ...]:
    assert sight.seen is not None
    return tuple(sight.seen[name] for name in OUTCOME)


def _against_evidence(case: Case, job: str, sight: Event) -> Iterator[Violation]:
    """What a final state says against what the job did; of the load's jobs only."""
    assert sight.seen is not None
    state, reason, code, signal = (sight.seen[name] for name in ("state", "reason", "exit_code", "signal"))
    runs = case.runs.get(job, [])
    ends = {run.code for run in runs} - {None}

    def wrong(text: str) -> Violation:
        return Violation("P4", text, job, (sight.number,))

    if job not in case.seeds and not runs:
        return
    if code is not None and code not in ends:
        yield wrong(f"exit code {code}, but the job says {sorted(ends, key=str) or 'nothing of an end'}")
    if code is None and state == "succeeded":
        yield wrong("succeeded without an exit code")
    if code is None and state == "failed" and runs and (ends or signal is None):
        yield wrong(f"failed ({reason}), but the job ran" + (f" and exited with {ends.pop()}" if ends else ""))
    if state == "failed" and signal is not None and job not in case.destroyed:
        yield wrong(f"ended by {signal}, and nobody sent that")
    if state != "succeeded" and not reason:
        yield wrong(f"{state} without a reason")
    if state == "stopped" and job not in case.stops:
        yield wrong("stopped, and nobody asked for that")
    expected, told = case.requests[job].background if job in case.requests else None, sight.seen["background_ended"]
    if code is not None and job not in case.stops and expected is not None and told != expected:
        yield wrong(f"{told} background processes were ended, and it left {expected}")


def refused_but_run(case: Case) -> Iterator[Violation]:
    """Requests that were answered with "not started", each time they were made, and made a run all the same."""
    ran = {run.ticket: run.job for run in case.evidence.runs}
    answers = defaultdict(list)
    for start in case.of("start"):
        answers[start.ticket].append(start)
    for ticket, starts in answers.items():
        if ticket in ran and all(start.status in REFUSED and start.job is None for start in starts):
            said = f"answered {[start.status for start in starts]}, but it ran"
            yield Violation("P4", said, ran[ticket], tuple(start.number for start in starts))


#: Answers to a start that say that there is no job, unless they name one, whose output alone can't be had.
REFUSED = frozenset({400, 404, 409, 422, 429, 501, 503})


# -- P5: once a fault is over, all sides agree


def disagreement(case: Case) -> Iterator[Violation]:
    """Sides that did not come to agree in time, or do not when everything is over."""
    for event in case.of("agree"):
        if event.seconds is None or (event.limit is not None and event.seconds > event.limit):
            took = f"not within {event.limit:g} s" if event.seconds is None else f"only after {event.seconds:.1f} s"
            yield Violation("P5", f"no agreement, {took}: {'; '.join(event.differences[:5])}", None, (event.number,))
    for job, spool in case.spools.items():
        last = case.last.get(job)
        if last is None or last.seen is None:
            if case.last:
                yield Violation("P5", f"worker {spool.worker} has it, and the scheduler does not know it", job)
        elif difference := disagrees(spool.exit, last.seen):
            yield Violation("P5", difference, job, (last.number,))


def disagrees(exit_record: object, seen: object) -> str | None:
    """How the scheduler's view of a job differs from its worker's exit record (``None``: it has not ended)."""
    assert isinstance(seen, dict)
    if not isinstance(exit_record, dict):
        return f"is {seen['state']}, but has not ended on its worker" if seen["state"] in FINAL else None
    if any(seen[name] != exit_record[name] for name in ("state", "exit_code", "signal")):
        there = tuple(exit_record[name] for name in ("state", "exit_code", "signal"))
        here = tuple(seen[name] for name in ("state", "exit_code", "signal"))
        return f"is {here}, and on its worker {there}"
    return None


RULES: tuple[Callable[[Case], Iterator[Violation]], ...] = (
    forgotten,
    ran_twice,
    output,
    told_output,
    untrue,
    refused_but_run,
    disagreement,
)
