"""The events of a run that rules may judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scheduler.errors import SchedulerError
from scheduler.model import Job, Worker
from tests.simulation.machine import Run

if TYPE_CHECKING:
    from tests.simulation.clients import Reply
    from tests.simulation.facts import Facts
    from tests.simulation.follow import Follower
    from tests.simulation.nodes import SchedulerProcess

#: Takes the name of the rule, a description of the violation, and the job's id.
Broken = Callable[..., None]


class Rule:
    """A subclass judges one subject, and overrides the events that it needs."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        self.facts = facts
        self.broken = broken

    def began(self, run: Run) -> None:
        """A job's command began to run."""

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        """A client could see the job in this state, and saw ``before`` last. Without ``scheduler``, it was in an
        answer.
        """

    def dropped(self, job: Job) -> None:
        """The scheduler has dropped the job, which no client removed."""

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        """A client could see the worker in this state."""

    def worker_gone(self, scheduler: SchedulerProcess, worker_id: str) -> None:
        """The worker is not known any more."""

    def deregistered(self, worker_id: str) -> None:
        """A worker is told that it is deregistered."""

    def ends_reported(self, worker_id: str, job_ids: Sequence[str]) -> None:
        """The scheduler receives a worker's report that these jobs have ended."""

    def ends_acknowledged(self, job_ids: Sequence[str]) -> None:
        """A worker is told that the ends of these jobs are stored, so that it may forget them."""

    def arrived(self, worker: Worker, call: str, server: Any) -> None:
        """The listener at the worker's address takes a call for the worker."""

    def call_answered(self, worker: Worker, error: Exception | None) -> None:
        """The listener at the worker's address answers a call of the scheduler, with ``error`` if it failed."""

    def start_failed(self, worker: Worker) -> None:
        """A call to start a job on that worker fails."""

    def stopping(self, worker: Worker, job_id: str) -> None:
        """The scheduler sends the stop of a job to a worker, which knows the job by that id."""

    def submitting(self, ticket: str) -> None:
        """A client submits a job."""

    def refused(self, ticket: str, error: SchedulerError) -> None:
        """The answer was that nothing was started."""

    def unanswered(self, ticket: str, error: SchedulerError | None) -> None:
        """There was no answer, or an error that leaves open whether something was started."""

    def acknowledged(self, ticket: str, before: str, job: Job) -> None:
        """The answer was a job. ``before`` is the id of a job with which an earlier answer came."""

    def replied(self, reply: Reply) -> None:
        """A request of a client has an answer, or has failed."""

    def listed(self, existing: Mapping[str, None], jobs: list[str]) -> None:
        """A client has listed all jobs; ``existing`` were there before."""

    def delivered(self, follower: Follower, offset: int, data: bytes) -> None:
        """A client that follows an output from ``follower.offset`` received these bytes."""

    def output_over(self, follower: Follower, cut: str) -> None:
        """The output that a client follows has ended. With ``cut``, the end was reported as missing."""

    def output_refused(self, follower: Follower, error: SchedulerError) -> None:
        """A client that resumes following an output was told that it can't."""

    def loaded(self, scheduler: SchedulerProcess) -> None:
        """A scheduler process has loaded its store, and has done nothing else yet."""

    def agreed(self) -> None:
        """The faults have been over for the time that all sides may need to agree."""

    def ended(self) -> None:
        """All jobs should have ended."""

    def rested(self) -> None:
        """All parts were idle at some moment, or had the time for it."""
