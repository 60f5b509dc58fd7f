"""Heartbeats: when they are sent, and the reports of jobs in them."""

from scheduler.messages import Heartbeat, HeartbeatAnswer
from scheduler.model import Disk, JobSpec, JobState
from tests.doubles.scheduler_client import FakeSchedulerClient, SilentSchedulerClient
from tests.unit.worker.link_case import MIB, WALL, LinkCase


class HeartbeatTests(LinkCase):
    """Signs of life."""

    def test_every_third_of_a_lease(self) -> None:
        self.begin()
        self.clock.pump([0.5] * 61)
        self.assertEqual(self.client.methods, ["heartbeat"] * 3)

    def test_slow_answer(self) -> None:
        """When an answer comes later than the next beat was due, that follows at once, and the others in their time."""
        self.client.acknowledges = False
        self.begin("j1")
        self.client.holding = True
        self.jobs.end("j1")
        self.clock.advance(25)
        self.client.release()
        self.assertEqual([self.ended(beat) for beat in self.client.heartbeats], [["j1"], ["j1"]])
        self.clock.advance(9)
        self.assertEqual(len(self.client.calls), 2)
        self.clock.advance(1)
        self.assertEqual(len(self.client.calls), 3)

    def test_lease_changes(self) -> None:
        """The lease is the one told last."""
        self.begin()
        self.client.lease = 3
        self.clock.advance(10)  # told now
        self.clock.advance(10)  # in use from now on
        self.client.calls.clear()
        self.clock.pump([0.25] * 12)
        self.assertEqual(self.client.methods, ["heartbeat"] * 3)

    def test_absurd_lease(self) -> None:
        """A lease of nothing makes no storm, and one for ever is not believed."""
        # The shortest that is believed is one second, seen here in steps of a tenth.
        for lease, beats in ((0.0, 1), (-5.0, 1), (float("nan"), 1), (1e-9, 25), (float("inf"), 0)):
            self.use(FakeSchedulerClient(lease))
            self.begin()
            self.clock.pump([0.0999] * 101)
            self.assertEqual(len(self.client.calls), beats, lease)
            (call,) = self.clock.getDelayedCalls()
            self.assertLess(call.getTime() - self.clock.seconds(), 24 * 3600)
            call.cancel()

    def test_job_ends(self) -> None:
        """The end of a job is told at once, acknowledged, and not told again."""
        self.start("j1", "j2")
        self.begin()
        status = self.jobs.end("j1", 3)
        (beat,) = self.client.heartbeats
        self.assertEqual(([report.status for report in beat.ended], beat.running), ([status], ("j2",)))
        self.assertEqual(self.unacknowledged(), [])
        self.clock.advance(10)
        self.assertEqual(self.ended(self.client.heartbeats[1]), [])

    def test_the_machine(self) -> None:
        """Each heartbeat tells the time of the machine and how full its disk is, as far as that is known."""
        self.begin()
        self.disk = None
        self.clock.advance(10)
        self.disk = Disk(1000, 800)
        self.clock.advance(10)
        told = [(beat.sent_at, beat.disk) for beat in self.client.heartbeats[-2:]]
        self.assertEqual(told, [(WALL, None), (WALL, Disk(1000, 800))])

    def test_refusing(self) -> None:
        """Why no job is started is told at once, and that jobs are started again."""
        self.begin()
        for why in ("the disk is full", ""):
            self.jobs.refuse(why)
        self.assertEqual([beat.refusing for beat in self.client.heartbeats], ["the disk is full", ""])

    def test_ends_do_not_delay(self) -> None:
        """However often jobs end, each third of a lease a beat tells again what was not acknowledged."""
        self.client.acknowledges = False
        self.start(*(f"j{count}" for count in range(20)))
        self.begin()
        for count in range(20):
            self.jobs.end(f"j{count}")
            self.clock.advance(1)
        told_again = [beat for beat in self.client.heartbeats if len(beat.ended) > 1]
        self.assertEqual([len(beat.ended) for beat in told_again], [10, 20])

    def test_ends_batch(self) -> None:
        """Ends that come while a call is in flight go together in the next."""
        self.start("j1", "j2", "j3")
        self.begin()
        self.client.holding = True
        for job_id in ("j1", "j2", "j3"):
            self.jobs.end(job_id)
        self.assertEqual(len(self.client.calls), 1)
        self.client.release()
        self.assertEqual([self.ended(beat) for beat in self.client.heartbeats], [["j1"], ["j2", "j3"]])
        self.assertEqual(self.unacknowledged(), [])

    def test_not_acknowledged(self) -> None:
        """An end that is not acknowledged is told again, at the next beat and not before."""
        self.client.acknowledges = False
        self.begin("j1")
        self.jobs.end("j1")
        self.clock.advance(9)
        self.assertEqual(len(self.client.calls), 1)
        self.client.acknowledges = True
        self.clock.advance(1)
        self.assertEqual([self.ended(beat) for beat in self.client.heartbeats], [["j1"], ["j1"]])
        self.assertEqual(self.unacknowledged(), [])

    def test_describe(self) -> None:
        """Jobs that the scheduler asks about are described at once, running or ended."""
        self.start("j1", "j2", spec=JobSpec(command="cat", stdin=b"secret"))
        self.jobs.end("j2")
        self.client.knows.clear()
        self.link.startService()
        first, second = self.client.heartbeats
        self.assertEqual((self.described(first), self.ended(first), first.running), ([], ["j2"], ("j1",)))
        self.assertEqual((sorted(self.described(second)), self.ended(second)), (["j1", "j2"], []))
        self.assertEqual([report.spec for report in second.described], [JobSpec(command="cat")] * 2)
        self.assertEqual(self.client.reports["j2"].status.state, JobState.SUCCEEDED)
        self.assertEqual(self.unacknowledged(), [])

    def test_idle(self) -> None:
        """A link is not idle during a call, nor after a report until the next round."""
        self.assertTrue(self.link.idle)
        self.use(SilentSchedulerClient(self.clock, deadline=5.0))
        self.link.startService()
        self.assertFalse(self.link.idle)
        self.use(FakeSchedulerClient())
        self.begin("j1")
        self.assertTrue(self.link.idle)
        self.jobs.end("j1")
        self.assertFalse(self.link.idle)
        self.clock.advance(10)
        self.assertTrue(self.link.idle)

    def test_describe_the_unknown(self) -> None:
        """A scheduler that asks again and again, or about jobs that are not here, is not answered in circles."""

        class Curious(FakeSchedulerClient):
            def _heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
                return HeartbeatAnswer(30, describe=("nope", "j1"))

        self.use(Curious())
        self.start("j1")
        self.link.startService()
        self.assertEqual([self.described(beat) for beat in self.client.heartbeats], [[], ["j1"]])
        self.clock.advance(10)
        self.assertEqual([self.described(beat) for beat in self.client.heartbeats[2:]], [[], ["j1"]])


