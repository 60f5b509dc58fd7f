from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.polling import POLL_INTERVAL_SECONDS
from scheduler.daemon.sweep import SLICE_SECONDS
from scheduler.errors import Busy, DeadlineExceeded, Unavailable, Unreachable, WorkerFault
from scheduler.messages import JobStatus
from scheduler.model import JobState
from scheduler.terms import Target
from tests.doubles.workers import Call
from tests.house import House
from tests.unit.cluster.values import a_job, a_worker


class PollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House(lambda: 1000.0)
        self.clock, self.workers, self.polling = self.house.clock, self.house.workers, self.house.parts.polling
        self.workers.hold("query_job")
        jobs = (a_job(name, worker_id="old", started_at=900.0) for name in ("j-1", "j-2"))
        self.house.add(a_worker("old", boot_id=""), *jobs)

    def ids(self) -> list[str]:
        """The ids of the jobs that were asked about."""
        return [call.job_id for call in self.workers.held]

    def answer(self, number: int, error: Exception | None = None) -> None:
        """A question is answered: the job runs, unless there is an ``error``."""
        call = self.workers.held[number]
        if error is None:
            call.answer.callback(JobStatus(call.job_id, JobState.RUNNING))
        else:
            call.answer.errback(error)

    def test_rounds(self) -> None:
        """Each unfinished job is asked about in turn, one question at a time, and again in the next round."""
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1"])
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1"])
        self.answer(0)
        self.assertEqual(self.ids(), ["j-1", "j-2"])
        self.answer(1)
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1", "j-2", "j-1"])

    def test_only_who_must_be_asked(self) -> None:
        """A worker that sends heartbeats, one that can't be reached and an ended job are not asked about."""
        self.house.add(a_worker("new"))
        self.house.add(a_worker("gone", boot_id=""), online=False)
        self.house.add(a_job("j-3", worker_id="new"), a_job("j-4", worker_id="gone"))
        self.house.add(a_job("j-1", JobState.SUCCEEDED, worker_id="old"))
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-2"])

    def test_a_failure_does_not_end_the_round(self) -> None:
        """A job that its worker does not answer for keeps no other from being asked about, if a probe is answered."""
        for error in (Unreachable("old", sent=True), DeadlineExceeded("QueryJob", 10.0), Unavailable("no room")):
            asked = len(self.ids())
            self.clock.advance(POLL_INTERVAL_SECONDS)
            self.answer(asked, error)
            self.assertEqual(self.ids()[asked:], ["j-1", "j-2"])
            self.answer(asked + 1)

    def test_unreachable(self) -> None:
        """The round ends where the worker itself can't be reached; the next one begins with the job after that."""
        self.workers.hold("probe")
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.answer(0, Unreachable("old", sent=True))
        probe = self.workers.held[1]
        self.assertEqual((probe.method, len(self.workers.held)), ("probe", 2))
        probe.answer.errback(Unreachable("old"))
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(len(self.workers.held), 2)
        self.workers.release("probe")
        self.house.add(a_worker("old", boot_id=""))
        del self.workers.held[:]
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.answer(0)
        self.answer(1)
        self.assertEqual(self.ids(), ["j-2", "j-1"])

    def test_busy(self) -> None:
        """Where no further call may be made to the worker the round ends, and the next one goes on from there."""
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.answer(0, Busy("calls", 4))
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1", "j-2"])

    def test_starting(self) -> None:
        """A job whose start is under way is not waited for."""
        self.workers.hold("start_job")
        self.house.submit(target=Target(worker="old"))
        self.house.settle()
        self.workers.take("start_job")
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.answer(0)
        self.answer(1)
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1", "j-2", "j-1"])

    def test_a_fault_does_not(self) -> None:
        """A job that its worker only answers with a fault about keeps no other from being asked about."""
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.answer(0, WorkerFault("old", "no such job"))
        self.assertEqual(self.ids(), ["j-1", "j-2"])

    def test_stop(self) -> None:
        """After the stop nobody is asked and no timer is left."""
        timers = self.house.timers()
        self.polling.stopService()
        self.assertEqual(self.house.timers(), timers - 1)
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), [])

    def start_with_many(self) -> list[str]:
        """There are four more workers, and each question takes longer than half a slice; what happens then."""
        self.polling.stopService()
        for number in range(4):
            self.house.add(a_worker(f"old-{number}", boot_id=""), a_job(f"j-{number}", worker_id=f"old-{number}"))
        asked: list[str] = []

        def asked_about(call: Call) -> None:
            asked.append(call.job_id)
            self.clock.rightNow += 0.6 * SLICE_SECONDS

        self.workers.on_call = asked_about
        self.polling.startService()
        return asked

    def test_many(self) -> None:
        """The rounds of many workers begin a few at a time."""
        asked = self.start_with_many()
        self.clock.callLater(POLL_INTERVAL_SECONDS, asked.append, "another turn")
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.house.settle()
        self.assertEqual(asked, ["j-0", "j-1", "another turn", "j-2", "j-3"])

    def test_stop_in_a_round(self) -> None:
        """A stop ends what was begun a few at a time."""
        asked = self.start_with_many()
        self.clock.callLater(POLL_INTERVAL_SECONDS, self.polling.stopService)
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.house.settle()
        self.assertEqual(asked, ["j-0", "j-1"])
