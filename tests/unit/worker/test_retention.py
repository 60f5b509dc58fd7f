"""Ended jobs that make room: which are removed, in which order, and which never are."""

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from scheduler.errors import Unavailable
from scheduler.units import Share
from scheduler.worker import disk
from scheduler.worker.clearing import DiskUse
from scheduler.worker.disk import DiskFull
from scheduler.worker.trees import Amount
from tests.unit.worker.retention_case import HOUR, RetentionCase, both


class MostTests(RetentionCase):
    """``spool_max``."""

    def setUp(self) -> None:
        super().setUp()
        self.retention.stopService()
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
        """A leftover counts, so other jobs are removed; it is logged once, tried again, and then forgotten."""
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
        """A leftover of one job pushes out a quarter at most, over all sweeps."""
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
        """Acknowledged jobs are removed before older unacknowledged ones."""
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
        self.retention.ended.expect_acknowledgements(False)
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
        """A job that is too large by itself is removed, and pushes out no other."""
        self.end("a", 100)
        self.end("b", 700)
        self.later()
        self.assertEqual(self.kept, ["a"])


class FreeTests(RetentionCase):
    """``spool_min_free``."""

    def setUp(self) -> None:
        super().setUp()
        self.retention.stopService()
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
        """An unacknowledged job keeps its output, and a start is refused instead."""
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
        """A lack of space is reported once, even before a start was refused, and once when it is over."""
        self.end("a", 400, acknowledged=False)
        self.later()
        why = "the disk for the output of jobs has 300 bytes free, less than the 500 bytes of spool_min_free"
        self.assertEqual((self.retention.refusing, self.told), (why, [why]))
        self.spools.other = 310
        self.later(10)
        self.assertIn("290 bytes", self.retention.refusing)
        self.assertEqual(len(self.told), 1)
        self.retention.ended.acknowledged("a", DiskUse(both(400)))
        self.later()
        self.assertEqual((self.retention.refusing, self.told[1:]), ("", [""]))

    def test_inodes(self) -> None:
        """Inodes are counted as bytes are: a percentage, and 64 at least."""
        self.spools.inodes = 900
        self.retention.stopService()
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

        self.patch(disk, "ROOM_FOR_START", Amount(20, 20))
        self.pool.holding = True
        starts = [Deferred.fromCoroutine(self.retention.with_room(start)) for _ in range(5)]
        self.pool.release()
        self.assertEqual(len(began), 5)
        for each in began:
            each.callback("started")
        self.assertEqual([self.successResultOf(each) for each in starts], ["started"] * 5)
        self.retention.stopService()
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
