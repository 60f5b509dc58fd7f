"""Which jobs make room, in which order."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Disk
from scheduler.units import Share
from scheduler.worker.clearing import DiskUse
from scheduler.worker.disk import lack, shortage
from scheduler.worker.eviction import Demand, Kept, Plan, choose, counted
from scheduler.worker.trees import Amount

NOW, KEEP, QUARTER = 1000.0, 100.0, 25


def job(job_id: str, output: int = 0, work: int = 0, acknowledged: bool = True, **fields: object) -> Kept:
    """A job that ended a second ago, one entry for each byte."""
    taken = DiskUse(Amount(output, output), Amount(work, work))
    return Kept(job_id, fields.pop("ended_at", NOW - 1), acknowledged, taken=taken, **fields)


def plan(*jobs: Kept, over: int = 0, short: int = 0, inodes: int = 0, output_max: int | None = None) -> Plan:
    return choose(jobs, NOW, KEEP, QUARTER, Demand(over, Amount(short, inodes), output_max))


class ChooseTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        """Where nothing is to go, nothing goes."""
        self.assertEqual(plan(job("a", 10, 10), job("b", 10, acknowledged=False))[:4], ([], [], [], []))

    def test_expired(self) -> None:
        """Old acknowledged jobs are removed, and count for the demand."""
        old = [job("a", 10, ended_at=NOW - KEEP), job("b", 10, acknowledged=False, ended_at=NOW - KEEP)]
        self.assertEqual(plan(*old, job("c", 10), over=5)[:4], (["a"], [], [], []))

    def test_order(self) -> None:
        """Work folders of all, then output that was acknowledged, then that which was not; the oldest first."""
        jobs = [job("a", 10, 5, acknowledged=False), job("b", 10, 5), job("c", 10), job("d", 10)]
        self.assertEqual(plan(*jobs, over=5)[1:4], (["a"], [], []))
        self.assertEqual(plan(*jobs, over=10)[1:4], (["a", "b"], [], []))
        self.assertEqual(plan(*jobs, over=21)[1:4], (["a", "b"], ["b", "c"], []))
        self.assertEqual(plan(*jobs, over=45)[1:4], (["a", "b"], ["b", "c", "d"], ["a"]))

    def test_a_job_that_takes_most(self) -> None:
        """A job that takes more quarters than others goes before them, however young; of equals the oldest does."""
        jobs = [job("a", 20), job("b", 30), job("c", 31), job("d", 70)]
        self.assertEqual(plan(*jobs, over=1).remove, ["d"])
        self.assertEqual(plan(*jobs, over=71).remove, ["d", "b"])
        self.assertEqual(plan(*jobs, over=132).remove, ["d", "b", "c", "a"])

    def test_its_work_does_not_count(self) -> None:
        """A job that fills its work folder keeps its output as long as others do."""
        self.assertEqual(plan(job("a", 20), job("b", 20, 500), over=510)[1:4], (["b"], ["a"], []))

    def test_unacknowledged_for_a_start(self) -> None:
        """For a start no output goes that was not acknowledged; what is missing then is told."""
        found = plan(job("a", 10, 5, acknowledged=False), short=9)
        self.assertEqual((found[1:4], found.rest.short.size), ((["a"], [], []), 4))

    def test_where_nothing_is_acknowledged(self) -> None:
        """There the oldest lose their output, for a start too; then the oldest that have lost it go whole."""
        jobs = [job(name, 10, acknowledged=False, unawaited=True) for name in "ab"]
        gone = [job(name, acknowledged=False, unawaited=True) for name in "cd"]
        for each in gone:
            each.taken = DiskUse(records=Amount(10, 10))
        for demand in ({"over": 9}, {"short": 9}):
            self.assertEqual(plan(*gone, *jobs, **demand)[2:4], ([], ["a"]))
        self.assertEqual(plan(*gone, *jobs, over=29)[2:4], (["c"], ["a", "b"]))

    def test_inodes(self) -> None:
        """Entries are freed as bytes are."""
        found = plan(job("a", 10), job("b", 10), job("c", 10), inodes=15)
        self.assertEqual((found.remove, found.rest.short_met), (["a", "b"], True))

    def test_resisting(self) -> None:
        """A job that resisted lately, or is being removed, is not chosen; others are instead."""
        jobs = [
            job("a", 10, removed_after=NOW + 1),
            job("b", 10, busy=True),
            job("c", 10, 10, cleaned_after=NOW + 1),
            job("d", 10),
        ]
        self.assertEqual(plan(*jobs, over=25)[1:4], ([], ["c", "d"], []))

    def test_stripped(self) -> None:
        """A job without output is not stripped again."""
        self.assertEqual(plan(Kept("a", NOW, taken=DiskUse(records=Amount(10, 3))), over=5)[1:4], ([], [], []))

    def test_most_output(self) -> None:
        """Not more output goes than may, but what is smaller does."""
        jobs = [job("a", 10), job("b", 24), job("c", 14)]
        self.assertEqual(plan(*jobs, over=40, output_max=24).remove, ["a", "c"])
        self.assertEqual(plan(*jobs, short=30, output_max=0).remove, ["a", "b"])


class CountedTests(SynchronousTestCase):
    def demand(self, ended: int, *running: int, short: int = 0) -> Demand:
        amounts = [Amount(each, each) for each in running]
        return counted(ended, amounts, 100, Amount(short, short), Amount(QUARTER, QUARTER))

    def test_small(self) -> None:
        """Jobs that run count as they are."""
        self.assertEqual(self.demand(90, 10, 20, short=7), Demand(20, Amount(7, 7), None))

    def test_large(self) -> None:
        """A running job that takes more than a quarter counts for a quarter, for starts, too."""
        self.assertEqual(self.demand(90, 1000, short=7), Demand(15, Amount(-968, -968), 15))

    def test_too_much_without_it(self) -> None:
        """Where ended jobs take too much by themselves, that goes as always."""
        self.assertEqual(self.demand(110, 30).output_max, None)

    def test_in_the_next_sweep(self) -> None:
        """A running job pushes out no more in the next sweep."""
        self.assertEqual([self.demand(ended, 1000).output_max for ended in (100, 90, 75, 60)], [25, 15, 0, 0])


class DiskTests(SynchronousTestCase):
    """The space that a start needs."""

    def test_inodes(self) -> None:
        """A percentage applies to inodes, an absolute size does not; 64 are needed; no limit of them is no shortage."""
        disk = Disk(1000, 500, 1000, 70)
        self.assertEqual(lack(disk, Share(100)), "")
        self.assertEqual(shortage(disk, Share(percent=10)), Amount(-400, 30))
        self.assertEqual(shortage(Disk(1000, 500), Share(100), starts=5).entries, 0)
        self.assertIn("70 inodes free, less than the 10% of spool_min_free", lack(disk, Share(percent=10)))
        self.assertIn("63 inodes free, less than the 64 ", lack(Disk(1000, 500, 1000, 63), Share(0)))
        self.assertEqual(lack(Disk(1000, 500, 0, 0), Share(percent=10)), "")
