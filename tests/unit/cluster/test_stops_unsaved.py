"""Stops while the store fails."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scheduler.cluster import lifecycle
from scheduler.cluster.jobs.stops import STOP_MARGIN_SECONDS, STOP_WAIT_MAX_SECONDS
from scheduler.errors import StoreFailed
from scheduler.messages import JobStatus
from scheduler.model import DEFAULT_STOP_GRACE_SECONDS, Job, JobSpec, JobState, Presence
from tests.unit.cluster.stops_case import StopTestCase
from tests.unit.cluster.values import a_job


class FailingStoreTests(StopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.held = True

    def test_delivered(self) -> None:
        """While the store fails a job can be stopped all the same; the stop is answered when its end is durable."""
        answer = self.stop_it()
        self.assertNoResult(answer)
        self.store.held = False
        self.clock.advance(1)
        self.assertIs(self.successResultOf(answer).state, JobState.STOPPED)

    def test_delivered_and_not_saved(self) -> None:
        """A stop whose end can't be saved in its time is answered with that, and nobody asks the worker again."""
        answer = self.stop_it()
        self.clock.pump([1.0] * int(DEFAULT_STOP_GRACE_SECONDS + STOP_MARGIN_SECONDS - 1))
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.failureResultOf(answer, StoreFailed)
        again = self.cluster.stop("j-1")
        self.stops.retry()
        self.settle()
        self.assertEqual(self.held(), [])
        self.store.held = False
        self.store.commit_all()
        self.settle()
        self.assertIs(self.successResultOf(again).state, JobState.STOPPED)

    def test_delivered_and_does_not_end(self) -> None:
        """A stop that was delivered is promised beyond its time only if it is durable by then."""
        for problem in ("disk full", ""):
            self.setUp()
            self.store.held = False
            self.add(a_job("j-2", started_at=900.0, spec=JobSpec(command="true", stop_grace=3600.0)))
            self.store.problem = "disk full"
            answer = self.cluster.stop("j-2")
            self.take("stop_job").answer.callback(None)
            self.store.problem = problem
            self.clock.pump([1.0] * int(STOP_WAIT_MAX_SECONDS - 1))
            self.assertNoResult(answer)
            self.clock.advance(1)
            if problem:
                self.failureResultOf(answer, StoreFailed)
            else:
                self.assertFalse(self.successResultOf(answer).over)

    def stop_it(self) -> Deferred[Job]:
        """The store fails, and the worker stops the job."""
        answer = self.cluster.stop("j-1")
        self.assertEqual(self.held(), [])
        self.store.fail()
        self.take("stop_job").answer.callback(None)
        ended = JobStatus("j-1", JobState.STOPPED, finished_at=1001.0)
        update = self.ledger.learn(lifecycle.reported(self.cluster.job("j-1"), ended, 1001.0))
        self.failureResultOf(update, StoreFailed)
        return answer

    def test_not_delivered(self) -> None:
        """A stop is no promise before it is recorded, nor when it could be neither recorded nor delivered."""
        self.ledger.see("w-1", Presence())
        answer = self.cluster.stop("j-1")
        self.assertNoResult(answer)
        self.store.fail()
        self.failureResultOf(answer, StoreFailed)
        self.clock.advance(1)
        self.store.commit()  # it works again
        answer = self.cluster.stop("j-1")
        self.store.commit()
        self.assertFalse(self.successResultOf(answer).over)
