"""Judges whether jobs ran by the terms of their requests: stdin, timeouts, limits, attempts, stops. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from tests.faults import job as load_job
from tests.faults.case import FINAL, Case, Violation
from tests.faults.evidence import Run
from tests.faults.history import Event

#: Seconds by which a shim may end a job late on a busy machine, and early because of clocks.
LATE_MAX_SECONDS = 5.0
EARLY_MAX_SECONDS = 0.3

#: States of a job after which it may be retried.
_TRIED_AGAIN = frozenset({"failed", "timed_out"})


def given(case: Case) -> Iterator[Violation]:
    """P1: jobs that did not get the stdin that was sent with them."""
    for job, runs in case.runs.items():
        request = case.requests.get(job)
        if request is None or request.seed is None or request.stdin is None:
            continue
        expected = hashlib.sha256(load_job.stdin(request.seed, request.stdin)).hexdigest()
        if any(run.stdin not in (None, expected) for run in runs):
            yield Violation("P1", f"was to get {request.stdin} bytes of stdin, and got others", job, (request.number,))


def timed(case: Case) -> Iterator[Violation]:
    """P4: jobs that timed out without a ``timeout`` or before it, and jobs that ran long after it."""
    for job, request in case.requests.items():
        runs = case.runs.get(job, [])
        out = next((s for s in case.sights.get(job, ()) if s.seen and s.seen["state"] == "timed_out"), None)
        if out is not None and request.timeout is None:
            yield Violation("P4", "timed out, and had no timeout", job, (request.number, out.number))
        elif out is not None and (early := _early(request, runs, out)):
            yield Violation("P4", f"timed out {early:.2f} s before its time", job, (request.number, out.number))
        if request.timeout is None:
            continue
        for run in runs:
            if run.began is None or run.ended is None:
                continue
            late = run.ended - run.began - request.timeout
            if late > LATE_MAX_SECONDS:
                yield Violation("P4", f"ran on for {late:.1f} s after its timeout", job, (request.number,))


def _early(request: Event, runs: list[Run], out: Event) -> float:
    """The least seconds by which a job timed out too early; 0: none."""
    assert request.timeout is not None
    left = [request.timeout - (out.t - run.began) for run in runs if run.began is not None]
    return max([0.0, *(seconds for seconds in left if seconds > EARLY_MAX_SECONDS)])


def limited(case: Case) -> Iterator[Violation]:
    """P3: more output than a job's ``output_limit``, or a reached limit that the job did not have."""
    for job, request in case.requests.items():
        last = case.last.get(job)
        reason = (last.seen["output_error"] if last and last.seen else None) or ""
        if request.output_limit is None:
            if last is not None and "output limit" in reason:
                yield Violation("P3", f"{reason}, and it had none", job, (request.number, last.number))
            continue
        if job not in case.spools:
            continue
        size = sum(size for _, size, _ in case.spools[job].streams)
        if size > request.output_limit:
            text = f"has {size} bytes of output, and its limit is {request.output_limit}"
            yield Violation("P3", text, job, (request.number,))
        elif last is not None and "output limit" in reason and size < request.output_limit:
            text = f"{reason}, and there are {size} of {request.output_limit} bytes"
            yield Violation("P3", text, job, (request.number, last.number))


# -- retry


def retried(case: Case) -> Iterator[Violation]:
    """P1 and P2: attempts that are missing, too many, too early, or after an end that is not retried."""
    for job, request in case.requests.items():
        before = case.attempts(job)[:-1]
        if (allowed := request.attempts) is None:  # not known
            continue
        if len(before) > allowed:
            text = f"is attempt {len(before) + 1} of its request, which allows {allowed + 1}"
            yield Violation("P2", text, job, (request.number,))
        if before:
            yield from _follows(case, job, before[-1])
        last = case.last.get(job)
        if last is None or last.seen is None or job in case.adopted:
            continue
        if job in case.stops or last.seen["stop_requested_at"]:
            continue  # a stop ends the attempts, also one for lack of attendance
        ran = last.seen["exit_code"] is not None or last.seen["signal"] is not None
        if ran and last.seen["state"] in _TRIED_AGAIN and len(before) < allowed and not last.seen["retried_by"]:
            text = f"{last.seen['state']} as attempt {len(before) + 1} of {allowed + 1}, and is not tried again"
            yield Violation("P1", text, job, (request.number, last.number))


def _follows(case: Case, job: str, before: str) -> Iterator[Violation]:
    ends = [sight for sight in case.sights.get(before, ()) if sight.seen and sight.seen["state"] in FINAL]
    for end in ends[:1]:
        assert end.seen is not None
        if end.seen["state"] not in _TRIED_AGAIN:
            yield Violation("P2", f"is another attempt of {before}, which {end.seen['state']}", job, (end.number,))
    began = [run.began for run in case.runs.get(job, ()) if run.began is not None]
    ended = [run.ended for run in case.runs.get(before, ()) if run.ended is not None]
    if began and ended and min(began) < max(ended):
        yield Violation("P2", f"began {max(ended) - min(began):.2f} s before {before} had ended", job)


# -- stops


def stopped(case: Case) -> Iterator[Violation]:
    """P5: jobs that continue, or are retried, after a stop that was promised or reported as done."""
    for stop in case.of("stop"):
        if stop.job is None or stop.status not in (200, 202):
            continue
        job, lines = stop.job, (stop.number,)
        last = case.last.get(job)
        due = case.due(stop.t)
        if last is not None and last.seen is not None and last.seen["state"] not in FINAL:
            yield Violation("P5", f"is {last.seen['state']}, and its stop was answered {stop.status}", job, lines)
        elif stop.status == 200 and job not in case.retried and (on := _on(case, job, stop)) is not None:
            text = f"was {on.seen and on.seen['state']} after its stop was answered 200"
            yield Violation("P5", text, job, (stop.number, on.number))
        first = case.attempts(job)[0]
        for other, runs in case.runs.items():
            if case.attempts(other)[0] != first:
                continue
            for run in runs:
                if run.began is not None and run.began > due:
                    yield Violation("P5", f"began {run.began - stop.t:.1f} s after the stop of {job}", other, lines)
                elif run.ended is not None and run.ended > due:
                    yield Violation("P5", f"ran on for {run.ended - stop.t:.1f} s after its stop", other, lines)


def _on(case: Case, job: str, stop: Event) -> Event | None:
    """A later observation of the job as not ended."""
    later = (sight for sight in case.sights.get(job, ()) if sight.seen and sight.began >= stop.t)
    on = (sight for sight in later if sight.seen and sight.seen["state"] not in FINAL)
    return next((sight for sight in on if case.remembers(sight)), None)


RULES: tuple[Callable[[Case], Iterator[Violation]], ...] = (given, timed, limited, retried, stopped)
