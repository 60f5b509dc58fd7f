"""The job that a worker gets when it can take one."""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.jobs.dispatcher import MAX_STARTS_PER_WORKER
from scheduler.errors import NoFreeSlot
from scheduler.model import JobState, Presence, Worker
from scheduler.terms import NO_WAITING, Target
from tests.unit.cluster.case import ECHO
from tests.unit.cluster.queue_case import SHORT, QueueTestCase
from tests.unit.cluster.values import a_worker


class FindingTests(QueueTestCase):
    """Workers are found for lines, without looking at all workers."""

    queue_max = 100

    def all_in_backoff(self, *names: str, slots: int = 2) -> None:
        """These workers can take jobs again in a while, of which nobody is told."""
        self.add(*(a_worker(name, slots=slots) for name in names))
        for name in names:
            self.house.parts.backoff.refused(name, SHORT)

    def turns(self) -> list[str]:
        """The workers that were looked at, as the calls that find a job for one of them."""
        looked_at: list[str] = []
        first = self.waiting.first

        def counted(worker: Worker, free: bool) -> str | None:
            looked_at.append(worker.id)
            return first(worker, free)

        self.patch(self.waiting, "first", counted)
        return looked_at

    def starts_sent(self) -> list[str]:
        return [call.worker_id for call in self.held() if call.method == "start_job"]

    def test_a_line_has_as_many_workers_as_it_needs(self) -> None:
        """When the workers of a line can take jobs again they get all that wait, the least loaded one each time."""
        self.all_in_backoff("w-2", "w-3", "w-4")
        self.run_job(Target(worker="w-3"))  # which ends its backoff
        self.house.parts.backoff.refused("w-3", SHORT)
        for _ in range(4):
            self.queued()
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.starts_sent(), ["w-2", "w-4", "w-2", "w-3"])

    def test_several_lines(self) -> None:
        """Each line has its turn, and a worker that serves several has the oldest job first."""
        self.add(a_worker("w-2", labels={"gpu": "yes"}, slots=2), a_worker("w-3", labels={"gpu": "yes"}, slots=1))
        for name in ("w-2", "w-3"):
            self.house.parts.backoff.refused(name, SHORT)
        jobs = [self.queued(Target(selector=selector)) for selector in ({}, {"gpu": "yes"}, {})]
        self.clock.pump([1.0] * 8)
        sent = [(call.args[0].id, call.worker_id) for call in self.held()]
        self.assertEqual(sent, [(jobs[0].id, "w-2"), (jobs[1].id, "w-3"), (jobs[2].id, "w-2")])

    def test_one_that_has_enough_to_start(self) -> None:
        """The next worker is found if the least loaded one may not be sent more at present."""
        self.add(a_worker("w-3", slots=20))
        for _ in range(MAX_STARTS_PER_WORKER + 1):
            self.run_job(Target(worker="w-3"))
        self.house.parts.backoff.refused("w-3", SHORT)
        self.all_in_backoff("w-2", slots=20)
        for _ in range(MAX_STARTS_PER_WORKER + 2):
            self.queued()
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.starts_sent(), ["w-2"] * MAX_STARTS_PER_WORKER + ["w-3"] * 2)

    def test_loads_change_meanwhile(self) -> None:
        """The load at a worker's turn counts, not the load when the worker was found worth a look."""
        self.queued()
        self.house.know(a_worker("w-2"), a_worker("w-3"))
        self.house.submit(ECHO, Target(worker="w-2"))
        self.settle()
        self.assertEqual(self.starts_sent(), ["w-2", "w-3"])

    def test_worth_a_look_twice(self) -> None:
        """Two slots of one worker that become free in one turn are both taken in the next."""
        self.add(a_worker("w-2", slots=2))
        ended = [evolve(self.run_job(), state=JobState.SUCCEEDED, finished_at=self.wall) for _ in range(2)]
        jobs = [self.queued() for _ in range(3)]
        self.add(*ended)
        self.settle()
        self.assertEqual([call.args[0].id for call in self.held()], [job.id for job in jobs[:2]])

    def test_few_are_looked_at(self) -> None:
        """Among many free workers only those are looked at that get a job, whatever else waits in vain."""
        self.change(a_worker(labels={"gpu": "yes"}, slots=1))
        for _ in range(3):
            self.queued(Target(selector={"gpu": "yes"}))
        self.all_in_backoff(*(f"x-{number:03}" for number in range(300)))
        self.queued()
        looked_at = self.turns()
        self.clock.pump([1.0] * 8)
        self.assertEqual(self.starts_sent(), ["x-000"])
        self.assertLessEqual(len(looked_at), 3)

    def test_a_full_worker_is_not_looked_at(self) -> None:
        """A sign of life of a worker without a slot starts nothing, while only selectors wait."""
        self.queued()
        looked_at = self.turns()
        self.settle()
        self.house.parts.liveness.heard("w-1", Presence(refusing=""))
        self.settle()
        self.assertEqual(looked_at, [])

    def test_newcomers_behind_a_line(self) -> None:
        """A newcomer that has to wait behind the line of all workers is told so without a look at each of them."""
        self.queued()
        self.house.know(*(a_worker(f"x-{number:03}") for number in range(300)))  # the line gets one in the next turn
        asked: list[Worker] = []

        def before(worker: Worker, priority: int) -> bool:
            asked.append(worker)
            return True

        self.patch(self.waiting, "before", before)
        self.assertIs(self.successResultOf(self.submit()).state, JobState.QUEUED)
        self.failureResultOf(self.submit(Target(selector={"name": "x-001"}), NO_WAITING), NoFreeSlot)
        self.assertEqual(asked, [])
        self.failureResultOf(self.submit(terms=evolve(NO_WAITING, priority=1)), NoFreeSlot)  # goes first, were it not
        self.assertEqual(len(asked), 300)
