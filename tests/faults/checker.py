"""Judges a run: from its history and its evidence to all violations of the promises P1 to P9. Pure.

Theory of operation. Only recorded facts are judged. Two observations contradict each other in time only if one request
began after the other was answered. Of overlapping requests, either may have been first. A job's acts are known from its
own evidence, the scheduler's statements from the history, and the worker's knowledge from the spool. Each pair must
agree. Only a job that a fault may have destroyed may be ``lost``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scheduler.cut_output import LOST_OUTPUT
from tests.faults import job as load_job
from tests.faults import keeping, requests, terms
from tests.faults.case import FINAL, Case, Violation
from tests.faults.evidence import Evidence
from tests.faults.history import Event

#: Fields that must be equal in all observations of a final state.
OUTCOME = (
    *("state", "exit_code", "signal", "reason", "finished_at"),
    *("stdout_bytes", "stderr_bytes", "output_error", "background_ended", "usage"),
)

#: States that can't follow a given state. After a final state only the same one may follow.
_EARLIER = {"running": {"queued", "starting"}, "unknown": {"queued"}, "starting": set[str]()}


def check(events: Sequence[Event], evidence: Evidence) -> list[Violation]:
    """All violations, by promise."""
    case = Case(events, evidence)
    return [violation for rule in RULES for violation in rule(case)]


# -- P1: an acknowledged start is never forgotten


def forgotten(case: Case) -> Iterator[Violation]:
    """Acknowledged jobs that are gone, without an outcome, or decided without a run."""
    for job, start in case.acknowledged.items():
        if job in case.unknown:
            continue
        removal = case.removals.get(job)
        until = removal[0].began if removal else float("inf")
        sights = case.sights.get(job, ())
        missing = [sight for sight in sights if sight.status == 404 and sight.began >= start.t and sight.t < until]
        missing = [sight for sight in missing if case.remembers(sight)]
        for sight in missing[:1]:
            yield Violation("P1", f"acknowledged, then not found ({sight.via})", job, (start.number, sight.number))
        last = case.last.get(job)
        if last is None or last.seen is None:
            if not missing and not removal:
                yield Violation("P1", "acknowledged, and not there at the end", job, (start.number,))
            continue
        lines = (start.number, last.number)
        state = last.seen["state"]
        running = any(run.code is None for run in case.runs.get(job, ()))
        # a request that was sent again, as its answer was lost, may be told that its job never ran
        told = any(sight.began == start.began and sight.seen and sight.seen["state"] == "failed" for sight in sights)
        if state == "lost" and job not in case.destroyed:
            yield Violation("P1", f"acknowledged, and lost without a cause: {last.seen['reason']}", job, lines)
        elif (
            state == "failed" and last.seen["exit_code"] is None and not (told or job in {*case.runs, *case.destroyed})
        ):
            yield Violation("P1", f"acknowledged, and never run: {last.seen['reason']}", job, lines)
        elif state not in FINAL and not (state == "running" and running) and state != "queued":
            yield Violation("P1", f"acknowledged, and {state} when everything is over", job, lines)


def vanished(case: Case) -> Iterator[Violation]:
    """Jobs without an answered request that were seen, and are gone at the end."""
    for job, sights in case.sights.items():
        if not case.last or job in {*case.acknowledged, *case.removals, *case.last, *case.unknown}:
            continue
        for sight in sights:
            if sight.seen and sight.seen["state"] in {"running", *FINAL}:
                yield Violation("P1", f"was {sight.seen['state']}, and is not there at the end", job, (sight.number,))
                break


# -- P2: one job id never runs twice


def ran_twice(case: Case) -> Iterator[Violation]:
    """Jobs, and requests, with more than one run."""
    for job, runs in case.runs.items():
        if len(runs) > 1:
            yield Violation("P2", f"ran {len(runs)} times, as processes {[run.pid for run in runs]}", job)
    tickets = defaultdict(set)
    for run in case.evidence.runs:
        tickets[run.ticket].add(case.attempts(run.job)[0])
    answered = defaultdict(list)
    retries: dict[str, int] = defaultdict(int)
    for start in case.of("start"):
        if start.ticket is not None and start.job is not None and start.job not in case.unknown:
            tickets[start.ticket].add(case.attempts(start.job)[0])
            answered[start.ticket].append(start.number)
            retries[start.ticket] = start.attempts or 0
    for ticket, jobs in tickets.items():
        # An adopted job may be a further attempt that is not recognised as one.
        attempts = min(len(jobs & case.adopted), retries[ticket])
        if len(jobs) - attempts > 1:
            first, *others = sorted(jobs)
            yield Violation("P2", f"request {ticket} made {others} too", first, tuple(answered[ticket]))


# -- P3: what is delivered is a prefix of the stream


def output(case: Case) -> Iterator[Violation]:
    """Bytes that are not the job's, are at a wrong place, or are missing."""
    readers = defaultdict(list)
    for read in case.of("read"):
        readers[read.reader, read.stream].append(read)
    for reads in readers.values():
        yield from _one_reader(case, reads)
    for job, spool in case.spools.items():
        cut = spool.exit is not None and _known_cut(spool.exit.get("output_error"))
        for stream, size, good in spool.streams:
            if good != size:
                yield Violation("P3", f"{stream} of {size} bytes in the spool is not the job's from {good} on", job)
            elif job in case.seeds and not cut and (whole := case.whole(job, stream)) not in (None, size):
                yield Violation("P3", f"the spool has {size} of {whole} bytes of {stream}", job)


