"""Ended jobs: their age, and their removal by clients."""

from collections.abc import Iterable

from twisted.internet.defer import Deferred

from scheduler.errors import Unavailable
from scheduler.worker.clearing import DiskUse
from tests.unit.worker.retention_case import HOUR, RetentionCase, both


class AgeTests(RetentionCase):
    """``keep_spool``."""

    def test_old(self) -> None:
        """A job is removed once it was kept so long, if it was acknowledged."""
        self.end("a")
        self.end("b", acknowledged=False)
        self.later(HOUR / 2)
        self.end("c")
        self.later(HOUR / 2 - 10)
        self.assertEqual(self.kept, ["a", "b", "c"])
        self.later(70)
        self.assertEqual((self.kept, self.forgotten), (["b", "c"], ["a"]))
        self.retention.ended.acknowledged("b", DiskUse(both(100)))
        self.later()
        self.assertEqual(self.kept, ["c"])

    def test_not_acknowledged_any_more(self) -> None:
        """A job whose end is to be acknowledged once more stays until it is, also where its removal was begun."""
        self.end("a")
        self.end("b")
        self.retention.ended.not_acknowledged(["a", "other"])
        self.later(HOUR + 60)
        self.assertEqual(self.kept, ["a"])

        def use_up_thd(job_ids: Iterable[str]) -> tuple[str, ...]:
            self.retention.ended.not_acknowledged(job_ids)
            return tuple(job_ids)

        self.spools.use_up_thd = use_up_thd
        self.retention.ended.acknowledged("a", DiskUse(both(100)))
        self.later()
        self.assertEqual(self.kept, ["a"])

    def test_where_nothing_is_acknowledged(self) -> None:
        """Under a scheduler that acknowledges nothing a job goes when it was kept so long; under another not."""
        self.end("a", acknowledged=False)
        self.retention.ended.expect_acknowledgements(False)
        self.end("b", acknowledged=False)
        self.later(HOUR - 10)
        self.assertEqual(self.kept, ["a", "b"])
        self.later(70)
        self.assertEqual((self.kept, self.forgotten), ([], ["a", "b"]))
        self.end("c", acknowledged=False)
        self.end("d")
        self.retention.ended.expect_acknowledgements(True)
        self.later(HOUR + 60)
        self.assertEqual(self.kept, ["c"])

    def test_age_at_the_start(self) -> None:
        """A job found by a process that starts has the age it had."""
        self.end("older", age=HOUR - 10)
        self.end("younger", age=HOUR - 600)
        self.later(70)
        self.assertEqual(self.kept, ["younger"])
        self.later(600)
        self.assertEqual(self.kept, [])

    def test_short(self) -> None:
        """A time shorter than the usual pause between two sweeps holds too."""
        self.retention.stopService()
        self.use(keep_spool=3.0)
        self.end("a")
        self.later(2.0)
        self.assertEqual(self.kept, ["a"])
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.kept, [])

    def test_resisting(self) -> None:
        """A job whose folder can't be moved is still known; that is said once, and it is tried again, ever later."""
        self.spools.resisting.add("a")
        self.end("a")
        self.end("b")
        self.later(HOUR + 60)
        self.assertEqual((self.kept, self.forgotten), (["a"], ["b"]))
        for _ in range(60):
            self.later(60)
        self.assertEqual(self.errors, ["its folder of job a, which takes 100 bytes, can't be removed: resists"])
        self.assertLess(self.spools.tries.count("a"), 10)
        self.spools.resisting.clear()
        self.later(HOUR)
        self.assertEqual((self.kept, self.spools.left), ([], {}))


class RemoveTests(RetentionCase):
    """Removals that a client asks for."""

    def remove(self, job_id: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.retention.ended.remove(job_id))

    def test_at_once(self) -> None:
        """A job goes at once, however young, acknowledged or not; one that is not there has gone."""
        self.end("a", acknowledged=False)
        self.end("b")
        for job_id in ("a", "b", "a", "c"):
            self.successResultOf(self.remove(job_id))
        self.assertEqual((self.kept, self.forgotten), ([], ["a", "b"]))

    def test_while_it_is_looked_at(self) -> None:
        """A removal waits for the operation on that job alone; so does a second one."""
        self.end("a", acknowledged=False)
        self.end("b", acknowledged=False)
        self.end("c", acknowledged=False)
        ended = self.retention.ended
        with ended.busy(next(iter(ended.all()))):
            removals = [self.remove("a"), self.remove("a")]
            self.later()
            for each in removals:
                self.assertNoResult(each)
            self.successResultOf(self.remove("c"))
        for each in removals:
            self.successResultOf(each)
        self.assertEqual((self.kept, sorted(self.forgotten)), (["b"], ["a", "c"]))

    def test_sweep_that_chose_it(self) -> None:
        """A sweep that is about to remove it, and others, leaves it alone and goes on with the others."""
        for job_id in "abc":
            self.end(job_id)
        self.later(HOUR - 10)
        self.pool.holding = True
        self.later(70)
        held = self.pool.held
        self.pool.held = []
        removal = self.remove("b")
        self.pool.held = [*held, *self.pool.held]
        self.pool.release()
        self.successResultOf(removal)
        self.later()
        self.assertEqual((self.kept, sorted(self.forgotten)), ([], ["a", "b", "c"]))
        self.assertEqual(self.spools.tries.count("b"), 1)
        self.assertEqual([event for event in self.events if "log_failure" in event], [])

    def test_resisting(self) -> None:
        """A job that can't be moved is still known, with the reason; a sweep does not try it before its time."""
        self.spools.resisting.add("a")
        self.end("a")
        self.assertIn("resists", str(self.failureResultOf(self.remove("a"), Unavailable).value))
        self.assertEqual(self.forgotten, [])
        self.spools.resisting.clear()
        self.successResultOf(self.remove("a"))
        self.assertEqual((self.kept, self.forgotten), ([], ["a"]))

    def test_remains(self) -> None:
        """A leftover counts, is logged, and is tried again; until it is gone the job does not count as removed."""
        self.spools.remaining["a"] = 70
        self.end("a")
        for _ in range(3):
            self.assertIn("work/x: resists", str(self.failureResultOf(self.remove("a"), Unavailable).value))
        self.assertEqual(self.errors, ["70 bytes of job a can't be removed, and are tried again: work/x: resists"])
        self.assertEqual(self.spools.tries, ["a", ".gone-a"])
        self.spools.left[".gone-a"] = 0
        self.later(120)
        self.assertEqual(self.spools.left, {})
        self.successResultOf(self.remove("a"))

    def test_remains_that_go(self) -> None:
        """A client that asks when it is time to try again need not wait for the next sweep; others are left alone."""
        for job_id in "ab":
            self.spools.remaining[job_id] = 70
            self.end(job_id)
            self.failureResultOf(self.remove(job_id), Unavailable)
        self.retention.stopService()
        self.clock.advance(120)
        self.spools.left.update({".gone-a": 0, ".gone-b": 0})
        self.successResultOf(self.remove("a"))
        self.assertEqual(list(self.spools.left), [".gone-b"])
