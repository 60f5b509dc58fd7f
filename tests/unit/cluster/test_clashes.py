"""Workers that register for an id, a name or an address that another process has."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from scheduler.cluster.workers.clashes import Clashes
from scheduler.cluster.workers.ids import id_of_folder
from scheduler.errors import Conflict, NameTaken, NotFound, Refused, StoreFailed
from scheduler.messages import Heartbeat, Peer, Registered, Registration
from scheduler.model import FEATURES, JobState, Worker, WorkerState
from tests.house import HOME, PEER
from tests.unit.cluster.test_membership import LEASE, MembershipTestCase
from tests.unit.cluster.values import a_job

SECRET = "secret-of-folder"


class ClashTestCase(MembershipTestCase):
    def registering(self, port: int = 30000, **facts: Any) -> Deferred[Registered]:
        """A process with a folder and a nonce registers; by default always the same."""
        facts = {"boot_id": "boot", "folder_id": SECRET, "nonce": "first", "name": "box"} | facts
        return self.membership.register(Registration(f"{HOME}:{port}", **facts), PEER)

    def registered(self, port: int = 30000, **facts: Any) -> Worker:
        """The same, where nothing is in its way."""
        answer = self.successResultOf(self.registering(port, **facts))
        return self.ledger.registry.workers.get(answer.worker_id)

    def asked(self) -> Deferred[bool]:
        """The question whether a process answers, which the test answers."""
        self.workers.held = [call for call in self.workers.held if call.method != "probe"]
        return self.workers.take("answers").answer

    def is_asked(self) -> bool:
        return any(call.method == "answers" for call in self.workers.held)


class ProcessTests(ClashTestCase):
    def test_is_refused(self) -> None:
        """Another process of a worker is refused while the one that registered answers, and told what to do."""
        worker = self.registered()
        second = self.registering(30001, nonce="second")
        self.assertNoResult(second)
        self.asked().callback(True)
        why = str(self.failureResultOf(second, Conflict).value)
        for text in (worker.id, f"{HOME}:30000", "--new-id"):
            self.assertIn(text, why)
        self.assertEqual(self.ledger.registry.workers.get(worker.id), worker)

    def test_is_accepted(self) -> None:
        """Where the one that registered is silent the next has its id and its jobs."""
        worker = self.registered()
        self.ledger.learn(a_job(worker_id=worker.id))
        second = self.registering(30001, nonce="second")
        asked = self.workers.held[-1].worker
        self.assertEqual((asked.nonce, asked.address), ("first", f"{HOME}:30000"))
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(second).worker_id, worker.id)
        now = self.ledger.registry.workers.get(worker.id)
        self.assertEqual((now.nonce, now.address), ("second", f"{HOME}:30001"))
        self.beat(worker.id, nonce="second", running=("j-1",))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_same_process(self) -> None:
        """The process that registered may do so again, from elsewhere too; calls under way to it go on."""
        worker = self.registered()
        before = len(self.workers.forgotten)
        self.registered()
        self.assertEqual(len(self.workers.forgotten), before)
        self.assertEqual(self.registered(30005).address, f"{HOME}:30005")
        self.assertIn(worker.id, self.workers.forgotten[before:])
        self.assertFalse(self.is_asked())

    def test_two_at_once(self) -> None:
        """If two processes wait for the same silent one, the first that is accepted is asked for the second."""
        self.registered()
        second, third = self.registering(30001, nonce="second"), self.registering(30002, nonce="third")
        self.asked().callback(False)
        self.asked().callback(False)
        self.successResultOf(second)
        self.assertNoResult(third)
        self.assertEqual(self.workers.held[-1].worker.nonce, "second")
        self.asked().callback(True)
        self.failureResultOf(third, Conflict)

    def test_logged_once(self) -> None:
        """A newcomer that tries again and again is one line in the log, until something changes."""
        logged: list[str] = []

        def note(event: dict[str, Any]) -> None:
            if isinstance(event.get("log_source"), Clashes):
                logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        worker = self.registered()
        for _ in range(3):
            refused = self.registering(30001, nonce="second")
            self.asked().callback(True)
            self.failureResultOf(refused, Conflict)
        self.assertEqual(len(logged), 1)
        self.assertIn(worker.id, logged[0])
        self.registered()
        for facts in ({}, {"folder_id": "other", "name": "other", "port": 30000}) * 2:
            refused = self.registering(**{"port": 30001, "nonce": "second", **facts})
            self.asked().callback(True)
            self.failureResultOf(refused, Conflict)
        self.assertEqual(len(logged), 3)


class EarlierVersionTests(ClashTestCase):
    """A worker that tells no nonce, and is online."""

    def setUp(self) -> None:
        super().setUp()
        self.old = self.registered(folder_id="", nonce="", features=FEATURES)
        self.workers.take("probe").answer.callback(None)
        self.ledger.learn(a_job(worker_id=self.old.id))

    def check_it_stays(self, newcomer: Deferred[Registered], *answers: bool) -> None:
        for answer in answers:
            self.assertNoResult(newcomer)
            self.asked().callback(answer)
        self.failureResultOf(newcomer, Conflict)
        now = self.ledger.registry.workers.get(self.old.id)
        self.assertEqual((now.address, self.house.presence(now.id).state), (self.old.address, WorkerState.ONLINE))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_elsewhere(self) -> None:
        """A process elsewhere gets its id only if the worker does not answer at its address."""
        for facts in ({}, {"folder_id": "", "nonce": ""}):
            self.check_it_stays(self.registering(40000, worker_id=self.old.id, **facts), True)
        upgraded = self.registering(40000, worker_id=self.old.id)
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(upgraded).worker_id, self.old.id)

    def test_upgraded(self) -> None:
        """An upgraded worker has its id where it was, if it is the one that answers there."""
        self.check_it_stays(self.registering(worker_id=self.old.id), True, False)
        upgraded = self.registering(worker_id=self.old.id)
        self.asked().callback(True)
        self.assertEqual(self.workers.held[-1].worker.nonce, "first")
        self.asked().callback(True)
        self.assertEqual(self.successResultOf(upgraded).worker_id, self.old.id)

    def test_silent(self) -> None:
        """Where it has not been heard of for a lease it is not asked: something else may answer there by now."""
        self.clock.pump([1.0] * int(LEASE + 10))
        self.assertEqual(self.registered(40000, worker_id=self.old.id).id, self.old.id)
        self.assertFalse(self.is_asked())

    def test_core_worker(self) -> None:
        """A core worker at its address displaces nothing while something answers there."""
        self.check_it_stays(self.registering(boot_id="", folder_id="", nonce="", name=""), True)
        core = self.registering(boot_id="", folder_id="", nonce="", name="")
        self.asked().callback(False)
        self.assertTrue(self.ledger.registry.workers.get(self.successResultOf(core).worker_id).is_core)

    def test_at_a_core_workers_address(self) -> None:
        """A core worker at the address of an online core worker displaces nothing either."""
        core = self.registered(30001, boot_id="", folder_id="", nonce="", name="")
        self.workers.take("probe").answer.callback(None)
        self.ledger.learn(a_job("j-2", worker_id=core.id))
        newcomer = self.registering(30001, folder_id="", nonce="", name="new")
        self.asked().callback(True)
        self.failureResultOf(newcomer, Conflict)
        self.assertIs(self.state("j-2"), JobState.RUNNING)


class NameTests(ClashTestCase):
    def test_is_taken(self) -> None:
        """A name is that of the worker that answers, though no probe has said so yet."""
        first = self.registered()
        second = self.registering(30001, folder_id="other", nonce="n")
        self.asked().callback(True)
        why = str(self.failureResultOf(second, NameTaken).value)
        for text in ("'box'", first.id, f"{HOME}:30000"):
            self.assertIn(text, why)
        self.assertEqual(self.ledger.registry.workers.all(), [first])

    def test_changes_hands(self) -> None:
        """A silent worker loses its name, goes by its id, and is asked to register again, at once when it is free."""
        first = self.registered()
        second = self.registering(30001, folder_id="other", nonce="n")
        self.asked().callback(False)
        second_id = self.successResultOf(second).worker_id
        now = self.ledger.registry.workers.get(first.id)
        self.assertEqual((now.name, now.labels["name"]), (first.id, first.id))
        self.assertEqual(self.ledger.registry.workers.get("box").id, second_id)
        self.assertTrue(self.beat(first.id, nonce="first").register_again)
        self.assertFalse(self.beat(first.id, nonce="first").register_again)
        self.registered(30001, folder_id="other", nonce="n", name="own")
        self.assertTrue(self.beat(first.id, nonce="first").register_again)
        self.assertEqual(self.registered().name, "box")
        self.assertFalse(self.beat(first.id, nonce="first").register_again)

    def test_of_offline(self) -> None:
        """The name of one that is offline can be had without a question."""
        self.ledger.learn(evolve(self.registered(), deregistered_at=1000.0))
        self.registered(30001, folder_id="other", nonce="n")
        self.assertFalse(self.is_asked())
        self.assertEqual(self.ledger.registry.workers.get(id_of_folder(SECRET)).name, id_of_folder(SECRET))


class AddressTests(ClashTestCase):
    def test_is_taken(self) -> None:
        """The second of two workers with one address is refused while the first answers there."""
        first = self.registered()
        second = self.registering(folder_id="other", nonce="n", name="other")
        self.asked().callback(True)
        self.assertIn("'box'", str(self.failureResultOf(second, Conflict).value))
        self.assertEqual(self.ledger.registry.workers.all(), [first])

    def test_changes_hands(self) -> None:
        """Where another worker listens at an address now, the one before is unreachable, and keeps its jobs."""
        first = self.registered()
        self.ledger.learn(a_job(worker_id=first.id))
        second = self.registering(folder_id="other", nonce="n", name="other")
        self.asked().callback(False)
        self.successResultOf(second)
        now = self.house.presence(first.id)
        self.assertIs(now.state, WorkerState.UNREACHABLE)
        self.assertEqual(now.reason, "another worker registered at its address")
        self.assertNotEqual(self.state(), JobState.LOST)

    def test_lost_folder(self) -> None:
        """A new worker by the name and at the address of a silent one takes its place, and its drain."""
        first = self.registered()
        self.ledger.learn(evolve(first, draining=True))
        self.ledger.learn(a_job(worker_id=first.id))
        second = self.registering(folder_id="other", nonce="n")
        self.asked().callback(False)
        new = self.ledger.registry.workers.get(self.successResultOf(second).worker_id)
        self.assertEqual([each.id for each in self.ledger.registry.workers.all()], [id_of_folder("other")])
        self.assertEqual((new.name, new.draining), ("box", True))
        job = self.ledger.registry.jobs.get("j-1")
        self.assertEqual((job.state, job.reason), (JobState.LOST, "forgotten"))

    def test_lost_folder_while_the_store_fails(self) -> None:
        """A worker that replaces another one registers again until that is saved."""
        first = self.registered()
        self.ledger.learn(a_job(worker_id=first.id))
        self.store.problem = "disk full"
        second = self.registering(folder_id="other", nonce="n")
        self.asked().callback(False)
        self.failureResultOf(second, StoreFailed)
        self.assertIs(self.state(), JobState.RUNNING)
        self.store.problem = ""
        self.clock.advance(5)
        second = self.registering(folder_id="other", nonce="n")
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(second).worker_id, id_of_folder("other"))
        self.assertEqual([each.id for each in self.ledger.registry.workers.all()], [id_of_folder("other")])
        self.assertIs(self.state(), JobState.LOST)

    def check_takes_the_place_after_a_kill(self, port: int) -> None:
        """The scheduler was killed once the newcomer was saved; the newcomer comes again."""
        first = self.registered()
        self.ledger.learn(a_job(worker_id=first.id))
        second_id = id_of_folder("other")
        self.ledger.learn(evolve(first, id=second_id, folder=second_id, nonce="n"))
        second = self.registering(port, folder_id="other", nonce="n")
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(second).worker_id, second_id)
        self.assertEqual([each.id for each in self.ledger.registry.workers.all()], [second_id])
        self.assertIs(self.state(), JobState.LOST)

    def test_lost_folder_and_killed(self) -> None:
        """The newcomer replaces the other worker also if the scheduler was killed in between."""
        self.check_takes_the_place_after_a_kill(30000)

    def test_lost_folder_killed_and_moved(self) -> None:
        """The newcomer replaces the other worker even if it has moved in the meantime."""
        self.check_takes_the_place_after_a_kill(30001)

    def test_comes_for_the_place_of_another(self) -> None:
        """A worker that is known takes no one's place: the one that it is named after keeps its jobs."""
        first = self.registered()
        self.ledger.learn(a_job(worker_id=first.id))
        self.registered(30001, folder_id="other", nonce="n", name="other")
        second = self.registering(folder_id="other", nonce="n")
        self.asked().callback(False)
        self.successResultOf(second)
        self.assertEqual(self.ledger.registry.workers.get(first.id).name, first.id)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_without_an_id(self) -> None:
        """A core worker at the address of a worker of ours displaces nothing while that answers."""
        first = self.registered()
        self.ledger.learn(a_job(worker_id=first.id))
        core = self.registering(boot_id="", folder_id="", nonce="", name="")
        self.asked().callback(True)
        self.failureResultOf(core, Conflict)
        self.assertIs(self.state(), JobState.RUNNING)
        core = self.registering(boot_id="", folder_id="", nonce="", name="")
        self.asked().callback(False)
        self.assertTrue(self.ledger.registry.workers.get(self.successResultOf(core).worker_id).is_core)
        self.assertIs(self.ledger.registry.presences.of(first.id).state, WorkerState.UNREACHABLE)

    def test_of_a_core_worker(self) -> None:
        """A worker of ours at a core worker's address is refused if not it, but another process answers there."""
        core = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.ledger.learn(a_job(worker_id=core.id))
        for answers, refused in (((True, False), True), ((True, True), False)):
            second = self.registering()
            for answer in answers:
                self.asked().callback(answer)
            if refused:
                self.failureResultOf(second, Conflict)
            else:
                self.successResultOf(second)
        self.assertEqual([each.id for each in self.ledger.registry.workers.all()], [id_of_folder(SECRET)])
        self.assertIs(self.state(), JobState.LOST)  # its address was its identity

    def test_core_worker_again(self) -> None:
        """A core worker that registers again at its address has its id and its jobs."""
        core = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.ledger.learn(a_job(worker_id=core.id))
        self.assertEqual(self.registered(boot_id="", folder_id="", nonce="", name="").id, core.id)
        self.assertIs(self.state(), JobState.RUNNING)
        self.assertFalse(self.is_asked())
        self.successResultOf(self.membership.deregister(core.id, "", PEER))
        self.assertEqual(self.registered(boot_id="", folder_id="", nonce="", name="").id, core.id)
        self.assertNotEqual(self.registered(30001, boot_id="", folder_id="", nonce="", name="").id, core.id)

    def test_own(self) -> None:
        """The scheduler's own address is nobody's."""
        self.begin(is_own_address=lambda address: address == f"{HOME}:30000")
        self.assertIn("scheduler's own", str(self.failureResultOf(self.registering(), Refused).value))
        self.registered(30001)


class AgainTests(ClashTestCase):
    def test_from_elsewhere(self) -> None:
        """A heartbeat from another address counts, and is answered by the wish that its worker registers again."""
        worker = self.registered()
        self.ledger.learn(a_job(worker_id=worker.id))

        def beat(peer: str) -> bool:
            heartbeat = Heartbeat(worker.id, "boot", ("j-1",), nonce="first")
            return self.successResultOf(self.membership.heartbeat(heartbeat, Peer(peer))).register_again

        self.assertFalse(beat(HOME))
        self.assertTrue(beat("127.0.0.9"))
        self.assertFalse(beat("127.0.0.9"))  # at most once a minute
        self.clock.advance(60)
        self.assertTrue(beat("127.0.0.9"))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_calls_fail(self) -> None:
        """A worker that calls do not reach is asked to register again, as its address may have changed."""
        worker = self.registered()
        self.assertFalse(self.beat(worker.id, nonce="first").register_again)
        self.workers.take("probe").answer.errback(NotFound("x", "y"))
        self.liveness.calls_fail(worker.id)
        self.assertTrue(self.beat(worker.id, nonce="first").register_again)
        self.assertFalse(self.beat(worker.id, nonce="first", leaving=True).register_again)
