from __future__ import annotations

from functools import lru_cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster import listing
from scheduler.cluster.filters import selects
from scheduler.cluster.jobs import stops
from scheduler.cluster.listing import Listing
from scheduler.errors import NotFound
from scheduler.model import FINAL, Job, JobSpec, JobState, Worker
from scheduler.views import JobFilter
from tests.unit.cluster.case import ClusterTestCase
from tests.unit.cluster.values import a_job

BLUE = JobSpec(command="true", labels={"team": "blue"})
NOWHERE = JobFilter(labels={"team": "none"})
UNFINISHED = JobFilter(states=frozenset(JobState) - FINAL)


class Examined(dict[str, Job]):
    """Jobs; ``count`` says how often one was looked at."""

    count = 0

    def __getitem__(self, key: str) -> Job:
        self.count += 1
        return super().__getitem__(key)


def _put(jobs: Examined, listing: Listing, job: Job) -> None:
    before = jobs.get(job.id)
    jobs[job.id] = job
    listing.put(job, before)


def _no_worker(name: str) -> Worker:
    raise NotFound("worker", name)


#: How many jobs one page looks at in these tests.
EXAMINED = 1000


@lru_cache
def many() -> tuple[Examined, Listing]:
    """Made once: each test leaves them as they were."""
    jobs = Examined()
    every = Listing(jobs, _no_worker)
    for number in range(10 * EXAMINED):
        spec = BLUE if number in {3, 5000} else JobSpec(command="true")
        _put(jobs, every, a_job(f"{number:06}", JobState.SUCCEEDED, created_at=float(number), spec=spec))
    _put(jobs, every, a_job("r-1", created_at=5.5))
    _put(jobs, every, a_job("r-2", created_at=7777.5))
    _put(jobs, every, a_job("r-3", JobState.LOST, created_at=3333.5, orphan=True))
    return jobs, every


class ManyTests(SynchronousTestCase):
    """A listing of 100,000 jobs that have ended, and a few that have not."""

    def setUp(self) -> None:
        self.patch(listing, "EXAMINED_PER_PAGE", EXAMINED)
        self.jobs, self.listing = many()

    def put(self, job: Job) -> None:
        _put(self.jobs, self.listing, job)

    def pages(self, which: JobFilter, limit: int = 100) -> list[list[str]]:
        """The ids on each page, of which none looked at too many."""
        found: list[list[str]] = []
        cursor: str | None = None
        while True:
            self.jobs.count = 0
            page = self.listing.page(which, limit, cursor)
            self.assertLessEqual(self.jobs.count, EXAMINED + 1)
            found.append([job.id for job in page.jobs])
            if page.next is None:
                return found
            cursor = page.next

    def test_nothing_matches(self) -> None:
        """A filter that matches nothing has empty pages with a ``next``, and none of them looks at all jobs."""
        pages = self.pages(NOWHERE)
        self.assertEqual((len(pages), [page for page in pages if page]), (11, []))

    def test_few_match(self) -> None:
        """Matching jobs are found, each once, even if they are far apart."""
        pages = self.pages(JobFilter(labels={"team": "blue"}))
        self.assertEqual([job_id for page in pages for job_id in page], ["005000", "000003"])

    def test_a_full_page(self) -> None:
        """A page that is full looks no further than for one more that matches."""
        pages = self.pages(JobFilter(labels={"team": "blue"}), limit=1)
        self.assertEqual([page for page in pages if page], [["005000"], ["000003"]])

    def test_of_the_unfinished(self) -> None:
        """Jobs that have not ended, and orphans, are found at once: the others are not looked at."""
        for which, ids in ((UNFINISHED, ["r-2", "r-1"]), (JobFilter(orphan=True), ["r-3"])):
            self.assertEqual(self.pages(which), [ids])
            self.assertLessEqual(self.jobs.count, 3)

    def test_of_a_time(self) -> None:
        """Jobs that were created at another time are not looked at."""
        which = JobFilter(created_after=7000.0, created_before=7003.0, labels={"team": "none"})
        self.assertEqual(self.pages(which), [[]])
        self.assertEqual(self.jobs.count, 3)

    def test_not_over_and_over(self) -> None:
        """A job is among those that are not over until it ends, or is removed."""
        self.put(a_job("r-4", JobState.QUEUED, created_at=1.5))
        self.assertEqual(self.pages(UNFINISHED), [["r-2", "r-1", "r-4"]])
        self.put(a_job("r-4", JobState.STOPPED, created_at=1.5))
        self.assertEqual(self.pages(UNFINISHED), [["r-2", "r-1"]])
        self.put(a_job("r-5", created_at=1.5))
        for job_id in ("r-4", "r-5"):
            self.listing.remove(self.jobs.pop(job_id))
        self.assertEqual(self.pages(UNFINISHED), [["r-2", "r-1"]])


class StopTests(ClusterTestCase):
    def test_all_that_match(self) -> None:
        """A stop by filter stops all that match, however many jobs are between them, a part of them in each turn."""
        self.patch(stops, "EXAMINED_PER_PAGE", EXAMINED)
        self.patch(listing, "EXAMINED_PER_PAGE", EXAMINED)
        self.add(a_job("first", created_at=1.0))
        for number in range(2 * EXAMINED):
            self.ledger.registry.put_job(a_job(f"j{number}", JobState.SUCCEEDED, created_at=float(10 + number)))
        self.add(a_job("last", created_at=1e9))
        count = 0
        looked_at: list[int] = []

        def counted(*args: Any) -> bool:
            nonlocal count
            count += 1
            return selects(*args)

        def turn() -> None:
            nonlocal count
            looked_at.append(count)
            count = 0
            if len(looked_at) < 5:
                self.clock.callLater(0, turn)

        self.patch(listing, "selects", counted)
        answer = self.cluster.stop_matching(JobFilter(worker="w-1"))
        turn()
        self.clock.advance(0)
        self.assertEqual({call.args[0] for call in self.held()}, {"first", "last"})
        self.assertLessEqual(max(looked_at), EXAMINED + 1)
        for call in self.held():
            call.answer.callback(None)
        self.clock.advance(60)
        self.assertEqual({job.id for job in self.successResultOf(answer)}, {"first", "last"})
