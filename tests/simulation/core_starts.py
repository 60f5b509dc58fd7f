"""Starts on core workers as the scheduler's client sees them: answered in time, late, or never.

A core worker gives its id of a job only in the answer to the start. So this module records which starts may still be
answered, and which were, for the rule that no such job may be given up.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scheduler.errors import DeadlineExceeded
from scheduler.messages import JobStatus
from scheduler.model import JobState
from tests.simulation.process import Process

#: Seconds for which a late answer is awaited; no longer than the deadline of all calls.
LISTENS = 15.0


class CoreStarts:
    """The starts of one process of the scheduler."""

    def __init__(self, process: Process, deadline: float) -> None:
        """``deadline``: seconds after which a start without an answer fails."""
        self._process = process
        self._deadline = deadline
        # ids of jobs
        self._open: set[str] = set()
        self._answered: set[str] = set()

    def may_be_traced(self, job_id: str) -> bool:
        """Whether the client knows, or may still learn, the worker's id of that job."""
        return job_id in self._open or job_id in self._answered

    def is_open(self, job_id: str) -> bool:
        """Whether the start of that job may still be answered."""
        return job_id in self._open

    def follow(
        self, job_id: str, started: Deferred[str], late: Callable[[Deferred[JobStatus]], None] | None
    ) -> Deferred[JobStatus]:
        """The start of a job with the answer ``started``: it fails at the deadline, and a later answer goes to
        ``late``.
        """
        heard: Deferred[JobStatus] = Deferred()
        answers = [heard]
        self._open.add(job_id)

        def too_late() -> None:
            if heard.called:  # while this process was frozen
                return
            answers[0] = Deferred()
            if late is not None:
                late(answers[0])
            heard.errback(DeadlineExceeded(f"start of job {job_id}", self._deadline))

        def over(result: str | Failure) -> None:
            self._open.discard(job_id)
            if timer.active():
                timer.cancel()
            if isinstance(result, Failure):
                answers[0].errback(result)
            else:
                self._answered.add(job_id)
                answers[0].callback(JobStatus(result, JobState.RUNNING))
            if answers[0] is not heard and late is None:
                answers[0].addErrback(lambda _: None)  # nobody listens

        timer = self._process.loop.after(self._deadline, self._process.run, too_late)
        started.addBoth(over)
        return heard
