"""Machines whose addresses change, and the effect on the network."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.faults.addresses import NewAddress, RestartElsewhere, SwapAddresses, TakeAddress
from tests.simulation.faults.identity import LoseFolder
from tests.simulation.faults.processes import Reboot
from tests.simulation.loop import Loop
from tests.simulation.network import Caller, CallFailed, Endpoint, Network
from tests.simulation.process import Process
from tests.simulation.trace import Trace
from tests.unit.simulation.worlds import a_world, job_of, registry


class NetworkTests(SynchronousTestCase):
    """A caller on machine ``a`` and a server on machine ``b``, which answers when ``self.answer`` fires."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.network = Network(self.loop, Random(1), Trace(self.loop))
        self.network.calm.slow = 0.0
        self.network.attach("10.0.0.1", "a")
        self.network.attach("10.0.0.2", "b")
        self.answer: Deferred[str] = Deferred()
        self.arrived: list[Any] = []
        self.network.listen(7, Endpoint(Process(self.loop, "server", self.crashed), "b", "server"))
        self.caller = Caller(Process(self.loop, "caller", self.crashed), "a", "10.0.0.1")

    def crashed(self, process: str, reason: Failure) -> None:
        reason.raiseException()

    def call(self, address: str = "10.0.0.2:7", name: str = "ask") -> Deferred[str]:
        def arrive(server: Any) -> Deferred[str]:
            self.arrived.append(server)
            return self.answer

        answer: Deferred[str] = self.network.call(self.caller, address, name, arrive, deadline=5.0).answer
        return answer

    def why(self, answer: Deferred[str]) -> str:
        return self.failureResultOf(answer, CallFailed).value.why

    def test_answered(self) -> None:
        """The answer arrives if nothing changes."""
        answer = self.call()
        self.loop.run(1.0)
        self.answer.callback("yes")
        self.loop.run(2.0)
        self.assertEqual(self.successResultOf(answer), "yes")

    def test_late_request(self) -> None:
        """A process that began later takes no request of a caller that is dead: neither could have opened the
        connection.
        """
        for dies, restarts, arrives in ((True, False, 1), (False, True, 1), (True, True, 0)):
            self.setUp()
            self.network.calm.usual = self.network.calm.slowest = 2.0
            self.call()
            if restarts:
                self.network.close("b", 7)
                self.loop.run(0.1)
                self.network.listen(7, Endpoint(Process(self.loop, "again", self.crashed), "b", "again"))
            if dies:
                self.caller.process.end()
            self.loop.run(4.0)
            self.assertEqual(len(self.arrived), arrives)

    def test_moves(self) -> None:
        """An answer is lost if the machine of the server, or of the caller, has changed its address."""
        for address, machine in (("10.0.0.2", "b"), ("10.0.0.1", "a")):
            self.setUp()
            answer = self.call()
            self.loop.run(1.0)
            self.network.detach(address, machine)
            self.network.attach("10.0.0.3", machine)
            self.answer.callback("yes")
            self.loop.run(4.9)
            self.assertNoResult(answer)
            self.loop.run(6.0)
            self.assertEqual(self.why(answer), "deadline")

    def test_found_at_the_new_address(self) -> None:
        """A call to an address goes to the machine that has it at that time."""
        self.network.attach("10.0.0.3", "b")
        self.call("10.0.0.3:7")
        self.loop.run(1.0)
        self.assertEqual(self.arrived, ["server"])

    def test_refused(self) -> None:
        """A call to a closed port fails at once; a call to an address without a machine does not."""
        refused, lost = self.call("10.0.0.2:8"), self.call("10.0.0.9:7")
        self.loop.run(1.0)
        self.assertEqual(self.why(refused), "refused")
        self.assertNoResult(lost)

    def test_detach_of_an_address_that_another_has(self) -> None:
        """A machine that gives up an address does not take it from its new owner."""
        self.network.attach("10.0.0.2", "a")
        self.network.detach("10.0.0.2", "b")
        refused = self.call("10.0.0.2:7")
        self.loop.run(1.0)
        self.assertEqual(self.why(refused), "refused")

    def test_unanswered(self) -> None:
        """The calls whose answers are lost all arrive, and all other calls are answered."""
        self.answer = succeed("yes")
        self.network.unanswered["token"] = ("a", "ask")
        ask, tell = self.call(name="ask"), self.call(name="tell")
        self.loop.run(6.0)
        self.assertEqual(len(self.arrived), 2)
        self.assertEqual(self.why(ask), "deadline")
        self.assertEqual(self.successResultOf(tell), "yes")


