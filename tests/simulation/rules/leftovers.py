"""Nothing is left over: when all jobs have ended and all clients are gone, every table that should be empty is empty.

The parts that are looked at are those of the present processes. What recurs for ever (heartbeats, probes) makes some
of them busy now and then, so the world runs on until all are idle at one moment, for ``REST`` seconds at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scheduler.cluster.build import ClusterParts
from tests.simulation.rules.rule import Rule

if TYPE_CHECKING:
    from tests.simulation.nodes import SchedulerProcess, WorkerProcess
    from tests.simulation.world import World

#: Seconds in which there is a moment at which all parts are idle: more than a beat of the workers.
REST = 30.0

#: Timers of an idle process. The scheduler looks at the workers and at the count of commits, polls core workers, and
#: lets old jobs and workers that left go, each every so often; a worker waits for its next beat.
SCHEDULER_TIMERS = 5
WORKER_TIMERS = 1

#: The parts of the cluster that keep something of what is under way.
PARTS = (
    *("ledger", "feed", "expected", "liveness", "backoff", "flights", "starts", "queue", "submissions", "stops"),
    *("removals", "outputs", "attendance", "outlook", "reconciler", "polling", "forgetting", "membership", "set_back"),
)


def busy_parts(parts: ClusterParts) -> Iterator[str]:
    """Names of the parts of the scheduler that keep something."""
    for name in PARTS:
        if not getattr(parts, name).idle:
            yield name
    if not parts.ledger.registry.idle:
        yield "registry"


def left_over(world: World) -> Iterator[str]:
    """What is left, each with where."""
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
    """At the end nothing is left."""

    def rested(self) -> None:
        for what in left_over(self.facts.world):
            self.broken("nothing left", what)
