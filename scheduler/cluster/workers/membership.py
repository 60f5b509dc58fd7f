"""The calls of workers: registration, heartbeat (``heartbeats``), deregistration (``departures``).

A call is cancelled when its deadline is over. Its changes are in the registry by then, and a save that is cancelled is
not repeated when it fails. So every save here is shielded: it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from scheduler.cluster.ledger import Ledger
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.workers.clashes import Clashes
from scheduler.cluster.workers.departures import Departures
from scheduler.cluster.workers.heartbeats import Heartbeats
from scheduler.cluster.workers.holders import check_sender, check_takes_over, with_name
from scheduler.cluster.workers.ids import check_ids, check_is_registered, id_of, id_of_folder
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.newcomers import Newcomers
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.cluster.workers.register_again import RegisterAgain
from scheduler.deferreds import all_of, shielded
from scheduler.errors import Conflict, NotFound, Refused, StoreFailed
from scheduler.interfaces import IMembership, IWorkerClient
from scheduler.messages import Heartbeat, HeartbeatAnswer, Peer, Registered, Registration
from scheduler.model import Worker
from scheduler.net import DialRule
from scheduler.registrations import check


@implementer(IMembership)
@define(eq=False, slots=False)
class Membership:
    """The scheduler's side of the conversation with its workers."""

    _log = Logger()

    _clock: IReactorTime
    #: Gives the id of a worker that has neither an id nor a folder id.
    _new_id: Callable[[], str]
    _ledger: Ledger
    _liveness: Liveness
    _client: IWorkerClient
    _rule: DialRule
    #: Tells whether this scheduler itself listens at a ``host:port``.
    _is_own_address: Callable[[str], bool]
    _reconciler: Reconciler
    _set_back: SetBack
    #: Seconds for which a worker that deregistered stays listed; 0: it is not listed.
    _forget_after: float

    def __attrs_post_init__(self) -> None:
        ledger, liveness, reconciler = self._ledger, self._liveness, self._reconciler
        self.departures = Departures(ledger, liveness, self._client, reconciler, self._disconnect, self._forget_after)
        self._clashes = Clashes(ledger.registry, self._client)
        self._newcomers = Newcomers(ledger.registry, self.departures.remove)
        self._register_again = RegisterAgain(self._clock, ledger.registry, liveness)
        self._heartbeats = Heartbeats(
            self._clock, ledger, liveness, reconciler, self._set_back, self.departures, self._register_again
        )

    @property
    def idle(self) -> bool:
        """Whether no removal or registration is under way, and no notes are left about workers that are not known."""
        parts = (self.departures, self._newcomers, self._clashes, self._register_again)
        return all(part.idle for part in parts)

    def register(self, registration: Registration, peer: Peer) -> Deferred[Registered]:
        return Deferred.fromCoroutine(self._checked(registration, peer))

    def deregister(self, worker_id: str, nonce: str, peer: Peer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deregister(worker_id, nonce, peer))

    def heartbeat(self, heartbeat: Heartbeat, peer: Peer) -> Deferred[HeartbeatAnswer]:
        return Deferred.fromCoroutine(self._heartbeats.take(heartbeat, peer))

    async def _checked(self, registration: Registration, peer: Peer) -> Registered:
        registration = with_name(registration, peer)
        check(registration)
        with self._set_back.registering(registration.commit_count):
            return await self._register(registration, peer)

    async def _register(self, registration: Registration, peer: Peer) -> Registered:
        if not registration.boot_id:  # a core worker: only its address identifies it
            registration = evolve(registration, worker_id="", folder_id="", nonce="")
        address = await self._rule.check(registration.address, peer.ip)
        if self._is_own_address(address):
            raise Refused(f"address {registration.address!r} is the scheduler's own")
        new_id = self._new_id()
        worker = await self._clashes.settle(lambda: self._as_registered(registration, address, new_id, peer))
        self._clashes.forget(worker.id)
        self.departures.stay(worker.id)
        known = self._ledger.registry.workers.find(worker.id)
        displaced = self._make_room(worker, peer)
        new_process = known is None or not worker.nonce or known.nonce != worker.nonce
        moved = known is None or known.address != worker.address
        if new_process or moved:
            self._client.forget(worker.id)  # its channel leads to the earlier process or address
            self._liveness.begin(worker.id)
        if new_process:
            self._reconciler.forget(worker.id)
        self._register_again.registered(worker.id, peer.ip)
        saved = self._ledger.learn(worker)
        if known is None:
            self._newcomers.add(worker.id)
        self._liveness.heard(worker.id)
        if new_process or moved:
            self._log.info(
                "worker {name} ({worker_id}) registered at {address}",
                name=worker.name,
                worker_id=worker.id,
                address=address,
            )
        # A worker that can't be saved now is in the registry all the same, and saved later. The workers that it
        # displaces must be removed: if that fails, it registers again, and they are found again.
        saved.addErrback(lambda reason: reason.trap(StoreFailed))
        removed = [self.departures.remove(other, "forgotten") for other in displaced]
        for removal in removed:
            removal.addErrback(lambda reason: reason.trap(Conflict))  # that one has registered again, so it stays
        await shielded(all_of([saved, *removed]) if removed else saved)
        check_is_registered(self._ledger.registry, worker)
        count = self._set_back.registered(worker.id, registration.commit_count, new_process)
        return Registered(worker.id, self._liveness.lease, count)

    def _as_registered(self, registration: Registration, address: str, new_id: str, peer: Peer) -> Worker:
        """The worker as the registry will have it; ``new_id`` if it has no id.

        Raises as ``check_ids`` and ``check_takes_over``.
        """
        registry = self._ledger.registry
        worker_id = id_of(registry, registration, address) or new_id
        known = registry.workers.find(worker_id)
        check_takes_over(known, registration, peer)
        name = registration.name or worker_id
        check_ids(registry, worker_id, name)
        before = known or next(self._replaced(worker_id, name, address), None)
        return Worker(
            id=worker_id,
            name=name,
            address=address,
            labels={"name": name, **registration.labels},
            slots=registration.slots,
            draining=before is not None and before.draining,
            boot_id=registration.boot_id,
            version=registration.version or None,
            features=frozenset(registration.features),
            folder=id_of_folder(registration.folder_id) or (known.folder if known is not None else ""),
            nonce=registration.nonce,
        )

    def _replaced(self, worker_id: str, name: str, address: str) -> Iterator[Worker]:
        """The entry that a worker replaces: the one with its name and address, whose state folder is lost.

        Names are unique. So if a known worker has the name and address of another, it has not replaced the other yet:
        the store failed, or an earlier scheduler process was killed.
        """
        registry = self._ledger.registry
        known = registry.workers.find(worker_id)
        if known is not None and known.name != name:
            return
        for each in registry.workers.at_address(address if known is None else known.address):
            if each.id != worker_id and each.name == name and not each.is_offline:
                yield each

    def _make_room(self, worker: Worker, peer: Peer) -> list[Worker]:
        """Take the name and address of the worker from all others; returns the workers to remove.

        The others were asked and did not answer, or are offline.
        """
        registry = self._ledger.registry
        displaced = list(self._replaced(worker.id, worker.name, worker.address))
        for other in registry.workers.at_address(worker.address):
            if other.id == worker.id or other.is_offline:
                continue
            self._client.forget(other.id)
            self._liveness.reset(other.id, "another worker registered at its address")
            is_anonymous = other.is_core and not peer.names  # only its address identified it
            if is_anonymous and other not in displaced:
                displaced.append(other)
        for other in registry.workers.named(worker.name):
            if other.id != worker.id and all(other.id != each.id for each in displaced):
                self._log.info(
                    "worker {worker_id} is called by its id from now on: {newcomer} has the name {name}",
                    worker_id=other.id,
                    newcomer=worker.id,
                    name=worker.name,
                )
                self._register_again.loses_name(other)
                renamed = evolve(other, name=other.id, labels={**other.labels, "name": other.id})
                self._ledger.learn(renamed).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later
        return displaced

    async def _deregister(self, worker_id: str, nonce: str, peer: Peer) -> None:
        worker = self._ledger.registry.workers.find(worker_id)
        if worker is not None:
            check_sender(worker, peer)
        if worker is None or worker.nonce != nonce:
            raise NotFound("worker", worker_id)
        await self.departures.deregister(worker)

    def _disconnect(self, worker_id: str) -> None:
        """Forget the channel and all other state of the worker in this process."""
        self._client.forget(worker_id)
        self._liveness.forget(worker_id)
        self._reconciler.forget(worker_id)
        self._set_back.forget(worker_id)
        self._newcomers.forget(worker_id)
        self._clashes.forget(worker_id)
        self._register_again.forget(worker_id)
