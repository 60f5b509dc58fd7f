from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.lines import Lines
from scheduler.model import Job, JobSpec, JobState, QueueTerms, Target, Worker
from tests.unit.cluster.values import a_job, a_worker

GPU = {"gpu": "yes"}


def queued(
    job_id: str, selector: dict[str, str] | None = None, worker: str | None = None, priority: int = 0, **more: Any
) -> Job:
    """A job for any worker, for some, or for one."""
    target = Target(worker=worker) if worker is not None else Target(selector=selector or {})
    terms = QueueTerms(queue_timeout=3600.0, priority=priority)
    return a_job(job_id, JobState.QUEUED, None, target=target, terms=terms, **more)


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiting = Lines()

    def add(self, *jobs: Job) -> None:
        for job in jobs:
            self.waiting.add(job)

    def order(self, worker: Worker, free: bool = True) -> list[str]:
        """All that the worker gets, one after the other."""
        order = []
        while (job_id := self.waiting.first(worker, free)) is not None:
            order.append(job_id)
            self.waiting.forget(job_id)
        return order

    def test_priority_then_age(self) -> None:
        """A higher priority goes first, and of the same who came first."""
        self.add(queued("a"), queued("b", priority=5), queued("c", priority=-5), queued("d", priority=5), queued("e"))
        self.assertEqual(self.order(a_worker()), ["b", "d", "a", "e", "c"])
        self.assertEqual(len(self.waiting), 0)

    def test_across_lines(self) -> None:
        """The order is the same for jobs with different needs, all of which the worker meets."""
        worker = a_worker(labels={"gpu": "yes", "os": "linux"})
        self.add(queued("a", GPU), queued("b"), queued("c", {"os": "linux"} | GPU), queued("d", worker="w-1"))
        self.add(queued("e", {"os": "linux"}, priority=1), queued("f", GPU))
        self.assertEqual(self.order(worker), ["e", "a", "b", "c", "d", "f"])

    def test_only_who_matches(self) -> None:
        """A job that the worker does not match holds up none behind it."""
        self.add(queued("a", GPU, priority=9), queued("b", worker="w-2", priority=9), queued("c"))
        self.assertEqual(self.order(a_worker()), ["c"])
        self.assertEqual(self.order(a_worker("w-2")), ["b"])
        self.assertEqual(self.order(a_worker("w-3", labels=GPU)), ["a"])

    def test_without_a_slot(self) -> None:
        """A worker without a free slot gets what names it, by id or name, alone; so does one with no slots."""
        self.add(queued("a"), queued("b", worker="w-1"), queued("c", worker="name"))
        self.assertEqual(self.order(a_worker(name="name"), free=False), ["b", "c"])
        self.assertEqual(self.order(a_worker(slots=0)), [])

    def test_a_core_worker(self) -> None:
        """It gets only what it can be told whole, though that came later."""
        self.add(queued("a", spec=JobSpec(command="x", args=("y",))), queued("b", spec=JobSpec(command="x")))
        self.assertEqual(self.order(a_worker(boot_id="", slots=None)), ["b"])

    def test_coming_back(self) -> None:
        """A job whose start came to nothing has the place it had."""
        self.add(queued("a"), queued("b"))
        self.waiting.leave("a")
        self.assertEqual(self.waiting.first(a_worker(), True), "b")
        self.add(queued("a"))
        self.assertEqual(self.order(a_worker()), ["a", "b"])

    def test_leaving(self) -> None:
        """One in the middle may leave, and one that is not there too."""
        self.add(queued("a"), queued("b"), queued("c"))
        self.waiting.forget("b")
        self.waiting.leave("nobody")
        self.assertEqual(("b" in self.waiting, len(self.waiting)), (False, 2))
        self.assertEqual(self.order(a_worker()), ["a", "c"])

    def test_newcomers(self) -> None:
        """A newcomer goes behind who waits with its priority or a higher one, for a slot of that worker."""
        self.assertFalse(self.waiting.before(a_worker(), -1000))
        self.add(queued("a", GPU, priority=5), queued("b", worker="w-1", priority=9))
        self.assertEqual([self.waiting.before(a_worker(labels=GPU), priority) for priority in (4, 5, 6)], [1, 1, 0])
        self.assertFalse(self.waiting.before(a_worker(), 0))
        self.assertEqual([self.waiting.named(worker) for worker in (a_worker(), a_worker("w-2"))], [True, False])

    def test_first_of_its_kind(self) -> None:
        """It is told whether a job is the first to want just that."""
        self.assertTrue(self.waiting.add(queued("a", GPU)))
        self.assertFalse(self.waiting.add(queued("b", dict(GPU))))
        self.assertTrue(self.waiting.add(queued("c")))

    def test_many(self) -> None:
        """Ten thousand jobs, each with needs of its own, are found for a thousand workers in no time."""
        workers = [a_worker(f"w-{number}", labels={"name": f"w-{number}", "os": "linux"}) for number in range(1000)]
        for number in range(10_000):
            self.add(queued(f"j-{number}", {"os": "linux", "name": f"w-{number % 1000}"}))
        began = time.process_time()
        found = sum(len(self.order(worker)) for worker in workers)
        self.assertEqual(found, 10_000)
        self.assertLess(time.process_time() - began, 2.0)