class SizeTests(LinkCase):
    """A heartbeat fits into a message."""

    def check_sizes(self) -> None:
        for beat in self.client.heartbeats:
            self.assertLess(len(repr(beat).encode()), MIB)

    def test_many_ended(self) -> None:
        """Thousands of ends are spread over several heartbeats, sent one after the other, each job once, in order."""
        ids = [f"{count:04}-{'x' * 59}" for count in range(3000)]
        self.start(*ids)
        for job_id in ids:
            self.jobs.end(job_id, 1, reason="r" * 300)
        self.link.startService()
        told = [job_id for beat in self.client.heartbeats for job_id in self.ended(beat)]
        self.assertEqual(told, ids)
        self.assertGreater(len(self.client.heartbeats), 2)
        self.assertEqual(self.unacknowledged(), [])
        self.check_sizes()

    def test_many_described(self) -> None:
        """Descriptions are spread over several heartbeats, too, one right after the other."""
        ids = [f"j{count}" for count in range(40)]
        for spec in (
            JobSpec(command="echo", args=("a" * 40_000,)),
            JobSpec(command="echo", env={"A": "ü" * 20_000}),
            JobSpec(command="echo", args=("a",) * 2000),
        ):
            self.use(FakeSchedulerClient())
            self.start(*ids, spec=spec)
            self.client.knows.clear()
            self.link.startService()
            told = [job_id for beat in self.client.heartbeats for job_id in self.described(beat)]
            self.assertEqual(told, ids)
            self.check_sizes()

    def test_described_and_ended(self) -> None:
        """Jobs that ended unknown to the scheduler are all kept in the end, however many beats it takes."""
        ids = [f"j{count}" for count in range(60)]
        self.start(*ids, spec=JobSpec(command="echo", args=("a" * 40_000,)))
        for job_id in ids:
            self.jobs.end(job_id, 1, reason="r" * 10_000)
        self.client.knows.clear()
        self.link.startService()
        self.assertEqual(self.unacknowledged(), [])
        self.check_sizes()

    def test_too_long(self) -> None:
        """A job whose description no message would carry is described in short, and holds up nobody."""
        huge = "ü" * MIB
        self.start(
            "j1",
            spec=JobSpec(
                command=huge, path=huge, args=(huge,), env={"A": huge}, labels={"a": huge}, cwd=huge, timeout=9
            ),
        )
        self.start("j2")
        self.jobs.end("j1", 1, reason=huge)
        self.client.knows.clear()
        self.link.startService()
        self.assertEqual(self.unacknowledged(), [])
        self.assertEqual(self.client.knows, {"j1", "j2"})
        self.assertEqual(self.client.reports["j1"].spec.timeout, 9)
        self.check_sizes()
