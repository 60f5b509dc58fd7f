"""Workers that register for an id, a name or an address that another process has."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from scheduler.cluster.workers.clashes import MAX_ASKING, Clashes
from scheduler.cluster.workers.registration import id_of_folder
from scheduler.errors import Busy, Conflict, Invalid, NameTaken, NotFound, Refused, StoreFailed
from scheduler.messages import Heartbeat, JobReport, Registered, Registration
from scheduler.model import FEATURES, JobState, Worker, WorkerState
from tests.house import HOME
from tests.unit.cluster.test_membership import LEASE, MembershipTestCase, ended
from tests.unit.cluster.values import a_job

SECRET = "secret-of-folder"


class ClashTestCase(MembershipTestCase):
    def registering(self, port: int = 30000, **facts: Any) -> Deferred[Registered]:
        """A process with a folder and a nonce registers; by default always the same."""
        facts = {"boot_id": "boot", "folder_id": SECRET, "nonce": "first", "name": "box"} | facts
        return self.membership.register(Registration(f"{HOME}:{port}", **facts), HOME)

    def registered(self, port: int = 30000, **facts: Any) -> Worker:
        """The same, where nothing is in its way."""
        answer = self.successResultOf(self.registering(port, **facts))
        return self.ledger.registry.worker(answer.worker_id)

    def asked(self) -> Deferred[bool]:
        """The question whether a process answers, which the test answers."""
        self.workers.held = [call for call in self.workers.held if call.method != "probe"]
        return self.workers.take("answers").answer

    def is_asked(self) -> bool:
        return any(call.method == "answers" for call in self.workers.held)


class IdTests(ClashTestCase):
    def test_of_the_folder(self) -> None:
        """The id follows from the folder id: a registration that is sent again makes the same entry."""
        worker = self.registered()
        self.assertEqual(worker.id, id_of_folder(SECRET))
        self.assertEqual((worker.folder, worker.nonce), (worker.id, "first"))
        self.registered()
        self.assertEqual([each.id for each in self.ledger.registry.workers()], [worker.id])
        self.assertNotEqual(id_of_folder("other"), worker.id)

    def test_is_secret(self) -> None:
        """A folder id is in nothing that is kept, nor in the refusal of one that is no id."""
        worker = self.registered()
        self.assertNotIn(SECRET, repr(worker))
        refused = self.failureResultOf(self.registering(folder_id=f"{SECRET}\n"), Invalid)
        self.assertEqual(refused.value.field, "folderID")
        self.assertNotIn(SECRET, str(refused.value))

    def test_of_an_earlier_version(self) -> None:
        """A worker that is upgraded keeps the id that it has, and no other folder gets it from then on."""
        old = self.registered(folder_id="", nonce="", worker_id="")
        upgraded = self.registered(worker_id=old.id)
        self.assertEqual((upgraded.id, upgraded.folder), (old.id, id_of_folder(SECRET)))
        self.assertEqual(self.registered().id, old.id)  # it has lost the file with its id
        other = self.registered(30001, worker_id=old.id, folder_id="other", nonce="n", name="other")
        self.assertEqual(other.id, id_of_folder("other"))

    def test_given(self) -> None:
        """An id that is not known is the worker's only where jobs say that this scheduler gave it."""
        self.ledger.update_job(a_job("j-1", JobState.SUCCEEDED, worker_id="w-7"))
        self.assertEqual(self.registered(worker_id="w-7").id, "w-7")
        self.assertEqual(
            self.registered(30001, worker_id="w-8", folder_id="other", name="other").id, id_of_folder("other")
        )
        made_up = self.registered(30002, worker_id="w-9", folder_id="", nonce="", name="third")
        self.assertNotEqual(made_up.id, "w-9")

    def test_needs_the_folder(self) -> None:
        """Who registers with an id, and can't show its folder id, gets another one, also where that is gone."""
        worker = self.registered()
        self.ledger.update_job(a_job(worker_id=worker.id))
        self.liveness.left(worker.id)
        strangers = [{"folder_id": folder, "nonce": "n"} for folder in ("", "other")]
        for port, facts in enumerate(strangers, 40000):
            stranger = self.registered(port, worker_id=worker.id, name=f"x{port}", **facts)
            self.assertNotEqual(stranger.id, worker.id)
        self.assertFalse(self.is_asked())
        self.successResultOf(self.membership.remove(self.ledger.registry.worker(worker.id), "forgotten"))
        for port, facts in enumerate((*strangers, {"folder_id": "", "nonce": ""}), 41000):
            stranger = self.registered(port, worker_id=worker.id, name=f"x{port}", **facts)
            self.assertNotEqual(stranger.id, worker.id)
        self.assertEqual(self.registered(worker_id=worker.id).id, worker.id)

    def test_downgraded(self) -> None:
        """A worker of an earlier version keeps its id, which is still that of its folder: whoever shows that has it."""
        worker = self.registered()
        earlier = self.registering(30001, worker_id=worker.id, folder_id="", nonce="")
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(earlier).worker_id, worker.id)
        self.workers.take("probe").answer.callback(None)
        self.assertIs(self.ledger.registry.worker(worker.id).state, WorkerState.ONLINE)
        self.assertEqual(self.ledger.registry.worker(worker.id).folder, worker.folder)
        stranger = self.registered(40000, worker_id=worker.id, folder_id="other", nonce="n", name="other")
        self.assertNotEqual(stranger.id, worker.id)
        self.assertEqual(self.registered(nonce="second").id, worker.id)
        self.assertFalse(self.is_asked())
        self.assertEqual(self.ledger.registry.worker(worker.id).nonce, "second")

    def test_upgraded_and_forgotten(self) -> None:
        """A worker that had an id before it had a folder keeps it, and its jobs, where the scheduler forgot it."""
        old = self.registered(folder_id="", nonce="")
        self.ledger.update_job(a_job("j-1", JobState.SUCCEEDED, worker_id=old.id))
        self.successResultOf(self.membership.remove(old, "forgotten"))
        self.assertEqual(self.registered(worker_id=old.id).id, old.id)

    def test_of_a_core_worker(self) -> None:
        """No id that anybody sends is that of a core worker, which is its address, whatever else is said there."""
        core = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.ledger.update_job(a_job(worker_id=core.id))
        for number, facts in enumerate(({}, {"nonce": "", "folder_id": ""}, {"boot_id": ""})):
            stranger = self.registered(40000 + number, worker_id=core.id, name=f"x{number}", **facts)
            self.assertNotEqual(stranger.id, core.id)
        self.assertFalse(self.is_asked())
        again = self.registered(boot_id="", folder_id=SECRET, nonce="n", worker_id="w-9", name="")
        self.assertEqual((again.id, again.nonce, again.folder), (core.id, "", ""))
        ours = self.registered(40009, folder_id="of-another", name="ours")
        core = self.registered(40010, boot_id="", folder_id="", nonce="", worker_id=ours.id, name="")
        self.assertNotEqual(core.id, ours.id)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_nonce(self) -> None:
        """What another process of a worker says is refused, and so is one that left."""
        worker = self.registered()
        self.beat(worker.id, nonce="first")
        for nonce in ("", "second"):
            beat = self.membership.heartbeat(Heartbeat(worker.id, "boot", nonce=nonce), HOME)
            self.failureResultOf(beat, NotFound)
            self.failureResultOf(self.membership.deregister(worker.id, nonce), NotFound)
        self.successResultOf(self.membership.deregister(worker.id, "first"))


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
        self.assertEqual(self.ledger.registry.worker(worker.id), worker)

    def test_is_accepted(self) -> None:
        """Where the one that registered is silent the next has its id and its jobs."""
        worker = self.registered()
        self.ledger.update_job(a_job(worker_id=worker.id))
        second = self.registering(30001, nonce="second")
        asked = self.workers.held[-1].worker
        self.assertEqual((asked.nonce, asked.address), ("first", f"{HOME}:30000"))
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(second).worker_id, worker.id)
        now = self.ledger.registry.worker(worker.id)
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
        """Of two that wait for the same silent process the first that is accepted is asked, too."""
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
        self.ledger.update_job(a_job(worker_id=self.old.id))

    def check_it_stays(self, newcomer: Deferred[Registered], *answers: bool) -> None:
        for answer in answers:
            self.assertNoResult(newcomer)
            self.asked().callback(answer)
        self.failureResultOf(newcomer, Conflict)
        now = self.ledger.registry.worker(self.old.id)
        self.assertEqual((now.address, now.state), (self.old.address, WorkerState.ONLINE))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_elsewhere(self) -> None:
        """Its id is refused to a process elsewhere while it answers where it is, and not when it does not."""
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
        self.assertTrue(self.ledger.registry.worker(self.successResultOf(core).worker_id).is_core)

    def test_at_a_core_workers_address(self) -> None:
        """Nor does it at the address of a core worker that is online."""
        core = self.registered(30001, boot_id="", folder_id="", nonce="", name="")
        self.workers.take("probe").answer.callback(None)
        self.ledger.update_job(a_job("j-2", worker_id=core.id))
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
        self.assertEqual(self.ledger.registry.workers(), [first])

    def test_changes_hands(self) -> None:
        """A silent worker loses its name, goes by its id, and is asked to register again, at once when it is free."""
        first = self.registered()
        second = self.registering(30001, folder_id="other", nonce="n")
        self.asked().callback(False)
        second_id = self.successResultOf(second).worker_id
        now = self.ledger.registry.worker(first.id)
        self.assertEqual((now.name, now.labels["name"]), (first.id, first.id))
        self.assertEqual(self.ledger.registry.worker("box").id, second_id)
        self.assertTrue(self.beat(first.id, nonce="first").register_again)
        self.assertFalse(self.beat(first.id, nonce="first").register_again)
        self.registered(30001, folder_id="other", nonce="n", name="own")
        self.assertTrue(self.beat(first.id, nonce="first").register_again)
        self.assertEqual(self.registered().name, "box")
        self.assertFalse(self.beat(first.id, nonce="first").register_again)

    def test_of_offline(self) -> None:
        """The name of one that is offline can be had without a question."""
        self.ledger.update_worker(evolve(self.registered(), state=WorkerState.OFFLINE))
        self.registered(30001, folder_id="other", nonce="n")
        self.assertFalse(self.is_asked())
        self.assertEqual(self.ledger.registry.worker(id_of_folder(SECRET)).name, id_of_folder(SECRET))


