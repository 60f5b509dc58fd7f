"""Core workers: how they are shown, and which of their jobs may be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.model import Job, JobState, Worker, WorkerState
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.core_worker import CoreWorkerProcess
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess


LISTED = "a core worker is listed with its jobs"


class CoreWorkers(Rule):
    """A registered core worker is online, as one entry, until it deregisters or a client has it forgotten.

    A deregistered core worker is listed as long as it has unfinished jobs, and no longer. No job is given up while the
    answer to its start, which holds the worker's id of the job, may still arrive.

    The scheduler knows a core worker by its address alone. If the call with which a process deregisters arrives after
    the next process has registered at that address, it deregisters the next process.
    """

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        # processes that the late call of the process before them deregistered
        self._late: list[CoreWorkerProcess] = []

    def deregistered(self, worker_id: str) -> None:
        for node in self.facts.world.core_workers.values():
            running, here = node.running, self.facts.core.get(worker_id) == f"{node.machine.address}:{node.port}"
            if here and running is not None and not running.process.stopping:
                self._late.append(running)

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        if worker.slots is None:
            self.facts.core[worker.id] = worker.address

    def shown(self, scheduler: SchedulerProcess | None, before: Job | None, job: Job) -> None:
        given_up = job.state is JobState.LOST and job.reason == "no record" and job.remote_id is None
        new = before is None or before.state is not job.state
        if new and given_up and scheduler is not None and scheduler.calls.core_starts.may_be_traced(job.id):
            self.broken("a late answer counts", f"job {job.id} is lost, and its start was or may be answered", job.id)

    def worker_gone(self, scheduler: SchedulerProcess, worker_id: str) -> None:
        jobs = scheduler.parts.ledger.registry.jobs.unfinished(worker_id)
        if worker_id in self.facts.core and jobs and worker_id not in self.facts.forgotten:
            self.broken(LISTED, f"core worker {worker_id} is gone, and has unfinished jobs", jobs[0].id)

    def agreed(self) -> None:
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        registry = scheduler.parts.ledger.registry
        workers = registry.workers.all()
        for worker in registry.presences.offline_workers():
            if worker.is_core and not registry.jobs.count_unfinished(worker.id):
                self.broken(LISTED, f"core worker {worker.id} deregistered, has no jobs, and is listed")
        for node in self.facts.world.core_workers.values():
            running = node.running
            if running is None or not running.process.alive or not running.worker_id or running in self._late:
                continue
            if running.worker_id in self.facts.forgotten:
                continue
            here = [worker.id for worker in workers if worker.address == f"{node.machine.address}:{node.port}"]
            states = [(worker_id, registry.presences.of(worker_id).state) for worker_id in here]
            if states != [(running.worker_id, WorkerState.ONLINE)]:
                shown = [f"{worker_id} {state.value}" for worker_id, state in states]
                self.broken(
                    "core workers stay", f"core worker {node.name} ({running.worker_id}) is {shown or 'not known'}"
                )
