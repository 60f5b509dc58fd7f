"""What is kept of ended jobs: which go, when, and what never does."""

import errno
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.sizes import Share
from scheduler.worker.retention import Limits, Retention
from scheduler.worker.room import Disk, Taken

HOUR = 3600.0

STRIPPED = 10


class InlinePool:
    """Does at once what it is given; while ``holding`` it waits for ``release``."""

    def __init__(self) -> None:
        self.holding = False
        self._held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function_thd: Callable[..., Any], *args: Any) -> Deferred[Any]:
        if not self.holding:
            return maybeDeferred(function_thd, *args)
        done: Deferred[Any] = Deferred()
        self._held.append((lambda: function_thd(*args), done))
        return done

    def release(self) -> None:
        self.holding = False
        held, self._held = self._held, []
        for function, done in held:
            maybeDeferred(function).chainDeferred(done)


class FakeSpools:
    """A disk of 1000 bytes, of which ``other`` are somebody else's."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.other = 0
        self.measured: list[str] = []
        self.stripped: list[str] = []
        self.resisting: set[str] = set()
        self.error: OSError | None = None

    def measure_thd(self, ended: Iterable[str], running: Iterable[str]) -> tuple[dict[str, Taken], Disk, int]:
        if self.error:
            raise self.error
        ended = sorted(ended)
        self.measured += ended
        taken = sum(self.sizes.values()) + sum(self.running.values()) + self.other
        found = {job_id: Taken(self.sizes[job_id], job_id in self.stripped) for job_id in ended}
        return found, Disk(1000, 1000 - taken), sum(self.running[job_id] for job_id in running)

    def remove_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]:
        gone = tuple(job_id for job_id in job_ids if job_id not in self.resisting)
        for job_id in gone:
            del self.sizes[job_id]
        return gone

    def strip_thd(self, job_ids: Iterable[str]) -> dict[str, Taken]:
        job_ids = tuple(job_ids)
        self.stripped += job_ids
        self.sizes |= dict.fromkeys(job_ids, STRIPPED)
        return dict.fromkeys(job_ids, Taken(STRIPPED, stripped=True))


class RetentionCase(SynchronousTestCase):
    """All limits are far away, unless a test says otherwise."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = InlinePool()
        self.spools = FakeSpools()
        self.forgotten: list[str] = []
        self.use()

    def use(self, keep_spool: float = HOUR, spool_max: int = 1000, spool_min_free: int = 0) -> None:
        limits = Limits(keep_spool, Share(spool_max), Share(spool_min_free))
        self.retention = Retention(
            self.clock, self.pool, self.spools, limits, lambda: self.spools.running, self.forgotten.append
        )
        self.retention.start()
        self.addCleanup(self.retention.stop)

    def end(self, job_id: str, size: int = 100, acknowledged: bool = True, age: float = 0.0) -> None:
        """A job ends, and the scheduler keeps its end, or not."""
        self.spools.sizes[job_id] = size
        self.retention.ended(job_id, age)
        if acknowledged:
            self.retention.acknowledged(job_id, Taken(size))

    def later(self, seconds: float = 2.0) -> None:
        """Time for a sweep, or more."""
        self.clock.advance(seconds)

    @property
    def kept(self) -> list[str]:
        self.assertEqual(set(self.forgotten) & set(self.spools.sizes), set())
        return sorted(self.spools.sizes)


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
        self.retention.acknowledged("b", Taken(100))
        self.later()
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
        self.retention.stop()
        self.use(keep_spool=3.0)
        self.end("a")
        self.later(2.0)
        self.assertEqual(self.kept, ["a"])
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.kept, [])

    def test_resisting(self) -> None:
        """What can't be removed is still known, and tried again."""
        self.spools.resisting.add("a")
        self.end("a")
        self.end("b")
        self.later(HOUR + 60)
        self.assertEqual((self.kept, self.forgotten), (["a"], ["b"]))
        self.spools.resisting.clear()
        self.later(60)
        self.assertEqual(self.kept, [])