class AddressTests(ClashTestCase):
    def test_is_taken(self) -> None:
        """The second of two workers with one address is refused while the first answers there."""
        first = self.registered()
        second = self.registering(folder_id="other", nonce="n", name="other")
        self.asked().callback(True)
        self.assertIn("'box'", str(self.failureResultOf(second, Conflict).value))
        self.assertEqual(self.ledger.registry.workers(), [first])

    def test_changes_hands(self) -> None:
        """Where another worker listens at an address now, the one before is unreachable, and keeps its jobs."""
        first = self.registered()
        self.ledger.update_job(a_job(worker_id=first.id))
        second = self.registering(folder_id="other", nonce="n", name="other")
        self.asked().callback(False)
        self.successResultOf(second)
        now = self.ledger.registry.worker(first.id)
        self.assertIs(now.state, WorkerState.UNREACHABLE)
        self.assertEqual(self.membership.why_unreachable(now), "another worker registered at its address")
        self.assertNotEqual(self.state(), JobState.LOST)

    def test_lost_folder(self) -> None:
        """A new worker by the name and at the address of a silent one takes its place, and its drain."""
        first = self.registered()
        self.ledger.update_worker(evolve(first, draining=True))
        self.ledger.update_job(a_job(worker_id=first.id))
        second = self.registering(folder_id="other", nonce="n")
        self.asked().callback(False)
        new = self.ledger.registry.worker(self.successResultOf(second).worker_id)
        self.assertEqual([each.id for each in self.ledger.registry.workers()], [id_of_folder("other")])
        self.assertEqual((new.name, new.draining), ("box", True))
        job = self.ledger.registry.job("j-1")
        self.assertEqual((job.state, job.reason), (JobState.LOST, "forgotten"))

    def test_lost_folder_while_the_store_fails(self) -> None:
        """It registers again until it has taken that place, which needs the store."""
        first = self.registered()
        self.ledger.update_job(a_job(worker_id=first.id))
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
        self.assertEqual([each.id for each in self.ledger.registry.workers()], [id_of_folder("other")])
        self.assertIs(self.state(), JobState.LOST)

    def check_takes_the_place_after_a_kill(self, port: int) -> None:
        """The scheduler was killed once the newcomer was saved; the newcomer comes again."""
        first = self.registered()
        self.ledger.update_job(a_job(worker_id=first.id))
        second_id = id_of_folder("other")
        self.ledger.update_worker(evolve(first, id=second_id, folder=second_id, nonce="n"))
        second = self.registering(port, folder_id="other", nonce="n")
        self.asked().callback(False)
        self.assertEqual(self.successResultOf(second).worker_id, second_id)
        self.assertEqual([each.id for each in self.ledger.registry.workers()], [second_id])
        self.assertIs(self.state(), JobState.LOST)

    def test_lost_folder_and_killed(self) -> None:
        """So it is where the scheduler was killed before the place was taken."""
        self.check_takes_the_place_after_a_kill(30000)

    def test_lost_folder_killed_and_moved(self) -> None:
        """And where the newcomer is elsewhere by then."""
        self.check_takes_the_place_after_a_kill(30001)

    def test_comes_for_the_place_of_another(self) -> None:
        """A worker that is known takes no one's place: the one that it is named after keeps its jobs."""
        first = self.registered()
        self.ledger.update_job(a_job(worker_id=first.id))
        self.registered(30001, folder_id="other", nonce="n", name="other")
        second = self.registering(folder_id="other", nonce="n")
        self.asked().callback(False)
        self.successResultOf(second)
        self.assertEqual(self.ledger.registry.worker(first.id).name, first.id)
        self.assertIs(self.state(), JobState.RUNNING)

    def test_without_an_id(self) -> None:
        """A core worker at the address of a worker of ours displaces nothing while that answers."""
        first = self.registered()
        self.ledger.update_job(a_job(worker_id=first.id))
        core = self.registering(boot_id="", folder_id="", nonce="", name="")
        self.asked().callback(True)
        self.failureResultOf(core, Conflict)
        self.assertIs(self.state(), JobState.RUNNING)
        core = self.registering(boot_id="", folder_id="", nonce="", name="")
        self.asked().callback(False)
        self.assertTrue(self.ledger.registry.worker(self.successResultOf(core).worker_id).is_core)
        self.assertIs(self.ledger.registry.worker(first.id).state, WorkerState.UNREACHABLE)

    def test_of_a_core_worker(self) -> None:
        """One of ours at the address of a core worker is refused if it does not answer there, but something does."""
        core = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.ledger.update_job(a_job(worker_id=core.id))
        for answers, refused in (((True, False), True), ((True, True), False)):
            second = self.registering()
            for answer in answers:
                self.asked().callback(answer)
            if refused:
                self.failureResultOf(second, Conflict)
            else:
                self.successResultOf(second)
        self.assertEqual([each.id for each in self.ledger.registry.workers()], [id_of_folder(SECRET)])
        self.assertIs(self.state(), JobState.LOST)  # its address was its identity

    def test_core_worker_again(self) -> None:
        """A core worker that registers again at its address has its id and its jobs."""
        core = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.ledger.update_job(a_job(worker_id=core.id))
        again = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.assertEqual(again.id, core.id)
        self.assertIs(self.state(), JobState.RUNNING)
        self.assertFalse(self.is_asked())
        self.successResultOf(self.membership.deregister(core.id, ""))
        self.assertEqual(self.registered(boot_id="", folder_id="", nonce="", name="").id, core.id)
        self.assertNotEqual(self.registered(30001, boot_id="", folder_id="", nonce="", name="").id, core.id)

    def test_own(self) -> None:
        """The scheduler's own address is nobody's."""
        self.begin(is_own_address=lambda address: address == f"{HOME}:30000")
        refused = self.failureResultOf(self.registering(), Refused)
        self.assertIn("scheduler's own", str(refused.value))
        self.registered(30001)


