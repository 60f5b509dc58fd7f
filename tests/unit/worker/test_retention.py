"""What is kept of ended jobs: which go, when, and what never does."""

import errno
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Unavailable
from scheduler.model import Disk
from scheduler.units import Share
from scheduler.worker import room
from scheduler.worker.clearing import Remains
from scheduler.worker.retention import RetentionLimits, SpoolRetention
from scheduler.worker.room import DiskFull, DiskUse
from scheduler.worker.trees import Amount, Left
from tests.doubles.pools import InlinePool

HOUR = 3600.0

STRIPPED = 10


class FakeSpools:
    """A disk of 1000 bytes and inodes, of which ``other`` are somebody else's. One byte is one inode."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        #: So much of the size is in the work folder.
        self.work: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.other = 0
        self.inodes = 0
        self.measured: list[str] = []
        self.cleaned: list[str] = []
        self.stripped: list[str] = []
        #: Can't be renamed; can be renamed, and so much of it can't be removed.
        self.resisting: set[str] = set()
        self.remaining: dict[str, int] = {}
        #: Takes several tries.
        self.slow: set[str] = set()
        self.tries: list[str] = []
        self.left: dict[str, int] = {}
        self.error: OSError | None = None

    def look_thd(self, running: Iterable[str]) -> tuple[Disk, dict[str, int]]:
        if self.error:
            raise self.error
        taken = sum([*self.sizes.values(), *self.running.values(), *self.left.values(), self.other])
        return Disk(1000, 1000 - taken, self.inodes, self.inodes - taken), dict.fromkeys(running, 0)

    def measure_thd(self, job_id: str, running: bool) -> DiskUse:
        self.measured.append(job_id)
        return DiskUse(work=both(self.running[job_id])) if running else self.taken(job_id)

    def taken(self, job_id: str) -> DiskUse:
        work = self.work.get(job_id, 0)
        output = self.sizes[job_id] - work
        if job_id in self.stripped:
            return DiskUse(work=both(work), records=both(output))
        return DiskUse(both(output), both(work))

    def clean_thd(self, job_id: str, output: bool) -> tuple[DiskUse, Left | None]:
        self.cleaned.append(job_id)
        if job_id in self.resisting:
            return self.taken(job_id), Left("work/x", "resists")
        self.sizes[job_id] -= self.work.pop(job_id, 0)
        if output:
            self.stripped.append(job_id)
            self.sizes[job_id] = STRIPPED
        return self.taken(job_id), None

    def use_up_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(job_ids)

    def remove_thd(self, job_id: str) -> Remains | None:
        self.tries.append(job_id)
        if job_id in self.resisting:
            raise OSError(errno.EPERM, "resists")
        del self.sizes[job_id]
        name = f".gone-{job_id}"
        self.left[name] = self.remaining.get(job_id, 0)
        return self.clear_thd(name)

    def clear_thd(self, name: str) -> Remains | None:
        self.tries.append(name)
        unfinished = name in self.slow
        self.slow.discard(name)
        if self.left[name] or unfinished:
            return Remains(name, Left("work/x", "resists", unfinished=unfinished), both(self.left[name]))
        del self.left[name]
        return None

    def leftovers(self) -> tuple[str, ...]:
        return tuple(self.left)


def both(number: int) -> Amount:
    return Amount(number, number)


class RetentionCase(SynchronousTestCase):
    """All limits are far away, unless a test says otherwise."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = InlinePool()
        self.spools = FakeSpools()
        self.forgotten: list[str] = []
        #: Each time whether starts are refused has changed.
        self.told: list[str] = []
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.use()

    def use(
        self,
        keep_spool: float = HOUR,
        spool_max: int = 1000,
        spool_min_free: Share = Share(0),  # noqa: B008
    ) -> None:
        limits = RetentionLimits(keep_spool, Share(spool_max), spool_min_free)
        self.retention = SpoolRetention(
            self.clock,
            self.pool,
            self.spools,
            limits,
            lambda: self.spools.running,
            self.forgotten.append,
            lambda: self.told.append(self.retention.refusing),
        )
        self.retention.start()
        self.addCleanup(self.retention.stop)

    def end(self, job_id: str, size: int = 100, acknowledged: bool = True, age: float = 0.0, work: int = 0) -> None:
        """A job ends, and the scheduler keeps its end, or not."""
        self.spools.sizes[job_id] = size
        self.spools.work[job_id] = work
        self.retention.ended(job_id, age)
        if acknowledged:
            self.retention.acknowledged(job_id, self.spools.taken(job_id))

    def later(self, seconds: float = 2.0) -> None:
        """Time for a sweep, or more."""
        self.clock.advance(seconds)

    @property
    def kept(self) -> list[str]:
        self.assertEqual(set(self.forgotten) & set(self.spools.sizes), set())
        return sorted(self.spools.sizes)

    @property
    def errors(self) -> list[str]:
        """What was logged as an error."""
        return [formatEvent(event) for event in self.events if event["log_level"] is LogLevel.error]


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
        self.retention.acknowledged("b", DiskUse(both(100)))
        self.later()
        self.assertEqual(self.kept, ["c"])

    def test_not_acknowledged_any_more(self) -> None:
        """A job whose end is to be acknowledged once more stays until it is, also where its removal was begun."""
        self.end("a")
        self.end("b")
        self.retention.not_acknowledged(["a", "other"])
        self.later(HOUR + 60)
        self.assertEqual(self.kept, ["a"])

        def use_up_thd(job_ids: Iterable[str]) -> tuple[str, ...]:
            self.retention.not_acknowledged(job_ids)
            return tuple(job_ids)

        self.spools.use_up_thd = use_up_thd
        self.retention.acknowledged("a", DiskUse(both(100)))
        self.later()
        self.assertEqual(self.kept, ["a"])

    def test_where_nothing_is_acknowledged(self) -> None:
        """Under a scheduler that acknowledges nothing a job goes when it was kept so long; under another not."""
        self.end("a", acknowledged=False)
        self.retention.expect_acknowledgements(False)
        self.end("b", acknowledged=False)
        self.later(HOUR - 10)
        self.assertEqual(self.kept, ["a", "b"])
        self.later(70)
        self.assertEqual((self.kept, self.forgotten), ([], ["a", "b"]))
        self.end("c", acknowledged=False)
        self.end("d")
        self.retention.expect_acknowledgements(True)
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
        self.retention.stop()
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
        return Deferred.fromCoroutine(self.retention.remove(job_id))

    def test_at_once(self) -> None:
        """A job goes at once, however young, acknowledged or not; one that is not there has gone."""
        self.end("a", acknowledged=False)
        self.end("b")
        for job_id in ("a", "b", "a", "c"):
            self.successResultOf(self.remove(job_id))
        self.assertEqual((self.kept, self.forgotten), ([], ["a", "b"]))

    def test_while_it_is_looked_at(self) -> None:
        """It waits for what is being done to that job, and for no more; so does a second one."""
        self.end("b", acknowledged=False)
        self.later()
        self.pool.holding = True
        self.end("a", acknowledged=False)
        self.later()
        self.pool.release_one()  # the look at the disk; what follows is measuring "a"
        self.pool.holding = False
        self.end("c", acknowledged=False)
        removals = [self.remove("a"), self.remove("a")]
        self.successResultOf(self.remove("c"))
        for each in removals:
            self.assertNoResult(each)
        self.pool.release()
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
        """What can't be moved is still known, and the reason is told; a sweep does not try it before its time."""
        self.spools.resisting.add("a")
        self.end("a")
        error = self.failureResultOf(self.remove("a"), Unavailable).value
        self.assertIn("resists", str(error))
        self.assertEqual(self.forgotten, [])
        self.spools.resisting.clear()
        self.successResultOf(self.remove("a"))
        self.assertEqual((self.kept, self.forgotten), ([], ["a"]))

    def test_remains(self) -> None:
        """What is left of a folder counts, is logged, and is tried again; until then the job is not removed."""
        self.spools.remaining["a"] = 70
        self.end("a")
        for _ in range(3):
            error = self.failureResultOf(self.remove("a"), Unavailable).value
            self.assertIn("work/x: resists", str(error))
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
        self.retention.stop()
        self.clock.advance(120)
        self.spools.left.update({".gone-a": 0, ".gone-b": 0})
        self.successResultOf(self.remove("a"))
        self.assertEqual(list(self.spools.left), [".gone-b"])


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
        """A job that runs counts, and pushes out no more than a quarter, however often one looks."""
        for job_id in "abcdefghij":
            self.end(job_id, 25)
        self.spools.running["r"] = 6000
        self.later()
        for _ in range(10):
            self.later(60)
        self.assertEqual((self.forgotten, len(self.kept)), (["a", "b"], 8))
        self.assertEqual(self.spools.running, {"r": 6000})

    def test_running_and_growing(self) -> None:
        """A job that grows while nothing ends is looked at by the timer, once a minute at most."""
        for job_id in "abcde":
            self.end(job_id, 45)
        self.spools.running["r"] = 10
        self.later(60)
        self.assertEqual(len(self.kept), 5)
        self.spools.running["r"] = 45
        self.later(60)
        self.assertEqual(self.forgotten, ["a"])
        for number in range(20):
            self.end(f"z{number}", 0)
            self.later(2)
        self.assertLessEqual(self.spools.measured.count("r"), 4)

    def test_work_first(self) -> None:
        """Work folders go first, the oldest first, and no output if they suffice; acknowledged or not is the same."""
        self.end("a", 100, work=20)
        self.end("b", 100, work=90, acknowledged=False)
        self.end("c", 100, work=90)
        self.later()
        self.assertEqual((self.kept, self.spools.cleaned), (["a", "b", "c"], ["a", "b"]))
        self.assertEqual(self.spools.sizes, {"a": 80, "b": 10, "c": 100})

    def test_remains(self) -> None:
        """What can't be removed still counts, so others go; it is said once, tried again, and then forgotten."""
        self.spools.remaining["a"] = 80
        self.end("a", age=HOUR)
        self.later()
        self.assertEqual(self.forgotten, ["a"])
        self.end("b")
        self.end("c")
        self.later()
        self.assertEqual(self.forgotten, ["a", "b"])
        for _ in range(20):
            self.later(60)
        self.assertEqual(self.errors, ["80 bytes of job a can't be removed, and are tried again: work/x: resists"])
        self.assertLess(self.spools.tries.count(".gone-a"), 8)
        self.spools.left[".gone-a"] = 0
        self.later(HOUR / 2)
        self.assertEqual(self.spools.left, {})
        self.end("d")
        self.later()
        self.assertEqual(self.kept, ["c", "d"])

    def test_remains_of_the_process_before(self) -> None:
        """A folder that the process before could not remove counts as well."""
        self.spools.left[".gone-x"] = 100
        self.later(60)
        self.end("a")
        self.end("b")
        self.later()
        self.assertEqual(self.kept, ["b"])

    def test_large_remains(self) -> None:
        """What can't be removed of one job pushes out no more than a quarter, however often one looks."""
        self.spools.left[".gone-x"] = 800
        self.later(60)
        for job_id in "abcdefghij":
            self.end(job_id, 25)
        for _ in range(10):
            self.later(60)
        self.assertEqual((self.forgotten, len(self.kept)), (["a", "b", "c"], 7))

    def test_unfinished(self) -> None:
        """A removal that takes long goes on a second later, is no error, and nothing else goes meanwhile."""
        self.spools.slow.add(".gone-a")
        for job_id in "abc":
            self.end(job_id)
        self.later(1)
        self.assertEqual((self.kept, list(self.spools.left)), (["b", "c"], [".gone-a"]))
        self.later(1)
        self.assertEqual((self.kept, list(self.spools.left), self.errors), (["b", "c"], [], []))

    def test_never_finished(self) -> None:
        """A removal that is never finished is said, counts, and is tried less often."""
        self.spools.remaining["a"] = 90
        self.end("a", age=HOUR)
        for _ in range(100):
            self.spools.slow.add(".gone-a")
            self.later(1)
        self.assertEqual(len(self.errors), 1)
        self.assertLess(self.spools.tries.count(".gone-a"), 65)
        self.end("b")
        self.end("c")
        self.later()
        self.assertEqual(self.kept, ["c"])

    def test_work_that_resists(self) -> None:
        """A work folder that can't be removed is said once, and the output of others goes."""
        self.spools.resisting.add("c")
        self.end("a")
        self.end("b")
        self.end("c", 100, work=90)
        for _ in range(9):
            self.later(10)
        self.assertEqual((self.kept, self.spools.cleaned), (["b", "c"], ["c"]))
        self.assertEqual(len(self.errors), 1)

    def test_hanging(self) -> None:
        """A removal that hangs holds up neither other removals nor starts, and still counts when it ends."""
        hung: list[Deferred[Any]] = []

        def run(function_thd: Callable[..., Any], *args: Any) -> Deferred[Any]:
            if function_thd == self.spools.remove_thd and args == ("a",):
                hung.append(Deferred())
                return hung[0]
            return maybeDeferred(function_thd, *args)

        self.pool.run = run
        for job_id in "abc":
            self.end(job_id)
        self.later(2)
        self.assertEqual(len(hung), 1)
        room = self.retention.make_room()
        self.assertNoResult(room)
        self.later(10)
        self.successResultOf(room)
        self.assertIn("the folder of a hangs", self.errors[0])
        self.later(60)
        self.assertEqual(self.forgotten, ["b"])
        del self.spools.sizes["a"]
        hung[0].callback(None)
        self.assertEqual(self.forgotten, ["b", "a"])

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
        self.assertEqual(self.spools.stripped, ["a", "b", "e"])

    def test_where_nothing_is_acknowledged(self) -> None:
        """Under a scheduler that acknowledges nothing the oldest lose their output; when all have, the oldest go."""
        self.retention.expect_acknowledgements(False)
        jobs = [f"j{number:02}" for number in range(40)]
        for job_id in jobs:
            self.end(job_id, acknowledged=False)
            self.later(130)
            self.assertLessEqual(sum(self.spools.sizes.values()), 250)
        stripped = [job_id for job_id in self.kept if job_id in self.spools.stripped]
        self.assertEqual(self.kept, jobs[-len(self.kept) :])
        self.assertEqual(stripped, self.kept[: len(stripped)])
        self.assertGreater(len(stripped), 10)

    def test_sizes_remembered(self) -> None:
        """Each spool is looked at once, and one that was acknowledged not at all: that said how large it is."""
        self.end("a", 10)
        self.end("b", 10, acknowledged=False)
        self.later(10 * 60)
        self.assertEqual(self.spools.measured, ["b"])

    def test_one_that_is_too_large(self) -> None:
        """One that is too large by itself goes, and pushes out no other."""
        self.end("a", 100)
        self.end("b", 700)
        self.later()
        self.assertEqual(self.kept, ["a"])


