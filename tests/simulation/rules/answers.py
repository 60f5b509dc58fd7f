"""Answers to clients are true, and stay true."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from scheduler.cluster.endings import UNSAVED_END
from scheduler.errors import JobRemoved, KeyReused, NotFound, SchedulerError, StartUnanswered
from scheduler.model import Job, JobState, Worker
from tests.simulation.clients import Reply
from tests.simulation.machine import EPOCH, Run
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess

#: A query may share the call of an earlier query, which can have begun so many seconds before it.
SHARED = 10.0

#: Seconds by which rounding may change a time.
ROUNDING = 1e-6


class Answers(Rule):
    """There is one method for each kind of request."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        # ids of all workers that were shown, including programs that are no workers
        self._workers: dict[str, None] = {}
        # when jobs were shown as ended for the first time, or anew after the database was set back
        self._ended: dict[str, float] = {}

    def replied(self, reply: Reply) -> None:
        self._not_found(reply)
        if reply.asked_at <= self.facts.set_back_at:
            return  # the answer may be from before the database was set back
        judge = _JUDGED.get(reply.name)
        if judge is not None:
            judge(self, reply)

    def refused(self, ticket: str, error: SchedulerError) -> None:
        """The client has no job yet, so "no such job" is never the answer, nor is its key that of another request."""
        if isinstance(error, KeyReused):
            self.broken("answers are true", f"{ticket} has a key of its own, and is refused: {error}")
        if isinstance(error, NotFound) and error.kind == "job":
            self.broken("answers are true", f"{ticket} wants a job run, and is refused: {error}", error.name)

    def _broken(self, reply: Reply, what: str) -> None:
        self.broken("answers are true", f"{reply.name} of job {reply.job_id or '-'}: {what}", reply.job_id or None)

    def _not_found(self, reply: Reply) -> None:
        """A job that a client knows exists until it is removed."""
        job = self.facts.shown.get(reply.job_id)
        if not isinstance(reply.error, NotFound) or reply.error.kind != "job" or reply.job_id in self.facts.removals:
            return
        if self.facts.may_be_unknown(reply.job_id, reply.asked_at) or reply.job_id in self.facts.gone:
            return
        if reply.name == "query" and (job is None or job.worker_name != reply.detail):
            return  # the job went to another worker meanwhile
        self.broken("P1 kept", f"{reply.name}: {reply.error}", reply.job_id)

    # -- one job

    def _query(self, reply: Reply) -> None:
        """The worker's answer was true at some moment of the call."""
        if not reply.answered or reply.value.state is not JobState.RUNNING or reply.job_id in self.facts.excused:
            return
        run = self.facts.run_of(reply.job_id)
        unsaved = (reply.value.reason or "").startswith(UNSAVED_END.format(""))
        if run is None:
            self._broken(reply, "it is running, and never ran")
        elif unsaved:
            return  # the answer says that the job has ended
        elif run.ended is not None and run.ended < reply.asked_at - SHARED:
            self._broken(reply, f"it is running, and ended {reply.asked_at - run.ended:.1f} s before the question")

    def _wait(self, reply: Reply) -> None:
        """The answer comes when the job has ended, or when the time is over."""
        passed = reply.answered_at - reply.asked_at
        if not reply.answered:
            return
        job: Job = reply.value
        if not job.state.final and passed < reply.detail - ROUNDING:
            self._broken(
                reply, f"it is {job.state.value} after {passed:.3f} s, and the client waits for {reply.detail}"
            )
        if reply.name == "wait_for_attempts" and job.state.final:
            self.facts.last_attempts[job.id] = None

    def _stop(self, reply: Reply) -> None:
        if not reply.answered:
            return
        job: Job = reply.value
        if job.retried_by is not None:
            self.facts.chains_stopped.setdefault(self.facts.first_attempt(job.id), reply.answered_at)
        elif job.over:
            self._over(job)
        elif job.stop_requested_at is None:
            self._broken(reply, f"it is {job.state.value}, and nothing says that it is to be stopped")
        else:
            self.facts.chains_stopped.setdefault(self.facts.first_attempt(job.id), reply.answered_at)

    def _over(self, job: Job) -> None:
        self.facts.chains_stopped.setdefault(self.facts.first_attempt(job.id), self.facts.world.loop.now)
        if job.state is not JobState.LOST or not self.facts.is_untraceable(job):  # otherwise its start may still arrive
            self.facts.stopped[job.id] = None

    def _stop_matching(self, reply: Reply) -> None:
        for job in reply.value or ():
            if job.spec.labels["ticket"] != reply.detail:
                self._broken(reply, f"job {job.id} is not among those that match")
            if job.over:
                self._over(job)

    def _remove(self, reply: Reply) -> None:
        if reply.answered and reply.value:
            self.facts.removed.setdefault(reply.job_id, reply.answered_at)

    def _job(self, reply: Reply) -> None:
        since = self.facts.removed.get(reply.job_id, math.inf)
        if reply.answered and reply.asked_at >= since and reply.value.state is not JobState.LOST:
            self._broken(reply, "it was removed, and is there")

    def _signal(self, reply: Reply) -> None:
        """An acknowledged signal arrived once; any other arrived at most once."""
        run, before = reply.detail
        now = self.facts.run_of(reply.job_id)
        if now is None or now is not run or reply.job_id in self.facts.excused:
            return
        arrived = len(now.signals) - before
        if arrived > 1 or (reply.answered and arrived != 1):
            self._broken(reply, f"the signal arrived {arrived} times")

    def _resubmit(self, reply: Reply) -> None:
        other = reply.detail
        if self.facts.is_key_unknown(reply.job_id):
            return
        had_ended = self.facts.set_back_at < self._ended.get(reply.job_id, math.inf) < reply.asked_at
        if had_ended and (isinstance(reply.error, StartUnanswered) or (reply.answered and not reply.value.state.final)):
            self._broken(reply, "the job had ended, and is not answered as it is now")
        if other and reply.answered:
            self.broken("one job for each key", f"a key came with another body, and made job {reply.value.id}")
        if not other and isinstance(reply.error, KeyReused):
            self._broken(reply, str(reply.error))
        if isinstance(reply.error, JobRemoved) and reply.job_id not in self.facts.removals:
            self._broken(reply, str(reply.error))

    # -- workers, and lists

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        self._workers[worker.id] = None

    def _forget(self, reply: Reply) -> None:
        if reply.answered and reply.detail not in (*self.facts.world.names(), *self._workers):
            self._broken(reply, f"worker {reply.detail} was forgotten, and there is none")

    def listed(self, existing: Mapping[str, None], jobs: list[str]) -> None:
        """``existing`` jobs were known before the first page was requested."""
        twice = sorted({job_id for job_id in jobs if jobs.count(job_id) > 1})
        if twice:
            self.broken("lists are whole", f"jobs {twice} are listed twice")
        left = [job_id for job_id in existing if job_id not in jobs and job_id not in self.facts.removals]
        left = [job_id for job_id in left if job_id in self.facts.existing() and job_id not in self.facts.set_back]
        if left:
            self.broken("lists are whole", f"jobs {left} are not listed", left[0])

    # -- promises of earlier answers

    def began(self, run: Run) -> None:
        if run.job_id in self.facts.stopped and run.job_id not in self.facts.excused:
            self.broken(
                "a stop holds", f"job {run.job_id} begins on {run.machine} after its stop was answered", run.job_id
            )

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        if scheduler is not None and job.id in self.facts.removed and job.state is not JobState.LOST:
            self.broken("a removal holds", f"job {job.id} was removed, and is there", job.id)
        if job.state.final and not (before is not None and before.state.final):
            self._ended[job.id] = self.facts.world.loop.now
        if before is None and job.retry_of is not None:
            self._follows(job)
        if job.stop_reason and (before is None or before.stop_requested_at is None):
            self._unattended(scheduler, job)

    def _follows(self, job: Job) -> None:
        """The job is shown for the first time, as the next attempt of another job."""
        assert job.retry_of is not None
        if job.retry_of in self.facts.last_attempts:
            self.broken("answers are true", f"job {job.retry_of} was the last attempt, and {job.id} follows", job.id)
        first = self.facts.first_attempt(job.id)
        if first in self.facts.chains_stopped:
            self.broken("a stop holds", f"job {job.id} follows after a stop of {first} was answered", job.id)

    def _unattended(self, scheduler: SchedulerProcess | None, job: Job) -> None:
        """A job is stopped as unattended only if no client attended it at that time."""
        world = self.facts.world
        if scheduler is None or job.stop_requested_at is None or world.scheduler_machine.clock_error:
            return
        decided = job.stop_requested_at - EPOCH
        for process, job_id, since in self.facts.attended.values():
            same = self.facts.first_attempt(job_id) == self.facts.first_attempt(job.id)
            if same and process is scheduler.process and since < decided - ROUNDING:
                what = f"job {job.id} is stopped as nobody attends it, and a client does, since {since:.3f} s"
                self.broken("who is attended runs", what, job.id)


_JUDGED: Mapping[str, Callable[[Answers, Reply], None]] = MappingProxyType(
    {
        "query": Answers._query,
        "wait": Answers._wait,
        "wait_for_attempts": Answers._wait,
        "stop": Answers._stop,
        "stop_matching": Answers._stop_matching,
        "remove": Answers._remove,
        "job": Answers._job,
        "signal": Answers._signal,
        "resubmit": Answers._resubmit,
        "forget": Answers._forget,
    }
)
