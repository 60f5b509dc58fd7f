"""When the scheduler is called: by new schedulers, cut connections, and at the end."""

from random import Random

from twisted.internet.task import Clock

from scheduler.errors import DeadlineExceeded, Misdirected, NotFound, Refused, SchedulerError, Unreachable
from scheduler.messages import Heartbeat, HeartbeatAnswer
from scheduler.model import JobSpec
from scheduler.worker.conversation import LEAVE_DEADLINE_SECONDS
from tests.doubles.scheduler_client import (
    CoreSchedulerClient,
    FakeSchedulerClient,
    SilentSchedulerClient,
    UnreachableSchedulerClient,
)
from tests.unit.worker.link_case import DISK, WALL, LinkCase


class NewSchedulerTests(LinkCase):
    """A process of the scheduler that calls for the first time."""

    def call(self, scheduler: str, nonce: str = "nonce") -> None:
        self.identity.check_thd("w1", nonce, scheduler)

    def test_at_once(self) -> None:
        """A new scheduler gets a heartbeat at once, none when it calls again, and the next a third of a lease later."""
        self.begin()
        self.clock.advance(5)
        for scheduler in ("first", "first", "second", "first", "second", ""):
            self.call(scheduler)
        self.assertEqual(self.client.methods, ["heartbeat"] * 2)
        self.clock.advance(9.5)
        self.assertEqual(len(self.client.calls), 2)
        self.clock.advance(0.5)
        self.assertEqual(len(self.client.calls), 3)

    def test_another_process(self) -> None:
        """A call that is meant for another process says nothing of who calls."""
        self.begin()
        for nonce, worker_id in (("other", "w1"), ("other", ""), ("", "w2")):
            self.assertRaises(Misdirected, self.identity.check_thd, worker_id, nonce, "first")
        self.assertEqual(self.client.calls, [])
        self.identity.check_thd("its new id", "nonce", "first")
        self.identity.check_thd("", "", "")
        self.assertEqual(self.client.methods, ["heartbeat"])

    def test_in_flight(self) -> None:
        """While a call is in flight it waits for that, however it ends, and then is made at once."""
        for failure in (None, Unreachable("s"), NotFound("worker", "w1")):
            self.use(FakeSchedulerClient())
            self.begin()
            self.client.holding = True
            self.clock.advance(10)
            self.call(f"new {failure}")
            self.assertEqual(len(self.client.calls), 1)
            self.client.failure = failure
            self.client.release()
            self.client.failure = None
            self.clock.advance(0)
            self.assertEqual(len(self.client.calls), 2, failure)
            self.successResultOf(self.link.stopService())

    def test_stale_call(self) -> None:
        """A call that has been in flight for a while was made to a process before: it is given up."""
        self.begin()
        self.client.holding = True
        self.clock.advance(10)
        self.clock.advance(0.9)
        self.call("first")
        self.assertEqual(self.client.pending, 1)
        self.clock.advance(0.1)
        self.call("second")
        self.assertEqual((self.client.methods, self.client.pending), (["heartbeat"] * 2, 1))

    def test_out_of_a_delay(self) -> None:
        """A new scheduler gets a heartbeat during a delay after failures; if that fails the delays begin anew."""
        self.begin()
        self.client.failure = Unreachable("s")
        self.clock.pump([1.0] * 40)
        self.client.calls.clear()
        self.call("new")
        self.assertEqual(len(self.client.calls), 1)
        self.clock.advance(0.5)
        self.assertEqual(len(self.client.calls), 2)
        self.client.failure = None
        self.clock.advance(1)
        self.assertEqual(len(self.client.calls), 3)
        self.clock.advance(9)
        self.assertEqual(len(self.client.calls), 3)

    def test_not_registered(self) -> None:
        """A worker that is not registered registers when a new scheduler calls."""
        self.use(UnreachableSchedulerClient())
        self.link.startService()
        self.clock.pump([1.0] * 40)
        self.client.calls.clear()
        self.client.failure = None
        self.call("new")
        self.assertEqual(self.client.methods, ["register", "heartbeat"])

    def test_stopped(self) -> None:
        """A worker that has stopped says nothing."""
        self.begin()
        self.successResultOf(self.link.stopService())
        self.client.calls.clear()
        self.call("new")
        self.assertEqual((self.client.calls, self.clock.getDelayedCalls()), ([], []))


