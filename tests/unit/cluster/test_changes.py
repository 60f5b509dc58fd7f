from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.changes import Change, ChangeFeed, JobChanged, PresenceChanged, WorkerChanged
from scheduler.model import JobSpec, JobState, Presence, Ref, WorkerState
from tests.unit.cluster.values import a_job, a_worker

NEW = JobChanged(None, a_job())
ENDED = JobChanged(a_job(), a_job(state=JobState.SUCCEEDED))
GONE = JobChanged(a_job(state=JobState.SUCCEEDED), None)
OTHER = JobChanged(None, a_job("j-2"))
WORKER = WorkerChanged(None, a_worker())
PRESENCE = PresenceChanged("w-1", Presence(), Presence(WorkerState.ONLINE))


class FeedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.feed = ChangeFeed(self.clock, backlog=3)
        self.heard: list[Change] = []

    def publish(self, *changes: Change) -> None:
        for change in changes:
            self.feed.publish(change)


class DeliveryTests(FeedCase):
    def test_next_turn(self) -> None:
        """Nothing is heard inside the call that publishes; all changes are heard in order, in one turn."""
        self.feed.subscribe(self.heard.append)
        self.publish(NEW, WORKER, ENDED, GONE)
        self.assertEqual(self.heard, [])
        self.assertFalse(self.feed.idle)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual(self.heard, [NEW, WORKER, ENDED, GONE])
        self.assertTrue(self.feed.idle)

    def test_each_change_to_all(self) -> None:
        """Every listener hears a change before any hears the next one."""
        for _ in range(2):
            self.feed.subscribe(self.heard.append)
        self.publish(NEW, ENDED)
        self.clock.advance(0)
        self.assertEqual(self.heard, [NEW, NEW, ENDED, ENDED])

    def test_a_listener_fails(self) -> None:
        """A listener that raises is logged, and strands neither the others nor the changes that follow."""

        def fail(_: Change) -> None:
            raise ZeroDivisionError

        self.feed.subscribe(fail)
        self.feed.subscribe(fail, NEW.ref)
        self.feed.subscribe(self.heard.append)
        self.publish(NEW, WORKER)
        self.clock.advance(0)
        self.assertEqual(self.heard, [NEW, WORKER])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_published_while_heard(self) -> None:
        """A change by a listener is heard by all in a later turn, and in order."""

        def hear(change: Change) -> None:
            if change is NEW:
                self.publish(ENDED)

        self.feed.subscribe(hear)
        self.feed.subscribe(self.heard.append)
        self.publish(NEW, OTHER)
        self.clock.advance(0)
        self.assertEqual(self.heard, [NEW, OTHER, ENDED])


class SubscriptionTests(FeedCase):
    def test_from_then_on(self) -> None:
        """A listener hears no change that was published before it subscribed, though not delivered yet."""
        self.publish(NEW)
        self.feed.subscribe(self.heard.append)
        self.publish(ENDED)
        self.clock.advance(0)
        self.assertEqual(self.heard, [ENDED])

    def test_one_record(self) -> None:
        """A listener to one record hears of no other, and after those who hear everything."""
        order: list[str] = []
        leave = self.feed.subscribe(self.heard.append, Ref("job", "j-1"))
        self.feed.subscribe(lambda _: order.append("one"), Ref("job", "j-1"))
        self.feed.subscribe(lambda _: order.append("all"))
        self.publish(OTHER, WORKER, GONE)
        self.clock.advance(0)
        self.assertEqual(self.heard, [GONE])
        self.assertEqual(order, ["all", "all", "all", "one"])
        self.assertFalse(self.feed.idle)
        leave()
        self.publish(NEW)
        self.clock.advance(0)
        self.assertEqual(self.heard, [GONE])

    def test_one_worker(self) -> None:
        """A listener to a worker hears the changes of its record and of its presence."""
        self.feed.subscribe(self.heard.append, Ref("worker", "w-1"))
        self.publish(NEW, WORKER, PRESENCE, evolve(PRESENCE, worker_id="w-2"))
        self.clock.advance(0)
        self.assertEqual(self.heard, [WORKER, PRESENCE])

    def test_leave(self) -> None:
        """A listener that leaves, also while others hear of a change, hears nothing more; leaving twice is harmless."""
        for to in (None, Ref("job", "j-1")):
            leaves: list[Callable[[], None]] = []
            ends = self.feed.subscribe(lambda _, leaves=leaves: [leave() for leave in leaves], to)  # type: ignore[misc]
            leaves += [self.feed.subscribe(self.heard.append, to), ends]
            self.publish(NEW)
            self.clock.advance(0)
            ends()
            self.assertEqual((self.heard, self.feed.idle), ([], True))

    def test_leave_and_return(self) -> None:
        """A second call that ends a subscription does not end a later one to the same record."""
        leave = self.feed.subscribe(self.heard.append, Ref("job", "j-1"))
        leave()
        self.feed.subscribe(self.heard.append, Ref("job", "j-1"))
        leave()
        self.publish(NEW)
        self.clock.advance(0)
        self.assertEqual(self.heard, [NEW])


class BacklogTests(FeedCase):
    def test_since(self) -> None:
        """The changes after a number, delivered or not, as far as they are kept."""
        self.assertEqual(self.feed.since(0), [])
        self.publish(NEW, WORKER)
        self.assertEqual(self.feed.since(0), [(1, NEW), (2, WORKER)])
        self.publish(ENDED, GONE)
        self.assertEqual((self.feed.seq, self.feed.since(4)), (4, []))
        self.assertEqual(self.feed.since(1), [(2, WORKER), (3, ENDED), (4, GONE)])

    def test_gap(self) -> None:
        """The feed has no answer if it no longer keeps all of the changes, or never gave out that number."""
        self.publish(NEW, WORKER, ENDED, GONE)
        self.assertIsNone(self.feed.since(0))
        self.assertIsNone(self.feed.since(5))

    def test_large(self) -> None:
        """A large spec is not kept, and is there for those who listen."""
        large = (
            JobSpec("cat", args=("x",) * 100),
            JobSpec("cat", args=("x" * 5000,)),
            JobSpec("cat", env={"A": "x" * 5000}),
            JobSpec("cat", env={"A" * 5000: "x"}),
            JobSpec("cat", stdin=b""),
            JobSpec(script=b"#!/bin/sh"),
        )
        self.feed.subscribe(self.heard.append)
        for seq, spec in enumerate(large):
            self.publish(change := JobChanged(a_job(), a_job(spec=spec)))
            self.clock.advance(0)
            self.assertEqual(self.heard[-1], change)
            without = JobChanged(a_job(spec=JobSpec()), a_job(spec=JobSpec()))
            self.assertEqual(self.feed.since(seq), [(seq + 1, without)])
