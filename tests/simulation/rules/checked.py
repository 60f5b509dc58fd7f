"""The checker of ``tests.faults`` as a second judge: the run keeps the same history, which is checked at the end.

The history holds the requests and answers of clients, as HTTP would show them. The evidence holds the runs of the jobs
and the content of the spools. These rules of the checker judge a simulated run: all of P1, P2 and P7; of P3, the
reported size of the output; of P4, ends, timeouts and refusals; of P5, that spools and scheduler agree and that stopped
jobs end; of P6, removals; of P8, that no error hides a job.

The other rules see nothing here. ``rules.output`` judges output (P3) byte by byte while it is read. Event streams,
answers with output and the causes of 500 belong to ``scheduler.api``, and the retention of ended jobs (P6) to
``scheduler.worker.retention``; neither is simulated. ``rules.agreement`` judges agreement after a fault.
``rules.answers`` judges attendance (P9), as the limits of the checker are those of real clocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from scheduler.api.errors import PROBLEMS
from scheduler.errors import SchedulerError, StartUnanswered, StoreFailed
from scheduler.model import Job, JobState
from scheduler.views import JobFilter
from tests.faults.checker import check
from tests.faults.evidence import Evidence, Run, Spool
from tests.faults.history import SEEN, Event
from tests.simulation.clients import Reply
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess

#: Requests whose answers show the present state of a job, by the names of their replies.
SHOWING = frozenset({"query", "job", "wait", "wait_for_attempts", "stop", "resubmit"})


def status_of(error: Exception | None) -> int | None:
    """The HTTP status of the error; ``None``: there was no answer."""
    if not isinstance(error, SchedulerError):
        return None
    return next(PROBLEMS[kind][0] for kind in type(error).__mro__ if kind in PROBLEMS)


class Checked(Rule):
    """Writes the history, and has it checked at the end of the run."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        self._events: list[Event] = []
        # ticket -> when its last request was made
        self._asked: dict[str, float] = {}
        # ids of removed jobs that are listed again, since a forgotten worker still runs them
        self._returned: set[str] = set()
        # first attempts of the jobs whose stop was acknowledged to a client
        self._stops_kept: set[str] = set()

    # -- the history

    def _add(self, op: str, began: float | None = None, **fields: Any) -> None:
        now = self.facts.world.loop.now
        began = now if began is None else began
        self._events.append(Event(op=op, began=began, t=now, number=len(self._events) + 1, **fields))

    def submitting(self, ticket: str) -> None:
        self._asked[ticket] = self.facts.world.loop.now

    def acknowledged(self, ticket: str, before: str, job: Job) -> None:
        began = self._asked.get(ticket)
        status = 202 if job.state is JobState.QUEUED else 201
        terms = {"timeout": job.spec.timeout, "attempts": self._attempts(job)}
        self._add("start", began, ticket=ticket, status=status, job=job.id, **terms)

    def _attempts(self, job: Job) -> int:
        """The number of retries of the request, of which the job may be a later attempt."""
        left = 0 if job.terms.retry is None else job.terms.retry.attempts
        while job.retry_of is not None and (before := self.facts.shown.get(job.retry_of)) is not None:
            left, job = left + 1, before
        return left

    def unanswered(self, ticket: str, error: SchedulerError | None) -> None:
        job = error.job_id if isinstance(error, StartUnanswered) else None
        self._add("start", self._asked.get(ticket), ticket=ticket, status=status_of(error), job=job)

    def refused(self, ticket: str, error: SchedulerError) -> None:
        # If the store may have kept the job although it failed, the answer leaves open whether the job will run: see
        # P1.
        open_ = isinstance(error, StoreFailed) and self.facts.world.database.failed_though_durable
        self._add("start", self._asked.get(ticket), ticket=ticket, status=None if open_ else status_of(error))

    def replied(self, reply: Reply) -> None:
        status = 200 if reply.answered else status_of(reply.error)
        if reply.name == "remove":
            status = (204 if reply.value else 202) if reply.answered else status
        if reply.name == "stop" and reply.answered and not reply.value.over:
            status = 202
        if reply.name == "stop" and reply.answered and reply.value.state is not JobState.FAILED:
            self._stops_kept.add(self.facts.first_attempt(reply.job_id))
        if reply.name in {"stop", "remove", "signal"}:
            self._add(reply.name, reply.asked_at, job=reply.job_id, status=status)
        if reply.name == "resubmit" and reply.detail and reply.answered and self.facts.is_key_unknown(reply.job_id):
            self._add("start", reply.asked_at, ticket=self._ticket(reply.value), status=201, job=reply.value.id)
        if reply.name in SHOWING and reply.answered:
            self._see("see", reply.value, reply.asked_at, reply.name)

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if job.orphan and job.id in self.facts.removed:
            self._returned.add(job.id)

    def _see(self, op: str, job: Job, began: float | None, via: str) -> None:
        seen = {name: getattr(job, name, None) for name in SEEN}
        seen["state"] = job.state.value
        if job.worker_id in self.facts.core:  # a core worker reports no usage
            seen["usage"] = None if job.exit_code is None and job.signal is None else "not told"
        self._add(op, began, job=job.id, status=200, seen=seen, via=via)

    # -- the evidence

    def _evidence(self, destroyed: dict[str, None]) -> Evidence:
        runs = [self._run(job_id, number, run) for job_id, all_ in self._runs() for number, run in enumerate(all_)]
        return Evidence(tuple(runs), tuple(self._spools(destroyed)))

    def _runs(self) -> list[tuple[str, list[Any]]]:
        """All runs, except those that the evidence can't rest on.

        If a fault decided the fate of a job, only its last run counts. If the database lost the job when it was set
        back, no run counts. A destroyed run on a core worker does not count either, as the worker does not report it.
        """
        facts = self.facts
        counted = {
            job_id: runs[-1:] if job_id in facts.excused else runs
            for job_id, runs in facts.runs.items()
            if job_id not in facts.set_back
        }
        return [
            (job_id, [run for run in runs if not (run.destroyed and self._is_core(job_id))])
            for job_id, runs in counted.items()
        ]

    def _is_core(self, job_id: str) -> bool:
        job = self.facts.shown.get(job_id)
        return job is not None and job.worker_id in self.facts.core

    @staticmethod
    def _ticket(job: Job) -> str:
        return job.spec.labels.get("ticket", job.id)

    def _run(self, job_id: str, number: int, run: Any) -> Run:
        job = self.facts.shown.get(job_id)
        # a later attempt belongs to no request of its own
        ticket = job_id if job is None or job.retry_of is not None else self._ticket(job)
        code = None if run.destroyed else run.code
        ended = None if run.destroyed or run.ended is None else run.ended
        return Run(ticket, job_id, number, code, len(run.signals), ended)

    def _spools(self, destroyed: dict[str, None]) -> list[Spool]:
        return [
            Spool(spool.job_id, node.name, self._record(spool.exit), *self._sizes(spool.exit))
            for node in self.facts.world.workers.values()
            for spool in node.folder.spools.values()
            if spool.job_id not in {**destroyed, **self.facts.left_behind} and spool.job_id in self.facts.shown
        ]

    @staticmethod
    def _record(status: Any) -> dict[str, Any] | None:
        if status is None:
            return None
        return {
            "state": status.state.value,
            "exit_code": status.exit_code,
            "signal": status.signal,
            "usage": status.usage,
        }

    @staticmethod
    def _sizes(status: Any) -> tuple[int, int]:
        """Bytes of stdout, and how many of them the job wrote. All, since ``rules.output`` judges the content."""
        size = 0 if status is None else status.stdout_bytes or 0
        return size, size

    def _destroyed(self) -> dict[str, None]:
        """Jobs that the other rules judge as possibly destroyed, and jobs to which clients sent KILL."""
        facts = self.facts
        found = dict.fromkeys([*facts.excused, *facts.set_back])
        for job_id, runs in facts.runs.items():
            if any(run.destroyed or "SIGKILL" in run.signals for run in runs):
                found[job_id] = None
        found.update({job.id: None for job in facts.shown.values() if self._may_end_without_a_run(job)})
        found.update({job.id: None for job in facts.shown.values() if self._stop_was_forgotten(job)})
        return found

    def _may_end_without_a_run(self, job: Job) -> bool:
        """Whether ``rules.truth`` and ``rules.kept`` allow the job to end without a run."""
        facts = self.facts
        if job.reason == "rebooted" and job.id not in facts.runs:  # its worker can't rule out a run
            return True
        if job.worker_id in facts.forgotten or job.worker_name in facts.forgotten or facts.is_untraceable(job):
            return True
        if job.state is JobState.LOST:
            return job.worker_id in facts.core
        return job.state is JobState.FAILED and job.id not in facts.runs

    def _stop_was_forgotten(self, job: Job) -> bool:
        """Whether a client asked for a stop that the store failed to record, and was told of the error.

        A core worker reports a stop like any other signal.
        """
        facts = self.facts
        forgotten = job.state is JobState.FAILED and job.signal is not None and job.stop_requested_at is None
        kept = facts.first_attempt(job.id) in self._stops_kept
        return forgotten and self._is_core(job.id) and facts.stop_was_asked(job) and not kept

    # -- the judgement

    def rested(self) -> None:
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        for job in scheduler.parts.ledger.registry.jobs.listing.matching(JobFilter()):
            self._see("last", job, None, "end")
        destroyed = self._destroyed()
        self._add("fault", 0.0, what="all of them", jobs=tuple(destroyed), outputs=tuple(self.facts.runs))
        self._events[-1] = evolve(
            self._events[-1], t=0.0
        )  # this fault has no end: ``rules.stops`` knows how long a stop takes
        for job in self.facts.shown.values():
            if job.state is JobState.STOPPED and self.facts.stop_is_explained(job):
                self._add("stop", 0.0, job=job.id)
        events = [
            evolve(event, status=None) if event.op == "remove" and event.job in self._returned else event
            for event in self._events
            if event.job not in self.facts.set_back
        ]
        for violation in check(events, self._evidence(destroyed)):
            self.broken(f"checker {violation.promise}", violation.text, violation.job)