class CutTests(LinkCase):
    def beats(self, seconds: float) -> int:
        """Count the calls that are made in that time."""
        before = len(self.client.calls)
        self.clock.pump([0.125] * int(seconds / 0.125))
        return len(self.client.calls) - before

    def test_soon(self) -> None:
        """After a cut the next call comes after the first delay, and then the usual ones."""
        self.begin()
        self.client.cut()
        self.assertEqual(self.client.calls, [])
        self.clock.advance(0.25)
        self.assertEqual(self.client.methods, ["heartbeat"])
        self.assertEqual(self.beats(9.5), 0)
        self.assertEqual(self.beats(1), 1)

    def test_scheduler_away(self) -> None:
        """A scheduler that is away is tried with growing delays, from the first on."""
        self.begin()
        self.client.failure = Unreachable("s")
        self.client.cut()
        self.assertEqual([self.beats(0.25), self.beats(0.25), self.beats(0.5), self.beats(1)], [1, 1, 1, 1])
        self.client.failure = None
        self.assertEqual(self.beats(2), 1)
        self.assertEqual(self.logged[-1], "in contact with the scheduler again")

    def test_jitter(self) -> None:
        """Workers whose connections were cut together do not come back together."""
        seconds = set()
        for seed in range(20):
            self.clock = Clock()
            self.use(FakeSchedulerClient(), Random(seed))
            self.begin()
            self.client.cut()
            (call,) = self.clock.getDelayedCalls()
            seconds.add(round(call.getTime(), 3))
            self.assertTrue(0.125 <= call.getTime() <= 0.25, call.getTime())
        self.assertGreater(len(seconds), 10)

    def test_call_in_flight(self) -> None:
        """A call in flight shows it by itself; then, and while calls fail, a cut hurries nothing."""
        self.begin()
        self.client.holding = True
        self.clock.advance(10)
        self.client.cut()
        self.client.failure = Unreachable("s")
        self.client.release()
        self.assertEqual(len(self.client.calls), 1)
        self.clock.pump([1.0] * 20)
        (before,) = self.clock.getDelayedCalls()
        self.client.cut()
        self.assertEqual(self.clock.getDelayedCalls(), [before])

    def test_beat_due(self) -> None:
        """A beat that is due sooner is not put off."""
        self.begin()
        self.clock.advance(9.9)
        self.client.cut()
        self.clock.advance(0.1)
        self.assertEqual(len(self.client.calls), 1)

    def test_again_and_again(self) -> None:
        """A connection that never lasts makes a few calls a minute more, and as soon as one lasts none."""

        class Cutting(FakeSchedulerClient):
            cutting = True

            def _heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
                answer = super()._heartbeat(heartbeat)
                if self.cutting:
                    clock.callLater(0, self.cut)
                return answer

        clock = self.clock
        self.use(Cutting())
        self.begin()
        self.assertLess(self.beats(60), 25)
        self.client.cutting = False
        self.beats(30)
        self.client.cut()
        self.assertEqual(self.beats(0.25), 1)

    def test_not_running(self) -> None:
        """Before it is started and after it has stopped it makes no calls for it."""
        self.client.cut()
        self.begin()
        self.successResultOf(self.link.stopService())
        self.client.calls.clear()
        self.client.cut()
        self.assertEqual((self.client.calls, self.clock.getDelayedCalls()), ([], []))

    def test_core_scheduler(self) -> None:
        """A core scheduler that was restarted is registered at anew as soon as it is back."""
        self.use(CoreSchedulerClient())
        self.begin()
        self.client.failure = Unreachable("s")
        self.client.cut()
        self.beats(1)
        self.client.failure = None
        self.client.calls.clear()
        self.beats(1)
        self.assertEqual(self.client.methods, ["heartbeat", "deregister", "register", "heartbeat"])


