"""A failing run in readable form: its plan, and, in the order of time, the events that concern the broken rule.

Shown are the faults, requests of clients and their answers, starts of processes, registrations, and each line about a
job that is concerned: the one that broke the rule, or, if there was none, all. Ids are replaced by names: a job's by
its client's ticket, a worker's by the worker's name. Of repeated lines the first is shown, with their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tests.simulation.facts import Facts
from tests.simulation.judge import Violation
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.selection import ALL, Selection
from tests.simulation.trace import line
from tests.simulation.world import Outcome, World

#: Lines that are not needed for the search for one job.
_ROUTINE = re.compile(r"(probe|heartbeat) ")

#: Parties that are always shown.
_ALWAYS = ("fault", "world", "judge", "client", "store")

#: Lines of a process that are always shown.
_EVENTS = re.compile(r"(starts|is told to stop|register |deregister )")


def described(whole: Plan, selection: Selection = ALL) -> list[str]:
    """The selected plan, a line for each part, with the name by which it can be left out."""
    left = selection.parts_of(whole)
    workers = {name: item for name, item in left.items() if isinstance(item, PlannedWorker)}
    planned = sorted((item.at, name, str(item)) for name, item in left.items() if name not in workers)
    lines = [f"{name}: a worker with {_slots(worker.slots)}" for name, worker in workers.items()]
    return [*lines, *(f"{name}: at {at:.3f} s {what}" for at, name, what in planned)]


def timeline(world: World, outcome: Outcome) -> list[str]:
    """The events that concern the violation of a finished run."""
    facts = world.judge.facts
    names = names_of(world)
    concerned = jobs_concerned(facts, outcome.violation)
    shown = (entry for entry in outcome.trace.entries() if _is_shown(entry, concerned))
    renamed = ((time, who, _renamed(what, names)) for time, who, what in shown)
    return [line(*entry) for entry in without_repeats(renamed)]


def jobs_concerned(facts: Facts, violation: Violation | None) -> list[str]:
    """Ids: the violation's job with its other attempts, or all."""
    everything = [*facts.shown, *(job_id for job_id in facts.runs if job_id not in facts.shown)]
    job = facts.shown.get((violation and violation.job) or "")
    if job is None:
        return everything
    ticket = job.spec.labels.get("ticket")
    return [each for each in everything if each == job.id or _ticket(facts, each) == ticket]


def names_of(world: World) -> dict[str, str]:
    """Names for ids: each job's ticket, with a number from the second one on; each worker's name."""
    facts = world.judge.facts
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for job_id in facts.shown:
        ticket = _ticket(facts, job_id)
        if ticket:
            counts[ticket] = counts.get(ticket, 0) + 1
            names[job_id] = ticket if counts[ticket] == 1 else f"{ticket}/{counts[ticket]}"
    for node in world.workers.values():
        if node.folder.worker_id:
            names[node.folder.worker_id] = f"<{node.name}>"
    return names


def without_repeats(entries: Iterable[tuple[float, str, str]]) -> Iterator[tuple[float, str, str]]:
    """Each group of equal entries as its first one, and a line with the number and the end of the others."""
    last: tuple[float, str, str] | None = None
    more, until = 0, 0.0
    for entry in entries:
        if last is not None and entry[1:] == last[1:]:
            more, until = more + 1, entry[0]
            continue
        if more:
            yield until, "", f"(the last line {more} times more)"
        last, more = entry, 0
        yield entry
    if more:
        yield until, "", f"(the last line {more} times more)"


def _ticket(facts: Facts, job_id: str) -> str:
    job = facts.shown.get(job_id)
    return job.spec.labels.get("ticket", "") if job is not None else ""


def _is_shown(entry: tuple[float, str, str], concerned: Iterable[str]) -> bool:
    _, who, what = entry
    if who in _ALWAYS or _EVENTS.match(what):
        return True
    if not any(job_id in what for job_id in concerned):
        return False
    return not _ROUTINE.match(what) or ("ended=[" in what and "ended=[]" not in what)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for identity, name in names.items():
        text = text.replace(identity, name)
    return text


def _slots(slots: int | None) -> str:
    return "no slots" if slots is None else f"{slots} slot{'' if slots == 1 else 's'}"
