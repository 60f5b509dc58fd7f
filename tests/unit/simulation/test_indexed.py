"""The rule that the indices of the registry agree with a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from attrs import evolve

from scheduler.cluster.registry import Registry
from scheduler.errors import NotFound
from scheduler.model import Job, JobState, RemovedJob, Worker
from scheduler.request_keys import RequestKey
from scheduler.views import JobFilter, JobPage
from tests.simulation.rules.indexed import differences
from tests.unit.cluster.values import a_job, a_worker
from tests.unit.simulation.scene_case import SceneCase


class DifferenceTests(SceneCase):
    def setUp(self) -> None:
        super().setUp()
        self.doctored = Registry()
        for worker_id in ("w-1", "w-2"):
            self.doctored.put_worker(a_worker(worker_id))
        for job in self.jobs():
            self.doctored.put_job(job)
        self.doctored.put_removed(RemovedJob("j-0", 1.0, RequestKey("gone", "f")))

    def jobs(self) -> Iterable[Job]:
        yield a_job("j-1", key=RequestKey("k", "f"))
        yield a_job("j-2", stop_requested_at=1.0)
        yield a_job("j-3", JobState.SUCCEEDED)
        yield a_job("j-4", JobState.SUCCEEDED, remove_requested_at=1.0)
        yield a_job("j-5", JobState.QUEUED, None)
        yield a_job("j-6", JobState.LOST, "w-2", orphan=True)
        yield a_job("j-7", worker_id="gone", created_at=5.0)

    def differences(self) -> list[str]:
        return list(differences(self.doctored))

    def test_agree(self) -> None:
        self.assertEqual(self.differences(), [])

    def test_disagree(self) -> None:
        """Each index with a wrong answer is found."""
        none: Callable[..., list[Any]] = lambda *_: []  # noqa: E731
        stranger: Callable[..., list[Worker]] = lambda *_: [a_worker("stranger")]  # noqa: E731
        listed = RemovedJob("j-3", 1.0)
        jobs, workers = self.doctored.jobs, self.doctored.workers
        cases: tuple[tuple[object, str, object], ...] = (
            (jobs, "unfinished", none),
            (jobs, "stopping", none),
            (jobs, "removing", none),
            (jobs, "count_unfinished", lambda _: 7),
            (jobs, "busy", none),
            (jobs, "awaited_by_removals", none),
            (jobs.finished, "all", none),
            (workers, "named", none),
            (workers, "at_address", stranger),
            (self.doctored, "find_key", lambda _: None),
            (self.doctored, "removed", {"j-3": listed}),
        )
        for part, name, answer in cases:
            patch = self.patch(part, name, answer)
            self.assertNotEqual(self.differences(), [], name)
            patch.restore()

    def test_prefix(self) -> None:
        """A job that can't be found by a prefix of its id is reported."""
        self.patch(self.doctored.jobs.listing, "page", lambda *_: JobPage(()))
        self.assertIn("job j-1 is not found by the beginning of its id", self.differences())

    def test_by_worker(self) -> None:
        """A name that only jobs have must be known, and a worker's name must mean only its own jobs."""
        matching = self.doctored.jobs.listing.matching

        def refused(which: JobFilter) -> Iterator[Job]:
            if which.worker == "gone":
                raise NotFound("worker", "gone")
            return matching(which)

        def of_another(which: JobFilter) -> Iterator[Job]:
            return matching(which if which.worker is None else evolve(which, worker="w-2"))

        self.patch(self.doctored.jobs.listing, "matching", refused)
        self.assertIn("gone is refused as the name of no worker or job", self.differences())
        self.patch(self.doctored.jobs.listing, "matching", of_another)
        self.assertTrue([what for what in self.differences() if what.startswith("jobs of w-1")])

    def test_not_over(self) -> None:
        """A job that has not ended is reported if filters for such jobs miss it."""
        matching = self.doctored.jobs.listing.matching
        less = lambda which: islice(matching(which), int(which != JobFilter()), None)  # noqa: E731
        self.patch(self.doctored.jobs.listing, "matching", less)
        self.assertIn("jobs that are not over: ", " ".join(self.differences()))

    def test_queued(self) -> None:
        self.patch(type(self.doctored.jobs), "queued", 0)
        self.assertIn("0 jobs are queued, and there are 1", self.differences())


class IndexedTests(SceneCase):
    def test_scans(self) -> None:
        """The registry is scanned after a start, when all sides should agree, and at the end."""
        for look in ("loaded", "agreed", "rested"):
            self.setUp()
            self.begin()
            self.patch(self.registry.workers, "at_address", lambda _: [])
            getattr(self.judge, look)(*[self.scheduler] * (look == "loaded"))
            self.assert_broken("indices", "by its address")

    def test_load(self) -> None:
        """A worker that still has load when no job is left is reported."""
        self.begin()
        self.registry.reserve(self.worker_id)
        self.judge.rested()
        self.assert_broken("load", "a load of 1")
