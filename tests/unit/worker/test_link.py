"""Staying a member: what is said to the scheduler, when, and what becomes of each answer."""

import os
import stat
from pathlib import Path
from random import Random

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scheduler.errors import (
    Conflict,
    DeadlineExceeded,
    Invalid,
    Misdirected,
    NameTaken,
    NotFound,
    Refused,
    SchedulerError,
    StoreFailed,
    Unreachable,
)
from scheduler.messages import Heartbeat, HeartbeatAnswer, Registered, Registration
from scheduler.model import Disk, JobSpec, JobState
from scheduler.worker.commit_count import CommitCountFile
from scheduler.worker.held_id import IdFile
from scheduler.worker.identity import Identity
from scheduler.worker.link import LEAVE_DEADLINE_SECONDS, RETRY_MAX_SECONDS, Link
from scheduler.worker_interfaces import ICommitCount, ISchedulerClient
from tests.doubles.pools import InlinePool
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import (
    CoreSchedulerClient,
    FakeSchedulerClient,
    RefusingSchedulerClient,
    SilentSchedulerClient,
    UnreachableSchedulerClient,
)

MIB = 1024 * 1024

#: What the worker's clock says, and the disk its spools are on.
WALL = 1_700_000_000.5
DISK = Disk(1000, 900, 100, 90)


class Latest(Random):
    """Draws the end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return b


class MembershipCase(SynchronousTestCase):
    """A worker with jobs in memory and a scheduler in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.jobs = FakeJobRunner()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.id_file = self.folder / "worker_id"
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)
        self.identity = Identity(lambda notify: notify(), "secret", "nonce")
        self.use(FakeSchedulerClient())

    def note(self, event: dict) -> None:
        if isinstance(event.get("log_source"), Link | IdFile):
            self.logged.append(event["log_format"].format(**event))

    def use(
        self,
        client: FakeSchedulerClient,
        random: Random | None = None,
        jobs: FakeJobRunner | None = None,
        commit_count: ICommitCount | None = None,
    ) -> None:
        """Have that scheduler, and a new process on this machine."""
        self.client = client
        self.jobs = jobs or FakeJobRunner()
        self.membership = Link(
            self.clock,
            client,
            self.jobs,
            lambda: self.facts,
            IdFile(self.id_file),
            CommitCountFile(InlinePool(), self.mktemp()) if commit_count is None else commit_count,
            self.identity,
            random or Latest(),
            lambda: WALL,
            lambda: self.disk,
        )

    disk: Disk | None = DISK
    facts = Registration("127.0.0.1:30000", name="box", labels={"a": "b"}, slots=4, boot_id="boot", version="1")

    def start(self, *job_ids: str, spec: JobSpec | None = None) -> None:
        """Run these jobs; the scheduler knows them."""
        for job_id in job_ids:
            self.successResultOf(self.jobs.start(job_id, spec or JobSpec(command="true"), 1.0))
            self.client.knows.add(job_id)

    def begin(self) -> None:
        """Start, and forget what was said so far."""
        self.membership.startService()
        self.client.calls.clear()

    def unacknowledged(self) -> list[str]:
        return [report.status.job_id for report in self.jobs.unacknowledged()]

    @staticmethod
    def ended(heartbeat: Heartbeat) -> list[str]:
        return [report.status.job_id for report in heartbeat.ended]

    @staticmethod
    def described(heartbeat: Heartbeat) -> list[str]:
        return [report.status.job_id for report in heartbeat.described]


class FakeTests(MembershipCase):
    """The stand-ins are what they stand in for."""

    def test_interface(self) -> None:
        """Each fulfils the interface."""
        for client in (
            FakeSchedulerClient(),
            CoreSchedulerClient(),
            UnreachableSchedulerClient(),
            RefusingSchedulerClient(Refused("no")),
            SilentSchedulerClient(Clock()),
        ):
            verifyObject(ISchedulerClient, client)


