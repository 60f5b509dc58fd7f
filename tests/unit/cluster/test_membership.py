from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import succeed
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster import lifecycle
from scheduler.cluster.workers.membership import REFUSAL_MAX_BYTES, SAVED_SHARE
from scheduler.cluster.workers.registration import id_of_address, id_of_folder
from scheduler.errors import (
    Conflict,
    Invalid,
    NameTaken,
    NotFound,
    Refused,
    Unreachable,
    WorkerFault,
)
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus, Registered, Registration
from scheduler.model import Disk, JobSpec, JobState, WorkerState, is_id
from tests.house import HOME, House
from tests.unit.cluster.values import a_job, a_worker

LEASE = 30.0


def running(job_id: str = "j-1") -> JobStatus:
    return JobStatus(job_id, JobState.RUNNING, started_at=900.0)


def ended(job_id: str = "j-1") -> JobStatus:
    return JobStatus(job_id, JobState.FAILED, "exit status 3", started_at=900.0, finished_at=950.0, exit_code=3)


class MembershipTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self, **limits: Any) -> None:
        """A scheduler that is new."""
        self.house = House(lambda: 1000.0, lease=LEASE, queue_max=3, **limits)
        self.house.workers.hold()
        self.clock, self.store, self.workers = self.house.clock, self.house.store, self.house.workers
        parts = self.house.parts
        self.ledger, self.liveness, self.membership = parts.ledger, parts.liveness, parts.membership
        self.cluster, self.starts = parts.service, parts.starts

    def register(self, address: str = f"{HOME}:30000", **facts: Any) -> Registered:
        """A worker registers; where another process has what it wants, that is silent."""
        facts = {"boot_id": "boot"} | facts
        if "worker_id" in facts:
            self.house.give_id(facts["worker_id"], address, facts["boot_id"])
        registered = self.membership.register(Registration(address, **facts), HOME)
        for call in [call for call in self.workers.held if call.method == "answers"]:
            self.workers.held.remove(call)
            call.answer.callback(False)
        return self.successResultOf(registered)

    def online(self, **facts: Any) -> str:
        """Register a worker and answer its probe."""
        worker_id = self.register(**facts).worker_id
        self.workers.take("probe").answer.callback(None)
        self.assertIs(self.ledger.registry.worker(worker_id).state, WorkerState.ONLINE)
        return worker_id

    def beat(self, worker_id: str, **facts: Any) -> HeartbeatAnswer:
        heartbeat = Heartbeat(worker_id, "boot", **facts)
        return self.successResultOf(self.membership.heartbeat(heartbeat, HOME))

    def logged(self, by: type) -> list[str]:
        """The lines that a class logs from now on."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == f"{by.__module__}.{by.__qualname__}":
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def state(self, job_id: str = "j-1") -> JobState:
        return self.ledger.registry.job(job_id).state


class RegisterTests(MembershipTestCase):
    def test_a_new_worker(self) -> None:
        """A worker without an id gets one, and the lease; it is listed as what it said it is."""
        answer = self.register(name="box", labels={"gpu": "yes"}, slots=2, version="0.1.0")
        self.assertTrue(is_id(answer.worker_id))
        self.assertEqual(answer.lease, LEASE)
        worker = self.ledger.registry.worker("box")
        self.assertEqual((worker.id, worker.address, worker.slots), (answer.worker_id, f"{HOME}:30000", 2))
        self.assertEqual(worker.labels, {"name": "box", "gpu": "yes"})
        self.assertEqual((worker.state, worker.version), (WorkerState.UNREACHABLE, "0.1.0"))
        self.assertEqual(worker.last_seen, 1000.0)

    def test_a_core_worker(self) -> None:
        """A worker that tells only its address is known by its id, without slots or version."""
        worker_id = self.register(boot_id="").worker_id
        worker = self.ledger.registry.worker(worker_id)
        self.assertEqual((worker.name, worker.slots, worker.version, worker.is_core), (worker_id, None, None, True))

    def test_under_its_id(self) -> None:
        """A worker that comes back under its id keeps id, drain and jobs, and its old channel is closed."""
        worker_id = self.online(name="box")
        self.ledger.update_worker(evolve(self.ledger.registry.worker("box"), draining=True))
        self.ledger.update_job(a_job(worker_id=worker_id))
        again = self.register(f"{HOME}:30001", worker_id=worker_id, name="box")
        self.assertEqual(again.worker_id, worker_id)
        worker = self.ledger.registry.worker(worker_id)
        self.assertEqual((worker.address, worker.draining), (f"{HOME}:30001", True))
        self.assertIn(worker_id, self.workers.forgotten)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_elsewhere(self) -> None:
        """A worker that was online and comes back at another address is not before a call was answered there."""
        worker_id = self.online(name="box")
        self.ledger.update_job(a_job(worker_id=worker_id))
        self.workers.hold("probe")
        self.store.held = True
        self.membership.register(Registration(f"{HOME}:30001", worker_id, "box", boot_id="boot", nonce="new"), HOME)
        self.assertIs(self.ledger.registry.worker("box").state, WorkerState.UNREACHABLE)
        self.assertEqual(self.cluster.worker("box").reason, "no call to it has succeeded yet")
        self.store.commit()
        self.assertIs(self.ledger.registry.worker("box").state, WorkerState.UNREACHABLE)
        self.assertIs(self.state(), JobState.RUNNING)
        self.workers.take("probe").answer.callback(None)
        self.assertIs(self.ledger.registry.worker("box").state, WorkerState.ONLINE)
        self.assertEqual(self.workers.held, [])

    def test_of_an_earlier_scheduler(self) -> None:
        """A worker whose features an earlier scheduler did not keep is asked to register once more, and only once."""
        facts = {"address": f"{HOME}:30000", "name": "box"}
        self.ledger.update_worker(a_worker("w-1", features=frozenset(), **facts))
        self.failureResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot"), HOME), NotFound)
        self.register(worker_id="w-1", features=("umask",), **facts)
        self.beat("w-1")
        self.assertEqual(self.ledger.registry.worker("w-1").features, {"umask"})
        self.ledger.update_worker(a_worker("w-1", features=frozenset(), **facts))
        self.beat("w-1")  # it has none

    def test_leaving_an_earlier_scheduler(self) -> None:
        """What such a worker says last is heard all the same: its process registers no more."""
        self.ledger.update_worker(a_worker("w-1", features=frozenset()))
        self.beat("w-1", leaving=True)
        self.assertIs(self.ledger.registry.worker("w-1").state, WorkerState.UNREACHABLE)

    def test_while_the_store_fails(self) -> None:
        """A worker can register, come back and be rebooted though nothing can be saved: its jobs run on."""
        worker_id = self.online()
        self.store.held = True
        self.ledger.update_worker(a_worker("w-9", address=f"{HOME}:39999")).addErrback(lambda _: None)
        self.store.fail()
        self.register(worker_id=worker_id)
        self.workers.take("probe").answer.callback(None)
        self.successResultOf(self.membership.heartbeat(Heartbeat(worker_id, "another boot"), HOME))
        self.assertEqual(self.ledger.registry.worker(worker_id).boot_id, "another boot")
        other = self.online(address=f"{HOME}:30001")
        self.store.held = False
        self.clock.advance(1)
        saved = {worker.id for worker in self.successResultOf(self.store.load()).workers}
        self.assertEqual(saved, {worker_id, "w-9", other})

    def test_known_worker_at_anothers_address(self) -> None:
        """One that held an id at another's address makes the other doubtful, not forgotten."""
        old = self.online(name="a")
        self.register(worker_id="w-b", name="b")
        self.assertIs(self.ledger.registry.worker(old).state, WorkerState.UNREACHABLE)

    def test_a_live_name_is_unique(self) -> None:
        """The name of a worker that is online is taken; that of one that is not can be had."""
        first = self.online(name="box")
        taken = self.membership.register(Registration(f"{HOME}:30001", name="box"), HOME)
        self.workers.take("answers").answer.callback(True)
        self.assertIn(first, str(self.failureResultOf(taken, Conflict).value))
        taken = self.membership.register(Registration(f"{HOME}:30001", name="box"), HOME)
        self.workers.take("answers").answer.callback(False)
        self.successResultOf(taken)

    def test_a_refused_registration_displaces_nobody(self) -> None:
        """A worker whose name is taken takes nobody's address."""
        self.online(address=f"{HOME}:30000", name="a")
        self.online(address=f"{HOME}:30001", name="box")
        before = self.ledger.registry.workers()
        taken = self.membership.register(Registration(f"{HOME}:30000", name="box", boot_id="boot"), HOME)
        self.workers.take("answers").answer.callback(True)
        self.failureResultOf(taken, NameTaken)
        self.assertEqual(self.ledger.registry.workers(), before)

    def test_bad_registrations(self) -> None:
        """What is no id, name, label or address is refused, by the name of its field, and changes nothing."""
        for field, facts in (
            ("address", {"address": "unix:/run/x"}),
            ("workerID", {"worker_id": "../x"}),
            ("workerID", {"worker_id": "x" * 65}),
            ("name", {"name": "a\nb"}),
            ("name", {"name": "a b"}),
            ("name", {"name": "-a"}),
            ("bootID", {"boot_id": "x" * 65}),
            ("bootID", {"boot_id": "x\n"}),
            ("version", {"version": "x" * 65}),
            ("version", {"version": "\x1b[2J"}),
            ("labels", {"labels": {"": "x"}}),
            ("labels", {"labels": {"a": "x\x00"}}),
            ("labels", {"labels": {"a": "\x9b2J"}}),
            ("labels", {"labels": {"\u202eb": "a"}}),
            ("labels", {"labels": {"a": "x" * 254}}),
            ("labels", {"labels": {str(number): "" for number in range(65)}}),
            ("features", {"features": tuple(map(str, range(65)))}),
            ("features", {"features": ("",)}),
            ("features", {"features": ("a\n",)}),
            ("features", {"features": ("a" * 65,)}),
        ):
            registration = Registration(**({"address": f"{HOME}:30000"} | facts))
            failure = self.failureResultOf(self.membership.register(registration, HOME), Invalid)
            self.assertEqual(failure.value.field, field, facts)
        refused = self.membership.register(Registration("169.254.169.254:80"), HOME)
        self.failureResultOf(refused, Refused)
        self.assertEqual(self.ledger.registry.workers(), [])

    def test_no_id_equals_a_name(self) -> None:
        """A name that is the id of another worker or of a job is refused; an id that is either is nobody's."""
        first = self.online(name="box")
        self.ledger.update_job(a_job("j-1", worker_id=first))
        self.ledger.update_job(a_job("j-2", JobState.SUCCEEDED, worker_id=first))
        before = self.ledger.registry.workers()
        for name in (first, "j-1"):
            refused = self.membership.register(Registration(f"{HOME}:30001", name=name), HOME)
            self.failureResultOf(refused, NameTaken)
        self.ledger.update_job(a_job("j-3", JobState.SUCCEEDED, worker_id="w-7"))
        self.failureResultOf(self.membership.register(Registration(f"{HOME}:30001", name="w-7"), HOME), NameTaken)
        for made in (id_of_address(f"{HOME}:30001"), id_of_folder("other")):
            refused = self.membership.register(Registration(f"{HOME}:30001", name=made, boot_id="boot"), HOME)
            self.assertEqual(self.failureResultOf(refused, Invalid).value.field, "name")
        self.assertEqual(self.ledger.registry.workers(), before)
        self.register(f"{HOME}:30003", name=str(UUID(int=7, version=4)))  # a host may be called so
        for number, worker_id in enumerate(("box", "j-1", "j-2")):
            taken = self.membership.register(Registration(f"{HOME}:3010{number}", worker_id=worker_id), HOME)
            self.assertNotEqual(self.successResultOf(taken).worker_id, worker_id)
        self.register(worker_id=first, name=first)  # its own id may be its name
        self.register(f"{HOME}:30001", worker_id="w-2", name="w-2")

    def test_one_of_many(self) -> None:
        """To come, take another's address, show signs of life and go takes no look at all workers there are."""

        def walk() -> None:
            raise AssertionError("looked at all workers")

        for name in ("workers", "worker_ids"):
            self.patch(self.ledger.registry, name, walk)
        known = self.online(name="box")
        other = self.register(f"{HOME}:30001", name="other").worker_id
        self.register(f"{HOME}:30001", worker_id=known, name="box")
        self.beat(other)
        self.successResultOf(self.membership.deregister(other, ""))


