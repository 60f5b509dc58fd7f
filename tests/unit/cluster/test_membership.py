from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import evolve
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.ids import id_of_address, id_of_folder
from scheduler.errors import Conflict, Invalid, NameTaken, NotFound, Refused
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobStatus, Registered, Registration
from scheduler.model import JobState, WorkerState
from scheduler.names import is_id
from tests.house import HOME, PEER, House
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
        registered = self.membership.register(Registration(address, **facts), PEER)
        for call in [call for call in self.workers.held if call.method == "answers"]:
            self.workers.held.remove(call)
            call.answer.callback(False)
        return self.successResultOf(registered)

    def online(self, **facts: Any) -> str:
        """Register a worker and answer its probe."""
        worker_id = self.register(**facts).worker_id
        self.workers.take("probe").answer.callback(None)
        self.assertIs(self.ledger.registry.presences.of(worker_id).state, WorkerState.ONLINE)
        return worker_id

    def beat(self, worker_id: str, **facts: Any) -> HeartbeatAnswer:
        heartbeat = Heartbeat(worker_id, "boot", **facts)
        return self.successResultOf(self.membership.heartbeat(heartbeat, PEER))

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
        return self.ledger.registry.jobs.get(job_id).state


class RegisterTests(MembershipTestCase):
    def test_a_new_worker(self) -> None:
        """A worker without an id gets one, and the lease; it is listed as what it said it is."""
        answer = self.register(name="box", labels={"gpu": "yes"}, slots=2, version="0.1.0")
        self.assertTrue(is_id(answer.worker_id))
        self.assertEqual(answer.lease, LEASE)
        worker = self.ledger.registry.workers.get("box")
        self.assertEqual((worker.id, worker.address, worker.slots), (answer.worker_id, f"{HOME}:30000", 2))
        self.assertEqual(worker.labels, {"name": "box", "gpu": "yes"})
        presence = self.ledger.registry.presences.of(worker.id)
        self.assertEqual((presence.state, worker.version), (WorkerState.UNREACHABLE, "0.1.0"))
        self.assertEqual(presence.last_seen, 1000.0)

    def test_a_core_worker(self) -> None:
        """A worker that tells only its address is known by its id, without slots or version."""
        worker_id = self.register(boot_id="").worker_id
        worker = self.ledger.registry.workers.get(worker_id)
        self.assertEqual((worker.name, worker.slots, worker.version, worker.is_core), (worker_id, None, None, True))

    def test_under_its_id(self) -> None:
        """A worker that comes back under its id keeps id, drain and jobs, and its old channel is closed."""
        worker_id = self.online(name="box")
        self.ledger.learn(evolve(self.ledger.registry.workers.get("box"), draining=True))
        self.ledger.learn(a_job(worker_id=worker_id))
        self.assertEqual(self.register(f"{HOME}:30001", worker_id=worker_id, name="box").worker_id, worker_id)
        worker = self.ledger.registry.workers.get(worker_id)
        self.assertEqual((worker.address, worker.draining), (f"{HOME}:30001", True))
        self.assertIn(worker_id, self.workers.forgotten)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_elsewhere(self) -> None:
        """A worker that was online and comes back at another address is not before a call was answered there."""
        worker_id = self.online(name="box")
        self.ledger.learn(a_job(worker_id=worker_id))
        self.workers.hold("probe")
        self.store.held = True
        self.membership.register(Registration(f"{HOME}:30001", worker_id, "box", boot_id="boot", nonce="new"), PEER)
        self.assertIs(self.ledger.registry.presences.of(worker_id).state, WorkerState.UNREACHABLE)
        self.assertEqual(self.cluster.worker("box").reason, "no call to it has succeeded yet")
        self.store.commit()
        self.assertIs(self.ledger.registry.presences.of(worker_id).state, WorkerState.UNREACHABLE)
        self.assertIs(self.state(), JobState.RUNNING)
        self.workers.take("probe").answer.callback(None)
        self.assertIs(self.ledger.registry.presences.of(worker_id).state, WorkerState.ONLINE)
        self.assertEqual(self.workers.held, [])

    def test_of_an_earlier_scheduler(self) -> None:
        """A worker whose features an earlier scheduler did not keep is asked to register once more, and only once."""
        facts = {"address": f"{HOME}:30000", "name": "box"}
        self.ledger.learn(a_worker("w-1", features=frozenset(), **facts))
        self.failureResultOf(self.membership.heartbeat(Heartbeat("w-1", "boot"), PEER), NotFound)
        self.register(worker_id="w-1", features=("umask",), **facts)
        self.beat("w-1")
        self.assertEqual(self.ledger.registry.workers.get("w-1").features, {"umask"})
        self.ledger.learn(a_worker("w-1", features=frozenset(), **facts))
        self.beat("w-1")  # it has none

    def test_leaving_an_earlier_scheduler(self) -> None:
        """The last heartbeat of a worker that leaves is applied, though the worker would have to register again."""
        self.ledger.learn(a_worker("w-1", features=frozenset()))
        self.beat("w-1", leaving=True)
        self.assertIs(self.ledger.registry.presences.of("w-1").state, WorkerState.UNREACHABLE)

    def test_while_the_store_fails(self) -> None:
        """A worker can register, come back and be rebooted though nothing can be saved: its jobs run on."""
        worker_id = self.online()
        self.store.held = True
        self.ledger.learn(a_worker("w-9", address=f"{HOME}:39999")).addErrback(lambda _: None)
        self.store.fail()
        self.register(worker_id=worker_id)
        self.workers.take("probe").answer.callback(None)
        self.successResultOf(self.membership.heartbeat(Heartbeat(worker_id, "another boot"), PEER))
        self.assertEqual(self.ledger.registry.workers.get(worker_id).boot_id, "another boot")
        other = self.online(address=f"{HOME}:30001")
        self.store.held = False
        self.clock.advance(1)
        saved = {worker.id for worker in self.successResultOf(self.store.load()).workers}
        self.assertEqual(saved, {worker_id, "w-9", other})

    def test_known_worker_at_anothers_address(self) -> None:
        """A known worker that registers at another's address makes the other unreachable, not forgotten."""
        old = self.online(name="a")
        self.register(worker_id="w-b", name="b")
        self.assertIs(self.ledger.registry.presences.of(old).state, WorkerState.UNREACHABLE)

    def test_a_live_name_is_unique(self) -> None:
        """The name of a worker that is online is taken; that of one that is not can be had."""
        first = self.online(name="box")
        taken = self.membership.register(Registration(f"{HOME}:30001", name="box"), PEER)
        self.workers.take("answers").answer.callback(True)
        self.assertIn(first, str(self.failureResultOf(taken, Conflict).value))
        taken = self.membership.register(Registration(f"{HOME}:30001", name="box"), PEER)
        self.workers.take("answers").answer.callback(False)
        self.successResultOf(taken)

    def test_a_refused_registration_displaces_nobody(self) -> None:
        """A worker whose name is taken takes nobody's address."""
        self.online(address=f"{HOME}:30000", name="a")
        self.online(address=f"{HOME}:30001", name="box")
        before = self.ledger.registry.workers.all()
        taken = self.membership.register(Registration(f"{HOME}:30000", name="box", boot_id="boot"), PEER)
        self.workers.take("answers").answer.callback(True)
        self.failureResultOf(taken, NameTaken)
        self.assertEqual(self.ledger.registry.workers.all(), before)

    def test_bad_registrations(self) -> None:
        """An invalid id, name, label or address is refused with the name of its field, and changes nothing."""
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
            failure = self.failureResultOf(self.membership.register(registration, PEER), Invalid)
            self.assertEqual(failure.value.field, field, facts)
        self.failureResultOf(self.membership.register(Registration("169.254.169.254:80"), PEER), Refused)
        self.assertEqual(self.ledger.registry.workers.all(), [])

    def test_no_id_equals_a_name(self) -> None:
        """A name that is the id of another worker or of a job is refused; an id that is either is nobody's."""
        first = self.online(name="box")
        self.ledger.learn(a_job("j-1", worker_id=first))
        self.ledger.learn(a_job("j-2", JobState.SUCCEEDED, worker_id=first))
        before = self.ledger.registry.workers.all()
        for name in (first, "j-1"):
            refused = self.membership.register(Registration(f"{HOME}:30001", name=name), PEER)
            self.failureResultOf(refused, NameTaken)
        self.ledger.learn(a_job("j-3", JobState.SUCCEEDED, worker_id="w-7"))
        self.failureResultOf(self.membership.register(Registration(f"{HOME}:30001", name="w-7"), PEER), NameTaken)
        for made in (id_of_address(f"{HOME}:30001"), id_of_folder("other")):
            refused = self.membership.register(Registration(f"{HOME}:30001", name=made, boot_id="boot"), PEER)
            self.assertEqual(self.failureResultOf(refused, Invalid).value.field, "name")
        self.assertEqual(self.ledger.registry.workers.all(), before)
        self.register(f"{HOME}:30003", name=str(UUID(int=7, version=4)))  # a host may be called so
        for number, worker_id in enumerate(("box", "j-1", "j-2")):
            taken = self.membership.register(Registration(f"{HOME}:3010{number}", worker_id=worker_id), PEER)
            self.assertNotEqual(self.successResultOf(taken).worker_id, worker_id)
        self.register(worker_id=first, name=first)  # its own id may be its name
        self.register(f"{HOME}:30001", worker_id="w-2", name="w-2")

    def test_one_of_many(self) -> None:
        """Registration, displacement, heartbeats and deregistration do not walk over all workers."""

        def walk() -> None:
            raise AssertionError("looked at all workers")

        for name in ("all", "ids"):
            self.patch(self.ledger.registry.workers, name, walk)
        known = self.online(name="box")
        other = self.register(f"{HOME}:30001", name="other").worker_id
        self.register(f"{HOME}:30001", worker_id=known, name="box")
        self.beat(other)
        self.successResultOf(self.membership.deregister(other, "", PEER))


