"""Fills heartbeats with reports: of jobs that have ended, and of those that the scheduler asks about.

A heartbeat must fit into a message, so the reports are spread over as many heartbeats as they need. Within one round
(from one beat to the next) no job is reported twice, whatever the answer is, so two sides that disagree do not call
each other endlessly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve

from scheduler.messages import Heartbeat, JobReport
from scheduler.terms import EMPTY
from scheduler.worker_interfaces import IJobs

#: Bytes of reports in one heartbeat, which also has the ids of all running jobs.
REPORTS_MAX_BYTES = 512 * 1024

#: Descriptions in one heartbeat: their specs are read at once.
_MAX_DESCRIBED = 64

#: Characters that are kept of each text of a report that is too long for a message.
_TEXT_KEPT_CHARACTERS = 4096

#: Bytes of a report, and of one text in it, beside the text itself.
_REPORT_OVERHEAD_BYTES = 256
_TEXT_OVERHEAD_BYTES = 16


class Reports:
    """The reports of one worker's jobs."""

    def __init__(self, jobs: IJobs) -> None:
        self._jobs = jobs
        #: Jobs that the scheduler asks about, in order.
        self._wanted: dict[str, None] = {}
        #: Jobs that were reported in this round: as ended, as described.
        self._told: set[str] = set()
        self._described: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is to be reported, or was reported in this round."""
        return not (self._wanted or self._told or self._described)

    @property
    def pending(self) -> bool:
        """Whether there is more to report in this round."""
        return bool(self._undescribed()) or any(True for _ in self._to_tell())

    def begin_round(self) -> None:
        """Report again, from now on, the ends that are not acknowledged."""
        self._wanted.clear()
        self._told.clear()
        self._described.clear()

    def want(self, job_ids: Iterable[str]) -> None:
        self._wanted.update(dict.fromkeys(job_ids))

    async def describe(self) -> tuple[JobReport, ...]:
        """Describe the next few jobs that the scheduler asked about; ``fill`` puts the result into a heartbeat."""
        asked = self._undescribed()[:_MAX_DESCRIBED]
        if not asked:
            return ()
        reports: tuple[JobReport, ...] = await self._jobs.describe(asked)
        self._described.update(set(asked) - {report.status.job_id for report in reports})  # there are no such jobs
        return reports

    def fill(self, heartbeat: Heartbeat, reports: Iterable[JobReport]) -> Heartbeat:
        """Add as many of these descriptions, and of the ended jobs, as the heartbeat has room for."""
        budget = MessageBudget(REPORTS_MAX_BYTES)
        described = tuple(budget.fill(iter(reports), self._described))
        return evolve(heartbeat, described=described, ended=tuple(budget.fill(self._to_tell(), self._told)))

    def _to_tell(self) -> Iterator[JobReport]:
        return (report for report in self._jobs.unacknowledged() if report.status.job_id not in self._told)

    def _undescribed(self) -> list[str]:
        return [job_id for job_id in self._wanted if job_id not in self._described]


class MessageBudget:
    """The bytes that the reports of one message may take."""

    def __init__(self, size: int) -> None:
        self._whole = size
        self._left = size

    def fill(self, reports: Iterator[JobReport], told: set[str]) -> Iterator[JobReport]:
        """Go through the reports that have room, in order, and add their jobs to ``told``."""
        for report in reports:
            fitting = report if _size(report) <= self._whole else _cut(report)
            self._left -= _size(fitting)
            if self._left < 0:  # the later ones wait, too: small ones would otherwise always overtake a large one
                return
            told.add(report.status.job_id)
            yield fitting


def _size(report: JobReport) -> int:
    """Estimate the bytes of a report in a message."""
    status, spec = report.status, report.spec
    texts = [status.job_id, status.reason, status.output_error, *map(str, status.leftover)]
    if spec is not None:
        texts += [spec.command, *spec.args, spec.path, spec.cwd]
        for pairs in (spec.env, spec.labels):
            texts += [*pairs.keys(), *pairs.values()]
    return _REPORT_OVERHEAD_BYTES + sum(_TEXT_OVERHEAD_BYTES + len(text.encode("utf-8", "replace")) for text in texts)


def _cut(report: JobReport) -> JobReport:
    """Shorten a report that is too long for a message."""
    status, spec = report.status, report.spec
    status = evolve(
        status,
        reason=status.reason[:_TEXT_KEPT_CHARACTERS],
        output_error=status.output_error[:_TEXT_KEPT_CHARACTERS],
        leftover=(),
    )
    if spec is not None:
        spec = evolve(
            spec,
            command=spec.command[:_TEXT_KEPT_CHARACTERS],
            args=("... (too long to be reported)",),
            path=spec.path[:_TEXT_KEPT_CHARACTERS],
            cwd=spec.cwd[:_TEXT_KEPT_CHARACTERS],
            env=EMPTY,
            labels=EMPTY,
            output_limit=None,
        )
    return evolve(report, status=status, spec=spec)