class RegistrationTests(MembershipCase):
    """Becoming a member."""

    def test_at_once(self) -> None:
        """It registers as what it is at once, and sends a heartbeat with its running jobs."""
        self.start("j1")
        self.membership.startService()
        beat = Heartbeat("w1", "boot", running=("j1",), sent_at=WALL, disk=DISK, nonce="nonce")
        self.assertEqual(
            self.client.calls,
            [("register", evolve(self.facts, folder_id="secret", nonce="nonce")), ("heartbeat", beat)],
        )
        self.assertEqual(self.logged, ["registered as w1, to be called at 127.0.0.1:30000"])

    def test_facts_of_the_moment(self) -> None:
        """Where it listens is asked when it registers, so it may turn out late, and change."""
        self.facts = Registration("127.0.0.1:4444", boot_id="boot")
        self.membership.startService()
        self.assertEqual(self.client.workers["w1"].address, "127.0.0.1:4444")

    def test_does_not_wait(self) -> None:
        """Starting does not wait for the scheduler, and one call at a time is in flight."""
        self.client.holding = True
        self.membership.startService()
        self.start("j1")
        self.jobs.end("j1")
        self.clock.advance(1000)
        self.assertEqual(self.client.methods, ["register"])
        self.client.release()
        self.assertEqual(self.client.methods, ["register", "heartbeat"])

    def test_id_kept(self) -> None:
        """The id is kept in a file that only its owner can read, and the next process registers with it."""
        self.membership.startService()
        self.assertEqual(self.id_file.read_text(), "w1\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.id_file).st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["worker_id"])
        self.use(FakeSchedulerClient())
        self.membership.startService()
        self.assertEqual(self.client.workers["w1"].worker_id, "w1")

    def test_left_draft(self) -> None:
        """What a killed process left half written is no obstacle."""
        self.id_file.with_suffix(".tmp").write_text("half")
        self.membership.startService()
        self.assertEqual(self.id_file.read_text(), "w1\n")

    def test_unusable_file(self) -> None:
        """A file that holds no id is told and replaced."""
        for content in (b"", b"\n", b"a\nb\n", b"\xff\xfe", b"\x1b[2J", b"x" * 1025):
            self.id_file.write_bytes(content)
            self.use(FakeSchedulerClient())
            self.membership.startService()
            self.assertEqual(self.client.calls[0], ("register", evolve(self.facts, folder_id="secret", nonce="nonce")))
            self.assertEqual(self.id_file.read_text(), "w1\n")
            self.assertIn("so a new", self.logged.pop(0))
            self.logged.clear()

    def test_file_can_not_be_written(self) -> None:
        """Without the file it is a member all the same."""
        self.folder.joinpath("worker_id").mkdir()
        self.membership.startService()
        self.assertEqual(self.client.methods, ["register", "heartbeat"])
        self.assertTrue(any("can't be written" in line for line in self.logged), self.logged)


class RetryTests(MembershipCase):
    """A scheduler that can't be reached, or does not want us."""

    def tries(self, seconds: float, step: float = 0.125) -> list[float]:
        """When calls were made in that time, in seconds from now."""
        times = []
        began = self.clock.seconds()
        for _ in range(int(seconds / step)):
            before = len(self.client.calls)
            self.clock.advance(step)
            times += [self.clock.seconds() - began] * (len(self.client.calls) - before)
        return times

    def test_backoff(self) -> None:
        """Started before the scheduler it tries again and again, at first soon, in the end every five seconds."""
        self.use(UnreachableSchedulerClient())
        self.membership.startService()
        self.assertEqual(self.tries(20), [0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75])
        self.assertEqual(set(self.client.methods), {"register"})
        self.client.failure = None
        self.clock.advance(5)
        self.assertIn("w1", self.client.workers)

    def test_jitter(self) -> None:
        """Workers that lost their scheduler together do not come back together, nor later than the longest delay."""
        seconds = set()
        for seed in range(20):
            self.clock = Clock()
            self.use(UnreachableSchedulerClient(), Random(seed))
            self.membership.startService()
            self.clock.pump([0.01] * 2000)
            (call,) = self.clock.getDelayedCalls()
            seconds.add(round(call.getTime() - self.clock.seconds(), 2))
            self.assertLessEqual(call.getTime() - self.clock.seconds(), RETRY_MAX_SECONDS)
        self.assertGreater(len(seconds), 10)

    def test_for_ever(self) -> None:
        """However long it takes."""
        self.use(UnreachableSchedulerClient())
        self.membership.startService()
        self.clock.pump([5.0] * 3000)
        self.client.failure = None
        self.clock.advance(5)
        self.assertEqual(self.client.methods[-2:], ["register", "heartbeat"])

    def test_told_once(self) -> None:
        """That the scheduler can't be reached is logged once, in whichever way it shows, and once that it can again."""
        self.membership.startService()
        self.logged.clear()
        for failure in (Unreachable("s"), DeadlineExceeded("heartbeat", 10), Unreachable("s", sent=True)):
            self.client.failure = failure
            self.clock.pump([5.0] * 10)
        self.assertEqual(self.logged, ["no contact with the scheduler, trying again"])
        self.client.failure = None
        self.clock.pump([5.0] * 10)
        self.assertEqual(self.logged[1:], ["in contact with the scheduler again"])
        self.assertEqual(self.client.methods.count("register"), 1)

    def test_refused(self) -> None:
        """What only somebody can mend is logged once until it changes, and tried every five seconds."""
        for error in (Refused("address not allowed"), Conflict("name is taken"), Invalid("labels", "too many")):
            self.logged.clear()
            self.use(RefusingSchedulerClient(error))
            self.membership.startService()
            self.assertEqual(self.tries(16), [5, 10, 15])
            self.assertEqual(self.logged, [f"the scheduler refuses this worker: {error}, trying again"])
            self.client.failure = Refused("something else")
            self.clock.advance(5)
            self.assertEqual(len(self.logged), 2)

    def test_changing_text(self) -> None:
        """A text that is another one with each try is logged ten times, and again when there was contact in between."""
        self.begin()
        for _ in range(2):
            self.logged.clear()
            for number in range(30):
                self.client.failure = (Refused, StoreFailed)[number % 2](f"request {number}")
                self.clock.pump([5.0] * 3)
            self.assertEqual(len(self.logged), 10, self.logged)
            self.client.failure = None
            self.clock.pump([5.0] * 3)
            self.assertEqual(self.logged[10:], ["in contact with the scheduler again"])

    def test_fault(self) -> None:
        """A scheduler that can't do it now is tried like one that is not there."""
        self.use(RefusingSchedulerClient(StoreFailed("disk full")))
        self.membership.startService()
        self.assertEqual(self.tries(2), [0.25, 0.75, 1.75])
        self.assertEqual(self.logged, ["the scheduler answers with a fault: disk full, trying again"])

    def test_silent(self) -> None:
        """Of a scheduler that does not answer one call waits at a time."""
        self.use(SilentSchedulerClient(self.clock, 10))
        self.membership.startService()
        self.assertEqual(self.tries(31), [10.25, 20.75])

    def test_bug(self) -> None:
        """Even a mistake of ours ends nothing."""
        self.client.failure = RuntimeError("bug")  # type: ignore[assignment]
        self.membership.startService()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.client.failure = None
        self.clock.advance(5)
        self.assertIn("w1", self.client.workers)

    def test_ends_do_not_hurry(self) -> None:
        """While the scheduler can't be reached the ends of jobs make no calls of their own, and are told later."""
        self.start("j1", "j2")
        self.begin()
        self.client.failure = Unreachable("s")
        self.jobs.end("j1")
        self.assertEqual(len(self.client.calls), 1)
        self.jobs.end("j2")
        self.assertEqual(len(self.client.calls), 1)
        self.client.failure = None
        self.clock.advance(0.25)
        self.assertEqual(self.ended(self.client.heartbeats[-1]), ["j1", "j2"])
        self.assertEqual(self.unacknowledged(), [])


class HeartbeatTests(MembershipCase):
    """Signs of life."""

    def test_every_third_of_a_lease(self) -> None:
        """One is sent at each third of the lease."""
        self.begin()
        self.clock.pump([0.5] * 61)
        self.assertEqual(self.client.methods, ["heartbeat"] * 3)

    def test_slow_answer(self) -> None:
        """When an answer comes later than the next beat was due, that follows at once, and the others in their time."""
        self.client.acknowledges = False
        self.start("j1")
        self.begin()
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
            for call in self.clock.getDelayedCalls():
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
        self.start("j1")
        self.begin()
        self.jobs.end("j1")
        self.clock.advance(9)
        self.assertEqual(len(self.client.calls), 1)
        self.client.acknowledges = True
        self.clock.advance(1)
        self.assertEqual([self.ended(beat) for beat in self.client.heartbeats], [["j1"], ["j1"]])
        self.assertEqual(self.unacknowledged(), [])

    def test_describe(self) -> None:
        """What the scheduler asks about is described at once, running or ended."""
        self.start("j1", "j2", spec=JobSpec(command="cat", stdin=b"secret"))
        self.jobs.end("j2")
        self.client.knows.clear()
        self.membership.startService()
        first, second = self.client.heartbeats
        self.assertEqual((self.described(first), self.ended(first), first.running), ([], ["j2"], ("j1",)))
        self.assertEqual((sorted(self.described(second)), self.ended(second)), (["j1", "j2"], []))
        self.assertEqual([report.spec for report in second.described], [JobSpec(command="cat")] * 2)
        self.assertEqual(self.client.reports["j2"].status.state, JobState.SUCCEEDED)
        self.assertEqual(self.unacknowledged(), [])

    def test_idle(self) -> None:
        """What was told or is asked about is kept until the next round, and a call until it is over."""
        self.assertTrue(self.membership.idle)
        self.use(SilentSchedulerClient(self.clock, deadline=5.0))
        self.membership.startService()
        self.assertFalse(self.membership.idle)
        self.use(FakeSchedulerClient())
        self.start("j1")
        self.begin()
        self.assertTrue(self.membership.idle)
        self.jobs.end("j1")
        self.assertFalse(self.membership.idle)
        self.clock.advance(10)
        self.assertTrue(self.membership.idle)

    def test_describe_the_unknown(self) -> None:
        """A scheduler that asks again and again, or about jobs that are not here, is not answered in circles."""

        class Curious(FakeSchedulerClient):
            def _heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
                return HeartbeatAnswer(30, describe=("nope", "j1"))

        self.use(Curious())
        self.start("j1")
        self.membership.startService()
        self.assertEqual([self.described(beat) for beat in self.client.heartbeats], [[], ["j1"]])
        self.clock.advance(10)
        self.assertEqual([self.described(beat) for beat in self.client.heartbeats[2:]], [[], ["j1"]])


class SizeTests(MembershipCase):
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
        self.membership.startService()
        told = [job_id for beat in self.client.heartbeats for job_id in self.ended(beat)]
        self.assertEqual(told, ids)
        self.assertGreater(len(self.client.heartbeats), 2)
        self.assertEqual(self.unacknowledged(), [])
        self.check_sizes()

    def test_many_described(self) -> None:
        """So are descriptions, the last of them with the same hurry."""
        ids = [f"j{count}" for count in range(40)]
        for spec in (
            JobSpec(command="echo", args=("a" * 40_000,)),
            JobSpec(command="echo", env={"A": "ü" * 20_000}),
            JobSpec(command="echo", args=("a",) * 2000),
        ):
            self.use(FakeSchedulerClient())
            self.start(*ids, spec=spec)
            self.client.knows.clear()
            self.membership.startService()
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
        self.membership.startService()
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
        self.membership.startService()
        self.assertEqual(self.unacknowledged(), [])
        self.assertEqual(self.client.knows, {"j1", "j2"})
        self.assertEqual(self.client.reports["j1"].spec.timeout, 9)
        self.check_sizes()


class ForgottenTests(MembershipCase):
    """A scheduler that does not know us any more."""

    def test_restarted(self) -> None:
        """When a heartbeat finds nobody it registers again under its id, at once, and its jobs reappear."""
        self.start("j1")
        self.begin()
        self.client.forget_everything()
        self.clock.advance(10)
        self.assertEqual(self.client.methods, ["heartbeat", "register", "heartbeat", "heartbeat"])
        self.assertEqual(self.client.calls[1], ("register", self.client.workers["w1"]))
        self.assertEqual(self.described(self.client.heartbeats[-1]), ["j1"])

    def test_away_and_restarted(self) -> None:
        """So it does when the scheduler was away meanwhile, and goes on as before."""
        self.begin()
        self.client.failure = Unreachable("s")
        self.clock.pump([1.0] * 20)
        self.client.forget_everything()
        self.client.failure = None
        self.client.calls.clear()
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.client.methods, ["heartbeat", "register", "heartbeat"])
        self.start("j1")
        self.jobs.end("j1")
        self.assertEqual(self.unacknowledged(), [])

    def test_again_and_again(self) -> None:
        """One that forgets us each time is not overrun."""

        class Forgetful(FakeSchedulerClient):
            def _register(self, registration: Registration) -> Registered:
                answer = super()._register(registration)
                self.forget_everything()
                return answer

        self.use(Forgetful())
        self.membership.startService()
        self.clock.pump([0.25] * 240)
        self.assertLess(len(self.client.calls), 50)
        self.assertEqual(len([line for line in self.logged if "again and again" in line]), 1)

    def test_new_id(self) -> None:
        """An id the scheduler assigns in place of ours is the one to be kept."""
        self.begin()

        class Deciding(FakeSchedulerClient):
            def _register(self, registration: Registration) -> Registered:
                self.workers["other"] = registration
                return Registered("other", 30)

        self.use(Deciding())
        self.membership.startService()
        self.assertEqual(self.id_file.read_text(), "other\n")
        self.assertEqual(self.client.heartbeats[0].worker_id, "other")


