"""Heartbeats of workers: signs of life, reports of jobs, and acknowledgements.

The effect of a report on the jobs is decided in ``scheduler.cluster.workers.reconcile``. A job is acknowledged when its
end is durable.
"""

from __future__ import annotations

from attrs import define, evolve
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.ledger import Ledger
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.workers.departures import Departures
from scheduler.cluster.workers.holders import check_sender
from scheduler.cluster.workers.ids import check_is_registered
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.cluster.workers.register_again import RegisterAgain
from scheduler.daemon import failpoints
from scheduler.deferreds import shielded
from scheduler.errors import NotFound, StoreFailed
from scheduler.messages import Heartbeat, HeartbeatAnswer, Peer
from scheduler.model import Presence, Worker
from scheduler.registrations import BOOT_ID_MAX_CHARACTERS, check_word
from scheduler.texts import bounded_text

#: Bytes that are shown of the reason why a worker takes no job.
REFUSAL_MAX_BYTES = 500

#: The share of a lease for which a heartbeat waits for the store. The worker sends the next one after the answer.
SAVED_SHARE = 1 / 3


@define(eq=False, slots=False)
class Heartbeats:
    """Answers heartbeats; there is one for each scheduler."""

    _clock: IReactorTime
    _ledger: Ledger
    _liveness: Liveness
    _reconciler: Reconciler
    _set_back: SetBack
    _departures: Departures
    _register_again: RegisterAgain

    async def take(self, heartbeat: Heartbeat, peer: Peer) -> HeartbeatAnswer:
        """See ``IMembership.heartbeat``."""
        check_word("bootID", heartbeat.boot_id, BOOT_ID_MAX_CHARACTERS)
        worker = self._sender(heartbeat, peer)
        self._set_back.heard(heartbeat)
        changed, describe = self._reconciler.apply_report(worker, heartbeat)
        # a job that ends while it is asked about is in both
        reported = [*dict.fromkeys(report.status.job_id for report in (*heartbeat.ended, *heartbeat.described))]
        saved = self._ledger.learn(*changed)
        if reported:
            saved = self._set_back.verified(saved)
        if heartbeat.boot_id not in ("", worker.boot_id):
            worker = evolve(worker, boot_id=heartbeat.boot_id)
            self._ledger.learn(worker).addErrback(lambda reason: reason.trap(StoreFailed))  # saved later
        if heartbeat.leaving:
            self._liveness.left(worker.id, self._told(heartbeat))  # the state of its jobs is unknown from now on
        else:
            self._liveness.heard(worker.id, self._told(heartbeat))
        durable = True
        try:
            await shielded(saved).addTimeout(SAVED_SHARE * self._liveness.lease, self._clock)
        except (StoreFailed, TimedOut):
            durable, reported = False, []  # it is alive all the same, and reports these ends again
        check_is_registered(self._ledger.registry, worker)
        if not heartbeat.leaving:
            self._reconciler.ask_about_unlisted(worker, heartbeat)
        more = self._reconciler.adoption.is_open(worker.id)
        report_all, commit_count = self._set_back.answer(heartbeat, durable, more)
        if not self._set_back.may_acknowledge(worker.id):
            reported = []
        failpoints.hit("scheduler.before-acknowledge")
        return HeartbeatAnswer(
            lease=self._liveness.lease,
            acknowledged=tuple(job_id for job_id in reported if self._is_kept(job_id)),
            describe=tuple(describe),
            register_again=not heartbeat.leaving and self._register_again.is_due(worker, peer.ip),
            commit_count=commit_count,
            report_all=report_all,
        )

    def _sender(self, heartbeat: Heartbeat, peer: Peer) -> Worker:
        """The worker that sends it; ``NotFound`` if it has to register first, ``Refused`` if it is another worker."""
        known = self._ledger.registry.workers.find(heartbeat.worker_id)
        if known is not None:
            check_sender(known, peer)
        worker = self._ledger.registry.workers.find_registered(heartbeat.worker_id)
        if worker is None or worker.is_core or heartbeat.nonce != worker.nonce:
            raise NotFound("worker", heartbeat.worker_id)
        if worker.id in self._departures or (self._register_again.lacks_features(worker) and not heartbeat.leaving):
            raise NotFound("worker", heartbeat.worker_id)
        return worker

    def _told(self, heartbeat: Heartbeat) -> Presence:
        """The presence as far as the worker tells it. The time that the message took lessens ``clock_difference``."""
        sent_at = heartbeat.sent_at
        return Presence(
            refusing=bounded_text(heartbeat.refusing, REFUSAL_MAX_BYTES) or None,
            disk=heartbeat.disk,
            clock_difference=None if sent_at is None else round(sent_at - self._ledger.now(), 3),
        )

    def _is_kept(self, job_id: str) -> bool:
        """Whether the end of a job is known here, or a client removed the job."""
        job = self._ledger.registry.jobs.find(job_id)
        return job_id in self._ledger.registry.removed if job is None else job.state.final