class DeregisterTests(MembershipTestCase):
    def test_gone_and_back(self) -> None:
        """A core worker that deregistered is offline, and its jobs are unknown; registering restores both."""
        worker_id = self.online(boot_id="")
        self.ledger.learn(a_job(worker_id=worker_id, started_at=900.0))
        self.successResultOf(self.membership.deregister(worker_id, "", PEER))
        (worker,) = self.ledger.registry.workers.all()
        self.assertEqual((worker.id, worker.is_offline), (worker_id, True))
        self.assertIs(self.state(), JobState.UNKNOWN)
        self.online(worker_id=worker_id, boot_id="")
        self.cluster.query(worker_id, "j-1")
        self.workers.take("query_job").answer.callback(running())
        self.assertIs(self.state(), JobState.RUNNING)
        (worker,) = self.ledger.registry.workers.all()
        self.assertEqual((worker.id, self.house.presence(worker_id).state), (worker_id, WorkerState.ONLINE))

    def test_without_jobs(self) -> None:
        """A worker without jobs that deregisters is removed."""
        worker_id = self.online(boot_id="")
        self.ledger.learn(a_job(state=JobState.SUCCEEDED, worker_id=worker_id))
        self.successResultOf(self.membership.deregister(worker_id, "", PEER))
        self.assertEqual(self.ledger.registry.workers.all(), [])

    def test_nobody(self) -> None:
        """An unknown worker can't deregister."""
        self.failureResultOf(self.membership.deregister("w-9", "", PEER), NotFound)