class RegisterAgainTests(MembershipCase):
    """A scheduler that asks for a registration, as what it knows of us may have changed."""

    def test_at_once(self) -> None:
        """It registers at once as what it is by now, under its id, and goes on."""
        self.begin()
        self.facts = Registration("10.0.0.7:30000", boot_id="boot")
        self.client.registrations_wanted = 1
        self.clock.advance(10)
        self.assertEqual(self.client.methods, ["heartbeat", "register", "heartbeat"])
        self.assertEqual(self.client.workers["w1"].address, "10.0.0.7:30000")
        self.clock.advance(10)
        self.assertEqual(self.client.methods[3:], ["heartbeat"])

    def failing(self, failure: SchedulerError) -> FakeSchedulerClient:
        """A scheduler that wants the worker to register again, and fails at that until ``refusal`` is none."""

        class Failing(FakeSchedulerClient):
            refusal: SchedulerError | None = None

            def _register(self, registration: Registration) -> Registered:
                if self.refusal is not None:
                    raise self.refusal
                return super()._register(registration)

        client = Failing()
        self.use(client)
        self.start("j1")
        self.begin()
        client.refusal, client.registrations_wanted = failure, 1
        return client

    def test_refused(self) -> None:
        """If that is refused it stays registered, its heartbeats go on, and it tries again with each beat."""
        client = self.failing(NameTaken("name 'box' is taken"))
        self.clock.advance(10)
        self.assertEqual(client.methods, ["heartbeat", "register", "heartbeat"])
        self.jobs.end("j1")
        self.assertEqual((self.ended(client.heartbeats[-1]), self.unacknowledged()), (["j1"], []))
        client.calls.clear()
        self.clock.advance(10)
        self.assertEqual(client.methods, ["register", "heartbeat"])
        refused = [line for line in self.logged if "refuses" in line]
        self.assertEqual(refused, ["the scheduler refuses to register this worker again: name 'box' is taken"])
        client.refusal = None
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(client.methods[2:], ["register", "heartbeat", "heartbeat"])

    def test_not_answered(self) -> None:
        """If it is not answered it stays registered, too, and goes on after the first delay."""
        client = self.failing(Unreachable("s"))
        self.clock.advance(10)
        self.assertEqual(client.methods, ["heartbeat", "register"])
        self.jobs.end("j1")
        self.clock.advance(0.25)
        self.assertEqual(client.methods[2:], ["heartbeat"])
        self.assertEqual((self.ended(client.heartbeats[-1]), self.unacknowledged()), (["j1"], []))
        client.refusal = None
        self.clock.advance(10)
        self.assertEqual(client.methods[3:], ["register", "heartbeat"])

    def test_stopped_meanwhile(self) -> None:
        """One that stops just leaves."""
        self.begin()
        self.client.registrations_wanted = 1
        self.client.holding = True
        self.clock.advance(10)
        stopped = self.membership.stopService()
        self.client.release()
        self.successResultOf(stopped)
        self.assertEqual(self.client.methods, ["heartbeat", "deregister"])

    def test_for_ever(self) -> None:
        """One that always asks is not overrun."""
        self.client.registrations_wanted = 1000
        self.begin()
        self.clock.pump([0.25] * 240)
        self.assertLess(len(self.client.calls), 50)


