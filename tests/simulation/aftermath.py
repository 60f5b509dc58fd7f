"""The acts of clients when all faults are over, without which the sides could not come to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.model import JobState
from tests.simulation.acts import Drain, Forget
from tests.simulation.clients import carry_out
from tests.simulation.steps import Stop

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds between attempts to have a worker forgotten that may still count as online.
FORGET_AGAIN = 4.0

#: Seconds before the end of all clients in which they give up jobs that wait in vain.
STOPS_IN_VAIN = 2.0


class Aftermath:
    """Resumes drained workers, forgets those that never return, and stops jobs that would wait or run without end."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self) -> None:
        """Schedule all of it."""
        world = self._world
        for worker in world.workers:
            world.loop.after(3.0, Drain(0.0, worker, resume=True).begin, world)
        world.loop.after(3.0, self._forget_lost)
        world.loop.after(6.0, self._forget_departed)
        world.loop.at(world.clients_end - STOPS_IN_VAIN, self._stop_in_vain)
        world.loop.after(world.agreement + 1.0, self._stop_again)

    def _forget_lost(self) -> None:
        """A client has the scheduler forget the workers whose folders are lost, until all are forgotten."""
        world = self._world
        assert world.scheduler is not None
        registry = world.scheduler.parts.ledger.registry
        lost = [worker_id for worker_id, folder in world.judge.facts.owners.items() if folder.lost]
        there = [worker_id for worker_id in lost if registry.workers.find(worker_id) is not None]
        for worker_id in there:
            Forget(0.0, worker_id).begin(world)
        if there or not world.scheduler.serving:
            world.loop.after(FORGET_AGAIN, self._forget_lost)

    def _forget_departed(self) -> None:
        """A deregistered core worker that is not back by now never returns: clients have it forgotten."""
        facts = self._world.judge.facts
        unknown = [job.worker_id or "" for job in facts.shown.values() if job.state is JobState.UNKNOWN]
        for worker_id in dict.fromkeys(unknown):
            if worker_id in facts.core and not self._is_registered(worker_id):
                Forget(0.0, worker_id).begin(self._world)

    def _stop_in_vain(self) -> None:
        """Clients give up the jobs that wait for a core worker which is gone."""
        facts = self._world.judge.facts
        for job in list(facts.shown.values()):
            wanted = "" if job.target is None else job.target.worker or ""
            if job.state is JobState.QUEUED and wanted in facts.core and not self._is_registered(wanted):
                carry_out(self._world, "gives up", Stop(0.0).do(self._world, None, job.id))

    def _stop_again(self) -> None:
        """If the database was set back, a client stops the jobs whose stops, or whose terms, it does not know.

        A worker that reported a job never knew its terms. Orphans are stopped, too.
        """
        facts = self._world.judge.facts
        for job in list(facts.shown.values()):
            unknown = job.id in facts.set_back and (job.target is None or facts.may_be_stopped(job))
            if not job.over and (job.orphan or unknown):
                carry_out(self._world, "stop again", Stop(0.0).do(self._world, None, job.id))

    def _is_registered(self, worker_id: str) -> bool:
        scheduler = self._world.scheduler
        return scheduler is not None and scheduler.parts.ledger.registry.workers.find_registered(worker_id) is not None