class DeregisterTests(MembershipTestCase):
    def test_gone_and_back(self) -> None:
        """A core worker that deregistered is offline, and its jobs are unknown; registering restores both."""
        worker_id = self.online(boot_id="")
        self.ledger.update_job(a_job(worker_id=worker_id, started_at=900.0))
        self.successResultOf(self.membership.deregister(worker_id, ""))
        (worker,) = self.ledger.registry.workers()
        self.assertEqual((worker.id, worker.state), (worker_id, WorkerState.OFFLINE))
        self.assertIs(self.state(), JobState.UNKNOWN)
        self.online(worker_id=worker_id, boot_id="")
        self.cluster.query(worker_id, "j-1")
        self.workers.take("query_job").answer.callback(running())
        self.assertIs(self.state(), JobState.RUNNING)
        (worker,) = self.ledger.registry.workers()
        self.assertEqual((worker.id, worker.state), (worker_id, WorkerState.ONLINE))

    def test_without_jobs(self) -> None:
        """One that has none is no worker any more."""
        worker_id = self.online(boot_id="")
        self.ledger.update_job(a_job(state=JobState.SUCCEEDED, worker_id=worker_id))
        self.successResultOf(self.membership.deregister(worker_id, ""))
        self.assertEqual(self.ledger.registry.workers(), [])

    def test_nobody(self) -> None:
        """Who is not known can't leave."""
        self.failureResultOf(self.membership.deregister("w-9", ""), NotFound)