class NewSchedulerTests(MembershipCase):
    """A process of the scheduler that calls for the first time."""

    def call(self, scheduler: str, nonce: str = "nonce") -> None:
        self.identity.check_thd("w1", nonce, scheduler)

    def test_at_once(self) -> None:
        """It hears from us at once, and not again when it calls again; the next beat is a third of a lease later."""
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
            self.successResultOf(self.membership.stopService())

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
        """It does not wait until a delay after failures is over; if it still fails the delays begin anew."""
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
        """One that is not registered registers."""
        self.use(UnreachableSchedulerClient())
        self.membership.startService()
        self.clock.pump([1.0] * 40)
        self.client.calls.clear()
        self.client.failure = None
        self.call("new")
        self.assertEqual(self.client.methods, ["register", "heartbeat"])

    def test_stopped(self) -> None:
        """A worker that has stopped says nothing."""
        self.begin()
        self.successResultOf(self.membership.stopService())
        self.client.calls.clear()
        self.call("new")
        self.assertEqual((self.client.calls, self.clock.getDelayedCalls()), ([], []))


class CutTests(MembershipCase):
    """A connection that was cut."""

    def beats(self, seconds: float) -> int:
        """How many calls are made in that time."""
        before = len(self.client.calls)
        self.clock.pump([0.125] * int(seconds / 0.125))
        return len(self.client.calls) - before

    def test_soon(self) -> None:
        """It calls after the first delay, and then as ever."""
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
        self.successResultOf(self.membership.stopService())
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


