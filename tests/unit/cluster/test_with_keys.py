"""Requests that their clients named with keys, as clients see them."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred

from scheduler.errors import DeadlineExceeded, KeyReused, StartUnanswered, Unreachable
from scheduler.messages import RequestKey
from scheduler.model import NO_WAITING, Job, JobState, Target
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO

KEY = RequestKey("k", "f" * 64)


class WithKeysTests(FleetTestCase):
    def send(self, key: RequestKey = KEY, target: Target = W1) -> Job:
        """A submission with a key, a second later than all before."""
        self.clock.advance(1.0)
        job: Job = self.successResultOf(self.scheduler.submit(ECHO, target, NO_WAITING, key))
        return job

    def refused(self, error: type[Exception], key: RequestKey = KEY) -> object:
        return self.failureResultOf(maybeDeferred(self.scheduler.submit, ECHO, W1, NO_WAITING, key), error).value

    def test_again(self) -> None:
        """A request sent again starts nothing, and is answered with the job as it was then."""
        self.assertFalse(self.scheduler.replays(KEY))
        job = self.send()
        self.fleet.end(job.id)
        self.assertTrue(self.scheduler.replays(KEY))
        self.assertEqual(self.send(), job)
        self.assertEqual((self.ids(), self.state(job)), ([job.id], JobState.SUCCEEDED))

    def test_keys_are_apart(self) -> None:
        """Another key is another request, though it asks for the same."""
        self.assertNotEqual(self.send().id, self.send(RequestKey("other", KEY.fingerprint)).id)

    def test_another_request(self) -> None:
        """A used key with another fingerprint is refused, and stays what it was."""
        job, other = self.send(), RequestKey("k", "0" * 64)
        self.refused(KeyReused, other)
        self.assertFalse(self.scheduler.replays(other))
        self.assertEqual(self.send(), job)

    def test_nothing_came_of_it(self) -> None:
        """A request that made no job leaves its key free."""
        self.fleet.lose("w1")
        self.refused(Unreachable)
        self.assertFalse(self.scheduler.replays(KEY))
        self.fleet.find("w1")
        self.send()

    def test_unanswered(self) -> None:
        """A start that was not answered is that again, and once its worker has told the job is the answer."""
        self.house.workers.fail("start_job", DeadlineExceeded("start", 10), arrives=True)
        first = self.refused(StartUnanswered)
        assert isinstance(first, StartUnanswered)
        again = self.refused(StartUnanswered)
        assert isinstance(again, StartUnanswered)
        self.assertEqual(again.job_id, first.job_id)
        self.fleet.find("w1")
        self.assertEqual(self.send(), self.scheduler.job(first.job_id))