class MostTests(RetentionCase):
    """``spool_max``."""

    def setUp(self) -> None:
        super().setUp()
        self.retention.stop()
        self.use(spool_max=250)

    def test_oldest_first(self) -> None:
        """Beyond it the oldest go, soon after the end that was too much, and no more than must."""
        for job_id in "abcd":
            self.end(job_id)
        self.later()
        self.assertEqual((self.kept, self.forgotten), (["c", "d"], ["a", "b"]))

    def test_running(self) -> None:
        """What runs counts, and is not touched."""
        self.spools.running["r"] = 600
        for job_id in "abc":
            self.end(job_id)
        self.later()
        self.assertEqual(self.kept, [])
        self.assertEqual(self.spools.running, {"r": 600})

    def test_running_and_growing(self) -> None:
        """What grows while nothing ends is seen by the timer."""
        self.end("a")
        self.later()
        self.spools.running["r"] = 200
        self.later(60)
        self.assertEqual(self.kept, [])

    def test_acknowledged_first(self) -> None:
        """What was acknowledged goes before what was not, however old that is."""
        self.end("a", acknowledged=False)
        self.end("b")
        self.end("c", acknowledged=False)
        self.later()
        self.assertEqual((self.kept, self.spools.stripped), (["a", "c"], []))

    def test_unacknowledged(self) -> None:
        """Where that does not suffice the oldest lose their output, once, and stay."""
        for job_id in "abcd":
            self.end(job_id, acknowledged=False)
        self.later()
        self.assertEqual((self.kept, self.spools.stripped), (["a", "b", "c", "d"], ["a", "b"]))
        self.later(10 * HOUR)
        self.assertEqual((self.kept, self.forgotten), (["a", "b", "c", "d"], []))
        self.assertEqual(self.spools.stripped, ["a", "b"])
        self.end("e", 200, acknowledged=False)
        self.later()
        self.assertEqual(self.spools.stripped, ["a", "b", "c", "d"])

    def test_sizes_remembered(self) -> None:
        """Each spool is looked at once, and one that was acknowledged not at all: that said how large it is."""
        self.end("a", 10)
        self.end("b", 10, acknowledged=False)
        self.later(10 * 60)
        self.assertEqual(self.spools.measured, ["b"])

    def test_one_that_is_too_large(self) -> None:
        """One that is too large by itself goes as well, after all others."""
        self.end("a", 10)
        self.end("b", 700)
        self.later()
        self.assertEqual(self.kept, [])


class FreeTests(RetentionCase):
    """``spool_min_free``."""

    def setUp(self) -> None:
        super().setUp()
        self.retention.stop()
        self.use(spool_min_free=500)
        self.spools.other = 300

    def make_room(self) -> None:
        self.successResultOf(self.retention.make_room())

    def test_for_a_start(self) -> None:
        """For a start as many go as must for so much to be free, the oldest first; otherwise none does."""
        for job_id in "abcd":
            self.end(job_id)
        self.later(60)
        self.assertEqual(self.kept, ["a", "b", "c", "d"])
        self.make_room()
        self.assertEqual(self.kept, ["c", "d"])
        self.make_room()
        self.assertEqual(self.kept, ["c", "d"])

    def test_many_starts_at_once(self) -> None:
        """Many that need room at once remove no more than one does."""
        for job_id in "abcd":
            self.end(job_id)
        self.pool.holding = True
        asked = [self.retention.make_room() for _ in range(5)]
        self.pool.release()
        for each in asked:
            self.successResultOf(each)
        self.assertEqual(self.kept, ["c", "d"])

    def test_unacknowledged(self) -> None:
        """What was not acknowledged keeps its output: a start is refused instead."""
        self.end("a", 400, acknowledged=False)
        self.make_room()
        self.assertEqual((self.kept, self.spools.stripped), (["a"], []))

    def test_failing(self) -> None:
        """A disk that can't be asked is logged, and the next sweep works."""
        self.end("a", 400)
        self.spools.error = OSError(errno.EIO, "broken")
        self.make_room()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.spools.error = None
        self.make_room()
        self.assertEqual(self.kept, [])
