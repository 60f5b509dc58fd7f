from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs import retention
from scheduler.cluster.jobs.retention import SWEEP_INTERVAL_SECONDS
from scheduler.daemon.cautious_time import CATCH_UP_FACTOR
from scheduler.model import Job, JobState
from scheduler.views import JobFilter
from tests.house import House
from tests.unit.cluster.values import a_job, a_removal

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY
NOON = 20_000 * DAY


def ended(job_id: str, at: float, **changes: object) -> Job:
    return a_job(job_id, JobState.SUCCEEDED, created_at=at - 1, finished_at=at, **changes)


class RetentionTests(SynchronousTestCase):
    """Jobs are kept for 30 days."""

    def setUp(self) -> None:
        self.wall = NOON
        self.house = House(lambda: self.wall, keep_jobs=30 * DAY)
        self.store = self.house.store
        self._name_parts()

    def _name_parts(self) -> None:
        self.clock, self.ledger = self.house.clock, self.house.parts.ledger

    def begin(self, *jobs: Job) -> None:
        """These jobs are known when the scheduler begins."""
        self.ledger.learn(*jobs)
        self.house.restart()
        self._name_parts()

    def kept(self) -> set[str]:
        return {job.id for job in self.ledger.registry.jobs.listing.matching(JobFilter())}

    def pass_time(self, seconds: float, step: float = 60) -> None:
        """Both clocks go on, a minute at a time, or so much."""
        for _ in range(round(seconds / step)):
            self.wall += step
            self.clock.advance(step)

    def test_adopted_jobs(self) -> None:
        """Jobs first heard of from their workers go as all others do, however many of either kind are to stay."""
        self.patch(retention, "JOBS_EXAMINED_PER_SWEEP", 2)
        old, late = NOON - 31 * DAY, NOON + YEAR
        for number in range(3):
            self.ledger.learn(ended(f"late-{number}", late), ended(f"adopted-late-{number}", late, target=None))
        self.ledger.learn(ended("old", old), ended("adopted-old", old, target=None))
        self.begin()
        self.pass_time(60)
        self.assertEqual(len(self.kept()), 6)
        self.assertNotIn("adopted-old", self.kept())

    def test_when_its_time_is_over(self) -> None:
        """A job goes, here and in the store, when it has been kept long enough; no other does."""
        self.ledger.decide(a_job("j-running", created_at=NOON - YEAR))
        self.ledger.learn(ended("j-1", NOON - 30 * DAY + HOUR))
        self.begin(ended("j-2", NOON - 29 * DAY), ended("j-new", NOON))
        self.pass_time(HOUR - 120)
        self.assertEqual(self.kept(), {"j-1", "j-2", "j-running", "j-new"})
        self.pass_time(240)
        self.assertEqual(self.kept(), {"j-2", "j-running", "j-new"})
        self.assertEqual({job.id for job in self.successResultOf(self.store.load()).jobs}, self.kept())

    def test_removed_jobs(self) -> None:
        """The rest of a job that a client removed is kept as long after that as the job would have been."""
        self.begin(ended("j-1", NOON - 29 * DAY), ended("j-2", NOON))
        self.ledger.decide(*a_removal("j-1", self.ledger.now()))
        self.pass_time(2 * DAY, 600)
        self.ledger.decide(*a_removal("j-2", self.ledger.now()))
        self.pass_time(28 * DAY - HOUR, 600)
        registry = self.ledger.registry
        self.assertEqual(set(registry.removed), {"j-1", "j-2"})
        self.pass_time(HOUR + 600, 600)
        self.assertNotIn("j-1", registry.removed)
        self.assertEqual([each.job_id for each in self.successResultOf(self.store.load()).removed], ["j-2"])
        self.pass_time(2 * DAY, 600)
        self.assertEqual(self.successResultOf(self.store.load()).removed, ())

    def test_jobs_of_tomorrow(self) -> None:
        """Jobs from a time when the clock was ahead do not keep those that ended after them."""
        self.patch(retention, "JOBS_EXAMINED_PER_SWEEP", 2)
        ahead = [
            a_job(f"j-{n}", JobState.FAILED, created_at=NOON + YEAR, finished_at=NOON - YEAR + n) for n in range(3)
        ]
        self.begin(*ahead, *(ended(f"j-{n}", NOON - YEAR + n) for n in range(3, 8)), ended("j-new", NOON))
        self.clock.pump([SWEEP_INTERVAL_SECONDS] * 20)
        self.assertEqual(self.kept(), {"j-0", "j-1", "j-2", "j-new"})

    def test_a_few_at_a_time(self) -> None:
        """However many are due, at one look only so many go, the oldest first."""
        self.patch(retention, "REMOVED_PER_SWEEP", 10)
        self.begin(*(ended(f"j-{n:04}", NOON - YEAR + n) for n in range(21)), ended("j-new", NOON))
        for left in (12, 2, 1):
            self.clock.advance(SWEEP_INTERVAL_SECONDS)
            self.assertEqual(len(self.kept()), left)
            self.assertIn("j-new", self.kept())

    def test_a_step_of_an_hour(self) -> None:
        """Set an hour forward or back, the clock makes nothing go that would not have gone in that hour."""
        self.begin(ended("j-1", NOON - 30 * DAY + 2 * HOUR), ended("j-new", NOON))
        for step in (HOUR, -HOUR, -HOUR, HOUR):
            self.wall += step
            self.clock.advance(SWEEP_INTERVAL_SECONDS)
            self.assertEqual(self.kept(), {"j-1", "j-new"})

    def test_a_step_of_a_year(self) -> None:
        """Set a year forward, the clock makes jobs go early day by day, and no longer than it stays wrong."""
        days = range(29)
        self.begin(*(ended(f"j-{day}", NOON - day * DAY) for day in days))
        self.wall += YEAR
        self.pass_time(DAY)
        lost = len(days) - len(self.kept())
        self.assertLessEqual(lost, CATCH_UP_FACTOR)
        self.assertGreater(lost, 0)
        left = self.kept()
        self.wall -= YEAR
        self.pass_time(6 * HOUR)
        self.assertEqual(self.kept(), left)

    def test_back_after_a_year(self) -> None:
        """So it is when the scheduler was away for so long, or its clock was set meanwhile: nothing goes at once."""
        jobs = [ended("j-1", NOON - 20 * DAY), ended("j-2", NOON)]
        self.wall += YEAR
        self.begin(*jobs)
        self.pass_time(HOUR)
        self.assertEqual(self.kept(), {"j-1", "j-2"})

    def test_a_wrong_clock_of_a_worker(self) -> None:
        """An end that its worker dates years ago is not older than the job."""
        self.begin(a_job("j-1", JobState.FAILED, created_at=NOON - DAY, finished_at=5.0))
        self.pass_time(HOUR)
        self.assertEqual(self.kept(), {"j-1"})

    def test_an_orphan_is_kept(self) -> None:
        """A lost job that still runs somewhere is kept, however long ago it was lost."""
        lost = a_job("j-1", JobState.LOST, created_at=NOON - YEAR, finished_at=NOON - YEAR, orphan=True)
        self.begin(lost, ended("j-new", NOON))
        self.pass_time(HOUR)
        self.assertEqual(self.kept(), {"j-1", "j-new"})

    def test_while_the_store_fails(self) -> None:
        """Nothing more is let go of, to be made up for later."""
        self.begin(ended("j-1", NOON - YEAR), ended("j-new", NOON))
        self.store.held = True
        broken = self.ledger.learn(a_job("j-2"))
        self.store.fail()
        self.failureResultOf(broken)
        self.clock.advance(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.kept(), {"j-1", "j-2", "j-new"})