class CoreTests(MembershipCase):
    """A scheduler with only the core protocol."""

    def setUp(self) -> None:
        super().setUp()
        self.use(CoreSchedulerClient())

    def test_stays(self) -> None:
        """It is registered once; heartbeats, empty ones, only see whether it is there."""
        self.start("j1")
        self.membership.startService()
        self.jobs.end("j1")
        self.clock.pump([1.0] * 61)
        self.assertEqual(self.client.methods, ["register"] + ["heartbeat"] * 7)
        self.assertEqual([len(beat.ended) for beat in self.client.heartbeats[1:]], [0] * 6)
        self.assertEqual(len([line for line in self.logged if "knows no heartbeats" in line]), 1)

    def test_any_id(self) -> None:
        """It gives any text as an id, which is kept and sent back as it is; another scheduler is not told of it."""
        given = " host.example:5, gegeben f\u00fcr 1 "
        self.patch(CoreSchedulerClient, "_register", lambda client, registration: Registered(given, 0))
        for _ in range(2):
            self.use(CoreSchedulerClient())
            self.membership.startService()
            self.assertEqual(self.client.methods, ["register", "heartbeat"])
            self.successResultOf(self.membership.stopService())
            self.assertEqual(self.client.calls[-1], ("deregister", given))
            self.assertEqual(self.id_file.read_bytes(), f"{given}\n".encode())
            self.assertEqual([line for line in self.logged if "no id" in line], [])
        self.use(FakeSchedulerClient())
        self.membership.startService()
        self.assertEqual(self.client.calls[0], ("register", evolve(self.facts, folder_id="secret", nonce="nonce")))

    def test_no_acknowledgements(self) -> None:
        """None is waited for there; of a scheduler that takes heartbeats they are again."""
        self.start("j1")
        self.membership.startService()
        self.assertFalse(self.jobs.awaiting)
        self.use(FakeSchedulerClient(), jobs=self.jobs)
        self.begin()
        self.assertTrue(self.jobs.awaiting)

    def test_away(self) -> None:
        """When it was away it may have forgotten us: we leave, should it not have, and register anew."""
        self.begin()
        self.client.failure = Unreachable("s")
        self.clock.pump([1.0] * 20)
        self.client.failure = None
        self.client.calls.clear()
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.client.methods, ["heartbeat", "deregister", "register", "heartbeat"])
        self.assertEqual(list(self.client.workers), ["w2"])
        self.assertEqual(self.id_file.read_text(), "w2\n")
        self.clock.pump([1.0] * 30)
        self.assertEqual(self.client.methods.count("register"), 1)


