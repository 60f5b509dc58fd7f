"""What every store does: today the memory store alone."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scheduler.interfaces import IStore, Loaded, Removed
from scheduler.model import JobState
from scheduler.store.memory import MemoryStore
from tests.unit.cluster.values import a_job, a_worker


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()

    def loaded(self) -> Loaded:
        return self.successResultOf(self.store.load())

    def test_interface(self) -> None:
        """It has all that a store has."""
        self.assertTrue(verifyObject(IStore, self.store))

    def test_empty(self) -> None:
        """A new one holds nothing."""
        self.assertEqual(self.loaded(), Loaded())

    def test_saved_is_loaded(self) -> None:
        """Jobs and workers come back as they were saved."""
        self.successResultOf(self.store.save([a_job(), a_worker()]))
        self.assertEqual(self.loaded(), Loaded((a_job(),), (a_worker(),)))

    def test_the_last_one_counts(self) -> None:
        """A record saved again replaces the one before, within one save too."""
        ended = a_job(state=JobState.SUCCEEDED)
        self.successResultOf(self.store.save([a_job(), ended]))
        self.successResultOf(self.store.save([evolve(a_worker(), draining=True)]))
        self.successResultOf(self.store.save([a_worker()]))
        self.assertEqual(self.loaded(), Loaded((ended,), (a_worker(),)))

    def test_removed(self) -> None:
        """What was removed is gone, and removing what is not there is nothing."""
        self.successResultOf(self.store.save([a_job(), a_worker()]))
        self.successResultOf(self.store.save([Removed("job", "j-1"), Removed("worker", "w-1")]))
        self.successResultOf(self.store.save([Removed("job", "j-1"), Removed("worker", "w-1")]))
        self.assertEqual(self.loaded(), Loaded())
