"""Chooses which ended jobs make room, and in which order. Pure functions.

Work folders of ended jobs go first, the oldest first: no client can read them. Output goes after that: first of jobs
that take more quarters of ``spool_max``, otherwise the oldest first. So a job that takes more than a quarter is removed
itself, and does not push out others. If the scheduler acknowledges nothing, jobs lose their output before one is
removed: the scheduler may still ask for its end. A running job is never removed; for its use, ended jobs lose a quarter
of ``spool_max`` at most (``counted``).
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
    #: ``None``: not measured yet.
    taken: DiskUse | None = None
    #: An operation works on its folder.
    busy: bool = False
    #: Times, by the monotonic clock, before which a removal that failed is not tried again; and how often one failed.
    removed_after: float = 0.0
    cleaned_after: float = 0.0
    resisted: int = 0

    @property
    def stripped(self) -> bool:
        return self.taken is not None and self.taken.stripped

    @property
    def amount(self) -> Amount:
        return NOTHING if self.taken is None else self.taken.all


class Demand(NamedTuple):
    """The space that is to be freed. A number that is not positive asks for nothing."""

    #: Bytes beyond ``spool_max``.
    over: int = 0
    #: Missing for a start. Only acknowledged jobs and work folders are removed for it.
    short: Amount = NOTHING
    #: Bytes of output that may be removed for ``over``, at most; ``None``: no limit.
    output_max: int | None = None

    @property
    def short_met(self) -> bool:
        return self.short.size <= 0 and self.short.entries <= 0

    @property
    def met(self) -> bool:
        return self.over <= 0 and self.short_met

    def less(self, amount: Amount, output: bool) -> Demand:
        """Answer the rest of the demand once ``amount`` was freed."""
        short = Amount(self.short.size - amount.size, self.short.entries - amount.entries)
        output_max = self.output_max - amount.size if output and self.output_max is not None else self.output_max
        return Demand(self.over - amount.size, short, output_max)

    def allows(self, amount: Amount) -> bool:
        return not self.short_met or self.output_max is None or amount.size <= self.output_max


class Plan(NamedTuple):
    """The chosen jobs, by id."""

    #: To be removed because they are old.
    expired: list[str]
    #: To lose their work folders.
    clean: list[str]
    #: To be removed for room.
    remove: list[str]
    #: To lose their output alone: the scheduler does not have their end yet, or may still ask for it.
    strip: list[str]
    #: The demand that is not met by that.
    rest: Demand


def choose(kept: Iterable[Kept], now: float, keep: float, quarter: int, demand: Demand) -> Plan:
    """Choose among ``kept``, which is in the order of their ends. ``keep`` is ``keep_spool``, ``quarter`` in bytes."""
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
    """Choose, in the order of ``jobs``, which to remove and which to strip; answers also the demand that is left."""
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
    """Compute the demand of ``spool_max``, which is ``most``, and of a start that lacks ``short``.

    ``ended`` bytes are taken by ended jobs. Each running job counts for a ``quarter`` at most, so it pushes out no more
    than that, however much it takes. The rest of its use is not freed for starts either.
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
        # A fixed amount stays, whatever was removed before: otherwise each sweep would remove some more.
        max(ended - (most - len(large) * quarter.size), 0) if large and ended <= most else None,
    )
