"""Workers are back soon after a restart, starts wait for workers that may be there, and other programs get no jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.cluster.expected import EXPECTED_WAIT_MAX_SECONDS
from scheduler.errors import NotAWorker, SchedulerError, Unreachable
from scheduler.model import Job, JobState, Worker
from tests.simulation.faults.processes import KillScheduler, StopScheduler
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess

#: Why a worker is unreachable before the scheduler knows whether it is there.
NOT_PROBED, NOT_HEARD = "no call to it has succeeded yet", "it has not called since the scheduler was started"

#: Seconds after the start of a scheduler for which a start waits for such a worker.
LATELY = 30.0

#: Seconds after its start within which a scheduler has the workers that it knows online again, if nothing but the
#: scheduler itself failed for ``CALM`` seconds.
BACK, CALM = 2.0, 60.0


class Expected(Rule):
    """Judges starts and workers while the scheduler and a worker do not know each other yet."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        #: When each ticket was last submitted, by the loop's clock.
        self._asked: dict[str, float] = {}
        self._loaded_at = 0.0
        #: Worker id -> the error, for addresses that answered the present scheduler process that they are no worker.
        self._no_workers: dict[str, str] = {}

    def submitting(self, ticket: str) -> None:
        self._asked[ticket] = self.facts.world.loop.now

    def refused(self, ticket: str, error: SchedulerError) -> None:
        now = self.facts.world.loop.now
        if not isinstance(error, Unreachable) or now - self._asked[ticket] >= EXPECTED_WAIT_MAX_SECONDS:
            return
        lately = now - self._loaded_at <= LATELY
        if error.reason == NOT_PROBED or (error.reason == NOT_HEARD and lately):
            self.broken("a start waits", f"{ticket} is refused at once: {error}")

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        """A job that may wait goes to another worker, or waits until its time is over."""
        reason = job.reason or ""
        may_wait = job.state is JobState.FAILED and job.terms.queue_timeout and not reason.startswith("queue_timeout")
        if may_wait and reason.endswith("it is no worker"):
            self.broken("no worker, no job", f"job {job.id} has failed: {reason}", job.id)

    def call_answered(self, worker: Worker, error: Exception | None) -> None:
        if isinstance(error, NotAWorker):
            self._no_workers[worker.id] = str(error)

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        if worker.id in self._no_workers and scheduler.parts.ledger.registry.presences.of(worker.id).is_online:
            self.broken("no worker, no job", f"{worker.address} is online: {self._no_workers[worker.id]}")

    def loaded(self, scheduler: SchedulerProcess) -> None:
        world = self.facts.world
        self._loaded_at = now = world.loop.now
        self._no_workers.clear()
        alone = (KillScheduler, StopScheduler)
        if all(isinstance(fault, alone) or not now - CALM < fault.at < now + BACK for fault in world.plan.faults):
            registry = scheduler.parts.ledger.registry
            for node in world.workers.values():
                worker, running = registry.workers.find(node.folder.worker_id), node.running
                if worker is None or running is None or not running.process.alive:
                    continue
                if worker.nonce == running.jobs.identity.nonce:
                    world.loop.after(BACK, self._check_back, scheduler, worker)

    def _check_back(self, scheduler: SchedulerProcess, loaded: Worker) -> None:
        registry = scheduler.parts.ledger.registry
        worker, presence = registry.workers.find(loaded.id), registry.presences.of(loaded.id)
        if not scheduler.process.alive or not scheduler.serving or worker is None:
            return
        if not presence.is_online:
            what = f"worker {worker.name} is not online {BACK:g} s after: {presence.reason}"
            self.broken("back after a restart", what)
