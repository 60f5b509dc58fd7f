"""Workers that are forgotten while the store is slow."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.errors import Conflict, NotFound
from scheduler.messages import Heartbeat, JobReport, Peer
from scheduler.model import JobState, Presence
from tests.house import PEER
from tests.unit.cluster.test_clashes import ClashTestCase
from tests.unit.cluster.test_membership import ended
from tests.unit.cluster.values import a_job


class RemovalTests(ClashTestCase):
    """A worker that is being forgotten while the store is slow."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = self.registered()
        self.ledger.learn(a_job(worker_id=self.worker.id))
        self.ledger.learn(evolve(self.worker, draining=True))
        self.liveness.left(self.worker.id, Presence())
        self.workers.held.clear()

    def test_comes_back_before_its_jobs_are_given_up(self) -> None:
        """A worker that registers meanwhile stays, with its jobs and its drain."""
        start = Deferred[None]()
        self.patch(self.house.parts.reconciler, "starts_over", lambda _: start)
        forgotten = self.cluster.forget(self.worker.id)
        self.failureResultOf(
            self.membership.heartbeat(Heartbeat(self.worker.id, "boot", nonce="first"), PEER), NotFound
        )
        self.registered()
        start.callback(None)
        self.failureResultOf(forgotten, Conflict)
        self.beat(self.worker.id, nonce="first", running=("j-1",))
        self.assertTrue(self.ledger.registry.workers.get(self.worker.id).draining)
        self.assertIs(self.state(), JobState.RUNNING)
        self.assertTrue(self.membership.idle)

    def test_comes_back_after(self) -> None:
        """The worker stays even if its jobs are already being given up."""
        self.store.held = True
        forgotten = self.cluster.forget(self.worker.id)
        back = self.registering(nonce="second")
        self.asked().callback(False)
        self.store.commit_all()
        self.failureResultOf(forgotten, Conflict)
        self.assertEqual(self.successResultOf(back).worker_id, self.worker.id)
        self.store.held = False
        self.beat(self.worker.id, nonce="second")
        self.assertTrue(self.ledger.registry.workers.get(self.worker.id).draining)

    def test_asked_twice(self) -> None:
        """Two requests to forget it are one."""
        self.store.held = True
        both = [self.cluster.forget(self.worker.id) for _ in range(2)]
        self.store.commit_all()
        for each in both:
            self.successResultOf(each)
        self.assertEqual(self.ledger.registry.workers.all(), [])
        self.assertTrue(self.membership.idle)

    def test_gone_meanwhile(self) -> None:
        """Nothing is kept of one that is forgotten while its heartbeat, or registration, is being saved."""
        self.beat(self.worker.id, nonce="first")
        self.liveness.reset(self.worker.id, "it is away")
        for call in ("heartbeat", "register"):
            with self.subTest(call):
                self.registered()
                self.ledger.learn(a_job(call, worker_id=self.worker.id))
                self.store.held = True
                if call == "heartbeat":
                    beat = Heartbeat(self.worker.id, "boot", ended=(JobReport(ended(call)),), nonce="first")
                    answer: Any = self.membership.heartbeat(beat, Peer("127.0.0.9"))
                else:
                    answer = self.registering()
                waits = self.store.saves.pop(0)
                self.store.held = False
                self.successResultOf(
                    self.membership.departures.remove(self.ledger.registry.workers.get(self.worker.id), "forgotten")
                )
                waits[1].callback(None)
                self.failureResultOf(answer, NotFound)
                self.assertTrue(self.membership.idle)
                self.assertTrue(self.house.parts.set_back.idle)
