"""A deregistered worker stays listed, unchanged, until it registers again or a client has it forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.model import Worker, WorkerState
from tests.simulation.rules.rule import Broken, Rule

if TYPE_CHECKING:
    from tests.simulation.facts import Facts
    from tests.simulation.nodes import SchedulerProcess

LISTED = "an offline worker stays listed"


class Departed(Rule):
    """Judges ordinary workers only: a core worker that deregisters is removed."""

    def __init__(self, facts: Facts, broken: Broken) -> None:
        super().__init__(facts, broken)
        # each worker as it was last shown, and the scheduler process that showed it
        self._shown: dict[str, tuple[SchedulerProcess, Worker]] = {}
        # workers that were told of their deregistration and have not registered since, and the time of the answer
        self._offline: dict[str, tuple[float, Worker]] = {}

    def deregistered(self, worker_id: str) -> None:
        scheduler = self.facts.world.scheduler
        if scheduler is None or worker_id not in self.facts.owners:
            return
        entry = scheduler.parts.ledger.registry.workers.find(worker_id)
        if entry is None:
            self._missing(worker_id, self._shown[worker_id][1].name if worker_id in self._shown else "")
        elif entry.is_offline:  # otherwise it has registered again meanwhile
            self._offline[worker_id] = (self.facts.world.loop.now, entry)

    def worker_shown(self, scheduler: SchedulerProcess, worker: Worker) -> None:
        process, before = self._shown.get(worker.id, (None, worker))
        self._shown[worker.id] = (scheduler, worker)
        if process is not scheduler:
            return  # it is new, or ``loaded`` has judged it
        state = scheduler.parts.ledger.registry.presences.of(worker.id).state
        if not worker.is_offline:
            self._offline.pop(worker.id, None)
        elif state is not WorkerState.OFFLINE:
            self.broken(LISTED, f"worker {worker.name} has not registered again, and is {state.value}")
        elif not before.is_offline and _listed_as(before) != _listed_as(worker):
            self.broken(LISTED, f"worker {_listed_as(before)} deregistered, and is listed as {_listed_as(worker)}")

    def worker_gone(self, scheduler: SchedulerProcess, worker_id: str) -> None:
        self._shown.pop(worker_id, None)
        if worker_id in self._offline:
            self._missing(worker_id, self._offline.pop(worker_id)[1].name)

    def loaded(self, scheduler: SchedulerProcess) -> None:
        registry = scheduler.parts.ledger.registry
        for worker_id, (since, worker) in list(self._offline.items()):
            entry = registry.workers.find(worker_id)
            if self.facts.set_back_at >= since:
                del self._offline[worker_id]
            elif entry is None:
                self._missing(worker_id, worker.name)
            elif not entry.is_offline:
                what = f"worker {worker.name} had deregistered, and is not offline after a restart"
                self.broken(LISTED, what)

    def _missing(self, worker_id: str, name: str) -> None:
        if not self.facts.forgotten.keys() & {worker_id, name}:
            self.broken(LISTED, f"worker {name} ({worker_id}) deregistered, and is not listed")


def _listed_as(worker: Worker) -> tuple[str, dict[str, str], int | None, bool]:
    """The name, labels, slots and drain of the worker."""
    return worker.name, dict(worker.labels), worker.slots, worker.draining
