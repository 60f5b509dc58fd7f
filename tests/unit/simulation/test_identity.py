"""Faults of folders, names, databases and clocks: their effects, and how they heal."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import Job, JobState
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.simulation.acts import Drain
from tests.simulation.faults.identity import (
    ClockStep,
    CloneFolder,
    Failover,
    LoseFolder,
    RegistrationUnanswered,
    RestoreDatabase,
    SameName,
)
from tests.simulation.faults.processes import KillScheduler, KillWorker
from tests.simulation.world import World
from tests.unit.simulation.worlds import a_world, broken, job_of, registry


def names(world: World) -> list[str]:
    """The names of all workers that the scheduler knows, each with its state."""
    known = registry(world)
    return sorted(f"{each.name} {known.presences.of(each.id).state.value}" for each in known.workers.all())


def jobs(world: World) -> list[Job]:
    """All jobs that the scheduler knows."""
    return list(registry(world).jobs.listing.matching(JobFilter()))


class FolderTests(SynchronousTestCase):
    def test_lost(self) -> None:
        """The worker returns with another id, and its job is lost, which breaks no rule."""
        world = a_world(LoseFolder(5.0, "w1", 2.0, move=False), acts=(job_of(30.0, 2.0, "w1"),), workers=("w1",))
        world.loop.run(4.0)
        before = world.workers["w1"].folder.worker_id
        world.loop.run(20.0)
        after = world.workers["w1"].folder.worker_id
        self.assertNotEqual(after, before)
        self.assertEqual([each.id for each in registry(world).workers.all()], [after])
        self.assertEqual([job.state for job in jobs(world)], [JobState.LOST])
        self.assertEqual(broken(world), "")

    def test_lost_elsewhere(self) -> None:
        """If no worker takes over the old address, a client has it forgotten, so that the run ends in agreement."""
        world = World(1, a_world(LoseFolder(5.0, "w1", 2.0, move=True), acts=(job_of(30.0, 2.0, "w1"),)).plan)
        self.assertIsNone(world.run().violation)
        self.assertEqual(names(world), ["w1 online", "w2 online"])

    def test_clone(self) -> None:
        """An unchanged copy is refused; with an id of its own it is another worker."""
        for new_id in (False, True):
            world = a_world(CloneFolder(5.0, "w1", 10.0, new_id), acts=(job_of(30.0, 2.0, "w1"),), workers=("w1",))
            world.loop.run(10.0)
            self.assertEqual(world.network.machine_of("10.0.1.3"), "m2")
            self.assertEqual(names(world), ["w1 online", "w1-1 online"] if new_id else ["w1 online"])
            world.loop.run(25.0)
            self.assertEqual(names(world), ["w1 online", "w1-1 online"])
            self.assertEqual([job.state for job in jobs(world)], [JobState.RUNNING])
            self.assertEqual(len(world.workers["w1-1"].folder.spools), 0)
            world.loop.run(40.0)
            self.assertEqual([job.state for job in jobs(world)], [JobState.SUCCEEDED])
            self.assertEqual((broken(world), world.judge.facts.excused), ("", {}))

    def test_clone_of_a_silent_worker(self) -> None:
        """A copy that was accepted as its original is removed, and the fate of the original's jobs is excused."""
        world = a_world(
            KillWorker(5.0, "w1", 20.0),
            CloneFolder(8.0, "w1", 10.0, new_id=False),
            acts=(job_of(60.0, 2.0, "w1"),),
            workers=("w1",),
        )
        world.loop.run(15.0)
        self.assertEqual([job.state for job in jobs(world)], [JobState.LOST])
        world.loop.run(35.0)
        self.assertIsNone(world.network.machine_of("10.0.1.3"))
        self.assertEqual((list(world.workers), names(world)), (["w1"], ["w1 online"]))
        self.assertEqual(len(world.judge.facts.excused), 1)
        self.assertEqual(broken(world), "")

    def test_reported_elsewhere(self) -> None:
        """A copy with an id of its own that reports a job of the original breaks a rule."""
        world = a_world(CloneFolder(5.0, "w1", 1.0, new_id=True), acts=(job_of(30.0, 2.0, "w1"),), workers=("w1",))
        world.loop.run(10.0)
        (job,) = jobs(world)
        clone = world.workers["w1-1"].folder.worker_id
        world.judge.ends_reported(world.workers["w1"].folder.worker_id, [job.id])
        self.assertEqual(broken(world), "")
        world.judge.ends_reported(clone, [job.id])
        self.assertIn("a copy leaves jobs alone", broken(world))

    def test_nothing_to_copy(self) -> None:
        """A folder without an id makes no copy of a worker."""
        world = a_world(
            RegistrationUnanswered(0.0, "w1", 5.0), CloneFolder(3.0, "w1", 10.0, new_id=True), workers=("w1",)
        )
        world.loop.run(5.0)
        self.assertIsNone(world.network.machine_of("10.0.1.3"))

    def test_the_id_stays_with_the_first(self) -> None:
        """No loss is excused when a copy gets an id of its own."""
        world = a_world(CloneFolder(5.0, "w1", 10.0, new_id=False), workers=("w1",))
        world.loop.run(20.0)
        self.assertEqual(world.judge.facts.forgotten, {})
        self.assertFalse(world.workers["w1"].folder.lost)

    def test_copies_have_no_shims(self) -> None:
        """No job runs in a copied folder, and output written there is not in the original."""
        world = a_world(acts=(job_of(30.0, 1.0, "w1"),), workers=("w1",))
        world.loop.run(5.0)
        folder = world.workers["w1"].folder
        copy = folder.clone()
        (spool,) = copy.spools.values()
        self.assertIsNone(spool.run)
        copy.spools.clear()
        copy.used["job"] = "sealed"
        self.assertEqual((len(folder.spools), folder.used), (1, {}))


