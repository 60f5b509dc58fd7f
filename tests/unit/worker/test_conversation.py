"""Calls to the scheduler, and what follows from each answer."""

import os
import stat

from attrs import evolve
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from scheduler.errors import NameTaken, Refused, SchedulerError, Unreachable
from scheduler.messages import Heartbeat, Registered, Registration
from scheduler.worker.commit_count import CommitCountFile
from scheduler.worker_interfaces import ISchedulerClient
from tests.doubles.pools import InlinePool
from tests.doubles.scheduler_client import (
    CoreSchedulerClient,
    FakeSchedulerClient,
    RefusingSchedulerClient,
    SilentSchedulerClient,
    UnreachableSchedulerClient,
)
from tests.unit.worker.link_case import DISK, WALL, LinkCase


class FakeTests(LinkCase):
    """The stand-ins are what they stand in for."""

    def test_interface(self) -> None:
        for client in (
            FakeSchedulerClient(),
            CoreSchedulerClient(),
            UnreachableSchedulerClient(),
            RefusingSchedulerClient(Refused("no")),
            SilentSchedulerClient(Clock()),
        ):
            verifyObject(ISchedulerClient, client)


class RegistrationTests(LinkCase):
    """Becoming a member."""

    def test_at_once(self) -> None:
        """A worker registers at once with its facts, and sends a heartbeat with its running jobs."""
        self.start("j1")
        self.link.startService()
        beat = Heartbeat("w1", "boot", running=("j1",), sent_at=WALL, disk=DISK, nonce="nonce")
        self.assertEqual(
            self.client.calls,
            [("register", evolve(self.facts, folder_id="secret", nonce="nonce")), ("heartbeat", beat)],
        )
        self.assertEqual(self.logged, ["registered as w1, to be called at 127.0.0.1:30000"])

    def test_facts_of_the_moment(self) -> None:
        """Where it listens is asked when it registers, so it may turn out late, and change."""
        self.facts = Registration("127.0.0.1:4444", boot_id="boot")
        self.link.startService()
        self.assertEqual(self.client.workers["w1"].address, "127.0.0.1:4444")

    def test_does_not_wait(self) -> None:
        """Starting does not wait for the scheduler, and one call at a time is in flight."""
        self.client.holding = True
        self.link.startService()
        self.start("j1")
        self.jobs.end("j1")
        self.clock.advance(1000)
        self.assertEqual(self.client.methods, ["register"])
        self.client.release()
        self.assertEqual(self.client.methods, ["register", "heartbeat"])

    def test_id_kept(self) -> None:
        """The id is kept in a file that only its owner can read, and the next process registers with it."""
        self.link.startService()
        self.assertEqual(self.id_file.read_text(), "w1\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.id_file).st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["worker_id"])
        self.use(FakeSchedulerClient())
        self.link.startService()
        self.assertEqual(self.client.workers["w1"].worker_id, "w1")

    def test_left_draft(self) -> None:
        """A half-written file of a killed process is no obstacle."""
        self.id_file.with_suffix(".tmp").write_text("half")
        self.link.startService()
        self.assertEqual(self.id_file.read_text(), "w1\n")

    def test_unusable_file(self) -> None:
        """A file that holds no id is told and replaced."""
        for content in (b"", b"\n", b"a\nb\n", b"\xff\xfe", b"\x1b[2J", b"x" * 1025):
            self.id_file.write_bytes(content)
            self.use(FakeSchedulerClient())
            self.link.startService()
            self.assertEqual(self.client.calls[0], ("register", evolve(self.facts, folder_id="secret", nonce="nonce")))
            self.assertEqual(self.id_file.read_text(), "w1\n")
            self.assertIn("so a new", self.logged.pop(0))
            self.logged.clear()

    def test_file_can_not_be_written(self) -> None:
        """Without the file it is a member all the same."""
        self.folder.joinpath("worker_id").mkdir()
        self.link.startService()
        self.assertEqual(self.client.methods, ["register", "heartbeat"])
        self.assertTrue(any("can't be written" in line for line in self.logged), self.logged)


class ForgottenTests(LinkCase):
    """A scheduler that does not know us any more."""

    def test_restarted(self) -> None:
        """When a heartbeat finds nobody it registers again under its id, at once, and its jobs reappear."""
        self.begin("j1")
        self.client.forget_everything()
        self.clock.advance(10)
        self.assertEqual(self.client.methods, ["heartbeat", "register", "heartbeat", "heartbeat"])
        self.assertEqual(self.client.calls[1], ("register", self.client.workers["w1"]))
        self.assertEqual(self.described(self.client.heartbeats[-1]), ["j1"])

    def test_away_and_restarted(self) -> None:
        """A worker whose scheduler was away and forgot it registers again, and goes on as before."""
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
        """A scheduler that forgets the worker each time is not overrun."""

        class Forgetful(FakeSchedulerClient):
            def _register(self, registration: Registration) -> Registered:
                answer = super()._register(registration)
                self.forget_everything()
                return answer

        self.use(Forgetful())
        self.link.startService()
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
        self.link.startService()
        self.assertEqual(self.id_file.read_text(), "other\n")
        self.assertEqual(self.client.heartbeats[0].worker_id, "other")


class RegisterAgainTests(LinkCase):
    """A scheduler that asks for a registration, as what it knows of us may have changed."""

    def test_at_once(self) -> None:
        """A worker that is asked to registers at once, with its present facts and its id, and goes on."""
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
        self.begin("j1")
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
        """A worker that stops does not register again, and deregisters."""
        self.begin()
        self.client.registrations_wanted = 1
        self.client.holding = True
        self.clock.advance(10)
        stopped = self.link.stopService()
        self.client.release()
        self.successResultOf(stopped)
        self.assertEqual(self.client.methods, ["heartbeat", "deregister"])

    def test_for_ever(self) -> None:
        """A scheduler that always asks for a registration is not overrun."""
        self.client.registrations_wanted = 1000
        self.begin()
        self.clock.pump([0.25] * 240)
        self.assertLess(len(self.client.calls), 50)


class CoreTests(LinkCase):
    """A scheduler with only the core protocol."""

    def setUp(self) -> None:
        super().setUp()
        self.use(CoreSchedulerClient())

    def test_stays(self) -> None:
        """A worker of a core scheduler registers once; empty heartbeats only test whether the scheduler is there."""
        self.start("j1")
        self.link.startService()
        self.jobs.end("j1")
        self.clock.pump([1.0] * 61)
        self.assertEqual(self.client.methods, ["register"] + ["heartbeat"] * 7)
        self.assertEqual([len(beat.ended) for beat in self.client.heartbeats[1:]], [0] * 6)
        self.assertEqual(len([line for line in self.logged if "knows no heartbeats" in line]), 1)

    def test_any_id(self) -> None:
        """Any text that a core scheduler gives as an id is kept and sent back to it, and to no other scheduler."""
        given = " host.example:5, gegeben f\u00fcr 1 "
        self.patch(CoreSchedulerClient, "_register", lambda client, registration: Registered(given, 0))
        for _ in range(2):
            self.use(CoreSchedulerClient())
            self.link.startService()
            self.assertEqual(self.client.methods, ["register", "heartbeat"])
            self.successResultOf(self.link.stopService())
            self.assertEqual(self.client.calls[-1], ("deregister", given))
            self.assertEqual(self.id_file.read_bytes(), f"{given}\n".encode())
            self.assertEqual([line for line in self.logged if "no id" in line], [])
        self.use(FakeSchedulerClient())
        self.link.startService()
        self.assertEqual(self.client.calls[0], ("register", evolve(self.facts, folder_id="secret", nonce="nonce")))

    def test_no_acknowledgements(self) -> None:
        """None is waited for there; of a scheduler that takes heartbeats they are again."""
        self.start("j1")
        self.link.startService()
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


class SetBackTests(LinkCase):
    """A store that was set back: the scheduler knows by the count of its commits, and has all ends told once more."""

    def use(self, client: FakeSchedulerClient, *more: object, **others: object) -> None:
        self.count_file = self.folder / "commit_count"
        self.pool = InlinePool()
        super().use(client, *more, commit_count=CommitCountFile(self.pool, str(self.count_file)), **others)

    def told(self) -> list[int]:
        """The counts that it has told."""
        return [what.commit_count for _, what in self.client.calls if not isinstance(what, str)]

    def test_highest(self) -> None:
        """Each registration and heartbeat tells the highest count that the worker was told."""
        self.client.commit_count = 5
        self.link.startService()
        for count in (9, 3, 7):
            self.client.commit_count = count
            self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.told(), [0, 5, 5, 9, 9, 9])

    def test_next_process(self) -> None:
        """The next process knows it."""
        self.client.commit_count = 2**64 - 1
        self.link.startService()
        self.use(FakeSchedulerClient())
        self.link.startService()
        self.assertEqual(self.told(), [2**64 - 1] * 2)

    def test_unusable_file(self) -> None:
        """A file that has no count is as none, and is replaced."""
        for content in (b"", b"x" * 21, b"9" * 30, b"\xff\n", b"0" * 20 + b"\xff"):
            self.count_file.write_bytes(content)
            self.use(FakeSchedulerClient())
            self.link.startService()
            self.assertIn(self.told()[0], (0, 2**64 - 1))
            self.client.commit_count = 7
            self.clock.advance(10)
        self.assertEqual(CommitCountFile(self.pool, str(self.count_file)).read(), 7)

    def test_one_write_at_a_time(self) -> None:
        """A count that grows during a write is written next, once."""
        self.pool.holding = True
        for count in (1, 2, 3):
            self.client.commit_count = count
            self.link.startService() if count == 1 else self.clock.advance(10)
        self.assertFalse(self.count_file.exists())
        self.pool.release()
        self.assertEqual(self.count_file.read_text(), f"{3:020}\n")

    def test_can_not_be_written(self) -> None:
        """Without the file it tells the count all the same, and logs that once."""
        self.count_file.mkdir()
        self.client.commit_count = 1
        self.link.startService()
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
        self.link.startService()
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
        self.link.startService()
        self.client.calls.clear()
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual([self.ended(beat) for beat in self.client.heartbeats], [[], ["j1"], [], ["j1"]])