def _known_cut(output_error: str | None) -> bool:
    """Whether some output is missing for sure. Of a lost job some may be missing."""
    return output_error not in (None, "", LOST_OUTPUT)


def _one_reader(case: Case, reads: Sequence[Event]) -> Iterator[Violation]:
    stream, reached = reads[0].stream or "stdout", reads[0].begin or 0
    printed = load_job.output if stream == "stdout" else load_job.error_output
    for read in reads:
        job, offset, length = read.job, read.offset or 0, read.length or 0
        if job not in case.seeds:
            continue
        if offset != reached:
            kind = "a gap" if offset > reached else "a repeat"
            text = f"{kind}: {stream} was to go on at {reached}, and went on at {offset}"
            yield Violation("P3", text, job, (read.number,))
        reached = offset + length
        expected = printed(*case.seeds[job])[offset:reached]
        if hashlib.sha256(expected).hexdigest() != read.sha256:
            yield Violation("P3", f"bytes {offset} to {reached} of {stream} are not the job's", job, (read.number,))
        if read.error is not None:
            yield Violation("P3", f"read to {reached}, and then {read.error}", job, (read.number,))
        if read.end:
            yield from _ended_early(case, job, read, stream, reached)


def _ended_early(case: Case, job: str, read: Event, stream: str, reached: int) -> Iterator[Violation]:
    """A proper end of a body means that this was all of the output, and that none of it was cut."""
    last = case.last.get(job)
    told, cut = (last.seen[f"{stream}_bytes"], last.seen["output_error"]) if last and last.seen else (None, None)
    whole = None if cut else case.whole(job, stream)
    kept = case.spools[job].size_of(stream) if job in case.spools else whole
    for whole, where in ((kept, "there are"), (told, "the job is said to have written")):
        if whole not in (None, reached):
            yield Violation("P3", f"ended at {reached}, but {where} {whole} bytes", job, (read.number,))
            break
    if cut and read.via == "raw":
        yield Violation("P3", f"ended properly, but the output was cut: {cut}", job, (read.number,))


def told_output(case: Case) -> Iterator[Violation]:
    """Compares the shown length of a job's output with its worker's spool, and with the job's own account."""
    for job, last in case.last.items():
        if job not in case.requests or last.seen is None or last.seen["state"] not in FINAL:
            continue
        for stream in ("stdout", "stderr"):
            told = last.seen[f"{stream}_bytes"]
            kept = case.spools[job].size_of(stream) if job in case.spools else None
            cut = _known_cut(last.seen["output_error"])
            whole = None if cut or job not in case.seeds else case.whole(job, stream)
            if told is None and whole is not None and last.seen["state"] != "lost":
                yield Violation("P3", f"nobody says how much {stream} it wrote", job, (last.number,))
            for wrote, where in ((whole, "it wrote"), (kept, "its worker has")):
                if None not in (told, wrote) and told != wrote:
                    text = f"is said to have written {told} bytes of {stream}, and {where} {wrote}"
                    yield Violation("P3", text, job, (last.number,))
                    break


# -- P4: an exit status is true, and a final state final


def untrue(case: Case) -> Iterator[Violation]:
    """Ends that changed, or that contradict the job's own account."""
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
            if sight.seen and sight.seen["state"] not in FINAL and sight.began > first.t and case.remembers(sight):
                text = f"was {sight.seen['state']} after it was {first.seen and first.seen['state']}"
                yield Violation("P4", text, job, (first.number, sight.number))
                break
        yield from _against_evidence(case, job, first)


def contradicting(case: Case) -> Iterator[Violation]:
    """Jobs that were shown with contradictory fields."""
    for job, sights in case.sights.items():
        for sight in sights:
            if sight.seen and (text := contradiction(sight.seen)):
                yield Violation("P4", text, job, (sight.number,))
                break


