"""The first call to each worker that a scheduler knows from before its start."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.first_calls import FIRST_CALL_SECONDS, MAX_FIRST_CALLS, FirstCalls


class FirstCallsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.under_way: dict[str, Deferred[None]] = {}
        self.called: list[str] = []
        self.first_calls = FirstCalls(self.clock, self.call)

    def call(self, worker_id: str) -> Deferred[None]:
        self.called.append(worker_id)
        self.under_way[worker_id] = Deferred()
        return self.under_way[worker_id]

    def plan(self, count: int) -> list[str]:
        ids = [f"w-{number}" for number in range(count)]
        self.first_calls.plan(ids)
        return ids

    def test_some_at_a_time(self) -> None:
        """The next one is called when one has answered."""
        ids = self.plan(MAX_FIRST_CALLS + 2)
        self.assertEqual(self.called, [])
        self.first_calls.begin()
        self.assertEqual(self.called, ids[:MAX_FIRST_CALLS])
        self.under_way["w-3"].callback(None)
        self.assertEqual(self.called, ids[: MAX_FIRST_CALLS + 1])
        self.assertIn(ids[-1], self.first_calls)

    def test_mute(self) -> None:
        """Workers that do not answer soon hold up no others; what comes of their calls later changes nothing."""
        ids = self.plan(2 * MAX_FIRST_CALLS + 5)
        self.first_calls.begin()
        self.clock.advance(FIRST_CALL_SECONDS)
        self.assertEqual(self.called, ids[: 2 * MAX_FIRST_CALLS])
        for worker_id in ids[:MAX_FIRST_CALLS]:
            self.under_way[worker_id].callback(None)
        self.assertEqual(self.called, ids[: 2 * MAX_FIRST_CALLS])
        self.clock.advance(FIRST_CALL_SECONDS)
        self.assertEqual(self.called, ids)

    def test_at_once(self) -> None:
        """Any number that answer at once are called in one go."""
        called: list[str] = []

        def call(worker_id: str) -> Deferred[None]:
            called.append(worker_id)
            return succeed(None)

        self.first_calls = FirstCalls(self.clock, call)
        ids = self.plan(5000)
        self.first_calls.begin()
        self.assertEqual(called, ids)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wanted(self) -> None:
        """A worker that a request waits for is called at once, and once; a worker that has called need not be."""
        ids = self.plan(MAX_FIRST_CALLS + 3)
        self.first_calls.now(ids[-1])
        self.assertEqual(self.called, [])
        self.first_calls.begin()
        for _ in range(2):
            self.first_calls.now(ids[-1])
        self.assertEqual(self.called, [*ids[:MAX_FIRST_CALLS], ids[-1]])
        self.assertTrue(self.first_calls.cancel(ids[-2]))
        self.clock.advance(FIRST_CALL_SECONDS)
        self.assertEqual(self.called[MAX_FIRST_CALLS + 1 :], [ids[-3]])

    def test_heard(self) -> None:
        """Workers that were heard are called before others, each once, in the order in which they were heard."""
        ids = self.plan(MAX_FIRST_CALLS + 4)
        self.assertFalse(self.first_calls.soon(ids[-1]))
        self.first_calls.begin()
        for worker_id in (ids[-1], ids[-2], ids[-1]):
            self.assertTrue(self.first_calls.soon(worker_id))
        self.assertFalse(self.first_calls.soon(ids[0]))
        self.assertEqual(self.called, ids[:MAX_FIRST_CALLS])
        for number in range(2):
            self.under_way[ids[number]].callback(None)
        self.assertEqual(self.called[MAX_FIRST_CALLS:], [ids[-1], ids[-2]])
        self.clock.advance(FIRST_CALL_SECONDS)
        self.assertEqual(sorted(self.called), sorted(ids))

    def test_stop(self) -> None:
        """Nothing is called, and nothing is left, after the stop."""
        ids = self.plan(MAX_FIRST_CALLS + 1)
        self.first_calls.begin()
        self.first_calls.stop()
        self.assertEqual(self.called, ids[:MAX_FIRST_CALLS])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.under_way[ids[0]].callback(None)
        self.assertEqual(self.called, ids[:MAX_FIRST_CALLS])
