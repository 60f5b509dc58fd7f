"""The id that a worker gets when it registers."""

from __future__ import annotations

from scheduler.cluster.workers.ids import id_of_folder
from scheduler.errors import Invalid, NotFound
from scheduler.messages import Heartbeat
from scheduler.model import JobState, Presence, WorkerState
from tests.house import PEER
from tests.unit.cluster.test_clashes import SECRET, ClashTestCase
from tests.unit.cluster.values import a_job


class IdTests(ClashTestCase):
    def test_of_the_folder(self) -> None:
        """The id follows from the folder id: a registration that is sent again makes the same entry."""
        worker = self.registered()
        self.assertEqual(worker.id, id_of_folder(SECRET))
        self.assertEqual((worker.folder, worker.nonce), (worker.id, "first"))
        self.registered()
        self.assertEqual([each.id for each in self.ledger.registry.workers.all()], [worker.id])
        self.assertNotEqual(id_of_folder("other"), worker.id)

    def test_is_secret(self) -> None:
        """A folder id is in nothing that is kept, nor in the refusal of one that is no id."""
        self.assertNotIn(SECRET, repr(self.registered()))
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
        self.ledger.learn(a_job("j-1", JobState.SUCCEEDED, worker_id="w-7"))
        self.assertEqual(self.registered(worker_id="w-7").id, "w-7")
        self.assertEqual(
            self.registered(30001, worker_id="w-8", folder_id="other", name="other").id, id_of_folder("other")
        )
        made_up = self.registered(30002, worker_id="w-9", folder_id="", nonce="", name="third")
        self.assertNotEqual(made_up.id, "w-9")

    def test_needs_the_folder(self) -> None:
        """A worker that sends an id without the folder id of it gets another id, even if the first worker is gone."""
        worker = self.registered()
        self.ledger.learn(a_job(worker_id=worker.id))
        self.liveness.left(worker.id, Presence())
        strangers = [{"folder_id": folder, "nonce": "n"} for folder in ("", "other")]
        for port, facts in enumerate(strangers, 40000):
            stranger = self.registered(port, worker_id=worker.id, name=f"x{port}", **facts)
            self.assertNotEqual(stranger.id, worker.id)
        self.assertFalse(self.is_asked())
        self.successResultOf(
            self.membership.departures.remove(self.ledger.registry.workers.get(worker.id), "forgotten")
        )
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
        self.assertIs(self.ledger.registry.presences.of(worker.id).state, WorkerState.ONLINE)
        self.assertEqual(self.ledger.registry.workers.get(worker.id).folder, worker.folder)
        stranger = self.registered(40000, worker_id=worker.id, folder_id="other", nonce="n", name="other")
        self.assertNotEqual(stranger.id, worker.id)
        self.assertEqual(self.registered(nonce="second").id, worker.id)
        self.assertFalse(self.is_asked())
        self.assertEqual(self.ledger.registry.workers.get(worker.id).nonce, "second")

    def test_upgraded_and_forgotten(self) -> None:
        """A worker that had an id before it had a folder keeps it, and its jobs, where the scheduler forgot it."""
        old = self.registered(folder_id="", nonce="")
        self.ledger.learn(a_job("j-1", JobState.SUCCEEDED, worker_id=old.id))
        self.successResultOf(self.membership.departures.remove(old, "forgotten"))
        self.assertEqual(self.registered(worker_id=old.id).id, old.id)

    def test_of_a_core_worker(self) -> None:
        """An id that is sent is never that of a core worker, which is identified by its address alone."""
        core = self.registered(boot_id="", folder_id="", nonce="", name="")
        self.ledger.learn(a_job(worker_id=core.id))
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
        """Calls of another process of a worker are refused, and so are those of a process that left."""
        worker = self.registered()
        self.beat(worker.id, nonce="first")
        for nonce in ("", "second"):
            beat = self.membership.heartbeat(Heartbeat(worker.id, "boot", nonce=nonce), PEER)
            self.failureResultOf(beat, NotFound)
            self.failureResultOf(self.membership.deregister(worker.id, nonce, PEER), NotFound)
        self.successResultOf(self.membership.deregister(worker.id, "first", PEER))
