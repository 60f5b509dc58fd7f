"""What workers say: they come, go, show that they live, and report their jobs.

What follows from a report is decided in ``scheduler.cluster.workers.reconcile``.

A call is cancelled when its deadline is over. What it began to save is saved all the same: the registry has it by then,
and a save that is cancelled is not repeated when it fails. So every save here is shielded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from scheduler.cluster import lifecycle
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.daemon import failpoints
from scheduler.deferreds import shielded
from scheduler.errors import Conflict, Invalid, NameTaken, NotFound, StoreFailed
from scheduler.interfaces import IMembership, IWorkerClient
from scheduler.messages import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.model import JobState, Worker, WorkerState, is_id
from scheduler.names import NAME_PATTERN
from scheduler.net import DialRule
from scheduler.texts import bounded_text

#: Bytes that are shown of why a worker takes no job.
REFUSAL_MAX_BYTES = 500

#: Characters of the version of a worker, and of the boot id of its machine.
VERSION_MAX_CHARACTERS = BOOT_ID_MAX_CHARACTERS = 64

#: Features that a worker may have; later versions know more than this one.
MAX_FEATURES = 64

_FEATURE = re.compile(r"[a-z0-9_]{1,64}")

_LABEL = re.compile(r"[^\x00-\x1f\x7f]{0,253}")


@implementer(IMembership)
class Membership:
    """The scheduler's side of the conversation with its workers."""

    _log = Logger()

    def __init__(
        self,
        new_id: Callable[[], str],
        ledger: Ledger,
        liveness: Liveness,
        client: IWorkerClient,
        rule: DialRule,
        reconciler: Reconciler,
    ) -> None:
        """``new_id`` gives the id of a worker that has none."""
        self._new_id = new_id
        self._ledger = ledger
        self._liveness = liveness
        self._client = client
        self._rule = rule
        self._reconciler = reconciler
        # ids of those that have registered with this process
        self._registered: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether none that is gone is kept."""
        return all(map(self._ledger.registry.find_worker, self._registered))

    def register(self, registration: Registration, peer: str) -> Deferred[Registered]:
        return Deferred.fromCoroutine(self._register(registration, peer))

    def deregister(self, worker_id: str, nonce: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deregister(worker_id, nonce))

    def heartbeat(self, heartbeat: Heartbeat, peer: str) -> Deferred[HeartbeatAnswer]:
        return Deferred.fromCoroutine(self._heartbeat(heartbeat, peer))

    def why_unreachable(self, worker: Worker) -> str:
        """A sentence, of one that is."""
        return self._liveness.why_unreachable(worker)

    async def _register(self, registration: Registration, peer: str) -> Registered:
        _check(registration)
        address = await self._rule.check(registration.address, peer)
        worker_id = registration.worker_id or self._new_id()
        name = registration.name or worker_id
        registry = self._ledger.registry
        self._check_ids(worker_id, name)
        for other in registry.named(name):  # first: a registration that is refused displaces nobody
            if other.id != worker_id and other.address != address and other.state is WorkerState.ONLINE:
                raise NameTaken(f"name {name!r} is taken by worker {other.id}, which is online at {other.address}")
        for other in registry.at_address(address):
            if other.id != worker_id:
                await self._displaced(other, by_a_new_one=not registration.worker_id)
        known = registry.find_worker(worker_id)
        self._client.forget(worker_id)  # its channel leads to the process before
        self._reconciler.forget(worker_id)
        worker = Worker(
            id=worker_id,
            name=name,
            address=address,
            labels={"name": name, **registration.labels},
            slots=registration.slots,
            state=known.state if known is not None else WorkerState.UNREACHABLE,
            draining=known is not None and known.draining,
            last_seen=self._ledger.now(),
            boot_id=registration.boot_id,
            version=registration.version or None,
            features=frozenset(registration.features),
            nonce=registration.nonce,
        )
        with suppress(StoreFailed):  # it is known all the same, and saved later; whoever forgets it is told again
            await shielded(self._ledger.update_worker(worker))
        self._registered.add(worker_id)
        self._liveness.registered(worker_id)
        self._log.info(
            "worker {name} ({worker_id}) registered at {address}", name=name, worker_id=worker_id, address=address
        )
        return Registered(worker_id, self._liveness.lease)

    def _check_ids(self, worker_id: str, name: str) -> None:
        """``Conflict`` for an id or a name by which something else is addressed: no id equals a name."""
        registry = self._ledger.registry
        if any(other.id != worker_id for other in registry.named(worker_id)):
            raise Conflict(f"workerID {worker_id!r} is the name of another worker")
        if registry.find_job(worker_id) is not None:
            raise Conflict(f"workerID {worker_id!r} is the id of a job")
        if name != worker_id and registry.find_worker(name) is not None:
            raise NameTaken(f"name {name!r} is the id of another worker")
        if registry.find_job(name) is not None:
            raise NameTaken(f"name {name!r} is the id of a job")

    async def _displaced(self, other: Worker, by_a_new_one: bool) -> None:
        """Somebody registers at the address of ``other``, which therefore listens there no more."""
        if by_a_new_one:
            await shielded(Deferred.fromCoroutine(self.remove(other, "forgotten")))
        else:
            # Another known worker took the port; this one may come back at another.
            self._client.forget(other.id)
            self._liveness.reset(other.id, "another worker registered at its address")

    async def _deregister(self, worker_id: str, nonce: str) -> None:
        worker = self._ledger.registry.find_worker(worker_id)
        if worker is None or worker.nonce != nonce:
            raise NotFound("worker", worker_id)
        why = f"worker {worker.name!r} deregistered"
        now = self._ledger.now()
        # One that is starting is left to the answer of its start.
        unfinished = [job for job in self._ledger.registry.unfinished(worker_id) if job.state is not JobState.STARTING]
        jobs_saved = self._ledger.update_jobs([lifecycle.unknown(job, why, now) for job in unfinished])
        jobs_saved.addErrback(lambda _: None)  # what is saved after them fails then, too
        await shielded(self._remove(worker))

    async def remove(self, worker: Worker, why: str) -> None:
        """It will not come back under this id: its unfinished jobs are ``lost``, with ``why``.

        Not those that are queued again because their starts never left: what is under way is cut, and answered, first.
        """
        self._liveness.reset(worker.id, "it is being forgotten")
        self._client.forget(worker.id)
        await self._reconciler.starts_over(worker.id)
        now = self._ledger.now()
        unfinished = self._ledger.registry.unfinished(worker.id)
        await self._ledger.conclude_jobs([lifecycle.lost(job, why, now) for job in unfinished])
        if self._ledger.registry.find_worker(worker.id) is not None:  # unless it was removed meanwhile
            await self._remove(worker)

    def _remove(self, worker: Worker) -> Deferred[None]:
        self._client.forget(worker.id)
        self._liveness.forget(worker.id)
        self._reconciler.forget(worker.id)
        self._registered.discard(worker.id)
        self._log.info("worker {name} ({worker_id}) is gone", name=worker.name, worker_id=worker.id)
        return self._ledger.remove_worker(worker.id)

    async def _heartbeat(self, heartbeat: Heartbeat, peer: str) -> HeartbeatAnswer:  # noqa: ARG002
        _check_word("bootID", heartbeat.boot_id, BOOT_ID_MAX_CHARACTERS)
        registry = self._ledger.registry
        worker = registry.find_worker(heartbeat.worker_id)
        if worker is None or heartbeat.nonce != worker.nonce:
            raise NotFound("worker", heartbeat.worker_id)
        if self._may_have_features(worker) and not heartbeat.leaving:
            raise NotFound("worker", heartbeat.worker_id)
        told = evolve(
            worker,
            boot_id=heartbeat.boot_id,
            refusing=bounded_text(heartbeat.refusing, REFUSAL_MAX_BYTES) or None,
            disk=heartbeat.disk,
            clock_difference=_difference(heartbeat.sent_at, self._ledger.now()),
        )
        # First of all: whoever is told that the worker lives may ask it about its jobs, and some have ended.
        changed, describe = self._reconciler.apply_report(told, heartbeat)
        reported = [report.status.job_id for report in (*heartbeat.ended, *heartbeat.described)]
        saved = self._ledger.update_jobs(changed)
        if told.boot_id != worker.boot_id:
            self._ledger.update_worker(told).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later
        elif told.refusing != worker.refusing:
            self._ledger.note_worker(told)
        else:
            self._ledger.note_facts(told)
        worker = told
        if heartbeat.leaving:
            self._liveness.left(worker.id)  # what runs there is unknown from now on
        else:
            self._liveness.heard(worker.id)
        try:
            await shielded(saved)
        except StoreFailed:
            reported = []  # it lives all the same, and what ended it tells again
        if not heartbeat.leaving:
            self._reconciler.ask_about_unlisted(worker, heartbeat)
        failpoints.hit("scheduler.before-acknowledge")
        return HeartbeatAnswer(
            lease=self._liveness.lease,
            acknowledged=tuple(job_id for job_id in reported if self._kept(job_id)),
            describe=tuple(describe),
        )

    def _may_have_features(self, worker: Worker) -> bool:
        """Whether it has to register to say: an earlier version of the scheduler, which it did that with, kept none."""
        return not worker.features and worker.id not in self._registered

    def _kept(self, job_id: str) -> bool:
        registry = self._ledger.registry
        job = registry.find_job(job_id)
        return registry.was_removed(job_id) if job is None else job.state.final


def _difference(sent_at: float | None, now: float) -> float | None:
    """Seconds by which a worker's clock is ahead, to the millisecond; what the message took makes it less."""
    return None if sent_at is None else round(sent_at - now, 3)