class StopTests(MembershipCase):
    """Leaving."""

    def stop(self) -> None:
        self.successResultOf(self.membership.stopService())
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
        """One whose jobs run on does not: it says that it leaves them, and nothing afterwards."""
        self.start("j1")
        self.begin()
        self.stop()
        last = Heartbeat("w1", "boot", ("j1",), leaving=True, sent_at=WALL, disk=DISK, nonce="nonce")
        self.assertEqual(self.client.calls, [("heartbeat", last)])
        self.assertEqual(self.logged[-1], "worker w1 leaves 1 jobs running")
        self.jobs.end("j1")
        self.clock.advance(1000)
        self.assertEqual(len(self.client.calls), 1)

    def test_starting(self) -> None:
        """One that has a start under way does not deregister: the job may run on."""
        self.patch(self.jobs, "is_starting", lambda: True)
        self.begin()
        self.stop()
        last = Heartbeat("w1", "boot", leaving=True, sent_at=WALL, disk=DISK, nonce="nonce")
        self.assertEqual(self.client.calls, [("heartbeat", last)])

    def test_busy_and_not_heard(self) -> None:
        """It leaves all the same where nobody listens, or listens to heartbeats."""
        self.start("j1")
        self.begin()
        self.client.failure = Unreachable("the scheduler")
        self.stop()
        self.use(CoreSchedulerClient())
        self.start("j1")
        self.begin()
        self.stop()
        self.assertEqual(self.client.calls, [])

    def test_busy_and_not_answered(self) -> None:
        """It does not wait long for an answer."""
        self.start("j1")
        self.begin()
        self.client.holding = True
        stopped = self.membership.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(LEAVE_DEADLINE_SECONDS)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_registered(self) -> None:
        """One that never was a member has nobody to tell."""
        self.use(UnreachableSchedulerClient())
        self.membership.startService()
        self.stop()
        self.assertEqual(self.client.methods, ["register"])

    def test_never_started(self) -> None:
        """One that was never started can be stopped."""
        self.stop()

    def test_in_flight(self) -> None:
        """It waits for the call in flight: a registration that is answered only now is undone."""
        self.client.holding = True
        self.membership.startService()
        stopped = self.membership.stopService()
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
        stopped = self.membership.stopService()
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
        """One that does not answer keeps it no longer than the deadline of the call."""
        self.use(SilentSchedulerClient(self.clock, 10))
        self.membership.startService()
        stopped = self.membership.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(10)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_started_again(self) -> None:
        """It may be started again, and is the worker it was."""
        self.begin()
        self.stop()
        self.membership.startService()
        self.assertEqual(list(self.client.workers), ["w1"])


