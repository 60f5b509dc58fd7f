"""Judges whether output is kept for its time, and whether any answer or log shows an internal error. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.faults.case import FINAL, Case, Violation
from tests.faults.history import Event

#: The type of a 410 for output that was cut.
_CUT = "output-cut"


def kept(case: Case) -> Iterator[Violation]:
    """P6: jobs whose output was gone from their worker before its time, without a removal."""
    for job, runs in case.runs.items():
        last = case.last.get(job)
        if not runs or job not in case.requests or job in {*case.spools, *case.removals, *case.without_output}:
            continue
        if last is not None and last.seen is not None and last.seen["state"] in FINAL:
            yield Violation("P6", "ran, and its output is not on its worker any more", job, (last.number,))


def refused(case: Case) -> Iterator[Violation]:
    """P6: output reported as no longer kept, or as shorter than it is. P3: output wrongly reported as cut."""
    for event in case.of("output"):
        job, last = event.job, case.last.get(event.job or "")
        if job not in case.requests or job in {*case.removals, *case.without_output}:
            continue
        if event.status == 410 and event.problem == _CUT:
            if (
                last is not None
                and last.seen is not None
                and not last.seen["output_error"]
                and last.seen["state"] != "lost"
            ):
                yield Violation(
                    "P3", "its output is said to be cut, and the job says nothing of it", job, (event.number,)
                )
        elif event.status == 410:
            yield Violation("P6", f"its output was answered 410 {event.problem} before its time", job, (event.number,))
        elif event.status == 416 and job in case.spools and _had_ended(case, event):  # earlier it may be shorter
            size = case.spools[job].size_of(event.stream or "stdout")
            beyond = event.offset is not None and event.offset > case.spools[job].size_of("stderr")
            if (event.begin or 0) <= size and not beyond:
                text = f"byte {event.begin} is said to be beyond its output, which has {size}"
                yield Violation("P3", text, job, (event.number,))


def _had_ended(case: Case, event: Event) -> bool:
    """Whether a client had seen the job's end before this request."""
    sights = case.sights.get(event.job or "", ())
    return any(sight.seen and sight.seen["state"] in FINAL and sight.t < event.began for sight in sights)


def internal(case: Case) -> Iterator[Violation]:
    """P8: answers with 500, or no JSON, and unexpected errors in the daemons' logs."""
    for event in case.events:
        if event.op == "odd":
            yield Violation("P8", f"{event.what} was answered with {event.error}", event.job, (event.number,))
        elif event.status == 500:
            yield Violation("P8", f"a request ({event.op}) was answered 500", event.job, (event.number,))
    for daemon, error in case.evidence.errors:
        yield Violation("P8", f"{daemon} logged: {error}")


RULES: tuple[Callable[[Case], Iterator[Violation]], ...] = (kept, refused, internal)