class FreeTests(RetentionCase):
    """``spool_min_free``."""

    def setUp(self) -> None:
        super().setUp()
        self.retention.stop()
        self.use(spool_min_free=Share(500))
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

    def test_refusing(self) -> None:
        """That nothing can be started is told once, also before a start was refused, and that it can be again."""
        self.end("a", 400, acknowledged=False)
        self.later()
        why = "the disk for the output of jobs has 300 bytes free, less than the 500 bytes of spool_min_free"
        self.assertEqual((self.retention.refusing, self.told), (why, [why]))
        self.spools.other = 310
        self.later(10)
        self.assertIn("290 bytes", self.retention.refusing)
        self.assertEqual(len(self.told), 1)
        self.retention.acknowledged("a", DiskUse(both(400)))
        self.later()
        self.assertEqual((self.retention.refusing, self.told[1:]), ("", [""]))

    def test_inodes(self) -> None:
        """Inodes are counted as bytes are: a percentage, and 64 at least."""
        self.spools.inodes = 900
        self.retention.stop()
        self.use(spool_min_free=Share(percent=40))
        for job_id in "abcd":
            self.end(job_id)
        self.later(60)
        self.assertEqual(len(self.kept), 4)
        self.make_room()
        self.assertEqual(self.kept, ["c", "d"])

    def test_no_room_though_free(self) -> None:
        """Where the disk refused a start, something goes, whatever it says of what is free."""
        self.spools.other = 0
        self.end("a")
        self.end("b")
        self.successResultOf(self.retention.make_room(refused=True))
        self.assertEqual(self.kept, [])

    def test_starts_together(self) -> None:
        """Starts that find no room at once have enough for all of them, before the first takes its part of it."""
        self.spools.other = 300
        for number in range(16):
            self.end(f"j{number:02}", 25)
        began: list[Deferred[str]] = []

        def start() -> Deferred[str]:
            if sum(self.spools.sizes.values()) + self.spools.other + 20 * len(began) > 500:
                return fail(DiskFull("full"))
            began.append(Deferred())
            return began[-1]

        self.patch(room, "ROOM_FOR_START", Amount(20, 20))
        self.pool.holding = True
        starts = [Deferred.fromCoroutine(self.retention.with_room(start)) for _ in range(5)]
        self.pool.release()
        self.assertEqual(len(began), 5)
        for each in began:
            each.callback("started")
        self.assertEqual([self.successResultOf(each) for each in starts], ["started"] * 5)
        self.retention.stop()
        self.spools.other += 100
        kept = self.kept
        self.make_room()
        self.assertEqual(self.kept, kept)

    def test_start_that_finds_no_room(self) -> None:
        """A start without room comes once more, after room was made; then it is refused. One that works clears that."""
        lacking = [DiskFull("full", refused=True), DiskFull("still full")]

        def start() -> Deferred[str]:
            return fail(lacking.pop(0)) if lacking else succeed("started")

        refused = self.failureResultOf(Deferred.fromCoroutine(self.retention.with_room(start)), Unavailable)
        self.assertEqual((str(refused.value), self.retention.refusing), ("still full", "still full"))
        lacking.append(DiskFull("full"))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.retention.with_room(start))), "started")
        self.assertEqual(self.told, ["still full", ""])
