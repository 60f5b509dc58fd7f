from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.saving import UNSAVED_MAX_SECONDS, Saving
from scheduler.errors import StoreFailed
from scheduler.interfaces import Record
from scheduler.model import Ref
from tests.doubles.store import ScriptedStore
from tests.unit.cluster.values import a_job, a_worker


class SavingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = ScriptedStore()
        self.store.held = True
        self.known: dict[Ref, Record] = {}
        self.caught_up: list[Record] = []
        self.saving = Saving(self.clock, self.store, lambda which: self.known.get(which, which), self.caught_up.extend)

    def break_it(self) -> None:
        broken = self.saving.save([a_worker()])
        self.store.fail()
        self.failureResultOf(broken, StoreFailed)

    def test_while_it_works(self) -> None:
        """Saves are passed on at once, several at a time, and no timer runs."""
        saves = [self.saving.save([a_job()]), self.saving.save([a_worker()])]
        self.assertEqual([records for records, _ in self.store.saves], [[a_job()], [a_worker()]])
        for save in saves:
            self.store.commit()
            self.successResultOf(save)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ever_later(self) -> None:
        """Attempts are a second apart at first, then further, but never more than ten."""
        self.break_it()
        for delay in (1, 2, 4, 5, 5):
            self.clock.advance(delay - 0.5)
            self.assertEqual(self.store.saves, [])
            self.clock.advance(0.5)
            self.store.fail()
            self.assertTrue(self.saving.problem)
        self.clock.advance(5)
        self.store.commit()
        self.assertEqual((self.saving.problem, self.clock.getDelayedCalls()), ("", []))

    def test_caught_up(self) -> None:
        """Records that had failed are told of once they are saved, also those that failed during an attempt."""
        self.known = {job.ref: job for job in (a_job("j-1"), a_job("j-2"), a_job("j-3"))}
        self.failureResultOf(self.broken_save(a_job("j-1")), StoreFailed)
        self.clock.advance(1)
        self.failureResultOf(self.saving.save([a_job("j-2")]), StoreFailed)
        self.assertEqual(self.caught_up, [])
        self.store.commit()
        self.assertEqual(self.caught_up, [a_job("j-1")])
        self.store.commit()
        self.assertEqual(self.caught_up, [a_job("j-1"), a_job("j-2")])
        self.saving.save([a_job("j-3")])
        self.store.commit()
        self.assertEqual(self.caught_up, [a_job("j-1"), a_job("j-2")])

    def broken_save(self, record: Record) -> Deferred[None]:
        saved = self.saving.save([record])
        self.store.fail()
        return saved

    def test_again_from_the_start(self) -> None:
        """After the store has worked, the next failure is tried to mend as quickly as the first."""
        self.break_it()
        self.clock.advance(1)
        self.store.fail()
        self.clock.advance(2)
        self.store.commit()
        self.break_it()
        self.clock.advance(1)
        self.assertEqual(len(self.store.saves), 1)

    def test_the_latest_is_saved(self) -> None:
        """A save that failed brings back nothing older than what is known, and vouches for none that came after it."""
        early, late = self.saving.save([a_job()]), self.saving.save([a_job(stdout_bytes=9)])
        self.known[Ref("job", "j-1")] = a_job(stdout_bytes=9)
        self.store.fail()
        self.store.commit()
        self.failureResultOf(early, StoreFailed)
        self.failureResultOf(late, StoreFailed)
        self.clock.advance(1)
        self.assertEqual(self.store.saves[0][0], [a_job(stdout_bytes=9)])

    def test_changed_meanwhile(self) -> None:
        """A record that changes during an attempt is saved right after it."""
        self.break_it()
        self.clock.advance(1)
        self.failureResultOf(self.saving.save([a_job()]), StoreFailed)
        self.known[Ref("job", "j-1")] = a_job()
        self.store.commit()
        self.assertEqual(self.store.saves[0][0], [a_job()])

    def test_close(self) -> None:
        """At the end it is tried once more, and that is waited for."""
        self.break_it()
        closed = self.saving.close()
        self.assertNoResult(closed)
        self.store.fail()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """Whatever fails, or is noted, after the end is left as it is."""
        late = self.saving.save([a_job()])
        self.saving.close()
        self.store.fail()
        self.failureResultOf(late, StoreFailed)
        self.saving.note(a_job())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_at_rest(self) -> None:
        """Where nothing is owed there is nothing to wait for."""
        self.successResultOf(self.saving.close())

    def test_noted(self) -> None:
        """A noted record is saved with the next save, before it, and as it is by then."""
        self.saving.note(a_job())
        self.known[Ref("job", "j-1")] = a_job(stdout_bytes=9)
        self.saving.save([a_worker()])
        self.assertEqual([records for records, _ in self.store.saves], [[a_job(stdout_bytes=9), a_worker()]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noted_at_rest(self) -> None:
        """Where nothing else is saved, what was noted is after a moment, all of it at once."""
        for stdout_bytes in (1, 2):
            self.saving.note(a_job(stdout_bytes=stdout_bytes))
            self.known[Ref("job", "j-1")] = a_job(stdout_bytes=stdout_bytes)
            self.clock.advance(UNSAVED_MAX_SECONDS * 0.5)
        self.assertEqual([records for records, _ in self.store.saves], [[a_job(stdout_bytes=2)]])

    def test_noted_and_not_saved(self) -> None:
        """A noted record that could not be saved is owed like any other."""
        self.saving.note(a_job())
        self.known[Ref("job", "j-1")] = a_job()
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.store.fail()
        self.assertTrue(self.saving.problem)
        self.clock.advance(1)
        self.assertEqual(self.store.saves[0][0], [a_job()])

    def test_noted_at_the_end(self) -> None:
        """The end waits for what was noted."""
        self.saving.note(a_job())
        closed = self.saving.close()
        self.assertNoResult(closed)
        self.store.commit()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
