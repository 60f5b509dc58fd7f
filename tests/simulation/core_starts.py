"""Starts on core workers as the scheduler's client hears of them: answered in time, late, or never.

A core worker tells its id of a job with the answer to the start alone. So it is remembered which starts may be
answered yet, and which were, for the rule that no such job may be given up.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scheduler.errors import DeadlineExceeded
from scheduler.messages import JobStatus
from scheduler.model import JobState
from tests.simulation.process import Process

#: Seconds for which an answer is listened for; nobody waits for it for longer than the deadline of all calls.
LISTENS = 15.0


class CoreStarts:
    """Those of one process of the scheduler."""

    def __init__(self, process: Process, deadline: float) -> None:
        """``deadline``: seconds after which a start fails that is not answered."""
        self._process = process
        self._deadline = deadline
        # ids of jobs
        self._open: set[str] = set()
        self._answered: set[str] = set()

    def may_be_traced(self, job_id: str) -> bool:
        """Whether the worker's id of that job is known to the client, or may be yet."""
        return job_id in self._open or job_id in self._answered

    def is_open(self, job_id: str) -> bool:
        """Whether the start of that job may be answered yet."""
        return job_id in self._open

    def follow(
        self, job_id: str, started: Deferred[str], late: Callable[[Deferred[JobStatus]], None] | None
    ) -> Deferred[JobStatus]:
        """The start of a job, whose answer is ``started``: it fails at the deadline, and the rest is for ``late``."""
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
            if answers[0] is not heard:
                answers[0].addErrback(lambda _: None)

        timer = self._process.loop.after(self._deadline, self._process.run, too_late)
        started.addBoth(over)
        return heard
