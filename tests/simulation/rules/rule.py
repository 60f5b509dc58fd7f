"""What a rule is told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scheduler.errors import SchedulerError
from scheduler.model import Job, Worker
from tests.simulation.machine import Run

if TYPE_CHECKING:
    from tests.simulation.clients import Reply
    from tests.simulation.follow import Follower
    from tests.simulation.judge import Facts
    from tests.simulation.nodes import SchedulerProcess

#: Takes the name of the rule, what is wrong, and the job's id.
Broken = Callable[..., None]


class Rule:
    """One or more rules about the same thing: a subclass looks at the events that it is about."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        self.facts = facts
        self.broken = broken

    def began(self, run: Run) -> None:
        """A job's command began to run."""

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        """Somebody could see the job so, and last saw it as ``before``. No ``scheduler``: it was in an answer."""

    def dropped(self, job: Job) -> None:
        """The job is not there any more, and no client removed it."""

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        """Somebody could see the worker so."""

    def worker_gone(self, scheduler: SchedulerProcess, worker_id: str) -> None:
        """The worker is not there any more."""

    def deregistered(self, worker_id: str) -> None:
        """A worker is told that it is deregistered."""

    def ends_reported(self, worker_id: str, job_ids: Sequence[str]) -> None:
        """The scheduler hears from a worker that these jobs have ended."""

    def ends_acknowledged(self, job_ids: Sequence[str]) -> None:
        """A worker is told that the ends of these jobs are kept: it may forget them."""

    def arrived(self, worker: Worker, call: str, server: Any) -> None:
        """A call for the worker is taken by what listens at its address."""

    def call_answered(self, worker: Worker, error: Exception | None) -> None:
        """What listens at the address of the worker answers a call of the scheduler; ``error``: with that."""

    def start_failed(self, worker: Worker) -> None:
        """A call that is to start a job on that worker ends with an error."""

    def stopping(self, worker: Worker, job_id: str) -> None:
        """The scheduler sends the stop of a job to a worker, which knows the job by that id."""

    def submitting(self, ticket: str) -> None:
        """A client makes a request for a job."""

    def refused(self, ticket: str, error: SchedulerError) -> None:
        """It was answered that nothing was started."""

    def unanswered(self, ticket: str, error: SchedulerError | None) -> None:
        """It was not answered, or with an error that leaves open whether something was started."""

    def acknowledged(self, ticket: str, before: str, job: Job) -> None:
        """A client was answered with the job; ``before`` is the id of one it was told of earlier."""

    def replied(self, reply: Reply) -> None:
        """A client's request was answered, or not."""

    def listed(self, existing: Mapping[str, None], jobs: list[str]) -> None:
        """A client listed all jobs; ``existing`` were there before."""

    def delivered(self, follower: Follower, offset: int, data: bytes) -> None:
        """A client that follows an output, and is at ``follower.offset``, got these bytes."""

    def output_over(self, follower: Follower, cut: str) -> None:
        """The output that a client follows has its end, or, ``cut``, is said to have none."""

    def output_refused(self, follower: Follower, error: SchedulerError) -> None:
        """A client that wants to go on following an output was told that it can't."""

    def loaded(self, scheduler: SchedulerProcess) -> None:
        """A scheduler process knows what its store has, and does nothing yet."""

    def agreed(self) -> None:
        """The faults are over for as long as it may take until all sides agree."""

    def ended(self) -> None:
        """Everything should have ended."""

    def rested(self) -> None:
        """Everything has been idle at one moment, or had the time for it."""
