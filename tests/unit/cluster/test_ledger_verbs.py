"""The verbs of the ledger, in a store that works and in one that fails."""

from __future__ import annotations

from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.saving import STORE_RETRY_FIRST_SECONDS, UNSAVED_MAX_SECONDS
from scheduler.errors import StoreFailed
from scheduler.model import Job, JobState, Ref, Worker
from tests.unit.cluster.ledger_case import LedgerCase
from tests.unit.cluster.values import a_job, a_worker


class VerbTests(LedgerCase):
    def test_table(self) -> None:
        """Whether what a verb says is visible at once, and what is known and stored after a failure of the store."""
        changed, ended = a_job(stdout_bytes=1), a_job(state=JobState.FAILED)
        drained = a_worker(draining=True)
        drain = partial(evolve, draining=True)
        for name, make, record, at_once, in_the_end in (
            ("decide", lambda: self.ledger.decide(a_job("j-2")), a_job("j-2"), False, None),
            ("decide an end", lambda: self.ledger.decide(ended), ended, False, a_job()),
            ("amend", lambda: Deferred.fromCoroutine(self.ledger.amend(a_worker(), drain)), drained, False, a_worker()),
            ("learn", lambda: self.ledger.learn(changed), changed, True, changed),
            ("learn an end", lambda: self.ledger.learn(ended), ended, False, ended),
        ):
            for fails in (False, True):
                self.setUp()
                self.add(a_job())
                self.learn(a_worker())
                done = make()
                self.assertEqual(self.known(record.ref) == record, at_once, name)
                if not fails:
                    self.store.commit()
                    self.successResultOf(done)
                    self.assertEqual((self.known(record.ref), self.stored(record.ref)), (record, record), name)
                    continue
                self.store.fail()
                self.failureResultOf(done, StoreFailed)
                self.assertEqual(self.known(record.ref) == record, at_once, name)
                self.clock.advance(STORE_RETRY_FIRST_SECONDS)
                self.store.commit()
                self.assertEqual([self.known(record.ref), self.stored(record.ref)], [in_the_end] * 2, name)

    def learn(self, *records: Job | Worker) -> None:
        learned = self.ledger.learn(*records)
        self.store.commit()
        self.successResultOf(learned)

    def known(self, ref: Ref) -> object:
        return self.ledger.registry.find(ref)

    def stored(self, ref: Ref) -> object:
        held = self.store.holding()
        return next((record for record in (*held.jobs, *held.workers) if record.ref == ref), None)

    def test_settled(self) -> None:
        """All that came before is durable then."""
        self.ledger.learn(a_job())
        settled = self.ledger.settled()
        self.store.commit()
        self.assertNoResult(settled)
        self.store.commit()
        self.successResultOf(settled)
        self.assertEqual(self.stored(Ref("job", "j-1")), a_job())

    def test_lazily(self) -> None:
        """A lazy change is visible at once, and saved in a moment, or with the next save."""
        self.add(a_job())
        self.successResultOf(self.ledger.learn(a_job(stdout_bytes=1), lazily=True))
        self.assertEqual((self.known(Ref("job", "j-1")), self.store.saves), (a_job(stdout_bytes=1), []))
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.store.commit()
        self.assertEqual(self.stored(Ref("job", "j-1")), a_job(stdout_bytes=1))
        self.ledger.learn(a_job(stdout_bytes=2), lazily=True)
        self.add(a_job("j-2"))
        self.assertEqual(self.stored(Ref("job", "j-1")), a_job(stdout_bytes=2))

    def test_amend_while_it_changes(self) -> None:
        """A change of a part is made of the record as it is after the commit, and seen when that is durable."""
        self.add(a_job())
        amended = Deferred.fromCoroutine(self.ledger.amend(a_job(), partial(evolve, stop_requested_at=1.0)))
        self.ledger.learn(a_job(stdout_bytes=1))
        for _ in range(2):
            self.store.commit()
            self.assertNoResult(amended)
            self.assertEqual(self.known(Ref("job", "j-1")), a_job(stdout_bytes=1))
        self.store.commit()
        self.successResultOf(amended)
        both = a_job(stdout_bytes=1, stop_requested_at=1.0)
        self.assertEqual([self.known(Ref("job", "j-1")), self.stored(Ref("job", "j-1"))], [both] * 2)

    def test_amend_nothing(self) -> None:
        """Nothing happens where the record is so already, is gone, or ends meanwhile."""
        self.add(a_job())
        for job in (a_job(), a_job("j-2")):
            self.successResultOf(Deferred.fromCoroutine(self.ledger.amend(job, lambda job: job)))
        amended = Deferred.fromCoroutine(self.ledger.amend(a_job(), partial(evolve, stop_requested_at=1.0)))
        self.ledger.learn(ended := a_job(state=JobState.FAILED))
        self.store.commit()
        self.successResultOf(amended)
        self.store.commit()
        self.assertEqual([self.known(ended.ref), self.stored(ended.ref)], [ended] * 2)

    def test_decide_while_it_changes(self) -> None:
        """A decision about a job that differs after the commit is void, here and in the store."""
        orphan, ended = a_job(state=JobState.LOST, orphan=True), a_job(state=JobState.LOST, leftover=(7,))
        self.end(orphan)
        self.ledger.decide(evolve(orphan, orphan=False))
        self.ledger.learn(ended, lazily=True)
        self.store.commit()
        self.assertEqual(self.known(ended.ref), ended)
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.store.commit()
        self.assertEqual([self.known(ended.ref), self.stored(ended.ref)], [ended] * 2)
