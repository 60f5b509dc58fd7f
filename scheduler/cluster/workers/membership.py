"""The calls of workers: registration, heartbeat, deregistration.

The effect of a report on the jobs is decided in ``scheduler.cluster.workers.reconcile``.

A call is cancelled when its deadline is over. Its changes are in the registry by then, and a save that is cancelled is
not repeated when it fails. So every save here is shielded: it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.workers.clashes import Clashes, renamed_to_its_id
from scheduler.cluster.workers.departures import Departures
from scheduler.cluster.workers.forgetting import stays_listed
from scheduler.cluster.workers.ids import check_ids, id_of
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.newcomers import Newcomers
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.cluster.workers.registration import id_of_folder
from scheduler.daemon import failpoints
from scheduler.deferreds import shielded
from scheduler.errors import Conflict, NotFound, Refused, StoreFailed
from scheduler.interfaces import IMembership, IWorkerClient
from scheduler.messages import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.model import JobState, Presence, Worker
from scheduler.net import DialRule
from scheduler.registrations import BOOT_ID_MAX_CHARACTERS, check, check_word
from scheduler.texts import bounded_text

#: Bytes that are shown of the reason why a worker takes no job.
REFUSAL_MAX_BYTES = 500

#: The share of a lease for which a heartbeat waits for the store. The worker sends the next one after the answer.
SAVED_SHARE = 1 / 3

#: Seconds between two heartbeats of one worker whose answers ask it to register again.
REGISTER_AGAIN_SECONDS = 60.0


@implementer(IMembership)
class Membership:
    """The scheduler's side of the conversation with its workers."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        new_id: Callable[[], str],
        ledger: Ledger,
        liveness: Liveness,
        client: IWorkerClient,
        rule: DialRule,
        is_own_address: Callable[[str], bool],
        reconciler: Reconciler,
        set_back: SetBack,
        forget_after: float,
    ) -> None:
        """``new_id`` gives the id of a worker that has neither an id nor a folder id.

        ``is_own_address`` tells whether this scheduler itself listens at a ``host:port``. ``forget_after``: seconds for
        which a worker that deregistered stays listed; 0: it is not listed.
        """
        self._clock = clock
        self._new_id = new_id
        self._ledger = ledger
        self._liveness = liveness
        self._client = client
        self._rule = rule
        self._is_own_address = is_own_address
        self._reconciler = reconciler
        self._set_back = set_back
        self._forget_after = forget_after
        self._clashes = Clashes(ledger.registry, client)
        self._departures = Departures(ledger, reconciler, self._cut, self._remove)
        self._newcomers = Newcomers(ledger.registry, self._departures.remove)
        # worker id -> the IP address that it registered from; its own name, if another worker has that now; and when it
        # was last asked to register again
        self._peers: dict[str, str] = {}
        self._nameless: dict[str, str] = {}
        self._asked_again: dict[str, float] = {}
        # ids of the workers that have registered with this process
        self._registered: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether no worker is being removed, and every worker that is kept here is in the registry."""
        kept = {*self._registered, *self._peers, *self._nameless, *self._asked_again}
        parts = (self._departures, self._newcomers, self._clashes)
        return all(part.idle for part in parts) and all(map(self._ledger.registry.find_worker, kept))

    def register(self, registration: Registration, peer: str) -> Deferred[Registered]:
        return Deferred.fromCoroutine(self._checked(registration, peer))

    def deregister(self, worker_id: str, nonce: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deregister(worker_id, nonce))

    def heartbeat(self, heartbeat: Heartbeat, peer: str) -> Deferred[HeartbeatAnswer]:
        return Deferred.fromCoroutine(self._heartbeat(heartbeat, peer))

    async def _checked(self, registration: Registration, peer: str) -> Registered:
        check(registration)
        with self._set_back.registering(registration.commit_count):
            return await self._register(registration, peer)

    async def _register(self, registration: Registration, peer: str) -> Registered:
        if not registration.boot_id:  # a core worker: only its address identifies it
            registration = evolve(registration, worker_id="", folder_id="", nonce="")
        address = await self._rule.check(registration.address, peer)
        if self._is_own_address(address):
            raise Refused(f"address {registration.address!r} is the scheduler's own")
        new_id = self._new_id()
        worker = await self._clashes.settle(lambda: self._as_registered(registration, address, new_id))
        self._clashes.forget(worker.id)
        self._departures.stay(worker.id)
        known = self._ledger.registry.find_worker(worker.id)
        displaced = self._make_room(worker)
        new_process = known is None or not worker.nonce or known.nonce != worker.nonce
        moved = known is None or known.address != worker.address
        if new_process or moved:
            self._client.forget(worker.id)  # its channel leads to the earlier process or address
            self._liveness.begin(worker.id)
        if new_process:
            self._reconciler.forget(worker.id)
        self._peers[worker.id] = peer
        self._nameless.pop(worker.id, None)
        saved = self._ledger.learn(worker)
        self._registered.add(worker.id)
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
        removed = [self.remove(other, "forgotten").addErrback(_has_come_back) for other in displaced]
        await shielded(_all_of([saved, *removed]) if removed else saved)
        self._check_is_registered(worker)
        count = self._set_back.registered(worker.id, registration.commit_count, new_process)
        return Registered(worker.id, self._liveness.lease, count)

    def _as_registered(self, registration: Registration, address: str, new_id: str) -> Worker:
        """The worker as the registry will have it; ``new_id`` if it has no id. Raises as ``check_ids``."""
        registry = self._ledger.registry
        worker_id = id_of(registry, registration, address) or new_id
        known = registry.find_worker(worker_id)
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
        known = registry.find_worker(worker_id)
        if known is not None and known.name != name:
            return
        for each in registry.at_address(address if known is None else known.address):
            if each.id != worker_id and each.name == name and not each.is_offline:
                yield each

    def _make_room(self, worker: Worker) -> list[Worker]:
        """Take the name and address of the worker from all others; returns the workers to remove.

        The others were asked and did not answer, or are offline.
        """
        registry = self._ledger.registry
        displaced = list(self._replaced(worker.id, worker.name, worker.address))
        for other in registry.at_address(worker.address):
            if other.id == worker.id or other.is_offline:
                continue
            self._client.forget(other.id)
            self._liveness.reset(other.id, "another worker registered at its address")
            if other.is_core and other not in displaced:  # only its address identified it
                displaced.append(other)
        for other in registry.named(worker.name):
            if other.id != worker.id and all(other.id != each.id for each in displaced):
                self._log.info(
                    "worker {worker_id} is called by its id from now on: {newcomer} has the name {name}",
                    worker_id=other.id,
                    newcomer=worker.id,
                    name=worker.name,
                )
                self._nameless[other.id] = other.name
                renamed = renamed_to_its_id(other)
                self._ledger.learn(renamed).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later
        return displaced

    async def _deregister(self, worker_id: str, nonce: str) -> None:
        worker = self._ledger.registry.find_worker(worker_id)
        if worker is None or worker.nonce != nonce:
            raise NotFound("worker", worker_id)
        if worker.is_offline:  # it deregisters again, as the answer was lost
            await shielded(self._ledger.learn(worker))
            return
        why = f"worker {worker.name!r} deregistered"
        now = self._ledger.now()
        # A job that is starting is left to the answer of its start.
        unfinished = [job for job in self._ledger.registry.unfinished(worker_id) if job.state is not JobState.STARTING]
        jobs_saved = self._ledger.learn(*(lifecycle.unknown(job, why, now) for job in unfinished))
        jobs_saved.addErrback(lambda _: None)  # then the save that follows fails, too
        stays = stays_listed(worker, self._ledger.registry.running_jobs(worker_id) > 0, self._forget_after)
        await shielded(self._go_offline(worker) if stays else self._remove(worker))

    def remove(self, worker: Worker, why: str) -> Deferred[None]:
        """Remove a worker that will not come back under this id: see ``Departures``."""
        return self._departures.remove(worker, why)

    def unlist(self, worker: Worker) -> None:
        """Remove a worker that deregistered, and has no jobs any more."""
        self._remove(worker).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later

    def _cut(self, worker: Worker) -> None:
        self._liveness.reset(worker.id, "it is being forgotten")
        self._client.forget(worker.id)

    def _check_is_registered(self, worker: Worker) -> None:
        """Raise ``NotFound`` if the worker is not registered as this process: then nothing about it may be kept."""
        now = self._ledger.registry.find_registered(worker.id)
        if now is None or now.nonce != worker.nonce:
            raise NotFound("worker", worker.id)

    def _go_offline(self, worker: Worker) -> Deferred[None]:
        """Show a worker that deregistered as offline, until it comes back or is forgotten."""
        self._disconnect(worker)
        self._log.info("worker {name} ({worker_id}) is offline: it deregistered", name=worker.name, worker_id=worker.id)
        return self._ledger.learn(evolve(worker, deregistered_at=self._ledger.now()))

    def _remove(self, worker: Worker) -> Deferred[None]:
        self._disconnect(worker)
        self._log.info("worker {name} ({worker_id}) is gone", name=worker.name, worker_id=worker.id)
        return self._ledger.learn(worker.ref)

    def _disconnect(self, worker: Worker) -> None:
        """Forget the channel and all other state of the worker in this process."""
        self._client.forget(worker.id)
        self._liveness.forget(worker.id)
        self._reconciler.forget(worker.id)
        self._set_back.forget(worker.id)
        self._registered.discard(worker.id)
        self._newcomers.forget(worker.id)
        self._clashes.forget(worker.id)
        self._peers.pop(worker.id, None)
        self._nameless.pop(worker.id, None)
        self._asked_again.pop(worker.id, None)

    async def _heartbeat(self, heartbeat: Heartbeat, peer: str) -> HeartbeatAnswer:
        check_word("bootID", heartbeat.boot_id, BOOT_ID_MAX_CHARACTERS)
        registry = self._ledger.registry
        worker = registry.find_registered(heartbeat.worker_id)
        if worker is None or worker.is_core or heartbeat.nonce != worker.nonce:
            raise NotFound("worker", heartbeat.worker_id)
        if worker.id in self._departures or (self._may_have_features(worker) and not heartbeat.leaving):
            raise NotFound("worker", heartbeat.worker_id)
        self._set_back.heard(heartbeat)
        changed, describe = self._reconciler.apply_report(worker, heartbeat)
        reported = [report.status.job_id for report in (*heartbeat.ended, *heartbeat.described)]
        saved = self._ledger.learn(*changed)
        if reported:
            saved = self._set_back.verified(saved)
        if heartbeat.boot_id not in ("", worker.boot_id):
            worker = evolve(worker, boot_id=heartbeat.boot_id)
            self._ledger.learn(worker).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later
        told = Presence(
            refusing=bounded_text(heartbeat.refusing, REFUSAL_MAX_BYTES) or None,
            disk=heartbeat.disk,
            clock_difference=_difference(heartbeat.sent_at, self._ledger.now()),
        )
        if heartbeat.leaving:
            self._liveness.left(worker.id, told)  # the state of its jobs is unknown from now on
        else:
            self._liveness.heard(worker.id, told)
        durable = True
        try:
            await shielded(saved).addTimeout(SAVED_SHARE * self._liveness.lease, self._clock)
        except (StoreFailed, TimedOut):
            durable, reported = False, []  # it is alive all the same, and reports these ends again
        self._check_is_registered(worker)
        if not heartbeat.leaving:
            self._reconciler.ask_about_unlisted(worker, heartbeat)
        more = self._reconciler.awaits_descriptions(worker.id)
        report_all, commit_count = self._set_back.answer(heartbeat, durable, more)
        if not self._set_back.may_acknowledge(worker.id):
            reported = []
        failpoints.hit("scheduler.before-acknowledge")
        return HeartbeatAnswer(
            lease=self._liveness.lease,
            acknowledged=tuple(job_id for job_id in reported if self._kept(job_id)),
            describe=tuple(describe),
            register_again=not heartbeat.leaving and self._is_to_register_again(worker, peer),
            commit_count=commit_count,
            report_all=report_all,
        )

    def _is_to_register_again(self, worker: Worker, peer: str) -> bool:
        """Whether its address (it calls from another one, or calls to it fail) or its name may have changed."""
        moved = peer != self._peers.get(worker.id, peer) or self._liveness.calls_fail(worker.id)
        own_name = self._nameless.get(worker.id)
        may_have_name = worker.name == worker.id and worker.id not in self._registered
        if not moved and not may_have_name and own_name is None:
            return False
        now = self._clock.seconds()
        name_is_free = own_name is not None and not self._ledger.registry.named(own_name)
        last = self._asked_again.get(worker.id, -REGISTER_AGAIN_SECONDS)
        if now - last < REGISTER_AGAIN_SECONDS and not name_is_free:
            return False
        self._asked_again[worker.id] = now
        return True

    def _may_have_features(self, worker: Worker) -> bool:
        """Whether it has to register again to tell its features, as an earlier version of the scheduler kept none."""
        return not worker.features and worker.id not in self._registered

    def _kept(self, job_id: str) -> bool:
        registry = self._ledger.registry
        job = registry.find_job(job_id)
        return registry.was_removed(job_id) if job is None else job.state.final


def _all_of(deferreds: list[Deferred[None]]) -> Deferred[None]:
    """Fires when all have fired, or with the first failure."""
    done = gatherResults(deferreds, consumeErrors=True)
    return done.addCallbacks(lambda _: None, lambda reason: reason.value.subFailure)


def _has_come_back(reason: Failure) -> None:
    """A worker that was about to be removed has registered again, so it stays."""
    reason.trap(Conflict)


def _difference(sent_at: float | None, now: float) -> float | None:
    """Seconds by which a worker's clock is ahead, to the millisecond, less the time that the message took."""
    return None if sent_at is None else round(sent_at - now, 3)
