"""A failing run as a person reads it: what was planned, and, in the order of time, what concerns the broken rule.

Shown are the faults, what clients asked and were told, starts of processes, registrations, and each line about a job
that is concerned: the one that the rule was broken for, or, where it was none, all. Ids are replaced by names: a job is
called by the ticket of the client that wanted it, a worker's id by the worker's name. Of lines that repeat each other
the first is shown, with how often it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tests.simulation.judge import Facts, Violation
from tests.simulation.plan import Plan, PlannedWorker
from tests.simulation.selection import ALL, Selection
from tests.simulation.trace import line
from tests.simulation.world import Outcome, World

#: What no reader needs who looks for one job.
_ROUTINE = re.compile(r"(probe|heartbeat) ")

#: Who is always shown.
_ALWAYS = ("fault", "world", "judge", "client", "store")

#: Lines of a process that are always shown.
_EVENTS = re.compile(r"(starts|is told to stop|register |deregister )")


def described(whole: Plan, selection: Selection = ALL) -> list[str]:
    """What is left of a plan, a line for each part, with the name by which it can be left out."""
    left = selection.parts_of(whole)
    workers = {name: item for name, item in left.items() if isinstance(item, PlannedWorker)}
    planned = sorted((item.at, name, str(item)) for name, item in left.items() if name not in workers)
    lines = [f"{name}: a worker with {_slots(worker.slots)}" for name, worker in workers.items()]
    return [*lines, *(f"{name}: at {at:.3f} s {what}" for at, name, what in planned)]


def timeline(world: World, outcome: Outcome) -> list[str]:
    """What happened, as far as it concerns the violation of a run that is over."""
    facts = world.judge.facts
    names = names_of(world)
    concerned = jobs_concerned(facts, outcome.violation)
    shown = (entry for entry in outcome.trace.entries() if _is_shown(entry, concerned))
    renamed = ((time, who, _renamed(what, names)) for time, who, what in shown)
    return [line(*entry) for entry in without_repeats(renamed)]


def jobs_concerned(facts: Facts, violation: Violation | None) -> list[str]:
    """Ids: the job of the violation with the other attempts at the same, or all."""
    everything = [*facts.shown, *(job_id for job_id in facts.runs if job_id not in facts.shown)]
    job = facts.shown.get((violation and violation.job) or "")
    if job is None:
        return everything
    ticket = job.spec.labels.get("ticket")
    return [each for each in everything if each == job.id or _ticket(facts, each) == ticket]


def names_of(world: World) -> dict[str, str]:
    """Names for ids: of each job its ticket, with a number from the second one on; of each worker's id its name."""
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
    """Each run of equal entries as its first one, and a line with how many more there were, and until when."""
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
