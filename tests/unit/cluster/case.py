"""A scheduler with the worker ``w-1``, whose calls wait for the test, for tests of the scheduler's parts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import NotFound
from scheduler.model import Job, JobSpec, Worker
from scheduler.terms import Target
from scheduler.views import JobFilter
from tests.doubles.workers import METHODS, Call
from tests.house import House
from tests.unit.cluster.values import a_worker

ECHO = JobSpec(command="echo")
ANY = Target(selector={})
W1 = Target(worker="w-1")


class ClusterTestCase(SynchronousTestCase):
    """Workers answer probes at once; every other call waits in ``self.workers.held``. ``wall`` is the POSIX time."""

    queue_max = 3

    def setUp(self) -> None:
        self.wall = 1000.0
        self.house = House(lambda: self.wall, queue_max=self.queue_max)
        self.house.workers.hold(*METHODS[1:])
        self.store = self.house.store
        self._name_parts()
        self.add(a_worker())

    def begin(self) -> None:
        """A scheduler on what the store holds; whatever ran before is as if killed."""
        self.house.restart()
        self._name_parts()

    def _name_parts(self) -> None:
        parts = self.house.parts
        self.clock, self.workers, self.cluster = self.house.clock, self.house.workers, parts.service
        self.ledger, self.membership, self.liveness = parts.ledger, parts.membership, parts.liveness
        self.starts, self.queue, self.waiting = parts.starts, parts.queue, parts.lines
        self.stops, self.removals, self.attendance = parts.stops, parts.removals, parts.attendance

    def settle(self) -> None:
        self.house.settle()

    def take(self, method: str) -> Call:
        return self.house.take(method)

    def held(self) -> list[Call]:
        return self.house.held()

    def add(self, *things: Worker | Job, online: bool = True, **told: Any) -> None:
        self.house.add(*things, online=online, **told)

    def only_job(self) -> Job:
        (job,) = self.jobs()
        return job

    def jobs(self) -> list[Job]:
        return list(self.ledger.registry.jobs.listing.matching(JobFilter()))


def call_or_fail(function: Any, *args: Any) -> Deferred[Any]:
    """A refusal may come at once or later."""
    try:
        answer: Deferred[Any] = function(*args)
    except NotFound as error:
        answer = Deferred()
        answer.errback(error)
    return answer
