"""Heartbeats: the report of a worker, its answer, and the questions that follow."""

from __future__ import annotations

from twisted.internet.defer import succeed

from scheduler.cluster import lifecycle
from scheduler.cluster.workers.heartbeats import REFUSAL_MAX_BYTES, SAVED_SHARE
from scheduler.errors import Invalid, NotFound, Unreachable, WorkerFault
from scheduler.messages import Heartbeat, JobReport
from scheduler.model import Disk, JobSpec, JobState, WorkerState
from tests.house import HOME, PEER
from tests.unit.cluster.test_membership import LEASE, MembershipTestCase, ended, running
from tests.unit.cluster.values import a_job, a_worker


class HeartbeatTests(MembershipTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1")

    def test_boot_id(self) -> None:
        """A boot id is short and printable."""
        for boot_id in ("x" * 65, "a\nb"):
            refused = self.failureResultOf(self.membership.heartbeat(Heartbeat("w-1", boot_id), PEER), Invalid)
            self.assertEqual(refused.value.field, "bootID")

    def test_of_a_core_worker(self) -> None:
        """A core worker sends none: who sends one for it is told to register, and its jobs are as they were."""
        core = self.online(address=f"{HOME}:30001", boot_id="")
        self.ledger.learn(a_job(worker_id=core))
        before = self.ledger.registry.workers.get(core)
        beat = Heartbeat(core, "boot", ended=(JobReport(ended()),))
        self.failureResultOf(self.membership.heartbeat(beat, PEER), NotFound)
        self.assertEqual(self.ledger.registry.workers.get(core), before)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_without_a_boot_id(self) -> None:
        """A heartbeat that names no boot makes no core worker of one of ours."""
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", ""), PEER))
        self.assertEqual(self.ledger.registry.workers.get("w-1").boot_id, "boot")

    def test_unknown_worker(self) -> None:
        """A heartbeat of a worker that is not known says: register again."""
        self.failureResultOf(self.membership.heartbeat(Heartbeat("w-9", "boot"), PEER), NotFound)

    def test_an_end_is_kept_then_acknowledged(self) -> None:
        """An end is acknowledged once it is recorded, and again when its acknowledgement was lost."""
        self.ledger.learn(a_job())
        for _ in range(2):
            self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ("j-1",))
        job = self.ledger.registry.jobs.get("j-1")
        self.assertEqual((job.state, job.exit_code, job.finished_at), (JobState.FAILED, 3, 950.0))

    def test_an_end_that_is_also_described(self) -> None:
        """A job that ended while its worker was asked about it is acknowledged once."""
        self.ledger.learn(a_job())
        both = (JobReport(ended()),)
        self.assertEqual(self.beat("w-1", ended=both, described=both).acknowledged, ("j-1",))

    def test_an_end_that_can_not_be_kept(self) -> None:
        """While the store fails a worker is heard, but what ended on it is not acknowledged before it is durable."""
        self.ledger.learn(a_job())
        self.store.held = True
        beat = self.membership.heartbeat(Heartbeat("w-1", "boot", ended=(JobReport(ended()),)), PEER)
        self.store.fail()
        self.assertEqual(self.successResultOf(beat).acknowledged, ())
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ())
        self.store.held = False
        self.clock.advance(1)
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ("j-1",))

    def test_a_store_that_stalls(self) -> None:
        """A heartbeat does not wait for the store until its worker counts as silent; what ended is told again."""
        self.ledger.learn(a_job())
        self.store.held = True
        heartbeat = Heartbeat("w-1", "boot", ended=(JobReport(ended()),))
        for _ in range(4):
            answer = self.membership.heartbeat(heartbeat, PEER)
            self.assertNoResult(answer)
            self.clock.advance(SAVED_SHARE * LEASE)
            self.assertEqual(self.successResultOf(answer).acknowledged, ())
            self.assertIsNot(self.ledger.registry.presences.of("w-1").state, WorkerState.UNREACHABLE)

    def test_a_later_story_changes_nothing(self) -> None:
        """A final state stays what it was, whatever the worker says later."""
        self.ledger.learn(a_job(state=JobState.LOST))
        self.beat("w-1", ended=(JobReport(ended()),), running=("j-1",))
        self.assertIs(self.state(), JobState.LOST)

    def test_unknown_jobs_are_described_and_adopted(self) -> None:
        """A job never heard of, running or ended, is asked about and then known with its spec."""
        answer = self.beat("w-1", running=("j-1",), ended=(JobReport(ended("j-2")),))
        self.assertEqual(set(answer.describe), {"j-1", "j-2"})
        self.assertEqual(answer.acknowledged, ())
        spec = JobSpec(command="sleep", args=("9",))
        answer = self.beat(
            "w-1",
            running=("j-1",),
            ended=(JobReport(ended("j-2")),),
            described=(JobReport(running(), spec, 800.0), JobReport(ended("j-2"), spec, 801.0)),
        )
        self.assertEqual((self.state("j-1"), self.state("j-2")), (JobState.RUNNING, JobState.FAILED))
        self.assertEqual(self.ledger.registry.jobs.get("j-1").spec, spec)
        self.assertIn("j-2", answer.acknowledged)

    def test_running_ends_unknown(self) -> None:
        """A job that was unknown and is listed runs."""
        self.ledger.learn(a_job(state=JobState.UNKNOWN, started_at=900.0, unknown_since=990.0))
        self.assertEqual(self.beat("w-1", running=("j-1",)).describe, ())
        self.assertIs(self.state(), JobState.RUNNING)

    def test_unmentioned_and_not_known_there(self) -> None:
        """A job the worker does not mention is asked about; without a record there it is lost, by name."""
        self.ledger.learn(a_job())
        self.beat("w-1")
        self.beat("w-1")  # asks no second time meanwhile
        call = self.workers.take("query_job")
        self.assertEqual(call.args, ("j-1", True))
        self.assertEqual(self.workers.held, [])
        call.answer.errback(NotFound("job", "j-1"))
        job = self.ledger.registry.jobs.get("j-1")
        self.assertEqual((job.state, job.reason), (JobState.LOST, "no record"))

    def test_unmentioned_but_there(self) -> None:
        """A heartbeat that crossed the start of a job does not lose it."""
        self.ledger.learn(a_job())
        self.beat("w-1")
        self.workers.take("query_job").answer.callback(running())
        self.assertIs(self.state(), JobState.RUNNING)

    def test_unmentioned_and_no_answer(self) -> None:
        """A question that can't be asked changes nothing; the next heartbeat asks again."""
        self.ledger.learn(a_job(), a_job("j-2"))
        self.beat("w-1")
        self.workers.take("query_job").answer.errback(Unreachable("w-1"))
        self.assertIs(self.state(), JobState.RUNNING)
        self.workers.take("probe").answer.errback(Unreachable("w-1"))
        self.beat("w-1")
        self.workers.held.pop(0)  # a probe
        self.assertEqual(self.workers.take("query_job").args, ("j-2", True))

    def test_one_after_the_other(self) -> None:
        """Many that were not mentioned are asked about one by one; a fault of the worker about one is none of all."""
        self.ledger.learn(a_job("j-1"), a_job("j-2"), a_job("j-3"))
        self.beat("w-1")
        self.workers.take("query_job").answer.errback(WorkerFault("w-1", "what"))
        call = self.workers.take("query_job")
        self.assertEqual((call.args, self.workers.held), (("j-2", True), []))
        self.ledger.learn(lifecycle.reported(self.ledger.registry.jobs.get("j-3"), ended("j-3"), 1000.0))
        call.answer.callback(ended("j-2"))
        self.assertEqual([self.state(job) for job in ("j-1", "j-2")], [JobState.RUNNING, JobState.FAILED])
        self.assertEqual(self.workers.held, [])  # the third has ended meanwhile

    def test_the_last_of_a_process(self) -> None:
        """A worker that leaves its jobs running is unreachable at once, and they are unknown, with the reason."""
        self.ledger.learn(a_job(), a_job("j-2"), a_job("j-3", state=JobState.UNKNOWN))
        answer = self.beat("w-1", running=("j-1", "j-3"), ended=(JobReport(ended("j-2")),), leaving=True)
        self.assertEqual(answer.acknowledged, ("j-2",))
        worker = self.ledger.registry.workers.get("w-1")
        presence = self.ledger.registry.presences.of("w-1")
        self.assertEqual((presence.state, presence.last_seen), (WorkerState.UNREACHABLE, 1000.0))
        jobs = [self.ledger.registry.jobs.get(job_id) for job_id in ("j-1", "j-3")]
        for job in jobs:
            self.assertEqual(
                (job.state, job.unknown_since, job.reason),
                (JobState.UNKNOWN, 1000.0, f"worker {worker.name!r} was stopped, and left it running"),
            )
        self.assertIs(self.state("j-2"), JobState.FAILED)

    def test_refusing(self) -> None:
        """A worker that takes no job says why, in a text that can be shown, until it says otherwise, or registers."""

        def refusing() -> str | None:
            return self.ledger.registry.presences.of("w-1").refusing

        self.online(worker_id="w-1")
        changes: list[str] = []
        self.ledger.feed.subscribe(lambda change: changes.append(change.ref.id))
        for text, shown in (
            ("no room", "no room"),
            ("", None),
            ("a\nb\x00", "a\ufffdb\ufffd"),
            ("x" * 1000, "x" * REFUSAL_MAX_BYTES),
        ):
            self.beat("w-1", refusing=text)
            self.assertEqual(refusing(), shown)
        self.house.settle()
        self.assertIn("w-1", changes)
        self.online(worker_id="w-1")
        self.assertIsNone(refusing())
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "another boot", refusing="no room"), PEER))
        self.assertEqual(refusing(), "no room")

    def test_the_machine(self) -> None:
        """The worker's disk and clock difference are those of its last heartbeat, or unknown."""

        def known() -> tuple[Disk | None, float | None]:
            presence = self.ledger.registry.presences.of("w-1")
            return presence.disk, presence.clock_difference

        self.online(worker_id="w-1")
        self.assertEqual(known(), (None, None))
        disk = Disk(1000, 500, 100, 50)
        for sent_at, ahead in ((1000.5006, 0.501), (999.0, -1.0), (1000.0, 0.0), (1.0, -999.0), (None, None)):
            self.beat("w-1", sent_at=sent_at, disk=disk)
            self.assertEqual(known(), (disk, ahead))
        self.beat("w-1", leaving=True, sent_at=1001.0)
        self.assertEqual(known(), (None, 1.0))
        self.online(worker_id="w-1")
        self.assertEqual(known(), (None, None))
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "another boot", disk=disk), PEER))
        self.assertEqual(known(), (disk, None))

    def test_the_machine_costs_nothing(self) -> None:
        """The facts about the machine in a heartbeat are not saved, and are no change of their own."""
        self.online(worker_id="w-1")
        told: list[str] = []
        self.ledger.feed.subscribe(lambda change: told.append(change.ref.id))
        saves: list[object] = []
        self.patch(self.store, "save", lambda records: succeed(saves.append(list(records))))
        self.beat("w-1", sent_at=1234.0, disk=Disk(1000, 500))
        self.clock.advance(10)
        self.assertEqual((told, [records for records in saves if records]), ([], []))

    def test_displaced(self) -> None:
        """A worker at whose address another one registered is unreachable for that reason."""
        self.online(worker_id="w-1", address=f"{HOME}:30007")
        self.register(worker_id="w-2", address=f"{HOME}:30007")
        presence = self.ledger.registry.presences.of("w-1")
        self.assertIs(presence.state, WorkerState.UNREACHABLE)
        self.assertEqual(presence.reason, "another worker registered at its address")

    def test_the_last_of_a_process_asks_nothing(self) -> None:
        """A worker that leaves is not asked about jobs that it does not mention."""
        self.ledger.learn(a_job())
        self.beat("w-1", leaving=True)
        self.assertEqual(self.workers.held, [])

    def test_a_worker_that_left_is_back(self) -> None:
        """A worker that is back registers, answers, and its jobs run; an earlier answered call proves nothing."""
        self.ledger.learn(a_job())
        self.beat("w-1", running=("j-1",), leaving=True)
        self.liveness.observe("w-1", succeed(None))
        self.assertIs(self.ledger.registry.presences.of("w-1").state, WorkerState.UNREACHABLE)
        self.online(worker_id="w-1")
        self.beat("w-1", running=("j-1",))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_anothers_job(self) -> None:
        """A worker has no say in another's job."""
        self.ledger.learn(a_worker("w-2"))
        self.ledger.learn(a_job(worker_id="w-2"))
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ())
        self.assertIs(self.state(), JobState.RUNNING)
