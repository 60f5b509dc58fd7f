"""A ledger alone, on a store that commits when the test says so."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.changes import Change, JobChanged
from scheduler.cluster.ledger import Ledger
from scheduler.model import Job, JobState
from tests.doubles.store import ScriptedStore


class LedgerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = ScriptedStore()
        self.store.held = True
        self.seen: list[tuple[str, JobState]] = []
        self.make_ledger(keep_finished=2)

    def make_ledger(self, **limits: int) -> None:
        self.ledger = Ledger(self.clock, lambda: 1000.0, self.store, **limits)
        self.ledger.feed.subscribe(self.see)

    def see(self, change: Change) -> None:
        if isinstance(change, JobChanged):
            self.seen.append((change.last.id, change.last.state))

    def add(self, job: Job) -> None:
        added = self.ledger.decide(job)
        self.store.commit()
        self.successResultOf(added)
        self.clock.advance(0)

    def end(self, job: Job) -> None:
        ended = self.ledger.learn(job)
        self.store.commit()
        self.successResultOf(ended)
