"""Workers that register and never come to anything: how many of them are kept, and which are not among them."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.workers import newcomers
from scheduler.errors import NotFound
from scheduler.messages import Heartbeat
from scheduler.model import JobState, Presence, WorkerState
from tests.house import PEER
from tests.unit.cluster.test_clashes import ClashTestCase
from tests.unit.cluster.values import a_job


class NewcomerTests(ClashTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(newcomers, "NEWCOMERS_MAX", 3)

    def come(self, number: int) -> str:
        """A worker that was not known registers, and is silent from then on."""
        port, folder = 40000 + number, f"folder-{number}"
        return self.registered(port, folder_id=folder, name=f"n{number}", nonce=f"nonce-{number}").id

    def known(self) -> set[str]:
        return {worker.id for worker in self.ledger.registry.workers.all()}

    def test_the_oldest_goes(self) -> None:
        """The oldest silent newcomer is forgotten; its process registers again, and has the same id."""
        ids = [self.come(number) for number in range(5)]
        self.assertEqual(self.known(), set(ids[2:]))
        beat = Heartbeat(ids[0], "boot", nonce="nonce-0")
        self.failureResultOf(self.membership.heartbeat(beat, PEER), NotFound)
        self.assertEqual(self.come(0), ids[0])
        self.assertEqual(self.known(), {ids[0], *ids[3:]})
        self.assertTrue(self.membership.idle)

    def test_missed(self) -> None:
        """A worker that is online, has a job, is drained or was known before is kept."""
        online, busy, drained = (self.come(number) for number in range(3))
        registry = self.ledger.registry
        self.ledger.learn(a_job("j-1", JobState.SUCCEEDED, worker_id=busy))
        self.ledger.learn(evolve(registry.workers.get(drained), draining=True))
        self.ledger.see(online, Presence(WorkerState.ONLINE))
        later = [self.come(number) for number in range(3, 9)]
        self.assertLessEqual({online, busy, drained}, self.known())
        self.ledger.see(online, Presence())
        later += [self.come(number) for number in range(9, 15)]
        self.assertEqual(self.known(), {busy, drained, *later[-3:]})

    def test_store_fails(self) -> None:
        """A newcomer that can't be forgotten while the store fails is forgotten later."""
        ids = [self.come(number) for number in range(3)]
        self.store.problem = "disk full"
        ids.append(self.come(3))
        self.assertEqual(self.known(), set(ids))
        self.store.problem = ""
        self.clock.advance(5)
        ids.append(self.come(4))
        self.assertEqual(self.known(), {ids[0], *ids[2:]})