def contradiction(seen: Mapping[str, Any]) -> str | None:
    """The contradiction in a job as it was shown; ``None`` if there is none."""
    state, code, signal = (seen[name] for name in ("state", "exit_code", "signal"))
    how = f"exit code {code}" if signal is None else signal if code is None else f"exit code {code} and {signal}"
    if state not in FINAL:
        told = [name for name in ("exit_code", "signal", "finished_at") if seen[name] is not None]
        return f"is {state}, and has {' and '.join(told)}" if told else None
    if seen["finished_at"] is None:
        return f"{state}, and nobody says when"
    ended = code is not None or signal is not None
    wrong = code is not None and signal is not None
    wrong = wrong or (state == "succeeded" and (code != 0 or signal is not None))
    wrong = wrong or (state == "failed" and code == 0 and not seen["output_error"] and not seen["leftover"])
    return f"{state} with {how}" if ended and (wrong or state == "lost") else None


def told(case: Case) -> Iterator[Violation]:
    """Event streams that do not begin with the job, or whose states can't follow each other."""
    for stream in case.of("attend"):
        if stream.via != "events":
            continue
        if stream.first not in ("job", None):
            yield Violation("P4", f"a stream of events began with {stream.first}", stream.job, (stream.number,))
        for before, after in zip(stream.states, stream.states[1:], strict=False):
            if (before in FINAL and after != before) or after in _EARLIER.get(before, ()):
                text = f"a stream of events said that it is {before}, and then {after}"
                yield Violation("P4", text, stream.job, (stream.number,))


def _outcome(sight: Event) -> tuple[object, ...]:
    assert sight.seen is not None
    return tuple(sight.seen[name] for name in OUTCOME)


def _against_evidence(case: Case, job: str, sight: Event) -> Iterator[Violation]:
    """Contradictions between a final state and the evidence of a job of the load."""
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
    limited = job in case.requests and case.requests[job].output_limit is not None and sight.seen["output_error"]
    if code is None and state == "failed" and runs and (signal is None or (ends and not limited)):
        yield wrong(f"failed ({reason}), but the job ran" + (f" and exited with {ends.pop()}" if ends else ""))
    if state == "failed" and signal is not None and job not in case.destroyed and not limited:
        yield wrong(f"ended by {signal}, and nobody sent that")
    if state != "succeeded" and not reason:
        yield wrong(f"{state} without a reason")
    if state == "stopped" and job not in case.stops and not requests.unattended_reason(case, job, reason):
        yield wrong("stopped, and nobody asked for that")
    if (sight.seen["usage"] is None) is (code is not None or (signal is not None and state != "lost")):
        yield wrong(f"{state} with code {code} and signal {signal}, and its usage is {sight.seen['usage']}")
    expected, told = case.requests[job].background if job in case.requests else None, sight.seen["background_ended"]
    if code is not None and job not in case.stops and expected is not None and told != expected:
        yield wrong(f"{told} background processes were ended, and it left {expected}")


def refused_but_run(case: Case) -> Iterator[Violation]:
    """Requests whose every answer was "not started", but that made a run."""
    ran = {run.ticket: run.job for run in case.evidence.runs}
    answers = defaultdict(list)
    for start in case.of("start"):
        answers[start.ticket].append(start)
    for ticket, starts in answers.items():
        if ticket in ran and all(start.status in REFUSED and start.job is None for start in starts):
            said = f"answered {[start.status for start in starts]}, but it ran"
            yield Violation("P4", said, ran[ticket], tuple(start.number for start in starts))


#: Statuses of a start that mean that there is no job, unless the answer names one whose output is missing.
REFUSED = frozenset({400, 404, 409, 422, 429, 501, 503})


# -- P5: once a fault is over, all sides agree


def disagreement(case: Case) -> Iterator[Violation]:
    """Sides that did not agree in time, or do not at the end of the run."""
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
    """The difference between the scheduler's view of a job and its worker's exit record (``None``: not ended)."""
    assert isinstance(seen, dict)
    if not isinstance(exit_record, dict):
        return f"is {seen['state']}, but has not ended on its worker" if seen["state"] in FINAL else None
    there, here = (tuple(of.get(name) for name in RECORDED) for of in (exit_record, seen))
    if there != here:
        return f"is {here}, and on its worker {there}"
    return None


#: Fields that both the exit record and the API have.
RECORDED = ("state", "exit_code", "signal", "usage")

RULES: tuple[Callable[[Case], Iterator[Violation]], ...] = (
    forgotten,
    vanished,
    ran_twice,
    output,
    told_output,
    untrue,
    contradicting,
    told,
    refused_but_run,
    disagreement,
    *requests.RULES,
    *terms.RULES,
    *keeping.RULES,
)
