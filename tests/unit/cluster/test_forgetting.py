"""Workers that deregistered and are forgotten after a time."""

from __future__ import annotations

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.forgetting import FORGOTTEN_PER_SWEEP, SWEEP_INTERVAL_SECONDS
from scheduler.daemon.cautious_time import CATCH_UP_FACTOR
from scheduler.errors import NoMatch, StoreFailed
from scheduler.model import FEATURES, JobState, Worker
from scheduler.terms import QueueTerms, Target
from tests.house import HOME, PEER, House
from tests.unit.cluster.case import ECHO
from tests.unit.cluster.test_offline import OfflineTestCase
from tests.unit.cluster.values import a_job

DAY = 86400.0
NOON = 20_000 * DAY


class ForgettingTests(SynchronousTestCase):
    """Workers stay listed for 7 days."""

    keep = 7 * DAY

    def setUp(self) -> None:
        self.wall = NOON
        self.house = House(lambda: self.wall, forget_after=self.keep)

    def leave(self, *worker_ids: str) -> None:
        for number, worker_id in enumerate(worker_ids):
            self.house.register(worker_id, f"{HOME}:{30000 + number}", boot_id="boot", slots=1, features=FEATURES)
            self.house.settle()
            self.successResultOf(self.house.parts.membership.deregister(worker_id, "", PEER))

    def listed(self) -> list[Worker]:
        return [view.worker for view in self.house.parts.service.workers()]

    def pass_time(self, seconds: float, wall: float | None = None) -> None:
        """Both clocks go on, an hour at a time at most; ``wall``: the wall clock goes on by so much."""
        steps = max(1, round(seconds / 3600))
        for _ in range(steps):
            self.wall += (seconds if wall is None else wall) / steps
            self.house.clock.advance(seconds / steps)

    def test_when_its_time_is_over(self) -> None:
        """A worker whose time is over is forgotten, here and in the store, with everything that waited for it."""
        self.leave("w-1")
        service = self.house.parts.service
        lost = a_job(state=JobState.UNKNOWN)
        self.house.add(lost)
        queued = self.successResultOf(self.house.submit(ECHO, Target(worker="w-1"), QueueTerms(queue_timeout=30 * DAY)))
        self.pass_time(self.keep - 60)
        self.assertEqual(len(self.listed()), 1)
        self.assertIs(service.job(queued.id).state, JobState.QUEUED)
        self.pass_time(120)
        self.assertEqual(self.listed(), [])
        self.assertEqual((service.job("j-1").state, service.job("j-1").reason), (JobState.LOST, "forgotten"))
        self.assertEqual(service.job(queued.id).state, JobState.FAILED)
        self.assertTrue(self.house.parts.forgetting.idle)
        self.house.restart()
        self.assertEqual(self.listed(), [])

    def test_one_that_is_back(self) -> None:
        """A worker that is back is not forgotten; its time begins again when it deregisters again."""
        self.leave("w-1")
        self.pass_time(self.keep - DAY)
        self.house.register("w-1", f"{HOME}:30000", boot_id="boot", features=FEATURES)
        self.pass_time(2 * DAY)
        self.assertEqual(len(self.listed()), 1)
        self.leave("w-1")
        self.pass_time(self.keep - DAY)
        self.assertEqual(len(self.listed()), 1)

    def test_while_the_scheduler_is_down(self) -> None:
        """Time goes on while the scheduler does not run."""
        self.leave("w-1")
        self.wall += self.keep
        self.house.restart()
        self.assertEqual(len(self.listed()), 1)
        self.pass_time(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.listed(), [])

    def test_clock_set_back(self) -> None:
        """A clock that is set back has none forgotten early, also across a restart, nor when it is right again."""
        self.leave("w-1")
        self.wall -= 365 * DAY
        self.pass_time(DAY)
        self.house.restart()
        self.pass_time(self.keep)
        self.assertEqual(len(self.listed()), 1)
        self.wall = NOON + self.keep - DAY
        self.house.restart()
        self.pass_time(DAY / 2)
        self.assertEqual(len(self.listed()), 1)
        self.pass_time(DAY)
        self.assertEqual(self.listed(), [])

    def test_clock_set_ahead(self) -> None:
        """A clock that is set a year ahead has none forgotten at once: there is time to set it right."""
        self.leave("w-1")
        self.wall += 365 * DAY
        self.pass_time(self.keep / CATCH_UP_FACTOR - 3600)
        self.assertEqual(len(self.listed()), 1)
        self.pass_time(7200)
        self.assertEqual(self.listed(), [])

    def test_many(self) -> None:
        """A limited number of workers are forgotten at a time, in the order in which they deregistered."""
        ids = [f"w-{number:03}" for number in range(FORGOTTEN_PER_SWEEP + 5)]
        self.leave(*ids)
        self.wall += self.keep
        self.house.restart()
        self.pass_time(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(sorted(worker.id for worker in self.listed()), ids[FORGOTTEN_PER_SWEEP:])
        self.pass_time(SWEEP_INTERVAL_SECONDS)
        self.assertEqual(self.listed(), [])

    def test_under_way(self) -> None:
        """The next sweep leaves out a worker that is being forgotten."""
        self.leave("w-1")
        self.house.add(a_job(state=JobState.UNKNOWN))
        self.wall += self.keep
        self.house.restart()
        self.house.store.held = True
        self.pass_time(SWEEP_INTERVAL_SECONDS)
        saves = len(self.house.store.saves)
        self.pass_time(SWEEP_INTERVAL_SECONDS)
        self.assertEqual((len(self.house.store.saves), self.house.parts.forgetting.idle), (saves, False))
        self.house.store.commit_all()
        self.assertEqual((self.listed(), self.house.parts.forgetting.idle), ([], True))

    def test_while_the_store_fails(self) -> None:
        """While nothing can be saved none is forgotten, and it goes when the store is well again."""
        self.leave("w-1")
        self.wall += self.keep
        self.house.restart()
        self.house.store.problem = "disk full"
        self.failureResultOf(self.house.parts.service.drain("w-1"), StoreFailed)
        with capturedLogs() as logged:
            self.pass_time(SWEEP_INTERVAL_SECONDS * 3)
        self.assertEqual([event for event in logged if event["log_namespace"].endswith("Forgetting")], [])
        self.assertEqual(len(self.listed()), 1)
        self.house.store.problem = ""
        self.pass_time(120)
        self.assertEqual(self.listed(), [])
        self.house.restart()
        self.assertEqual(self.listed(), [])


class AtOnceTests(OfflineTestCase):
    def test_forgotten(self) -> None:
        """A worker that deregisters is removed if none stays listed, and its jobs wait until it is back."""
        self.house = House(lambda: self.wall, forget_after=0.0)
        self._name_parts()
        self.register()
        self.add(a_job(started_at=900.0))
        self.successResultOf(self.membership.deregister("w-1", "n-1", PEER))
        self.assertEqual(self.cluster.workers(), ())
        self.failureResultOf(self.submit(Target(selector={"gpu": "yes"})), NoMatch)
        self.assertIs(self.cluster.job("j-1").state, JobState.UNKNOWN)
        self.register()
        self.house.runners["w-1"].running = lambda: ("j-1",)
        self.house.beat("w-1")
        self.assertIs(self.cluster.job("j-1").state, JobState.RUNNING)
