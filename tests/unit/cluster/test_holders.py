"""Workers whose certificates state names: they act under these names alone, and on entries of these names alone."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from scheduler.cluster.workers.ids import id_of_address
from scheduler.errors import NotFound, Refused
from scheduler.messages import Heartbeat, Peer, Registered, Registration
from scheduler.model import JobState, Worker
from tests.house import HOME
from tests.unit.cluster.test_membership import MembershipTestCase
from tests.unit.cluster.values import a_job, a_worker


class HolderCase(MembershipTestCase):
    def registering(self, holder: str, port: int, **facts: Any) -> Deferred[Registered]:
        """The holder of a certificate registers; by default a worker of ours, under the name in the certificate."""
        facts = {"boot_id": "boot", "folder_id": f"folder-{holder}", "nonce": f"n-{holder}", "name": holder} | facts
        return self.membership.register(Registration(f"{HOME}:{port}", **facts), Peer(HOME, (holder,)))

    def registered(self, holder: str, port: int, **facts: Any) -> Worker:
        registered = self.successResultOf(self.registering(holder, port, **facts))
        return self.ledger.registry.workers.get(registered.worker_id)

    def refused(self, registering: Deferred[Registered]) -> str:
        return str(self.failureResultOf(registering, Refused).value)


class RegistrationTests(HolderCase):
    def test_another_name(self) -> None:
        """A name that the certificate does not permit is refused; so is one that differs in case."""
        for name in ("b", "A", "a.example.com"):
            self.assertIn(repr(name), self.refused(self.registering("a", 30001, name=name)))

    def test_ids_of_another(self) -> None:
        """Neither a known folder id nor a known worker id gives another's entry."""
        victim = self.registered("b", 30002)
        for facts in (
            {"folder_id": "folder-b"},
            {"folder_id": "folder-b", "worker_id": victim.id},
            {"folder_id": "folder-b", "worker_id": victim.id, "nonce": "n-b"},
        ):
            for port in (30001, 30002):
                self.assertIn("belongs to worker 'b'", self.refused(self.registering("a", port, **facts)))
        self.assertEqual(self.ledger.registry.workers.get(victim.id), victim)

    def test_id_of_earlier_version(self) -> None:
        """An entry of a worker that had shown no folder id is not taken over by a worker of another name."""
        self.ledger.learn(a_worker("w-7", name="b"))
        self.assertIn("belongs to worker 'b'", self.refused(self.registering("a", 30001, worker_id="w-7")))

    def test_id_without_a_name(self) -> None:
        """An entry that lost its name is not taken over by a process that does not show its folder id."""
        known = self.registered("b", 30002)
        nameless = evolve(known, name=known.id, labels={"name": known.id})
        self.ledger.learn(nameless)
        self.liveness.reset(known.id, "silent")
        registering = self.registering("a", 30001, worker_id=known.id, folder_id="", nonce="")
        self.assertIn("another state folder", self.refused(registering))
        self.assertEqual(self.ledger.registry.workers.get(known.id), nameless)
        self.assertEqual(self.registered("b", 30002).id, known.id)

    def test_label(self) -> None:
        """The label ``name`` states no name that the certificate does not permit."""
        self.assertIn("label name = 'b'", self.refused(self.registering("a", 30001, labels={"name": "b"})))
        self.assertEqual(self.registered("a", 30001, labels={"name": "a", "gpu": "1"}).labels["gpu"], "1")

    def test_address_of_core_worker(self) -> None:
        """A worker at the address of a silent core worker of another name does not remove its entry and jobs."""
        address = f"{HOME}:30002"
        core = a_worker(id_of_address(address), name="b", address=address, boot_id="", slots=None, nonce="")
        self.ledger.learn(core, a_job("j-7", worker_id=core.id))
        self.liveness.reset(core.id, "silent")
        newcomer = self.registering("a", 30002)
        while not newcomer.called:
            self.workers.take("answers").answer.callback(None)  # nobody answers there
        self.successResultOf(newcomer)
        self.assertEqual(self.ledger.registry.workers.get("b").id, core.id)
        self.assertIsNot(self.ledger.registry.jobs.get("j-7").state, JobState.LOST)
        as_core = self.registering("a", 30002, boot_id="", folder_id="", nonce="", name="")
        self.assertIn("belongs to worker 'b'", self.refused(as_core))

    def test_without_a_name(self) -> None:
        """A worker that gives no name gets the usual one in its certificate."""
        self.assertEqual(self.registered("a", 30001, name="").name, "a")
        core = self.registered("b", 30002, boot_id="", folder_id="", nonce="", name="")
        self.assertEqual((core.name, core.is_core), ("b", True))

    def test_one_of_several(self) -> None:
        """A certificate that permits several names permits each of them."""
        for port, name in enumerate(("box", "box.example.com"), 30001):
            registration = Registration(f"{HOME}:{port}", name=name, boot_id="boot", folder_id=name.replace(".", "_"))
            self.successResultOf(self.membership.register(registration, Peer(HOME, ("box", "box.example.com"))))


class SenderTests(HolderCase):
    def acting(self, holder: str, worker: Worker, nonce: str) -> tuple[Deferred[Any], Deferred[Any]]:
        """A heartbeat and a deregistration of that worker, by the holder of a certificate."""
        peer = Peer(HOME, (holder,))
        return (
            self.membership.heartbeat(Heartbeat(worker.id, "boot", nonce=nonce), peer),
            self.membership.deregister(worker.id, nonce, peer),
        )

    def test_another(self) -> None:
        """Heartbeats and deregistrations of another worker are refused, even with its nonce."""
        victim = self.registered("b", 30002)
        for nonce in (victim.nonce, "", "guessed"):
            for acting in self.acting("a", victim, nonce):
                self.assertIn("not given to 'a'", self.refused(acting))
        self.assertFalse(self.ledger.registry.workers.get(victim.id).is_offline)

    def test_itself(self) -> None:
        """A worker acts on its own entry."""
        own = self.registered("a", 30001)
        for acting in self.acting("a", own, own.nonce):
            self.successResultOf(acting)

    def test_lost_name(self) -> None:
        """An entry that lost its name belongs to nobody until its worker has registered again."""
        own = self.registered("a", 30001)
        self.ledger.learn(evolve(own, name=own.id, labels={"name": own.id}))
        for holder in ("a", "b"):
            for acting in self.acting(holder, own, own.nonce):
                self.failureResultOf(acting, NotFound)
        self.assertEqual(self.registered("a", 30001).id, own.id)
