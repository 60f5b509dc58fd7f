"""The identity of workers: one entry for each folder, one worker for each name, and calls reach the right worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from scheduler.model import Worker
from tests.simulation.jobs import SimulatedJobs
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess
    from tests.simulation.world import WorkerNode


class Workers(Rule):
    """Judges identities as the scheduler shows them and as calls meet them."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        #: The first call, other than a start, that another worker took.
        self._mistaken = ""
        #: Where a call of the present scheduler process was answered: worker ids, nonces and addresses.
        self._answered: set[tuple[str, str, str]] = set()

    def loaded(self, scheduler: SchedulerProcess) -> None:
        self._answered.clear()

    def call_answered(self, worker: Worker, error: Exception | None) -> None:
        self._answered.add((worker.id, worker.nonce, worker.address))

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        registry = scheduler.parts.ledger.registry
        if registry.presences.of(worker.id).is_online:
            if (worker.id, worker.nonce, worker.address) not in self._answered:
                what = f"worker {worker.name} is online at {worker.address}, where no call was answered"
                self.broken("online has answered", what)
            for other in registry.workers.named(worker.name):
                if other.id != worker.id and registry.presences.of(other.id).is_online:
                    ids = " and ".join(f"{each.id} at {each.address}" for each in (worker, other))
                    self.broken("one worker for each name", f"{ids} are both online as {worker.name}")
        if self.facts.drained and not worker.draining and worker.id not in self.facts.drained:
            self._check_drain(worker)

    def _check_drain(self, worker: Worker) -> None:
        """A worker that gets another id and still has its folder is drained as it was under its first id."""
        folder = self.facts.owners.get(worker.id)
        for worker_id in self.facts.drained:
            if folder is not None and self.facts.owners.get(worker_id) is folder:
                what = f"worker {worker.name} was drained as {worker_id}, and is not as {worker.id}"
                self.broken("a drain stays", what)

    def arrived(self, worker: Worker, call: str, server: Any) -> None:
        owner = self.facts.owners.get(worker.id)
        if call == "probe" or owner is None or not isinstance(server, SimulatedJobs) or server.folder is owner:
            return
        if server.folder.folder_id == owner.folder_id:
            return  # a copy registered as its worker, which did not answer
        what = f"a {call} for worker {worker.name} ({worker.id}) is taken by another one, at {worker.address}"
        if call == "start":
            self.broken("a call reaches its worker", what)
        self._mistaken = self._mistaken or what  # if this has an effect, the effect breaks another rule first

    def ends_reported(self, worker_id: str, job_ids: Sequence[str]) -> None:
        folder = self.facts.owners.get(worker_id)
        for node in self.facts.world.workers.values():
            if node.folder is folder and folder.renewed:
                for job_id in job_ids:
                    self._check_place(node, job_id)

    def _check_place(self, node: WorkerNode, job_id: str) -> None:
        """A copy with an id of its own reports no job of the original worker."""
        machines = {run.machine for run in self.facts.runs.get(job_id, ())}
        if machines and node.machine.name not in machines and job_id not in self.facts.excused:
            ran = " and ".join(sorted(machines))
            what = f"its end is reported by worker {node.name} on {node.machine.name}, and it ran on {ran}"
            self.broken("a copy leaves jobs alone", what, job_id)

    def agreed(self) -> None:
        if self._mistaken:
            self.broken("a call reaches its worker", self._mistaken)
        scheduler = self.facts.world.scheduler
        assert scheduler is not None
        for node in self.facts.world.workers.values():
            for what in self._about(scheduler, node):
                self.broken("one entry for each worker", f"worker {node.name} ({node.folder.worker_id}) {what}")

    def _about(self, scheduler: SchedulerProcess, node: WorkerNode) -> Iterator[str]:
        """Each error in the scheduler's entries of a worker."""
        registry = scheduler.parts.ledger.registry
        entry = registry.workers.find(node.folder.worker_id)
        if entry is None:
            yield "is not known"
            return
        address = f"{node.machine.address}:{node.port}"
        if entry.address != address:
            yield f"listens at {address}, and is known at {entry.address}"
        if entry.name != node.name:
            yield f"is known as {entry.name}"
        others = [each.id for each in registry.workers.all() if self.facts.owners.get(each.id) is node.folder]
        if others != [entry.id]:
            yield f"has the entry {entry.id}, and those given to its folder are {others}"
