from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.registry import Registry
from scheduler.cluster.workers.polling import POLL_INTERVAL_SECONDS, Polling
from scheduler.daemon.sweep import SLICE_SECONDS
from scheduler.errors import Unreachable, WorkerFault
from scheduler.model import Job, JobState, WorkerState
from tests.unit.cluster.values import a_job, a_worker


class PollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = Registry()
        self.asked: list[tuple[str, str, Deferred[Job]]] = []
        self.registry.put_worker(a_worker("old", boot_id=""))
        self.registry.put_job(a_job("j-1", worker_id="old"))
        self.registry.put_job(a_job("j-2", worker_id="old"))
        self.polling = Polling(self.clock, self.registry, self.query)
        self.polling.startService()

    def query(self, worker_id: str, job_id: str) -> Deferred[Job]:
        answer: Deferred[Job] = Deferred()
        self.asked.append((worker_id, job_id, answer))
        return answer

    def ids(self) -> list[str]:
        return [job_id for _, job_id, _ in self.asked]

    def test_rounds(self) -> None:
        """Each unfinished job is asked about in turn, one question at a time, and again in the next round."""
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1"])
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1"])
        self.asked[0][2].callback(a_job("j-1", worker_id="old"))
        self.assertEqual(self.ids(), ["j-1", "j-2"])
        self.asked[1][2].callback(a_job("j-2", worker_id="old"))
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1", "j-2", "j-1"])

    def test_only_who_must_be_asked(self) -> None:
        """A worker that sends heartbeats, one that can't be reached and an ended job are not asked about."""
        self.registry.put_worker(a_worker("new"))
        self.registry.put_job(a_job("j-3", worker_id="new"))
        self.registry.put_worker(a_worker("gone", boot_id="", state=WorkerState.UNREACHABLE))
        self.registry.put_job(a_job("j-4", worker_id="gone"))
        self.registry.put_job(a_job("j-1", JobState.SUCCEEDED, worker_id="old"))
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-2"])

    def test_a_failure_ends_the_round(self) -> None:
        """A worker that does not answer is left alone until the next round."""
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.asked[0][2].errback(Unreachable("old"))
        self.assertEqual(self.ids(), ["j-1"])
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(self.ids(), ["j-1", "j-1"])

    def test_a_fault_does_not(self) -> None:
        """A job that its worker only answers with a fault about keeps no other from being asked about."""
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.asked[0][2].errback(WorkerFault("old", "no such job"))
        self.assertEqual(self.ids(), ["j-1", "j-2"])

    def test_stop(self) -> None:
        """After the stop nobody is asked and no timer is left."""
        self.polling.stopService()
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual((self.ids(), self.clock.getDelayedCalls()), ([], []))

    def test_many(self) -> None:
        """The rounds of many workers begin a few at a time; a stop ends that."""
        self.polling.stopService()
        for number in range(4):
            self.registry.put_worker(a_worker(f"old-{number}", boot_id=""))
            self.registry.put_job(a_job(f"j-{number}", worker_id=f"old-{number}"))
        asked: list[str] = []

        def query(worker_id: str, job_id: str) -> Deferred[Job]:
            asked.append(job_id)
            self.clock.rightNow += 0.6 * SLICE_SECONDS
            return Deferred()

        polling = Polling(self.clock, self.registry, query)
        polling.startService()
        self.clock.callLater(POLL_INTERVAL_SECONDS, asked.append, "another turn")
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual(asked, ["j-0", "j-1", "another turn", "j-2", "j-3"])
        polling.stopService()
        asked.clear()
        again = Polling(self.clock, self.registry, query)
        again.startService()
        self.clock.callLater(POLL_INTERVAL_SECONDS, again.stopService)
        self.clock.advance(POLL_INTERVAL_SECONDS)
        self.assertEqual((asked, self.clock.getDelayedCalls()), (["j-0", "j-1"], []))
