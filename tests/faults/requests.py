"""Judges requests about jobs and their answers: the promises P6 to P9. Pure, like ``checker``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.faults import job as load_job
from tests.faults.case import FINAL, Case, Violation
from tests.faults.history import Event

#: Seconds by which clocks and threads of the harness may be late.
SLACK = 0.5


# -- P6: what was removed is gone, and nothing else


def removed(case: Case) -> Iterator[Violation]:
    """Jobs that were seen after their removal, not removed as promised, or removed without a request."""
    for job, asked in case.removals.items():
        done, last = case.removed.get(job), case.last.get(job)
        there = last is not None and last.seen is not None
        lines = tuple(event.number for event in asked)
        if asked[0].status == 404:
            yield Violation("P6", "was not found when it was first to be removed", job, lines[:1])
        if done is not None:
            yield from _seen_again(case, job, done)
        elif there and any(event.status == 202 for event in asked):
            yield Violation("P6", "is still there, though its removal was promised", job, lines)
        elif not there and case.last and all(event.status in (409, 503) for event in asked):
            yield Violation("P6", "is gone, though each request to remove it was refused", job, lines)
        if done is None and last is not None and last.seen and last.seen["remove_requested_at"]:
            yield Violation("P6", "is still to be removed when everything is over", job, (*lines, last.number))
    for start in case.of("start"):
        if start.status == 410 and start.job not in case.removals:
            yield Violation("P6", "is said to be removed, and nobody asked for that", start.job, (start.number,))


def _seen_again(case: Case, job: str, done: Event) -> Iterator[Violation]:
    def again(event: Event, text: str) -> Violation:
        return Violation("P6", f"{text} after it was removed", job, (done.number, event.number))

    for sight in case.sights.get(job, ()):
        if sight.seen and sight.began > done.t:
            yield again(sight, f"was seen ({sight.via})")
            break
    for event in case.of("output", "read", "attend", "start"):
        if event.job != job or event.began <= done.t:
            continue
        if event.op == "output" and event.status != 404:
            yield again(event, f"a request for its output was answered {event.status}")
        elif event.op == "attend" or (event.op == "read" and event.length):
            yield again(event, "it was followed")
        elif event.op == "start" and event.status != 410:
            yield again(event, f"its key was answered {event.status}")
    if job in case.spools:
        yield Violation("P6", f"was removed, and {case.spools[job].worker} still has it", job, (done.number,))


# -- P7: a signal arrives once, and only where it was sent


def signalled(case: Case) -> Iterator[Violation]:
    """Jobs that counted other signals than clients sent them."""
    sent: dict[str, list[Event]] = {}
    for event in case.of("signal"):
        sent.setdefault(event.job or "", []).append(event)
    for job in {*sent, *case.runs}:
        runs, events = case.runs.get(job, []), sent.get(job, [])
        lines = tuple(event.number for event in events)
        counted = sum(run.signals for run in runs)
        acknowledged = [event for event in events if event.status == 200]
        most = len(acknowledged) + sum(event.status in (None, 504) for event in events)
        if counted > most:
            yield Violation("P7", f"counted {counted} signals, and at most {most} were sent to it", job, lines)
        for run in runs:
            due = [event for event in acknowledged if run.ended is not None and event.t < run.ended]
            if counted < len(due):
                yield Violation("P7", f"counted {counted} signals, and {len(due)} were acknowledged", job, lines)
        ends = [sight.t for sight in case.sights.get(job, ()) if sight.seen and sight.seen["state"] in FINAL]
        for event in acknowledged:
            if ends and min(ends) < event.began:
                yield Violation("P7", "had ended when a signal to it was acknowledged", job, (event.number,))


# -- P8: an answer is that of the job


def answers(case: Case) -> Iterator[Violation]:
    """Answers at the end of a job whose status or output contradicts the job."""
    for event in case.of("answer"):
        if event.seen is None or event.asked is None:
            continue

        def wrong(text: str, event: Event = event) -> Violation:
            return Violation("P8", f"{event.via} {event.asked}: {text}", event.job, (event.number,))

        state, wait = event.seen["state"], event.asked["wait"]
        expected = _status(event.via == "post", event.asked["check"], state)
        if (event.status, event.problem) != expected:
            yield wrong(f"was answered {event.status} {event.problem}, and the job is {state}")
        early = state not in FINAL and event.t - event.began < wait - 0.1
        if early and not any(event.began <= fault.t <= event.t for fault in case.of("fault")):
            yield wrong(f"was answered as {state} after {event.t - event.began:.2f} s")
        for stream in ("stdout", "stderr"):
            tail = (event.tails or {}).get(stream)
            if tail is None:
                yield wrong(f"has no {stream}")
            elif "error" in tail:
                if case.calm(event):
                    yield wrong(f"has no {stream} though all was well: {tail['error']}")
            elif text := _tail(case, event, stream, tail):
                yield wrong(f"{stream} {text}")


def _status(post: bool, check: bool, state: str) -> tuple[int, str | None]:
    """The status and the type of problem in the answer to a request that waited."""
    done = 201 if post else 200
    if state == "succeeded" or (state in FINAL and not check):
        return done, None
    if not check:
        return 202, None
    if state in FINAL:
        return 424, "job-failed"
    return (424 if post else 504), "job-not-ended"


def _tail(case: Case, event: Event, stream: str, tail: Mapping[str, Any]) -> str | None:
    """The fault in the end of a stream in an answer; ``None`` if there is none."""
    assert event.seen is not None
    assert event.asked is not None
    job, offset, length, most = event.job or "", tail["offset"], tail["length"], event.asked["output"]
    reached = offset + length
    if tail["cut"] is not (offset > 0):
        return f"begins at {offset}, and says that it is {'' if tail['cut'] else 'not '}cut"
    if event.seen["state"] in FINAL:
        spool = case.spools.get(job)
        kept = None if spool is None else spool.size if stream == "stdout" else spool.error_size
        for whole, where in ((event.seen[f"{stream}_bytes"], "the answer says"), (kept, "its worker has")):
            if whole not in (None, reached):
                return f"ends at {reached}, and {where} {whole} bytes"
    if length != min(most, reached):
        return f"has {length} of {reached} bytes, and {most} were asked for"
    if job in case.seeds:
        printed = load_job.output if stream == "stdout" else load_job.error_output
        if hashlib.sha256(printed(*case.seeds[job])[offset:reached]).hexdigest() != tail["sha256"]:
            return f"from {offset} to {reached} is not what the job wrote"
    return None


def failed_but_made(case: Case) -> Iterator[Violation]:
    """Requests that made a job but got an error that makes clients repeat them; 504 with the job's id is allowed."""
    ran = {run.ticket: run.job for run in case.evidence.runs}
    for start in case.of("start"):
        if start.status is None or (start.status < 500 and start.status != 429):
            continue
        if start.job is not None and start.status != 504:
            yield Violation("P8", f"answered {start.status}, though it is a job", start.job, (start.number,))
        elif start.job is None and start.key is None and start.status not in (429, 503) and start.ticket in ran:
            text = f"answered {start.status}, which does not name the job that it made"
            yield Violation("P8", text, ran[start.ticket or ""], (start.number,))