class QuestionTests(ClashTestCase):
    """Questions that a registration does without, and those that must wait."""

    def stale(self, *nonces: str) -> list[Worker]:
        """Workers at the address of the newcomer, each of which has registered and not been heard since."""
        first = self.registered()
        workers = [evolve(first, id=f"w-{nonce}", name=nonce, labels={"name": nonce}, nonce=nonce) for nonce in nonces]
        for worker in workers:
            self.ledger.update_worker(worker)
        self.ledger.remove_worker(first.id)
        return workers

    def newcomer(self) -> Deferred[Registered]:
        return self.registering(folder_id="new", nonce="new", name="new")

    def is_asked_next(self) -> str:
        """The nonce of the process that is asked now."""
        (call,) = [call for call in self.workers.held if call.method == "answers"]
        return str(call.worker.nonce)

    def test_nobody_answers(self) -> None:
        """Where nobody answers at an address, one question is enough for all who said that they listen there."""
        workers = self.stale("a", "b", "c")
        newcomer = self.newcomer()
        self.asked().callback(None)
        self.successResultOf(newcomer)
        for worker in workers:
            self.assertIs(self.ledger.registry.worker(worker.id).state, WorkerState.UNREACHABLE)

    def test_newcomer_answers(self) -> None:
        """Where the newcomer answers, none of the others does."""
        self.stale("a", "b", "c")
        newcomer = self.newcomer()
        self.assertEqual(self.is_asked_next(), "a")
        self.asked().callback(False)
        self.assertEqual(self.is_asked_next(), "new")
        self.asked().callback(True)
        self.successResultOf(newcomer)

    def test_another_answers(self) -> None:
        """Where it is another one that answers, it may be any of them."""
        self.stale("a", "b", "c")
        newcomer = self.newcomer()
        for nonce in ("a", "new", "b"):
            self.assertEqual(self.is_asked_next(), nonce)
            self.asked().callback(False)
        self.assertEqual(self.is_asked_next(), "c")
        self.asked().callback(True)
        self.failureResultOf(newcomer, Conflict)

    def test_another_comes(self) -> None:
        """One that registers there while another is asked is asked, too."""
        (stale,) = self.stale("a")
        newcomer = self.newcomer()
        question = self.asked()
        self.ledger.update_worker(evolve(stale, nonce="b"))
        question.callback(None)
        self.assertEqual(self.is_asked_next(), "b")
        self.asked().callback(True)
        self.failureResultOf(newcomer, Conflict)

    def test_elsewhere(self) -> None:
        """What is found at one address says nothing of another."""
        self.registered(30001, folder_id="other", name="new", nonce="a")
        self.stale("b")
        newcomer = self.newcomer()
        self.assertEqual(self.is_asked_next(), "a")
        self.asked().callback(None)
        self.assertEqual(self.is_asked_next(), "b")
        self.asked().callback(None)
        self.successResultOf(newcomer)

    def test_too_many(self) -> None:
        """Some registrations ask at a time, whatever else the threads of the server are for; others try again."""
        for number in range(MAX_ASKING + 1):
            self.registered(30000 + number, folder_id=f"f{number}", name=f"n{number}")
        waiting = [
            self.registering(31000 + number, folder_id=f"f{number}", name=f"n{number}", nonce="second")
            for number in range(MAX_ASKING + 1)
        ]
        self.failureResultOf(waiting.pop(), Busy)
        self.registered(32000, folder_id="other", name="other")
        self.assertFalse(self.membership.idle)
        for registration in waiting:
            self.asked().callback(False)
            self.successResultOf(registration)
        last = self.registering(31000 + MAX_ASKING, folder_id=f"f{MAX_ASKING}", name=f"n{MAX_ASKING}", nonce="second")
        self.asked().callback(False)
        self.successResultOf(last)
        self.assertTrue(self.membership.idle)