def _check_word(field: str, text: str, most: int) -> None:
    if len(text) > most or not text.isprintable():
        raise Invalid(field, f"{text[:most]!r} is not printable text of at most {most} characters")


def _check(registration: Registration) -> None:
    """``Invalid`` for anything that may not become part of the registry; the address has a rule of its own."""
    if registration.worker_id and not is_id(registration.worker_id):
        raise Invalid("workerID", f"{registration.worker_id!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if registration.name and not NAME_PATTERN.fullmatch(registration.name):
        raise Invalid("name", f"{registration.name!r} is not a host name: letters, digits, '.', '_', '-'; at most 253")
    _check_word("bootID", registration.boot_id, BOOT_ID_MAX_CHARACTERS)
    _check_word("version", registration.version, VERSION_MAX_CHARACTERS)
    if len(registration.labels) > 64:
        raise Invalid("labels", f"{len(registration.labels)} of them; at most 64 are allowed")
    for key, value in registration.labels.items():
        if not key or not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value):
            raise Invalid("labels", f"{key!r}: {value!r} is not printable text of at most 253 characters")
    if len(registration.features) > MAX_FEATURES:
        raise Invalid("features", f"{len(registration.features)} of them; at most {MAX_FEATURES} are allowed")
    for feature in registration.features:
        if not _FEATURE.fullmatch(feature):
            raise Invalid("features", f"{feature!r} is not 1 to 64 of a-z 0-9 _")