class FaultTests(SynchronousTestCase):
    def test_new_address(self) -> None:
        """The machine has another address, and its worker process runs on."""
        world = a_world(NewAddress(1.0, "w1"))
        process = world.workers["w1"].running
        world.loop.run(2.0)
        self.assertEqual(world.workers["w1"].machine.address, "10.0.2.1")
        self.assertIs(world.workers["w1"].running, process)

    def test_swap(self) -> None:
        """Each machine has the address of the other, and is reached there."""
        world = a_world(SwapAddresses(1.0, "w1", "w2"))
        first, second = (world.workers[name].machine for name in ("w1", "w2"))
        before = first.address, second.address
        world.loop.run(2.0)
        self.assertEqual((second.address, first.address), before)
        self.assertEqual([world.network.machine_of(address) for address in before], ["m2", "m1"])

    def test_take(self) -> None:
        """The other machine gets the dead one's address. The dead one returns with a new one; both are online."""
        world = a_world(TakeAddress(1.0, "w1", "w2", down=5.0, restart=True))
        free = world.workers["w1"].machine.address
        world.loop.run(4.0)
        self.assertFalse(world.workers["w1"].machine.on)
        self.assertEqual(world.network.machine_of(free), "m2")
        world.loop.run(30.0)
        known = registry(world)
        addresses = {
            each.name: f"{each.address} {known.presences.of(each.id).state.value}" for each in known.workers.all()
        }
        self.assertEqual(addresses, {"w1": "10.0.2.1:30000 online", "w2": f"{free}:30000 online"})

    def test_switched_on_where_the_address_is_taken(self) -> None:
        """A dead machine that returns never takes the address of another one."""
        world = a_world(TakeAddress(1.0, "w1", "w2", down=50.0, restart=False), LoseFolder(5.0, "w1", 1.0, move=False))
        free = world.workers["w1"].machine.address
        world.loop.run(7.0)
        self.assertEqual(world.workers["w1"].machine.address, "10.0.2.1")
        self.assertEqual(world.network.machine_of(free), "m2")
        world.loop.run(60.0)
        self.assertEqual(world.workers["w1"].machine.address, "10.0.2.1")

    def test_restart_elsewhere(self) -> None:
        """The worker is another process, known at its new port and at its new address."""
        for port, expected in ((True, "10.0.1.2:30001"), (False, "10.0.2.1:30000")):
            world = a_world(RestartElsewhere(1.0, "w1", 2.0, port), workers=("w1",))
            process = world.workers["w1"].running
            world.loop.run(10.0)
            self.assertIsNot(world.workers["w1"].running, process)
            self.assertEqual([each.address for each in registry(world).workers.all()], [expected])

    def test_reboot(self) -> None:
        """A machine that is off answers nothing. It returns with its address and workers, without its jobs."""
        world = a_world(Reboot(1.5, "w1", 5.0), acts=(job_of(60.0, 1.0, "w1"),))
        machine = world.workers["w1"].machine
        world.loop.run(2.0)
        self.assertEqual([run.destroyed for runs in world.judge.facts.runs.values() for run in runs], ["rebooted"])
        self.assertIsNone(world.network.machine_of(machine.address))
        world.workers["w1"].start()
        self.assertFalse(world.workers["w1"].running.process.alive)  # type: ignore[union-attr]
        world.loop.run(7.0)
        self.assertEqual(world.network.machine_of(machine.address), machine.name)
        self.assertTrue(world.workers["w1"].running.process.alive)  # type: ignore[union-attr]

    def test_heals_when_all_faults_are_over(self) -> None:
        """A machine whose time is longer is on once all faults are over, and is not switched on twice."""
        world = a_world(Reboot(1.0, "w1", 500.0))
        world.loop.run(2.0)
        world.heal()
        self.assertTrue(world.workers["w1"].machine.on)
        process = world.workers["w1"].running
        world.loop.run(600.0)
        self.assertIs(world.workers["w1"].running, process)
