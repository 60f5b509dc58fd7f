"""Which ended jobs make room, and in which order. Pure functions.

Work folders of ended jobs go first, the oldest first: no client can read them. Output
goes after that: a job that takes more quarters of ``spool_max`` before one that takes
fewer, otherwise the oldest first. So a job that takes more than a quarter goes itself,
and does not push out others. Where the scheduler acknowledges nothing, jobs lose their
output before one goes whole: the scheduler may still ask how it ended. A job that runs
can't go: ``counted`` has it push out a quarter at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from attrs import define

from scheduler.worker.clearing import DiskUse
from scheduler.worker.trees import NOTHING, Amount


@define(eq=False)
class Kept:
    """An ended job."""

    job_id: str
    #: By the monotonic clock.
    ended_at: float
    acknowledged: bool = False
    #: The scheduler acknowledges nothing.
    unawaited: bool = False
    #: ``None``: not looked at yet.
    taken: DiskUse | None = None
    #: Being removed or measured.
    busy: bool = False
    #: By the monotonic clock: not tried again before, as it resisted; and how often it did.
    removed_after: float = 0.0
    cleaned_after: float = 0.0
    resisted: int = 0

    @property
    def stripped(self) -> bool:
        """Whether it has lost its output, and only its records are left."""
        return self.taken is not None and self.taken.stripped

    @property
    def amount(self) -> Amount:
        return NOTHING if self.taken is None else self.taken.all


class Demand(NamedTuple):
    """How much is to go; not positive: nothing."""

    #: Bytes beyond ``spool_max``.
    over: int = 0
    #: What is missing for a start, to be taken from what was acknowledged and from work folders.
    short: Amount = NOTHING
    #: Bytes of output that may go for ``over`` at most; ``None``: no limit.
    output_max: int | None = None

    @property
    def short_met(self) -> bool:
        return self.short.size <= 0 and self.short.entries <= 0

    @property
    def met(self) -> bool:
        return self.over <= 0 and self.short_met

    def less(self, amount: Amount, output: bool) -> Demand:
        """What is to go once so much has gone."""
        short = Amount(self.short.size - amount.size, self.short.entries - amount.entries)
        output_max = self.output_max - amount.size if output and self.output_max is not None else self.output_max
        return Demand(self.over - amount.size, short, output_max)

    def allows(self, amount: Amount) -> bool:
        """Whether output of that size may go."""
        return not self.short_met or self.output_max is None or amount.size <= self.output_max


class Plan(NamedTuple):
    """Ids of jobs."""

    #: To be removed because they are old.
    expired: list[str]
    #: To lose their work folders.
    clean: list[str]
    #: To be removed for room.
    remove: list[str]
    #: To lose their output and keep their end, as the scheduler does not have it yet, or may still ask for it.
    strip: list[str]
    #: What is still missing then.
    rest: Demand


def choose(kept: Iterable[Kept], now: float, keep: float, quarter: int, demand: Demand) -> Plan:
    """What goes of ``kept``, which is in the order of their ends. ``keep`` is ``keep_spool``, ``quarter`` in bytes."""
    expired, clean, staying = [], [], []
    for job in kept:
        if job.busy:
            continue
        if (job.acknowledged or job.unawaited) and job.ended_at <= now - keep and job.removed_after <= now:
            expired.append(job.job_id)
            demand = demand.less(job.amount, output=False)
        else:
            staying.append(job)
    sizes: dict[str, Amount] = {}
    for job in staying:
        if demand.met:
            break
        work = NOTHING if job.taken is None or job.cleaned_after > now else job.taken.work
        if work.entries:
            clean.append(job.job_id)
            demand = demand.less(work, output=False)
        sizes[job.job_id] = Amount(job.amount.size - work.size, job.amount.entries - work.entries)
    if demand.met:
        return Plan(expired, clean, [], [], demand)
    staying.sort(
        key=lambda job: (
            -(sizes[job.job_id].size // max(quarter, 1)),
            not job.acknowledged,
            job.unawaited and job.stripped,
        )
    )
    remove, strip, rest = _choose_output(staying, sizes, now, demand)
    return Plan(expired, clean, remove, strip, rest)


def _choose_output(
    jobs: list[Kept], sizes: Mapping[str, Amount], now: float, demand: Demand
) -> tuple[list[str], list[str], Demand]:
    """Which of those, in that order, to remove and to strip, and what is missing then."""
    remove, strip = [], []
    for job in jobs:
        amount = sizes[job.job_id]
        if demand.met:
            break
        if job.removed_after > now or not demand.allows(amount):
            continue
        if job.acknowledged or (job.unawaited and job.stripped):
            remove.append(job.job_id)
        elif (demand.over > 0 or job.unawaited) and job.taken is not None and not job.stripped:
            strip.append(job.job_id)
        else:
            continue
        demand = demand.less(amount, output=True)
    return remove, strip, demand


def counted(ended: int, running: Collection[Amount], most: int, short: Amount, quarter: Amount) -> Demand:
    """What is to go for ``spool_max``, ``most``, and for a start that lacks ``short``.

    ``ended`` bytes are taken by ended jobs. Each job that runs counts for a ``quarter`` at most, so it pushes out no
    more than that, however much it takes; what it takes beyond that is missing for starts.
    """
    large = [each for each in running if each.size > quarter.size]
    over = ended + sum(min(each.size, quarter.size) for each in running) - most
    beyond = Amount(
        sum(max(each.size - quarter.size, 0) for each in running),
        sum(max(each.entries - quarter.entries, 0) for each in running),
    )
    return Demand(
        over,
        Amount(short.size - beyond.size, short.entries - beyond.entries),
        # Not again in the next sweep: so much has to stay, whatever went before.
        max(ended - (most - len(large) * quarter.size), 0) if large and ended <= most else None,
    )
