"""The acts of a run's clients, by the kind of run: values drawn from a source of randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType

from attrs import frozen

from scheduler.model import Stream
from scheduler.terms import QueueTerms, Retry, Target
from tests.simulation import steps
from tests.simulation.acts import Drain, Forget, ListJobs, StopMatching, Submit
from tests.simulation.follow import Follow, Read
from tests.simulation.machine import LINE
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.plan import Act
from tests.simulation.steps import Step

#: Seconds of a job that does not end by itself within a run.
ENDLESS = 2000.0

#: Seconds before the end of the faults after which no client begins anything.
QUIET = 10.0


@frozen
class Workload:
    """The parameters of a workload. Shares are of the submissions, from 0 to 1, unless a comment says otherwise."""

    submissions: tuple[int, int] = (5, 30)
    #: Seconds that jobs run, before they are spread.
    seconds: tuple[float, ...] = (0.05, 1.0, 5.0, 20.0)
    selectors: tuple[Mapping[str, str], ...] = (MappingProxyType({}), MappingProxyType({"kind": "a"}))
    by_selector: float = 0.75
    queue_timeouts: tuple[float, ...] = (5.0, 600.0)
    priorities: tuple[int, ...] = (0, 0, 5)
    retried: float = 0.2
    keyed: float = 0.6
    in_bursts: float = 0.3
    #: Jobs that do not end: half of them are stopped, the others must be attended.
    endless: float = 0.05
    #: The most lines that a job writes, and the most clients that follow it.
    lines: int = 8
    written: float = 0.3
    followers: int = 1
    followed: float = 0.15
    read: float = 0.1
    stopped: float = 0.15
    removed: float = 0.08
    signalled: float = 0.15
    hung_up: float = 0.08
    sent_again: float = 0.15
    #: Shares of the runs.
    drained: float = 0.4
    listed: float = 0.3
    matching_stopped: float = 0.2
    forgotten: float = 0.1


MIXED = Workload()

QUEUE = Workload(
    submissions=(20, 45),
    seconds=(0.5, 2.0, 4.0),
    selectors=tuple(MappingProxyType(each) for each in ({}, {"kind": "a"}, {"kind": "b"}, {"zone": "x"})),
    by_selector=0.9,
    queue_timeouts=(2.0, 10.0, 30.0, 600.0, 600.0),
    priorities=(-5, 0, 0, 0, 5, 5, 100),
    retried=0.35,
    in_bursts=0.6,
    drained=0.8,
)

OUTPUT = Workload(
    submissions=(4, 14),
    seconds=(0.05, 2.0, 8.0, 25.0),
    lines=60,
    written=0.95,
    followers=4,
    followed=0.9,
    read=0.5,
    removed=0.15,
    retried=0.1,
    drained=0.1,
)


def make_acts(random: Random, workload: Workload, workers: Sequence[str], length: float) -> list[Act]:
    """The acts in a run of so many seconds, with workers of these names."""
    acts: list[Act] = [
        _submit(random, workload, number, workers, length) for number in range(random.randint(*workload.submissions))
    ]
    if random.random() < workload.drained:
        acts += _drains(random, random.choice(workers), length)
    if random.random() < workload.listed:
        acts.append(ListJobs(random.uniform(5.0, length), random.randint(1, 10), random.choice((0.0, 0.5, 3.0))))
    if random.random() < workload.matching_stopped:
        acts.append(StopMatching(random.uniform(12.0, length), f"t{random.randint(0, 10)}"))
    if random.random() < workload.forgotten:
        acts.append(Forget(random.uniform(5.0, length), random.choice((*workers, "nobody"))))
    return acts


def _drains(random: Random, worker: str, length: float) -> list[Act]:
    at = random.uniform(2.0, length - 20.0)
    drains: list[Act] = [Drain(at, worker)]
    if random.random() < 0.7:
        drains.append(Drain(at + random.uniform(2.0, 18.0), worker, resume=True))
    return drains


def _submit(random: Random, workload: Workload, number: int, workers: Sequence[str], length: float) -> Act:
    lines = random.randint(1, workload.lines) if random.random() < workload.written else 0
    endless = random.random() < workload.endless
    seconds = ENDLESS if endless else round(random.choice(workload.seconds) * random.uniform(0.5, 1.5), 2)
    withdraw = random.uniform(1.0, 40.0) if endless and random.random() < 0.5 else None
    attended = endless and withdraw is None
    by_selector = random.random() < workload.by_selector
    target = Target(selector=random.choice(workload.selectors)) if by_selector else Target(random.choice(workers))
    retry = None
    if random.random() < workload.retried and not endless:
        retry = Retry(random.randint(1, 2), random.choice((0.0, 2.0)))
    terms = QueueTerms(
        queue_timeout=random.choice(workload.queue_timeouts) if by_selector or random.random() < 0.5 else 0.0,
        priority=random.choice(workload.priorities),
        retry=retry,
        unattended_timeout=random.uniform(3.0, 20.0) if attended or random.random() < 0.03 else None,
    )
    return Submit(
        at=10.0 + number * 0.01 if random.random() < workload.in_bursts else random.uniform(1.0, length - QUIET),
        ticket=f"t{number}",
        job=JobPlan(seconds, random.choice((0, 0, 1, 7)), lines),
        target=target,
        terms=terms,
        key=f"k{number // 2}" if random.random() < workload.keyed else None,
        by=f"local:{number % 2}",  # two principals use the same key
        then=_steps(random, workload, seconds, lines, resume=not attended),
        follow=_follow(random, lines, not attended) if random.random() < workload.followed / 2 else None,
        hang_up=random.uniform(0.0, 0.5) if not endless and random.random() < workload.hung_up else None,
        again=random.choice((0.5, 3.0, 30.0)),
        withdraw=withdraw,
    )


def _follow(random: Random, lines: int, resumes: bool) -> Follow:
    leaves = not resumes or random.random() < 0.3
    return Follow(
        after=random.choice((0.0, random.uniform(0.0, 20.0))),
        stream=random.choice((Stream.STDOUT,) * 4 + (Stream.STDERR,)),
        begin=random.choice((0, 0, 0, random.randint(0, lines * LINE))),
        slow=random.choice((0.0, 0.0, 0.0, 0.3, 5.0)),
        hang_up=random.uniform(0.0, 15.0) if leaves else None,
        resumes=resumes and random.random() < 0.8,
    )


def _steps(random: Random, workload: Workload, seconds: float, lines: int, resume: bool) -> tuple[Step, ...]:
    """The steps after a submission."""
    late = min(seconds, 20.0) + 5.0
    made: list[Step] = []

    def add(share: float, make: Callable[[float], Step]) -> None:
        if random.random() < share:
            made.append(make(random.uniform(0.0, late)))

    while random.random() < workload.followed and len(made) < workload.followers:
        made.append(_follow(random, lines, resume))
    add(workload.read, lambda at: Read(at, random.randint(0, lines * LINE), random.choice((0, 40, 4096))))
    add(workload.stopped, steps.Stop)
    add(0.25, steps.Query)
    add(0.1, steps.Look)
    for attempts in (False, True):
        add(
            0.2,
            lambda at, attempts=attempts: steps.Wait(  # type: ignore[misc]
                at, random.choice((0.0, random.uniform(1.0, 60.0))), attempts, random.choice((None, None, 2.0))
            ),
        )
    add(workload.signalled, lambda at: steps.Signal(at / 3, random.choice(("SIGKILL", "SIGUSR1", "SIGUSR1"))))
    add(workload.removed, steps.Remove)
    add(workload.sent_again, lambda at: steps.Resubmit(at * random.choice((0.1, 1.0, 3.0)), random.random() < 0.4))
    return tuple(made)
