from __future__ import annotations

import time
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.registry import Registry
from scheduler.cluster.requirement import Requirement
from scheduler.model import Job, JobSpec, JobState, Worker
from scheduler.terms import QueueTerms, Target
from tests.unit.cluster.values import a_job, a_worker

GPU = {"gpu": "yes"}


def queued(
    job_id: str, selector: dict[str, str] | None = None, worker: str | None = None, priority: int = 0, **more: Any
) -> Job:
    """A job for any worker, for some, or for one."""
    target = Target(worker, selector) if worker is not None else Target(selector=selector or {})
    terms = QueueTerms(queue_timeout=3600.0, priority=priority)
    return a_job(job_id, JobState.QUEUED, None, target=target, terms=terms, **more)


_LABELS = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2)
_IDS = st.sampled_from(("w-1", "w-2", "w-3"))
_UMASK = frozenset({"umask"})
_DEMANDS = st.builds(
    lambda labels, spec: Requirement.of(spec, Target(selector=labels)),
    _LABELS,
    st.sampled_from([JobSpec(command="a"), JobSpec(command="a", args=("x",)), JobSpec(command="a", umask=0)]),
)
_WORKERS = st.builds(
    lambda labels, boot_id, features: a_worker(labels=labels, boot_id=boot_id, features=features),
    _LABELS,
    st.sampled_from(("", "boot")),
    st.sampled_from((frozenset(), _UMASK)),
)


def _spec_of(requirement: Requirement) -> JobSpec:
    """A spec that makes such a requirement."""
    return JobSpec(command="a", umask=0 if requirement.features else None, args=() if requirement.fits_core else ("x",))


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

    def test_named_with_labels(self) -> None:
        """A worker that a job names gets it only while it has the labels that the job wants."""
        self.add(queued("a", GPU, worker="w-1", priority=9), queued("b"))
        self.assertEqual(self.order(a_worker()), ["b"])
        self.assertEqual(self.order(a_worker(labels=GPU)), ["a"])

    def test_without_a_slot(self) -> None:
        """A worker without a free slot gets what names it, by id or name, alone; so does one with no slots."""
        self.add(queued("a"), queued("b", worker="w-1"), queued("c", worker="name"))
        self.assertEqual(self.order(a_worker(name="name"), free=False), ["b", "c"])
        self.assertEqual(self.order(a_worker(slots=0)), [])

    def test_a_core_worker(self) -> None:
        """A core worker gets only a job that it can be told whole, even if that came later."""
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
        """A job in the middle may leave, and so may a job that is not there."""
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

    @given(st.lists(_DEMANDS, max_size=3), _DEMANDS, _WORKERS, st.integers(-1, 1))
    def test_newcomers_anywhere(
        self, lines: list[Requirement], requirement: Requirement, worker: Worker, priority: int
    ) -> None:
        """Where one line goes first on all workers that a newcomer could have, it goes first on each of them."""
        waiting = Lines()
        for number, each in enumerate(lines):
            waiting.add(queued(f"j-{number}", dict(each.labels), spec=_spec_of(each)))
        if waiting.before_all(requirement, priority) and requirement.met_by(worker):
            self.assertTrue(waiting.before(worker, priority))
        self.assertEqual(waiting.before_all(requirement, 1), False)
        waiting.add(queued("same", dict(requirement.labels), priority=1, spec=_spec_of(requirement)))
        self.assertTrue(waiting.before_all(requirement, priority))

    @given(st.lists(_DEMANDS, max_size=4), st.lists(_IDS, max_size=2), st.dictionaries(_IDS, _WORKERS), _DEMANDS)
    def test_competing(
        self, lines: list[Requirement], named: list[str], workers: dict[str, Worker], requirement: Requirement
    ) -> None:
        """The lines that compete with one are the same, found from the workers or from the lines."""
        waiting, registry = Lines(), Registry()
        for worker_id, worker in workers.items():
            registry.put_worker(evolve(worker, id=worker_id))
        for number, each in enumerate(lines):
            waiting.add(queued(f"j-{number}", dict(each.labels), spec=_spec_of(each)))
        for number, name in enumerate(named):
            waiting.add(queued(f"n-{number}", worker=name))
        matching = [worker for worker in registry.workers.all() if requirement.met_by(worker)]
        found = waiting.competing_for_many(requirement, registry)
        self.assertEqual(
            {line.requirement for line in found},
            {line.requirement for line in waiting.competing(requirement, matching)},
        )
        served = [each for each in waiting.by_requirement if any(each.met_by(worker) for worker in matching)]
        self.assertEqual({line.requirement for line in found} - {requirement}, {*served} - {requirement})
        self.assertEqual(requirement in {line.requirement for line in found}, requirement in waiting.by_requirement)

    def test_first_of_its_kind(self) -> None:
        """The lines tell whether a job is the first with its requirement."""
        self.assertTrue(self.waiting.add(queued("a", GPU)))
        self.assertFalse(self.waiting.add(queued("b", dict(GPU))))
        self.assertTrue(self.waiting.add(queued("c")))

    def test_many(self) -> None:
        """Ten thousand jobs, each with needs of its own, are found for a thousand workers in no time."""
        workers = [a_worker(f"w-{number}", labels={"name": f"w-{number}", "os": "linux"}) for number in range(1000)]
        for number in range(10_000):
            self.add(queued(f"j-{number}", {"os": "linux", "name": f"w-{number % 1000}"}))
        began = time.process_time()
        self.assertEqual(sum(len(self.order(worker)) for worker in workers), 10_000)
        self.assertLess(time.process_time() - began, 2.0)