class SetBackTests(MembershipCase):
    """A store that was set back: the scheduler knows by the count of its commits, and has all ends told once more."""

    def use(self, client: FakeSchedulerClient, *more: object, **others: object) -> None:
        self.count_file = self.folder / "commit_count"
        self.pool = InlinePool()
        super().use(client, *more, commit_count=CommitCountFile(self.pool, str(self.count_file)), **others)

    def told(self) -> list[int]:
        """The counts that it has told."""
        return [what.commit_count for _, what in self.client.calls if not isinstance(what, str)]

    def test_highest(self) -> None:
        """It tells the highest count that it was told, with each registration and heartbeat, and no lower one."""
        self.client.commit_count = 5
        self.membership.startService()
        for count in (9, 3, 7):
            self.client.commit_count = count
            self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.told(), [0, 5, 5, 9, 9, 9])

    def test_next_process(self) -> None:
        """The next process knows it."""
        self.client.commit_count = 2**64 - 1
        self.membership.startService()
        self.use(FakeSchedulerClient())
        self.membership.startService()
        self.assertEqual(self.told(), [2**64 - 1] * 2)

    def test_unusable_file(self) -> None:
        """A file that has no count is as none, and is replaced."""
        for content in (b"", b"x" * 21, b"9" * 30, b"\xff\n", b"0" * 20 + b"\xff"):
            self.count_file.write_bytes(content)
            self.use(FakeSchedulerClient())
            self.membership.startService()
            self.assertIn(self.told()[0], (0, 2**64 - 1))
            self.client.commit_count = 7
            self.clock.advance(10)
        self.assertEqual(CommitCountFile(self.pool, str(self.count_file)).read(), 7)

    def test_one_write_at_a_time(self) -> None:
        """What grows while it is written is written next, once."""
        self.pool.holding = True
        for count in (1, 2, 3):
            self.client.commit_count = count
            self.membership.startService() if count == 1 else self.clock.advance(10)
        self.assertFalse(self.count_file.exists())
        self.pool.release()
        self.assertEqual(self.count_file.read_text(), f"{3:020}\n")

    def test_can_not_be_written(self) -> None:
        """Without the file it tells the count all the same, and logs that once."""
        self.count_file.mkdir()
        self.client.commit_count = 1
        self.membership.startService()
        self.client.commit_count = 2
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.told()[-1], 2)
        self.assertEqual(len(self.flushLoggedErrors(IsADirectoryError)), 1)

    def test_report_all(self) -> None:
        """Asked for all ends it reports those too that were acknowledged, at once, spread over heartbeats as ever."""
        ids = [f"{count:03}-{'x' * 59}" for count in range(300)]
        self.start(*ids)
        for job_id in ids:
            self.jobs.end(job_id, 1, reason="r" * 3000)
        self.membership.startService()
        self.clock.advance(10)
        self.assertEqual(self.unacknowledged(), [])
        self.client.calls.clear()
        self.client.reports_wanted = 1
        self.clock.advance(10)
        self.assertEqual([job_id for beat in self.client.heartbeats for job_id in self.ended(beat)], ids)
        self.assertGreater(len(self.client.heartbeats), 2)
        self.assertEqual(self.unacknowledged(), [])

    def test_report_all_for_ever(self) -> None:
        """A scheduler that always asks for all is told all once a round."""
        self.start("j1", "j2")
        self.jobs.end("j1")
        self.client.reports_wanted = 1000
        self.membership.startService()
        self.client.calls.clear()
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual([self.ended(beat) for beat in self.client.heartbeats], [[], ["j1"], [], ["j1"]])
