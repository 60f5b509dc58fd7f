"""What every scheduler does with a request that its client named with a key."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred

from scheduler.errors import KeyReused, StartUnanswered, Unreachable
from scheduler.messages import RequestKey
from scheduler.model import Job, JobState
from scheduler.terms import NO_WAITING, Target
from tests.contract.scheduler_worlds import W1, Contract, for_every_provider
from tests.house import ECHO

KEY = RequestKey("k", "f" * 64)


class WithKeys(Contract):
    def send(self, key: RequestKey = KEY, target: Target = W1) -> Job:
        """A submission with a key, a second later than all before."""
        self.world.clock.advance(1.0)
        job: Job = self.successResultOf(self.scheduler.submit(ECHO, target, NO_WAITING, key))
        return job

    def refused(self, error: type[Exception], key: RequestKey = KEY) -> object:
        return self.failureResultOf(maybeDeferred(self.scheduler.submit, ECHO, W1, NO_WAITING, key), error).value

    def test_again(self) -> None:
        """A request sent again starts nothing, and is answered with the job as it was then."""
        self.assertFalse(self.scheduler.replays(KEY))
        job = self.send()
        self.world.end(job)
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
        self.world.lose("w1")
        self.refused(Unreachable)
        self.assertFalse(self.scheduler.replays(KEY))
        self.world.find("w1")
        self.send()

    def test_unanswered(self) -> None:
        """A start that was not answered is that again, and once its worker has told the job is the answer."""
        self.world.start_goes_unanswered()
        first = self.refused(StartUnanswered)
        assert isinstance(first, StartUnanswered)
        again = self.refused(StartUnanswered)
        assert isinstance(again, StartUnanswered)
        self.assertEqual(again.job_id, first.job_id)
        self.world.find("w1")
        self.assertEqual(self.send(), self.scheduler.job(first.job_id))


globals().update(for_every_provider(WithKeys))