class HeartbeatTests(MembershipTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1")

    def test_boot_id(self) -> None:
        """A boot id is short and printable."""
        for boot_id in ("x" * 65, "a\nb"):
            refused = self.failureResultOf(self.membership.heartbeat(Heartbeat("w-1", boot_id), HOME), Invalid)
            self.assertEqual(refused.value.field, "bootID")

    def test_of_a_core_worker(self) -> None:
        """A core worker sends none: who sends one for it is told to register, and its jobs are as they were."""
        core = self.online(address=f"{HOME}:30001", boot_id="")
        self.ledger.update_job(a_job(worker_id=core))
        before = self.ledger.registry.worker(core)
        beat = Heartbeat(core, "boot", ended=(JobReport(ended()),))
        self.failureResultOf(self.membership.heartbeat(beat, HOME), NotFound)
        self.assertEqual(self.ledger.registry.worker(core), before)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_without_a_boot_id(self) -> None:
        """A heartbeat that names no boot makes no core worker of one of ours."""
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", ""), HOME))
        self.assertEqual(self.ledger.registry.worker("w-1").boot_id, "boot")

    def test_unknown_worker(self) -> None:
        """A heartbeat of a worker that is not known says: register again."""
        self.failureResultOf(self.membership.heartbeat(Heartbeat("w-9", "boot"), HOME), NotFound)

    def test_an_end_is_kept_then_acknowledged(self) -> None:
        """An end is acknowledged once it is recorded, and again when its acknowledgement was lost."""
        self.ledger.update_job(a_job())
        for _ in range(2):
            self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ("j-1",))
        job = self.ledger.registry.job("j-1")
        self.assertEqual((job.state, job.exit_code, job.finished_at), (JobState.FAILED, 3, 950.0))

    def test_an_end_that_can_not_be_kept(self) -> None:
        """While the store fails a worker is heard, but what ended on it is not acknowledged before it is durable."""
        self.ledger.update_job(a_job())
        self.store.held = True
        beat = self.membership.heartbeat(Heartbeat("w-1", "boot", ended=(JobReport(ended()),)), HOME)
        self.store.fail()
        self.assertEqual(self.successResultOf(beat).acknowledged, ())
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ())
        self.store.held = False
        self.clock.advance(1)
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ("j-1",))

    def test_a_store_that_stalls(self) -> None:
        """A heartbeat does not wait for the store until its worker counts as silent; what ended is told again."""
        self.ledger.update_job(a_job())
        self.store.held = True
        heartbeat = Heartbeat("w-1", "boot", ended=(JobReport(ended()),))
        for _ in range(4):
            answer = self.membership.heartbeat(heartbeat, HOME)
            self.assertNoResult(answer)
            self.clock.advance(SAVED_SHARE * LEASE)
            self.assertEqual(self.successResultOf(answer).acknowledged, ())
            self.assertIsNot(self.ledger.registry.worker("w-1").state, WorkerState.UNREACHABLE)

    def test_a_later_story_changes_nothing(self) -> None:
        """A final state stays what it was, whatever the worker says later."""
        self.ledger.update_job(a_job(state=JobState.LOST))
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
        self.assertEqual(self.ledger.registry.job("j-1").spec, spec)
        self.assertIn("j-2", answer.acknowledged)

    def test_running_ends_unknown(self) -> None:
        """A job that was unknown and is listed runs."""
        self.ledger.update_job(a_job(state=JobState.UNKNOWN, started_at=900.0, unknown_since=990.0))
        self.assertEqual(self.beat("w-1", running=("j-1",)).describe, ())
        self.assertIs(self.state(), JobState.RUNNING)

    def test_unmentioned_and_not_known_there(self) -> None:
        """A job the worker does not mention is asked about; without a record there it is lost, by name."""
        self.ledger.update_job(a_job())
        self.beat("w-1")
        self.beat("w-1")  # asks no second time meanwhile
        call = self.workers.take("query_job")
        self.assertEqual(call.args, ("j-1", True))
        self.assertEqual(self.workers.held, [])
        call.answer.errback(NotFound("job", "j-1"))
        job = self.ledger.registry.job("j-1")
        self.assertEqual((job.state, job.reason), (JobState.LOST, "no record"))

    def test_unmentioned_but_there(self) -> None:
        """A heartbeat that crossed the start of a job does not lose it."""
        self.ledger.update_job(a_job())
        self.beat("w-1")
        self.workers.take("query_job").answer.callback(running())
        self.assertIs(self.state(), JobState.RUNNING)

    def test_unmentioned_and_no_answer(self) -> None:
        """What can't be asked is not concluded; the next heartbeat asks again."""
        self.ledger.update_jobs([a_job(), a_job("j-2")])
        self.beat("w-1")
        self.workers.take("query_job").answer.errback(Unreachable("w-1"))
        self.assertIs(self.state(), JobState.RUNNING)
        self.workers.take("probe").answer.errback(Unreachable("w-1"))
        self.beat("w-1")
        self.workers.held.pop(0)  # a probe
        self.assertEqual(self.workers.take("query_job").args, ("j-2", True))

    def test_one_after_the_other(self) -> None:
        """Many that were not mentioned are asked about one by one; a fault of the worker about one is none of all."""
        self.ledger.update_jobs([a_job("j-1"), a_job("j-2"), a_job("j-3")])
        self.beat("w-1")
        self.workers.take("query_job").answer.errback(WorkerFault("w-1", "what"))
        call = self.workers.take("query_job")
        self.assertEqual((call.args, self.workers.held), (("j-2", True), []))
        self.ledger.update_job(lifecycle.reported(self.ledger.registry.job("j-3"), ended("j-3"), 1000.0))
        call.answer.callback(ended("j-2"))
        self.assertEqual([self.state(job) for job in ("j-1", "j-2")], [JobState.RUNNING, JobState.FAILED])
        self.assertEqual(self.workers.held, [])  # the third has ended meanwhile

    def test_the_last_of_a_process(self) -> None:
        """One that leaves its jobs running is unreachable at once, and they are unknown, with the reason."""
        self.ledger.update_jobs([a_job(), a_job("j-2"), a_job("j-3", state=JobState.UNKNOWN)])
        answer = self.beat("w-1", running=("j-1", "j-3"), ended=(JobReport(ended("j-2")),), leaving=True)
        self.assertEqual(answer.acknowledged, ("j-2",))
        worker = self.ledger.registry.worker("w-1")
        self.assertEqual((worker.state, worker.last_seen), (WorkerState.UNREACHABLE, 1000.0))
        jobs = [self.ledger.registry.job(job_id) for job_id in ("j-1", "j-3")]
        for job in jobs:
            self.assertEqual(
                (job.state, job.unknown_since, job.reason),
                (JobState.UNKNOWN, 1000.0, f"worker {worker.name!r} was stopped, and left it running"),
            )
        self.assertIs(self.state("j-2"), JobState.FAILED)

    def test_refusing(self) -> None:
        """A worker that takes no job says why, in a text that can be shown, until it says otherwise, or registers."""

        def refusing() -> str | None:
            return self.ledger.registry.worker("w-1").refusing

        self.online(worker_id="w-1")
        changes: list[str] = []
        self.ledger.listen(lambda job: None, changes.append)
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
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "another boot", refusing="no room"), HOME))
        self.assertEqual(refusing(), "no room")

    def test_the_machine(self) -> None:
        """Its disk, and how far its clock is ahead, are as its last heartbeat told, or not known."""

        def known() -> tuple[Disk | None, float | None]:
            worker = self.ledger.registry.worker("w-1")
            return worker.disk, worker.clock_difference

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
        self.successResultOf(self.membership.heartbeat(Heartbeat("w-1", "another boot", disk=disk), HOME))
        self.assertEqual(known(), (disk, None))

    def test_the_machine_costs_nothing(self) -> None:
        """What a heartbeat tells of its machine is not saved, and wakes nobody whom its sign of life does not."""
        self.online(worker_id="w-1")
        told: list[str] = []
        self.ledger.listen(lambda job: None, told.append)
        saves: list[object] = []
        self.patch(self.store, "save", lambda records: succeed(saves.append(list(records))))
        self.beat("w-1", sent_at=1234.0, disk=Disk(1000, 500))
        self.clock.advance(10)
        self.assertEqual((told, [records for records in saves if records]), (["w-1"], []))

    def test_displaced(self) -> None:
        """One at whose address another registered is unreachable for that reason."""
        self.online(worker_id="w-1", address=f"{HOME}:30007")
        self.register(worker_id="w-2", address=f"{HOME}:30007")
        worker = self.ledger.registry.worker("w-1")
        self.assertIs(worker.state, WorkerState.UNREACHABLE)
        self.assertEqual(self.membership.why_unreachable(worker), "another worker registered at its address")

    def test_the_last_of_a_process_asks_nothing(self) -> None:
        """One that leaves is not asked about jobs that it does not mention."""
        self.ledger.update_job(a_job())
        self.beat("w-1", leaving=True)
        self.assertEqual(self.workers.held, [])

    def test_a_worker_that_left_is_back(self) -> None:
        """It registers again, answers, and what it lists runs; a call answered before that proves nothing."""
        self.ledger.update_job(a_job())
        self.beat("w-1", running=("j-1",), leaving=True)
        self.liveness.observe("w-1", succeed(None))
        self.assertIs(self.ledger.registry.worker("w-1").state, WorkerState.UNREACHABLE)
        self.online(worker_id="w-1")
        self.beat("w-1", running=("j-1",))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_anothers_job(self) -> None:
        """A worker has no say in another's job."""
        self.ledger.update_worker(a_worker("w-2"))
        self.ledger.update_job(a_job(worker_id="w-2"))
        self.assertEqual(self.beat("w-1", ended=(JobReport(ended()),)).acknowledged, ())
        self.assertIs(self.state(), JobState.RUNNING)