class RemovalTests(ClashTestCase):
    """A worker that is being forgotten while the store is slow."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = self.registered()
        self.ledger.update_job(a_job(worker_id=self.worker.id))
        self.ledger.update_worker(evolve(self.worker, draining=True))
        self.liveness.left(self.worker.id)
        self.workers.held.clear()

    def test_comes_back_before_its_jobs_are_given_up(self) -> None:
        """One that registers meanwhile stays, and so does what it runs, and its drain."""
        start = Deferred[None]()
        self.patch(self.house.parts.reconciler, "starts_over", lambda _: start)
        forgotten = self.cluster.forget(self.worker.id)
        self.failureResultOf(
            self.membership.heartbeat(Heartbeat(self.worker.id, "boot", nonce="first"), HOME), NotFound
        )
        self.registered()
        start.callback(None)
        self.failureResultOf(forgotten, Conflict)
        self.beat(self.worker.id, nonce="first", running=("j-1",))
        self.assertTrue(self.ledger.registry.worker(self.worker.id).draining)
        self.assertIs(self.state(), JobState.RUNNING)
        self.assertTrue(self.membership.idle)

    def test_comes_back_after(self) -> None:
        """Where its jobs are being given up already it stays all the same."""
        self.store.held = True
        forgotten = self.cluster.forget(self.worker.id)
        back = self.registering(nonce="second")
        self.asked().callback(False)
        while self.store.saves:
            self.store.commit()
        self.failureResultOf(forgotten, Conflict)
        self.assertEqual(self.successResultOf(back).worker_id, self.worker.id)
        self.store.held = False
        self.beat(self.worker.id, nonce="second")
        self.assertTrue(self.ledger.registry.worker(self.worker.id).draining)

    def test_asked_twice(self) -> None:
        """Two requests to forget it are one."""
        self.store.held = True
        both = [self.cluster.forget(self.worker.id) for _ in range(2)]
        while self.store.saves:
            self.store.commit()
        for each in both:
            self.successResultOf(each)
        self.assertEqual(self.ledger.registry.workers(), [])
        self.assertTrue(self.membership.idle)

    def test_gone_meanwhile(self) -> None:
        """Nothing is kept of one that is forgotten while its heartbeat, or registration, is being saved."""
        self.beat(self.worker.id, nonce="first")
        self.ledger.update_worker(evolve(self.ledger.registry.worker(self.worker.id), state=WorkerState.UNREACHABLE))
        for call in ("heartbeat", "register"):
            with self.subTest(call):
                self.registered()
                self.ledger.update_job(a_job(call, worker_id=self.worker.id))
                self.store.held = True
                if call == "heartbeat":
                    beat = Heartbeat(self.worker.id, "boot", ended=(JobReport(ended(call)),), nonce="first")
                    answer: Any = self.membership.heartbeat(beat, "127.0.0.9")
                else:
                    answer = self.registering()
                waits = self.store.saves.pop(0)
                self.store.held = False
                self.successResultOf(self.membership.remove(self.ledger.registry.worker(self.worker.id), "forgotten"))
                waits[1].callback(None)
                self.failureResultOf(answer, NotFound)
                self.assertTrue(self.membership.idle)
                self.assertTrue(self.house.parts.set_back.idle)


class AgainTests(ClashTestCase):
    def test_from_elsewhere(self) -> None:
        """A heartbeat from another address counts, and is answered by the wish that its worker registers again."""
        worker = self.registered()
        self.ledger.update_job(a_job(worker_id=worker.id))

        def beat(peer: str) -> bool:
            heartbeat = Heartbeat(worker.id, "boot", ("j-1",), nonce="first")
            return self.successResultOf(self.membership.heartbeat(heartbeat, peer)).register_again

        self.assertFalse(beat(HOME))
        self.assertTrue(beat("127.0.0.9"))
        self.assertFalse(beat("127.0.0.9"))  # at most once a minute
        self.clock.advance(60)
        self.assertTrue(beat("127.0.0.9"))
        self.assertIs(self.state(), JobState.RUNNING)

    def test_calls_fail(self) -> None:
        """One that calls do not reach registers again, as its address may be another."""
        worker = self.registered()
        self.assertFalse(self.beat(worker.id, nonce="first").register_again)
        self.workers.take("probe").answer.errback(NotFound("x", "y"))
        self.liveness.calls_fail(worker.id)
        self.assertTrue(self.beat(worker.id, nonce="first").register_again)
        self.assertFalse(self.beat(worker.id, nonce="first", leaving=True).register_again)
