"""What the lists of known faults are made of: short plans, and what a violation says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import evolve

from scheduler.model import QueueTerms, Retry, Target
from tests.simulation.acts import Submit
from tests.simulation.judge import Violation
from tests.simulation.known import Known
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act, Fault, Plan, PlannedWorker
from tests.simulation.steps import Query

#: Whether a violation looks as it should.
Looks = Callable[[Violation, Plan], bool]

#: Name, why, the rule or rules, causes, looks, and plan of a known fault.
Entry = tuple[str, str, str | Collection[str], Sequence[Collection[str]], Looks, Plan]

#: The names of two workers.
TWO = ("w1", "w2")


def says(*texts: str) -> Looks:
    """Whether the violation says one of these."""
    return lambda violation, plan: any(text in violation.what for text in texts)


def job(at: float, seconds: float, ticket: str = "t0", worker: str = "w1", query_after: float | None = None) -> Submit:
    """For that worker, now or never."""
    then = () if query_after is None else (Query(query_after),)
    return Submit(at, ticket, JobPlan(seconds, 0, 0), Target(worker=worker), then=then)


def retried(at: float, seconds: float) -> Submit:
    """The same; it fails, and is retried twice at once."""
    return evolve(
        job(at, seconds), job=JobPlan(seconds, 1, 0), terms=QueueTerms(queue_timeout=60.0, retry=Retry(2, 0.0))
    )


def a_plan(faults: tuple[Fault, ...], acts: tuple[Act, ...] = (), workers: tuple[str, ...] = ("w1",)) -> Plan:
    """Of workers with one slot each, in good weather."""
    return Plan(80.0, tuple(PlannedWorker(name, 1) for name in workers), faults, acts, slow=0.0)


def known(entries: Sequence[Entry]) -> tuple[Known, ...]:
    """The known faults of these entries."""
    return tuple(
        Known(
            name=name,
            why=why,
            rules=(rule,) if isinstance(rule, str) else rule,
            causes=causes,
            plan=plan,
            looks_right=looks,
        )
        for name, why, rule, causes, looks, plan in entries
    )
