"""The rules about the identity of workers: each is broken by a doctored scene, and by nothing else."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Presence, Worker, WorkerState
from tests.simulation.machine import Folder
from tests.simulation.world import World
from tests.unit.simulation.worlds import a_world, broken, registry


class WorkersTests(SynchronousTestCase):
    """A run with two online workers."""

    def setUp(self) -> None:
        self.world = a_world()
        self.world.loop.run(5.0)
        self.first, self.second = (self.entry(name) for name in ("w1", "w2"))

    def entry(self, name: str) -> Worker:
        return registry(self.world).workers.get(name)

    def show(self, worker: Worker, online: bool = True) -> None:
        assert self.world.scheduler is not None
        ledger = self.world.scheduler.parts.ledger
        ledger.see(worker.id, Presence())
        ledger.learn(worker)
        ledger.see(worker.id, Presence(WorkerState.ONLINE if online else WorkerState.UNREACHABLE))

    def arrive(self, call: str, at: str) -> None:
        """A call for the first worker arrives at the worker named ``at``."""
        running = self.world.workers[at].running
        assert running is not None
        self.world.judge.arrived(self.first, call, running.jobs)

    def agree(self) -> str:
        """The rule that is broken once all should agree."""
        self.world.judge.agreed()
        return broken(self.world)

    def test_nothing_wrong(self) -> None:
        """Two correct workers break no rule."""
        for call in ("probe", "start", "query"):
            self.arrive(call, at="w1")
        self.assertEqual(self.agree(), "")

    def test_two_online_by_one_name(self) -> None:
        """Two entries may have one name only if the worker of one is gone."""
        for online, rule in ((True, "one worker for each name"), (False, "")):
            self.setUp()
            self.show(evolve(self.second, name="w1"), online)
            self.assertEqual(broken(self.world), rule)

    def test_start_at_another(self) -> None:
        """A start that another worker takes is found at once."""
        self.arrive("start", at="w2")
        self.assertEqual(broken(self.world), "a call reaches its worker")

    def test_query_at_another(self) -> None:
        """A query that another worker takes is found in the end, unless its effect breaks a rule earlier."""
        self.arrive("query", at="w2")
        self.assertEqual(broken(self.world), "")
        self.assertEqual(self.agree(), "a call reaches its worker")

    def test_probe_at_another(self) -> None:
        """A probe may reach any worker, since it asks for the identity."""
        self.arrive("probe", at="w2")
        self.assertEqual(self.agree(), "")

    def test_other_servers(self) -> None:
        """A server of another kind was never given an id."""
        self.world.judge.arrived(self.first, "start", object())
        self.assertEqual(self.agree(), "")

    def test_drain_under_another_id(self) -> None:
        """A drained worker stays drained under another id if it keeps its folder; with another folder it is another."""
        for kept, rule in ((True, "a drain stays"), (False, "")):
            self.setUp()
            self.world.judge.drained("w1", self.first.id)
            self.world.judge.registered("another", self.world.workers["w1"].folder if kept else Folder())
            self.show(evolve(self.first, id="another"), online=False)
            self.assertEqual(broken(self.world), rule)

    def test_wrong_address(self) -> None:
        """A worker must be known at the address where it listens."""
        moved = evolve(self.first, address="10.0.9.9:30000")
        self.world.judge.call_answered(moved)
        self.show(moved)
        self.assertEqual(self.agree(), "one entry for each worker")

    def test_online_unproven(self) -> None:
        """A worker must not be online at an address where no call to it was answered. An offline worker may have that
        address.
        """
        moved = evolve(self.first, address="10.0.9.9:30000")
        self.show(moved, online=False)
        self.assertEqual(broken(self.world), "")
        self.world.judge.call_answered(evolve(moved, id="another"))
        self.world.judge.call_answered(self.first)
        self.show(moved)
        self.assertEqual(broken(self.world), "online has answered")

    def test_online_before_a_restart(self) -> None:
        """An answer to the earlier scheduler process is no proof."""
        assert self.world.scheduler is not None
        self.world.judge.loaded(self.world.scheduler)
        self.show(self.first)
        self.assertEqual(broken(self.world), "online has answered")

    def test_wrong_name(self) -> None:
        """A worker must be known by its own name."""
        self.show(evolve(self.first, name="w9"))
        self.assertEqual(self.agree(), "one entry for each worker")

    def test_not_known(self) -> None:
        """A running worker must have an entry."""
        registry(self.world).remove_worker(self.first.id)
        self.assertEqual(self.agree(), "P5 agreement")  # this rule is judged first

    def test_several_entries(self) -> None:
        """A folder must not have a second entry."""
        self.world.judge.registered("ghost", self.world.workers["w1"].folder)
        self.show(evolve(self.first, id="ghost"), online=False)
        self.assertEqual(self.agree(), "one entry for each worker")

    def test_entry_of_another(self) -> None:
        """A worker must not have the id that was given to another folder."""
        self.world.judge.facts.owners[self.first.id] = Folder()
        self.assertEqual(self.agree(), "one entry for each worker")


class LostFolderTests(SynchronousTestCase):
    def test_only_its_own_are_excused(self) -> None:
        """Only the jobs under the ids given to a lost folder are excused."""
        world: World = a_world()
        world.loop.run(5.0)
        node = world.workers["w1"]
        lost = node.folder.worker_id
        world.judge.folder_lost(node.folder)
        self.assertEqual(list(world.judge.facts.forgotten), [lost])
