"""Reports of jobs, as many as fit into one message."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve

from scheduler.messages import JobReport
from scheduler.model import JobSpec

#: Characters kept of each text of a report that would not fit in by itself.
_TEXT_KEPT_CHARACTERS = 4096

#: Bytes of a report, and of one text in it, beside the text itself.
_REPORT_OVERHEAD_BYTES = 256
_TEXT_OVERHEAD_BYTES = 16


class MessageBudget:
    """So many bytes for reports."""

    def __init__(self, size: int) -> None:
        self._whole = size
        self._left = size

    def fill(self, reports: Iterator[JobReport], told: set[str]) -> Iterator[JobReport]:
        """Those that have room, in order; they are added to ``told``."""
        for report in reports:
            fitting = report if _size(report) <= self._whole else _cut(report)
            self._left -= _size(fitting)
            if self._left < 0:  # and so for all that come later, or these would wait for ever
                return
            told.add(report.status.job_id)
            yield fitting


def _size(report: JobReport) -> int:
    """About how many bytes a report takes in a message."""
    status, spec = report.status, report.spec
    texts = [status.job_id, status.reason, status.output_error, *map(str, status.leftover)]
    if spec is not None:
        texts += [spec.command, *spec.args, spec.path, spec.cwd]
        for pairs in (spec.env, spec.labels):
            texts += [*pairs.keys(), *pairs.values()]
    return _REPORT_OVERHEAD_BYTES + sum(_TEXT_OVERHEAD_BYTES + len(text.encode("utf-8", "replace")) for text in texts)


def _cut(report: JobReport) -> JobReport:
    """A report that no message would carry, without what makes it so long."""
    status, spec = report.status, report.spec
    status = evolve(
        status,
        reason=status.reason[:_TEXT_KEPT_CHARACTERS],
        output_error=status.output_error[:_TEXT_KEPT_CHARACTERS],
        leftover=(),
    )
    if spec is not None:
        spec = JobSpec(
            command=spec.command[:_TEXT_KEPT_CHARACTERS],
            args=("... (too long to be reported)",),
            path=spec.path[:_TEXT_KEPT_CHARACTERS],
            cwd=spec.cwd[:_TEXT_KEPT_CHARACTERS],
            timeout=spec.timeout,
            stop_grace=spec.stop_grace,
            merge_stderr=spec.merge_stderr,
            linger=spec.linger,
            stop_signal=spec.stop_signal,
            stop_mode=spec.stop_mode,
            umask=spec.umask,
        )
    return evolve(report, status=status, spec=spec)
