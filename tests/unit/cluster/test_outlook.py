"""The reasons why queued jobs wait: the words and sentences, and that they are true although they are cached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.cluster.candidates import Standing, Tally
from scheduler.cluster.jobs.outlook import Outlook, sentence, why_of
from scheduler.cluster.requirement import Requirement
from scheduler.errors import Unavailable
from scheduler.messages import JobStatus
from scheduler.model import Job, JobSpec, JobState, Ref, Worker
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import JobFilter, WaitingFor
from tests.unit.cluster.case import ANY, ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

PATIENT = QueueTerms(queue_timeout=3600.0)
GPU = Target(selector={"gpu": "yes"})


class OutlookTestCase(ClusterTestCase):
    queue_max = 100_000

    def queue_job(self, job_id: str, target: Target = ANY, priority: int = 0, **changes: Any) -> Job:
        """A job that is queued, and due."""
        facts: dict[str, Any] = {"target": target, "terms": evolve(PATIENT, priority=priority), "promised": True}
        self.add(a_job(job_id, JobState.QUEUED, None, **(facts | changes)))
        self.settle()
        return self.cluster.job(job_id)

    def fill(self, worker: Worker) -> None:
        """All of its slots are taken."""
        self.add(worker, *(a_job(f"{worker.id}-{number}", worker_id=worker.id) for number in range(worker.slots or 0)))

    def told(self, job: Job) -> tuple[str, str, int]:
        found = self.cluster.waiting_for(job)
        assert found is not None
        return found.why, found.detail, found.place


def tally(slots: int = 0, **counts: int) -> Tally:
    """Workers, counted by the names of their standings."""
    return Tally(Counter({Standing[name.upper()]: count for name, count in counts.items()}), slots)


class SentenceTests(OutlookTestCase):
    def test_groups(self) -> None:
        """The reasons why one, some or all workers take no job are told with numbers."""
        for workers, held_by, why, detail in (
            (tally(full=1, slots=1), "", "no-free-slot", "1 worker matches; its only slot is taken"),
            (tally(full=1, slots=4), "", "no-free-slot", "1 worker matches; all 4 slots are taken"),
            (tally(full=3, slots=8), "", "no-free-slot", "3 workers match; all 8 slots are taken"),
            (tally(draining=1), "", "draining", "1 worker matches; it is draining"),
            (tally(draining=2), "", "draining", "2 workers match; all are draining"),
            (tally(unreachable=1), "", "unreachable", "1 worker matches; it can't be reached"),
            (tally(unreachable=3), "", "unreachable", "3 workers match; none can be reached"),
            (tally(held=1), "no room", "backoff", "1 worker matches; it takes no job now (no room)"),
            (tally(held=2), "", "backoff", "2 workers match; all take no job now"),
            (tally(free=1), "", "turn", "1 worker matches; it has a free slot"),
            (
                tally(draining=1, unreachable=2, held=1, full=1, slots=1),
                "no room",
                "no-free-slot",
                "5 workers match; 1 is draining, 2 can't be reached, 1 takes no job now (no room), "
                "1 has its only slot taken",
            ),
            (
                tally(draining=2, full=2, slots=8, free=3),
                "",
                "turn",
                "7 workers match; 2 are draining, 2 have all 8 slots taken, 3 have a free slot",
            ),
            (tally(draining=1, unreachable=1), "", "unreachable", "2 workers match; 1 is draining, 1 can't be reached"),
            (tally(unreachable=1, held=1), "", "backoff", "2 workers match; 1 can't be reached, 1 takes no job now"),
        ):
            self.assertEqual((why_of(workers), sentence(workers, held_by)), (why, detail))

    def test_by_selector(self) -> None:
        """A job by selector waits for slots, for workers that can be reached, or for some that match at all."""
        job = self.queue_job("q", GPU)
        self.assertEqual(self.told(job), ("no-match", "no worker matches the selector (gpu=yes)", 1))
        gpu = {"gpu": "yes"}
        self.fill(a_worker("w-2", slots=2, labels=gpu))
        self.fill(a_worker("w-3", slots=6, labels=gpu))
        self.assertEqual(self.told(job), ("no-free-slot", "2 workers match; all 8 slots are taken", 1))
        self.house.know(a_worker("w-2", slots=2, labels=gpu), refusing="no room")
        self.house.know(a_worker("w-3", labels=gpu, draining=True))
        self.assertEqual(self.told(job), ("backoff", "2 workers match; 1 is draining, 1 takes no job now (no room)", 1))
        old = self.queue_job("old", GPU, spec=JobSpec("x", umask=0))
        self.add(*(a_worker(worker_id, labels=gpu, features=frozenset()) for worker_id in ("w-2", "w-3")))
        self.assertEqual(
            self.told(old), ("no-match", "no worker that matches the selector (gpu=yes) supports umask", 1)
        )

    def test_by_name(self) -> None:
        """A job for a worker waits for that one, whose slots do not bind."""
        job = self.queue_job("q", Target(worker="w-9"))
        self.assertEqual(self.told(job), ("unreachable", "worker 'w-9' is not registered now", 1))
        self.house.know(a_worker("w-9", name="box"), online=False)
        self.assertEqual(self.told(job)[:2], ("unreachable", "worker 'box' can't be reached"))
        self.house.know(a_worker("w-9", name="box", draining=True))
        self.assertEqual(self.told(job)[:2], ("draining", "worker 'box' is draining"))
        self.house.know(a_worker("w-9", name="box", slots=0), refusing="no room")
        self.assertEqual(self.told(job)[:2], ("turn", "worker 'box' can take it; it is next"))
        self.house.parts.backoff.refused("w-9", Unavailable("no more processes"))
        self.house.know(a_worker("w-9", name="box", slots=0))
        self.assertEqual(self.told(job)[:2], ("backoff", "worker 'box' takes no job now (no more processes)"))
        for facts, lack in (({"features": frozenset()}, "umask"), ({"boot_id": ""}, "more than a command and a path")):
            old = self.queue_job("old", Target(worker="box"), spec=JobSpec("x", umask=0))
            self.house.know(a_worker("w-9", name="box", **facts), online=False)
            self.assertEqual(self.told(old)[:2], ("no-match", f"worker 'box' does not support {lack}"))

    def test_two_of_a_name(self) -> None:
        """Where a worker came back under another id, that which is online counts."""
        self.add(a_worker("w-8", name="box"), online=False)
        self.add(a_worker("w-9", name="box", draining=True))
        self.assertEqual(self.told(self.queue_job("q", Target(worker="box")))[0], "draining")

    def test_turn(self) -> None:
        """While a worker has room, those wait that are not next: few starts of the queue are under way at a time."""
        self.add(a_worker(slots=50))
        jobs = [self.queue_job(f"q-{number}") for number in range(8)]
        waiting = [job for job in jobs if self.cluster.job(job.id).state is JobState.QUEUED]
        self.assertEqual(
            [self.told(job) for job in waiting[:3]],
            [
                ("turn", "1 worker matches; it has a free slot; it is next", 1),
                ("turn", "1 worker matches; it has a free slot; 1 job goes first", 2),
                ("turn", "1 worker matches; it has a free slot; 2 jobs go first", 3),
            ],
        )

    def test_store(self) -> None:
        """Where a worker could take it, it waits for the store, if that fails."""
        job = self.queue_job("q", GPU)
        self.store.held = True
        self.ledger.learn(a_worker()).addErrback(lambda _: None)
        self.store.fail()
        self.assertEqual(self.told(job)[0], "no-match")
        self.add(a_worker("w-2", labels={"gpu": "yes"}))
        self.settle()
        self.assertEqual(self.told(job)[:2], ("store-failing", "database unavailable: disk full"))

    def test_after_a_restart(self) -> None:
        """A job that has but one chance waits for its worker to come back, as others do."""
        self.add(a_worker(), online=False)
        self.house.know(a_job("q", JobState.QUEUED, None, target=Target(worker="w-1"), promised=True))
        self.begin()
        self.clock.advance(1)
        self.assertEqual(self.told(self.only_job())[0], "unreachable")

    def test_a_slot_gets_free(self) -> None:
        """The reason follows the jobs that run, even before another job was given the slot."""
        self.fill(a_worker(slots=2))
        job = self.queue_job("q")
        self.assertEqual(self.told(job)[0], "no-free-slot")
        self.house.know(a_job("w-1-0", JobState.SUCCEEDED))
        self.assertEqual(self.told(job)[:2], ("turn", "1 worker matches; it has a free slot; it is next"))

    def test_one_that_comes_due(self) -> None:
        """An attempt is counted from when it is due; nobody is told of that."""
        self.fill(a_worker(slots=1))
        job = self.queue_job("q")
        terms = evolve(PATIENT, priority=2, retry=Retry(1, 10.0))
        self.queue_job("again", Target(selector={"name": "w-1"}), terms=terms, retry_of="before")
        self.assertEqual(self.told(job)[2], 1)
        self.clock.advance(10)
        self.assertEqual(self.told(job)[2], 2)

    def test_backoff_ends(self) -> None:
        """A backoff that is over is none, though nothing else has changed."""
        self.add(a_worker(slots=1))
        self.add(a_job())
        self.house.parts.backoff.refused("w-1", Unavailable("no more processes", 5.0))
        job = self.queue_job("q")
        self.assertEqual(self.told(job)[0], "backoff")
        self.clock.advance(4.9)
        self.assertEqual(self.told(job)[0], "backoff")
        self.clock.advance(0.1)
        self.assertEqual(self.told(job)[0], "no-free-slot")


_LABELS = st.sampled_from([{}, {"gpu": "yes"}, {"zone": "a"}, {"gpu": "yes", "zone": "a"}])
_WORKER = st.builds(
    lambda number, **facts: a_worker(f"w-{number}", **facts),
    st.integers(1, 4),
    labels=_LABELS,
    slots=st.integers(0, 2),
    draining=st.booleans(),
    deregistered_at=st.sampled_from([None, None, 5.0]),
)
_TOLD = st.fixed_dictionaries({"online": st.booleans(), "refusing": st.sampled_from([None, "no room"])})
_TARGET = st.one_of(
    _LABELS.map(lambda labels: Target(selector=labels)),
    st.integers(1, 5).map(lambda number: Target(worker=f"w-{number}")),
)
_STEP = st.one_of(
    st.tuples(st.just("worker"), st.tuples(_WORKER, _TOLD)),
    st.tuples(st.just("queue"), st.tuples(_TARGET, st.integers(-1, 1))),
    st.tuples(st.just("started"), st.none()),
    st.tuples(st.just("stop"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("refuse"), st.integers(1, 4)),
    st.tuples(st.just("gone"), st.integers(1, 4)),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.5, 5.0])),
)


class PropertyTests(OutlookTestCase):
    def test_remembered(self) -> None:
        """Whatever happens, what is told is what somebody finds out who remembers nothing, and places are right."""

        @settings(max_examples=150)
        @given(st.lists(_STEP, max_size=25))
        def holds(steps: list[tuple[str, Any]]) -> None:
            self.setUp()
            for number, (what, given_) in enumerate(steps):
                self.happens(what, given_, number)
                self.check()

        holds()

    def happens(self, what: str, given_: Any, number: int) -> None:
        jobs = sorted(self.jobs(), key=lambda job: job.id)
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        running = [job for job in jobs if job.state is JobState.RUNNING]
        match what:
            case "worker":
                self.add(given_[0], **given_[1])
            case "queue":
                facts = {"target": given_[0], "terms": evolve(PATIENT, priority=given_[1]), "promised": True}
                self.add(a_job(f"q-{number:02}", JobState.QUEUED, None, **facts))
                self.check()
                self.settle()
            case "started":
                for call in [call for call in self.held() if call.method == "start_job"]:
                    self.workers.held.remove(call)
                    call.answer.callback(JobStatus(call.args[0].id, JobState.RUNNING))
            case "stop" if queued:
                self.cluster.stop(queued[given_ % len(queued)].id)
            case "end" if running:
                job = running[given_ % len(running)]
                self.add(evolve(job, state=JobState.SUCCEEDED, finished_at=1001.0))
            case "refuse":
                self.house.parts.backoff.refused(f"w-{given_}", Unavailable("no more processes", 2.0))
                self.add(a_worker(f"w-{given_}"))
            case "gone" if self.ledger.registry.workers.find(f"w-{given_}") is not None:
                self.ledger.learn(Ref("worker", f"w-{given_}"))
            case "time":
                self.clock.advance(given_)

    def check(self) -> None:
        fresh = Outlook(self.clock, self.ledger, self.waiting, self.queue, self.house.parts.backoff)
        places: dict[str, int] = {}
        for job in self.jobs():
            told = self.cluster.waiting_for(job)
            self.assertEqual(told, fresh.of(job))
            self.assertEqual(told is not None, job.state is JobState.QUEUED)
            if told is not None:
                places[job.id] = told.place
        self.assertEqual(places, {job_id: self.place(self.cluster.job(job_id)) for job_id in places})

    def place(self, job: Job) -> int:
        """By looking at every job and every worker."""

        def serving(other: Job) -> set[str]:
            requirement, _ = self.waiting.standing(other)
            return {worker.id for worker in self.ledger.registry.workers.all() if requirement.met_by(worker)}

        requirement, place = self.waiting.standing(job)
        others = [job for job in self.jobs() if job.id in self.waiting]
        return 1 + sum(
            self.waiting.standing(other)[1] < place
            and (self.waiting.standing(other)[0] == requirement or bool(serving(other) & serving(job)))
            for other in others
        )


class CostTests(OutlookTestCase):
    def test_a_page(self) -> None:
        """To ask about a page of a thousand jobs looks at a few workers for each line, however many there are."""
        self.add(*(a_worker(f"w-{number}", slots=1, labels={"zone": str(number % 5)}) for number in range(200)))
        for number in range(200):
            self.house.know(a_job(f"r-{number}", worker_id=f"w-{number}"))
        self.add(a_worker(draining=True))
        targets = [ANY, *(Target(selector={"zone": str(number)}) for number in range(5))]
        for number in range(1200):
            facts: dict[str, Any] = {"target": targets[number % 6], "terms": PATIENT, "created_at": 2000.0 + number}
            self.house.know(a_job(f"q-{number}", JobState.QUEUED, None, promised=True, **facts))
        self.settle()
        looks = 0
        each = self.ledger.registry.candidates.each

        def counted(requirement: Requirement, standings: Collection[Standing]) -> Iterator[Worker]:
            nonlocal looks
            for worker in each(requirement, standings):
                looks += 1
                yield worker

        self.patch(self.ledger.registry.candidates, "each", counted)
        page = self.cluster.jobs(JobFilter(), 1000, None).jobs
        began = time.perf_counter()
        told: list[WaitingFor | None] = [self.cluster.waiting_for(job) for job in page]
        took = time.perf_counter() - began
        self.assertEqual({each.why for each in told if each is not None}, {"no-free-slot"})
        self.assertEqual(len([each for each in told if each is not None]), 1000)
        self.assertLessEqual(looks, 6 * 7)
        self.assertLess(took, 2.0)
