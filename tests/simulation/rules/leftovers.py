"""Nothing is left over: when all jobs have ended and all clients have left, every table that should be empty is empty.

Only the parts of the present processes are examined. Periodic work (heartbeats, probes) makes some of them busy now and
then, so the run continues until all are idle at the same moment, for at most ``REST`` seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scheduler.cluster.build import ClusterParts
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess, WorkerProcess
    from tests.simulation.world import World

#: Seconds within which all parts are idle at some moment: more than one heartbeat interval.
REST = 30.0

#: Timers of an idle process. The scheduler has periodic timers: for the state of the workers, the number of commits,
#: the polls of core workers, stops and removals that are delivered again, the removal of old jobs and of workers that
#: left, and the minutes of the audit. A worker has its next heartbeat.
SCHEDULER_TIMERS = 8
WORKER_TIMERS = 1

#: The parts of the cluster that hold work in progress.
PARTS = (
    *("ledger", "feed", "expected", "liveness", "backoff", "flights", "starts", "queue", "submissions", "stops"),
    *("removals", "outputs", "attendance", "outlook", "reconciler", "polling", "forgetting", "membership", "set_back"),
    *("tokens", "audit"),
)


def busy_parts(parts: ClusterParts) -> Iterator[str]:
    """The names of the parts of the scheduler that hold something."""
    for name in PARTS:
        if not getattr(parts, name).idle:
            yield name
    if not parts.ledger.registry.idle:
        yield "registry"


def left_over(world: World) -> Iterator[str]:
    """Each leftover, with its place."""
    if world.scheduler is not None:
        yield from _of_scheduler(world.scheduler)
    for node in world.workers.values():
        if node.running is not None and node.running.process.alive:
            yield from _of_worker(node.running)
    for call in world.network.unanswered_calls():
        yield f"network: {call.caller.process.name} waits for {call.name}"


def _of_scheduler(scheduler: SchedulerProcess) -> Iterator[str]:
    name = scheduler.process.name
    for part in busy_parts(scheduler.parts):
        yield f"{name}: {part}"
    timers = len(scheduler.process.clock.getDelayedCalls())
    if timers != SCHEDULER_TIMERS:
        yield f"{name}: {timers} timers, and there are {SCHEDULER_TIMERS} when it is idle"


def _of_worker(worker: WorkerProcess) -> Iterator[str]:
    name = worker.process.name
    if not worker.link.idle:
        yield f"{name}: link"
    if not worker.jobs.idle:
        yield f"{name}: jobs"
    timers = len(worker.process.clock.getDelayedCalls())
    if timers != WORKER_TIMERS:
        yield f"{name}: {timers} timers, and there is {WORKER_TIMERS} when it is idle"


class Leftovers(Rule):
    """Nothing is left at the end."""

    def rested(self) -> None:
        for what in left_over(self.facts.world):
            self.broken("nothing left", what)
