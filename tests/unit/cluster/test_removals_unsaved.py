"""Removals while the store fails, or while something else about the job is saved."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.errors import StoreFailed
from scheduler.model import JobState, Ref
from tests.unit.cluster.removals_case import RemovalCase
from tests.unit.cluster.values import a_job


class StoreTests(RemovalCase):
    def test_request_not_saved(self) -> None:
        """A removal that can't be promised is not begun, now or later."""
        self.store.held = True
        removal = self.remove()
        self.store.fail()
        self.failureResultOf(removal, StoreFailed)
        self.assertEqual((self.held(), self.cluster.job("j-1").remove_requested_at), ([], None))
        self.store.held = False
        self.clock.pump([1.0] * 20)
        self.online()
        self.assertEqual((self.held(), self.known()), ([], ["j-1"]))

    def test_removal_not_saved(self) -> None:
        """A removal that was promised, and is not durable yet, is carried out later."""
        removal = self.remove()
        self.store.held = True
        self.take("remove_job").answer.callback(None)
        self.store.fail()
        self.assertFalse(self.successResultOf(removal))
        self.assertEqual(self.known(), ["j-1"])
        self.store.held = False
        self.clock.pump([1.0] * 20)
        self.online()
        self.take("remove_job").answer.callback(None)
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_nothing_after_the_removal(self) -> None:
        """A report about a job during the save of its removal does not bring it back."""
        for lazily in (False, True):
            self.add(evolve(a_job("j-2", JobState.LOST), worker_id="w-gone"))
            self.store.held = True
            removal = self.cluster.remove("j-2")
            self.ledger.learn(evolve(self.cluster.job("j-2"), reason="another"), lazily=lazily)
            self.clock.advance(1.0)  # what was noted is saved
            self.store.commit_all()
            self.assertTrue(self.successResultOf(removal))
            self.store.held = False
            self.assertEqual(self.known(), ["j-1"])
            self.assertEqual([job.id for job in self.successResultOf(self.store.load()).jobs], ["j-1"])

    def test_retention_meanwhile(self) -> None:
        """A job whose time is over while it is being removed is gone once, and known as removed."""
        self.add(evolve(a_job("j-2", JobState.LOST), worker_id="w-gone"))
        self.store.held = True
        removal = self.cluster.remove("j-2")
        self.ledger.learn(Ref("job", "j-2"))
        self.store.commit_all()
        self.assertTrue(self.successResultOf(removal))
        self.store.held = False
        self.clock.advance(UNSAVED_MAX_SECONDS)
        (rest,) = self.successResultOf(self.store.load()).removed
        self.assertEqual((rest.job_id, "j-2" in self.ledger.registry.removed), ("j-2", True))