class NameTests(SynchronousTestCase):
    def test_same_name(self) -> None:
        """The second worker is refused while the first is online, and registers once it has a name of its own."""
        world = a_world(SameName(5.0, "w1", 10.0), workers=("w1",))
        world.loop.run(14.0)
        self.assertEqual(names(world), ["w1 online"])
        world.loop.run(25.0)
        self.assertEqual(names(world), ["w1 online", "w1-1 online"])


class RegistrationTests(SynchronousTestCase):
    def test_unanswered(self) -> None:
        """The scheduler knows a worker that does not know its id yet, until another registration is answered."""
        world = a_world(RegistrationUnanswered(0.0, "w1", 5.0), workers=("w1",))
        world.loop.run(4.0)
        self.assertEqual(len(registry(world).workers.all()), 1)
        self.assertEqual(world.workers["w1"].folder.worker_id, "")
        self.assertIs(next(iter(world.judge.facts.owners.values())), world.workers["w1"].folder)
        world.loop.run(20.0)
        self.assertNotEqual(world.workers["w1"].folder.worker_id, "")


class DatabaseTests(SynchronousTestCase):
    def test_restored(self) -> None:
        """The scheduler starts with the content of the backup. Facts that only the client knows are excused."""
        waits = job_of(1.0, 7.0, "w1", "t2")
        world = a_world(RestoreDatabase(5.0, 5.0, 1.0), acts=(job_of(1.0, 1.0, "w1"), waits), workers=("w1",))
        first = world.scheduler
        world.loop.run(6.0)
        self.assertEqual(len(jobs(world)), 1)
        world.loop.run(11.1)
        self.assertIsNot(world.scheduler, first)
        self.assertEqual(len(world.judge.facts.set_back), 1)
        world.loop.run(30.0)
        self.assertEqual((len(jobs(world)), broken(world)), (2, ""))

    def test_what_workers_have_is_to_be_kept(self) -> None:
        """A job that a worker has must be known in the end, even if the backup lacks it."""
        world = a_world(RestoreDatabase(5.0, 5.0, 1.0), acts=(job_of(60.0, 7.0, "w1"),), workers=("w1",))
        world.loop.run(20.0)
        (job,) = jobs(world)
        self.assertEqual((list(world.judge.facts.set_back), broken(world)), ([job.id], ""))
        self.assertEqual(world.judge.facts.tickets["t"].acknowledged, job.id)
        registry(world).remove_job(job.id)
        world.judge.ended()
        self.assertEqual(broken(world), "P1 kept")

    def test_what_nobody_has_is_excused(self) -> None:
        """A job that was only queued since the backup is known to the client alone."""
        before = job_of(60.0, 1.0, "w1", "t1"), job_of(60.0, 2.0, "w1", "t2")
        waits = evolve(job_of(1.0, 7.0, "w1"), target=Target(selector={}), terms=QueueTerms(queue_timeout=60.0))
        world = a_world(RestoreDatabase(5.0, 5.0, 1.0), acts=(*before, waits), workers=("w1",))
        world.loop.run(8.0)
        self.assertEqual([job.state for job in jobs(world)].count(JobState.QUEUED), 1)
        world.loop.run(20.0)
        self.assertEqual((broken(world), [job.state for job in jobs(world)]), ("", [JobState.RUNNING] * 2))
        self.assertEqual(world.judge.facts.tickets["t"].acknowledged, "")

    def test_ended_since(self) -> None:
        """A job that ended since the backup may be shown in its earlier state, until its worker reports the end."""
        world = a_world(RestoreDatabase(3.0, 7.0, 1.0), acts=(job_of(3.0, 1.0, "w1"),), workers=("w1",))
        world.loop.run(9.0)
        self.assertEqual([job.state for job in jobs(world)], [JobState.SUCCEEDED])
        world.loop.run(30.0)
        self.assertEqual((broken(world), [job.state for job in jobs(world)]), ("", [JobState.SUCCEEDED]))

    def test_drained_since(self) -> None:
        """A drain that the backup lacks is excused."""
        world = a_world(RestoreDatabase(5.0, 5.0, 1.0), acts=(Drain(7.0, "w1"),), workers=("w1",))
        world.loop.run(9.0)
        self.assertEqual(len(world.judge.facts.drained), 1)
        world.loop.run(20.0)
        self.assertEqual((broken(world), world.judge.facts.drained), ("", {}))

    def test_folder_lost_and_database_set_back(self) -> None:
        """The jobs since the backup are excused if the folder is lost too, in either order."""
        for lost, at_restart, then in ((6.0, 2, 2), (12.0, 0, 1)):
            faults = RestoreDatabase(5.0, 5.0, 1.0), LoseFolder(lost, "w1", 1.0, move=False)
            world = a_world(*faults, acts=(job_of(0.5, 5.1, "w1"), job_of(60.0, 1.0, "w1", "t2")), workers=("w1",))
            world.loop.run(11.5)
            self.assertEqual(len(world.judge.facts.excused), at_restart)
            world.loop.run(15.0)
            self.assertEqual(len(world.judge.facts.excused), then)

    def test_failover(self) -> None:
        """The scheduler runs on with an older database, and saves the missing records again."""
        world = a_world(Failover(5.0, 7.5), KillScheduler(22.0, 1.0), acts=(job_of(4.0, 7.0, "w1"),), workers=("w1",))
        world.loop.run(12.6)
        self.assertEqual([job.state for job in jobs(world)], [JobState.SUCCEEDED])
        self.assertNotIn(JobState.SUCCEEDED, [job.state for job in world.database.read().jobs])
        world.loop.run(18.0)
        self.assertEqual([job.state for job in world.database.read().jobs], [JobState.SUCCEEDED])
        world.loop.run(24.0)
        self.assertEqual(broken(world), "")

    def test_failover_long_ago(self) -> None:
        """Nothing is excused if the scheduler ran on for long enough: it had time to save all again."""
        world = a_world(Failover(5.0, 5.0), KillScheduler(40.0, 1.0), acts=(job_of(1.0, 7.0, "w1"),), workers=("w1",))
        world.loop.run(45.0)
        self.assertEqual(world.judge.facts.set_back, {})


class ClockTests(SynchronousTestCase):
    def test_healed_before_its_time(self) -> None:
        """A clock that is set right since all faults are over is not set a second time."""
        world = a_world(ClockStep(5.0, "w1", 60.0, 10.0))
        world.loop.run(6.0)
        world.heal()
        self.assertEqual(world.workers["w1"].machine.clock_error, 0.0)
        world.loop.run(20.0)
        self.assertEqual(world.workers["w1"].machine.clock_error, 0.0)

    def test_step(self) -> None:
        """A wall clock is wrong for its time, and then right again. Two such faults do not undo each other."""
        world = a_world(
            ClockStep(5.0, "w1", 60.0, 10.0), ClockStep(10.0, "w1", -5.0, 10.0), ClockStep(5.0, "", 2.0, 1.0)
        )
        machine = world.workers["w1"].machine
        errors = []
        for time in (6.0, 11.0, 16.0, 21.0):
            world.loop.run(time)
            errors.append(machine.clock_error)
        self.assertEqual(errors, [60.0, 55.0, -5.0, 0.0])
        self.assertEqual(world.scheduler_machine.clock_error, 0.0)