class StopTests(LinkCase):
    def stop(self) -> None:
        self.successResultOf(self.link.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """A worker without jobs deregisters, and says nothing afterwards."""
        self.begin()
        self.stop()
        self.assertEqual(self.client.calls, [("deregister", "w1")])
        self.jobs.start("j1", JobSpec(command="true"), 1.0)
        self.jobs.end("j1")
        self.clock.advance(1000)
        self.assertEqual(len(self.client.calls), 1)
        self.assertEqual(self.logged[-1], "worker w1 deregistered")

    def test_busy(self) -> None:
        """A worker whose jobs run on does not deregister: it says that it leaves, and nothing afterwards."""
        self.begin("j1")
        self.stop()
        last = Heartbeat("w1", "boot", ("j1",), leaving=True, sent_at=WALL, disk=DISK, nonce="nonce")
        self.assertEqual(self.client.calls, [("heartbeat", last)])
        self.assertEqual(self.logged[-1], "worker w1 leaves 1 jobs running")
        self.jobs.end("j1")
        self.clock.advance(1000)
        self.assertEqual(len(self.client.calls), 1)

    def test_starting(self) -> None:
        """A worker with a start under way does not deregister: the job may run on."""
        self.patch(self.jobs, "is_starting", lambda: True)
        self.begin()
        self.stop()
        last = Heartbeat("w1", "boot", leaving=True, sent_at=WALL, disk=DISK, nonce="nonce")
        self.assertEqual(self.client.calls, [("heartbeat", last)])

    def test_busy_and_not_heard(self) -> None:
        """A worker stops even if the scheduler is away, or knows no heartbeats."""
        self.begin("j1")
        self.client.failure = Unreachable("the scheduler")
        self.stop()
        self.use(CoreSchedulerClient())
        self.begin("j1")
        self.stop()
        self.assertEqual(self.client.calls, [])

    def test_busy_and_not_answered(self) -> None:
        """A worker that leaves does not wait long for an answer."""
        self.begin("j1")
        self.client.holding = True
        stopped = self.link.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(LEAVE_DEADLINE_SECONDS)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_registered(self) -> None:
        """A worker that was never registered makes no call when it stops."""
        self.use(UnreachableSchedulerClient())
        self.link.startService()
        self.stop()
        self.assertEqual(self.client.methods, ["register"])

    def test_never_started(self) -> None:
        """A link that was never started can be stopped."""
        self.stop()

    def test_in_flight(self) -> None:
        """A stop waits for the call in flight: a registration that is answered only then is undone."""
        self.client.holding = True
        self.link.startService()
        stopped = self.link.stopService()
        self.assertNoResult(stopped)
        self.assertEqual(self.client.methods, ["register"])
        self.client.release()
        self.successResultOf(stopped)
        self.assertEqual(self.client.methods, ["register", "deregister"])
        self.assertEqual(self.client.workers, {})

    def test_last_ends(self) -> None:
        """Ends that came during the last call are told before it goes."""
        self.start("j1", "j2")
        self.begin()
        self.client.holding = True
        self.jobs.end("j1")
        self.jobs.end("j2")
        stopped = self.link.stopService()
        self.client.release()
        self.successResultOf(stopped)
        self.assertEqual(self.client.methods, ["heartbeat", "heartbeat", "deregister"])
        self.assertEqual(self.unacknowledged(), [])

    def test_scheduler_gone(self) -> None:
        """A scheduler that can't be told does not keep it from leaving, whatever it answers."""
        failures: list[SchedulerError] = [Unreachable("s"), DeadlineExceeded("deregister", 10), Refused("no")]
        for failure in failures:
            self.use(FakeSchedulerClient())
            self.begin()
            self.client.failure = failure
            self.stop()
            self.assertIn("could not deregister", self.logged[-1])

    def test_silent(self) -> None:
        """A stop waits for a scheduler that does not answer no longer than the deadline of the call."""
        self.use(SilentSchedulerClient(self.clock, 10))
        self.link.startService()
        stopped = self.link.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(10)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_started_again(self) -> None:
        """A link may be started again, with the same id."""
        self.begin()
        self.stop()
        self.link.startService()
        self.assertEqual(list(self.client.workers), ["w1"])