# -- P9: a job that is attended is not stopped for want of it, and one that is not is


def attendance(case: Case) -> Iterator[Violation]:
    """Jobs stopped as unattended that were attended, and unattended jobs that continued."""
    for job, request in case.requests.items():
        if request.unattended is None:
            continue
        attended = sorted((event for event in case.of("attend") if event.job == job), key=lambda event: event.began)
        final = next((s for s in case.sights.get(job, ()) if s.seen and s.seen["state"] in FINAL), None)
        if final is not None and final.seen is not None and unattended_reason(case, job, final.seen["reason"]):
            ended = final.seen.get("ended", final.t)
            longest = _longest_absence(case, request, attended, ended)
            if longest < request.unattended - SLACK:
                text = f"stopped for want of a client, which was away for {longest:.2f} of {request.unattended:.2f} s"
                yield Violation("P9", text, job, (request.number, *(event.number for event in attended)))
        if not attended:
            yield from _went_on(case, job, request, final)


def unattended_reason(case: Case, job: str, reason: object) -> bool:
    """Whether the reason says that the job was stopped for lack of attendance."""
    unattended = case.requests[job].unattended if job in case.requests else None
    return unattended is not None and "no client followed it or waited for it" in str(reason)


def _longest_absence(case: Case, request: Event, attended: list[Event], ended: float) -> float:
    """The most seconds without a client, as the scheduler can have counted them: it starts anew when it is back.

    After a pause it starts anew only if its timer was late by more than a second, so a pause may count, too.
    """
    anew = [event.began for event in case.of("heal") if event.what == "scheduler serves"]
    asked = [event.began for event in case.of("start") if event.ticket == request.ticket]
    longest, left = 0.0, min(asked)
    for came, next_left in [*((min(event.began, ended), event.t) for event in attended), (ended, ended)]:
        since = max([left, *(time for time in anew if left < time < came)])
        longest, left = max(longest, came - since), max(left, next_left)
    return longest


def _went_on(case: Case, job: str, request: Event, final: Event | None) -> Iterator[Violation]:
    """An unattended job that runs longer than its time, plus the time to agree after a fault."""
    assert request.unattended is not None
    due = case.due(request.t, request.unattended)
    ended = final.seen.get("ended", final.t) if final and final.seen else None
    if ended is None and job in case.last and case.last[job].seen is not None:
        yield Violation("P9", "nobody attends it, and it was not stopped", job, (request.number,))
    elif ended is not None and ended > due:
        text = f"nobody attended it, and it ended {ended - due:.1f} s later than it had to"
        yield Violation("P9", text, job, (request.number, final.number if final else 0))


RULES: tuple[Callable[[Case], Iterator[Violation]], ...] = (removed, signalled, answers, failed_but_made, attendance)
