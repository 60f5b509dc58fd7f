"""Workers that may be online at any moment, and the requests that wait for one of them.

A worker is expected from its registration until the first probe of it has ended. A worker that was loaded from the
store is expected until it has called, or a call to it has failed: presence is not stored, so it is not known yet
whether it is online. ``scheduler.cluster.workers.liveness`` tells when a worker is expected, and when no longer.

A request that no worker can take now, and that an expected worker could take, waits for a few seconds at most instead
of being refused. Requests with the same requirement wait in one group, first come, first served: a worker that comes
online wakes as many of them as it has free slots. When none of the workers that a group waits for is expected any more,
all requests of the group are woken. A request that is woken chooses a worker again, and may wait again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.candidates import Standing
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Requirement
from scheduler.model import Worker

T = TypeVar("T")

#: Seconds that one request waits for expected workers at most.
EXPECTED_WAIT_MAX_SECONDS = 5.0

#: Requests that wait at a time; further ones are refused at once.
MAX_WAITING_REQUESTS = 1000

#: The number of workers that are called first for a request that waits for them.
WORKERS_CALLED_FIRST = 4


@define
class _Group:
    """Requests with the same requirement, in the order in which they came, and the workers that they wait for."""

    worker_ids: dict[str, None]
    waiters: list[Deferred[None]] = field(factory=list)


class Expected:
    """Knows the expected workers; there is one for each scheduler."""

    def __init__(self, clock: IReactorTime, registry: Registry) -> None:
        self._clock = clock
        self._registry = registry
        self._workers: set[str] = set()
        self._groups: dict[Requirement, _Group] = {}
        # number of requests that wait, with those that were woken and have not run yet
        self._waiting = 0
        self._closed = False
        #: Called with the id of an expected worker when a request begins to wait for it.
        self.on_wanted: Callable[[str], None] = lambda _: None

    @property
    def idle(self) -> bool:
        """Whether no request waits."""
        return not self._waiting

    def begin(self, worker: Worker) -> None:
        """Expect the worker: it may be online at any moment."""
        self._workers.add(worker.id)
        for requirement, group in self._groups.items():
            if requirement.met_by(worker) and not worker.draining:
                group.worker_ids[worker.id] = None

    def settle(self, worker_id: str) -> None:
        """Expect the worker no longer, as it is online or did not come; wakes the requests that waited for it."""
        if worker_id not in self._workers:
            return
        self._workers.discard(worker_id)
        worker = self._registry.workers.find(worker_id)
        for requirement, group in list(self._groups.items()):
            if worker_id not in group.worker_ids:
                continue
            del group.worker_ids[worker_id]
            if not group.worker_ids:
                self._wake(requirement, group, len(group.waiters))
            elif worker is not None and self._registry.presences.of(worker_id).is_online:
                self._wake(requirement, group, self._room(requirement, worker))

    def wait(self, requirement: Requirement, seconds: float) -> Deferred[None] | None:
        """Fires when it is time to choose a worker again, after ``seconds`` at the latest.

        ``None``: no expected worker meets the requirement, ``seconds`` is 0, or too many requests wait.
        """
        if not self._workers or self._closed or seconds <= 0 or self._waiting >= MAX_WAITING_REQUESTS:
            return None
        group = self._groups.get(requirement)
        if group is None:
            group = _Group(self._meeting(requirement))
            if not group.worker_ids:
                return None
            self._groups[requirement] = group
        waiter: Deferred[None] = Deferred()
        group.waiters.append(waiter)
        self._waiting += 1
        waiter.addTimeout(seconds, self._clock, lambda _reason, _seconds: None)
        waiter.addBoth(self._left, requirement, group, waiter)
        for worker_id in list(islice(group.worker_ids, WORKERS_CALLED_FIRST)):
            self.on_wanted(worker_id)
        return waiter

    def close(self) -> None:
        """End every wait; later requests do not wait."""
        self._closed = True
        for requirement, group in list(self._groups.items()):
            self._wake(requirement, group, len(group.waiters))

    def _meeting(self, requirement: Requirement) -> dict[str, None]:
        """The ids of the expected workers that could take a job with that requirement if they were online."""
        if requirement.worker is not None:
            workers = iter(self._registry.workers.called(requirement.worker))
        else:
            workers = self._registry.candidates.each(requirement, (Standing.UNREACHABLE,))
        return {worker.id: None for worker in workers if worker.id in self._workers}

    def _room(self, requirement: Requirement, worker: Worker) -> int | None:
        """The number of jobs with that requirement that the worker can take now; ``None``: any number."""
        if requirement.worker is not None or worker.slots is None:
            return None
        return max(0, worker.slots - self._registry.load(worker.id))

    def _wake(self, requirement: Requirement, group: _Group, most: int | None) -> None:
        """Wake the first requests of a group, in the next turn of the reactor: not within a change of the registry."""
        woken, group.waiters = group.waiters[:most], [] if most is None else group.waiters[most:]
        if not group.waiters:
            del self._groups[requirement]
        if woken:
            self._clock.callLater(0, _fire, woken)

    def _left(self, result: T, requirement: Requirement, group: _Group, waiter: Deferred[None]) -> T:
        """Take a request that no longer waits out of its group."""
        self._waiting -= 1
        if waiter in group.waiters:
            group.waiters.remove(waiter)
            if not group.waiters and self._groups.get(requirement) is group:
                del self._groups[requirement]
        return result


def _fire(waiters: list[Deferred[None]]) -> None:
    for waiter in waiters:
        if not waiter.called:  # else its time ended at the same moment
            waiter.callback(None)
