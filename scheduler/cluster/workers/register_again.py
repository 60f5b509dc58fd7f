"""Workers that have to register again, because a fact of their registration may have changed.

An address may have changed (the worker calls from another one, or calls to it fail), and so may a name (another worker
had it, and is gone). An earlier version of the scheduler kept no features, so they have to be told once.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.registry import Registry
from scheduler.cluster.workers.liveness import Liveness
from scheduler.model import Worker

#: Seconds between two heartbeats of one worker whose answers ask it to register again.
REGISTER_AGAIN_SECONDS = 60.0


@define(eq=False, slots=False)
class RegisterAgain:
    """Knows which workers have registered with this process, from where, and who has lost a name."""

    _clock: IReactorTime
    _registry: Registry
    _liveness: Liveness

    def __attrs_post_init__(self) -> None:
        # worker id -> the IP address that it registered from; its own name, if another worker has that now; and when it
        # was last asked to register again
        self._peers: dict[str, str] = {}
        self._nameless: dict[str, str] = {}
        self._asked: dict[str, float] = {}

    @property
    def idle(self) -> bool:
        """Whether no notes are left about workers that the registry does not know."""
        return all(map(self._registry.workers.find, {*self._peers, *self._nameless, *self._asked}))

    def registered(self, worker_id: str, peer: str) -> None:
        """The worker has registered, from the IP address ``peer``."""
        self._peers[worker_id] = peer
        self._nameless.pop(worker_id, None)

    def loses_name(self, worker: Worker) -> None:
        """Another worker gets the name of this one."""
        self._nameless[worker.id] = worker.name

    def forget(self, worker_id: str) -> None:
        """The worker deregistered, or is gone."""
        for kept in (self._peers, self._nameless, self._asked):
            kept.pop(worker_id, None)

    def lacks_features(self, worker: Worker) -> bool:
        """Whether the worker has to register before anything else, as it may have features that it did not tell."""
        return not worker.features and worker.id not in self._peers

    def is_due(self, worker: Worker, peer: str) -> bool:
        """Whether to ask the worker, which calls from ``peer``, to register again; then it is not asked soon again."""
        moved = peer != self._peers.get(worker.id, peer) or self._liveness.calls_fail(worker.id)
        own_name = self._nameless.get(worker.id)
        may_have_name = worker.name == worker.id and worker.id not in self._peers
        if not moved and not may_have_name and own_name is None:
            return False
        now = self._clock.seconds()
        name_is_free = own_name is not None and not self._registry.workers.named(own_name)
        last = self._asked.get(worker.id, -REGISTER_AGAIN_SECONDS)
        if now - last < REGISTER_AGAIN_SECONDS and not name_is_free:
            return False
        self._asked[worker.id] = now
        return True
