"""What heartbeats tell of jobs: those that have ended, and descriptions of those that the scheduler asks about.

A heartbeat must fit into a message, so ended and described jobs are spread over
as many as they need. Within one round (from one beat to the next) no job is
told twice, whatever is answered, so two sides that disagree do not spin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve

from scheduler.messages import Heartbeat, JobReport
from scheduler.worker.message_budget import MessageBudget
from scheduler.worker_interfaces import IJobs

#: Bytes of reports in one heartbeat; beside them it has the ids of all running jobs.
REPORTS_MAX_BYTES = 512 * 1024

#: Descriptions in one heartbeat: as much is read at once.
_MAX_DESCRIBED = 64


class Reports:
    """Of the jobs of one worker."""

    def __init__(self, jobs: IJobs) -> None:
        self._jobs = jobs
        #: Jobs the scheduler asks about, in order.
        self._wanted: dict[str, None] = {}
        #: Jobs told in this round: as ended, as described.
        self._told: set[str] = set()
        self._described: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is to be told, or was in this round."""
        return not (self._wanted or self._told or self._described)

    @property
    def pending(self) -> bool:
        """Whether there is more to tell in this round."""
        return bool(self._undescribed()) or any(True for _ in self._to_tell())

    def begin_round(self) -> None:
        """What was told and is not acknowledged is to be told again."""
        self._wanted.clear()
        self._told.clear()
        self._described.clear()

    def want(self, job_ids: Iterable[str]) -> None:
        """The scheduler asks about these."""
        self._wanted.update(dict.fromkeys(job_ids))

    async def describe(self) -> tuple[JobReport, ...]:
        """Descriptions for the next heartbeat."""
        asked = self._undescribed()[:_MAX_DESCRIBED]
        if not asked:
            return ()
        reports: tuple[JobReport, ...] = await self._jobs.describe(asked)
        self._described.update(set(asked) - {report.status.job_id for report in reports})  # there is nothing to tell
        return reports

    def fill(self, heartbeat: Heartbeat, reports: Iterable[JobReport]) -> Heartbeat:
        """The heartbeat with as many of these descriptions, and of the jobs that have ended, as it has room for."""
        budget = MessageBudget(REPORTS_MAX_BYTES)
        described = tuple(budget.fill(iter(reports), self._described))
        return evolve(heartbeat, described=described, ended=tuple(budget.fill(self._to_tell(), self._told)))

    def _to_tell(self) -> Iterator[JobReport]:
        return (report for report in self._jobs.unacknowledged() if report.status.job_id not in self._told)

    def _undescribed(self) -> list[str]:
        return [job_id for job_id in self._wanted if job_id not in self._described]
