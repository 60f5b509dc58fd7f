"""State folders, names and databases that are lost, copied or outdated, and wrong clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from tests.simulation.machine import Folder
from tests.simulation.store import Backup

#: Seconds within which a scheduler can learn from its workers that its database was set back.
NOTICE = 15.0

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class LoseFolder:
    """A worker's machine is set up anew, without its jobs and state folder. ``move``: with another address."""

    at: float
    worker: str
    down: float
    move: bool

    def __str__(self) -> str:
        also = " at another address" if self.move else ""
        return f"the machine of worker {self.worker} is set up anew{also}, for {self.down:.1f} s: its folder is lost"

    def strike(self, world: World) -> None:
        node = world.workers[self.worker]
        world.switch_off(node.machine)
        world.judge.folder_lost(node.folder)
        node.folder = Folder()
        if self.move:
            node.machine.address = world.new_address()
        world.heal_after(self.down, lambda: world.switch_on(node.machine))


@frozen
class CloneFolder:
    """Another worker is started from a copy of a worker's state folder, on a machine of its own.

    ``new_id``: with ``--new-id`` and a name of its own. Otherwise the copy is unchanged; if it is refused, it is
    started again with these options after ``seconds``. If it was accepted in place of the first worker, which did not
    answer, it is removed then.
    """

    at: float
    worker: str
    seconds: float
    new_id: bool

    def __str__(self) -> str:
        how = "with --new-id" if self.new_id else f"as it is, for {self.seconds:.1f} s"
        return f"another worker is started from a copy of the folder of {self.worker}, {how}"

    def strike(self, world: World) -> None:
        if not world.workers[self.worker].folder.worker_id:
            return  # the folder is empty
        clone = world.workers[self.worker].clone()

        def begin_as_another() -> None:
            clone.kill()
            clone.folder.renew()
            clone.name = f"{self.worker}-{len(world.workers)}"
            world.workers[clone.name] = clone
            clone.start()

        def end() -> None:
            if not clone.folder.taken:
                begin_as_another()
                return
            clone.kill()
            world.network.detach(clone.machine.address, clone.machine.name)
            clone.machine.destroy("the copy is removed")

        if self.new_id:
            begin_as_another()
            return
        clone.start()
        world.heal_after(self.seconds, end)


@frozen
class SameName:
    """Another worker registers under the name of an existing one. After a while an operator renames it."""

    at: float
    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"another worker comes by the name {self.worker}, and gets another after {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        other = world.workers[self.worker].namesake()
        own = f"{self.worker}-{len(world.workers)}"
        world.workers[own] = other
        other.start()

        def rename() -> None:
            other.kill()
            other.name = own
            other.start()

        world.heal_after(self.seconds, rename)


@frozen
class RegistrationUnanswered:
    """The answers to a worker's registrations are lost, for a while."""

    at: float
    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"for {self.seconds:.1f} s, answers to registrations of worker {self.worker} are lost"

    def strike(self, world: World) -> None:
        world.network.unanswered[self] = (world.workers[self.worker].machine.name, "register")
        world.heal_after(self.seconds, lambda: world.network.unanswered.pop(self, None))


@frozen
class RestoreDatabase:
    """The database is backed up. ``seconds`` later the scheduler is killed, and started with the backup."""

    at: float
    seconds: float
    down: float

    def __str__(self) -> str:
        return f"the scheduler is killed, for {self.down:.1f} s, and started with the database of {self.at:.1f} s"

    def strike(self, world: World) -> None:
        backup = world.database.backup()
        world.trace.add("database", "a backup is taken")

        def restore() -> None:
            if world.scheduler is not None:
                world.scheduler.process.end()
            world.database.restore(backup)
            world.database.restorations += 1
            world.judge.set_back(backup.records)
            world.trace.add("database", f"the backup of {self.at:.1f} s is restored")
            world.heal_after(self.down, world.start_scheduler)

        world.heal_after(self.seconds, restore)


@frozen
class Failover:
    """A standby that lags by ``behind`` seconds replaces the database, while the scheduler runs."""

    at: float
    behind: float

    def __str__(self) -> str:
        return f"{self.behind:.1f} s later the database gives way to a standby that is as it is now"

    def strike(self, world: World) -> None:
        standby, restorations = world.database.backup(), world.database.restorations

        def over() -> None:
            if world.database.restorations == restorations:  # otherwise the standby belongs to an earlier database
                self._give_way(world, standby)

        world.heal_after(self.behind, over)

    def _give_way(self, world: World, standby: Backup) -> None:
        world.database.restore(standby)
        world.trace.add("database", f"a standby takes over, which is as it was at {self.at:.1f} s")
        scheduler, until = world.scheduler, world.loop.now + NOTICE
        if scheduler is None or not scheduler.process.alive:
            world.judge.set_back(standby.records)
            return

        def ended() -> None:
            if world.loop.now < until:
                world.judge.set_back(world.database.read())

        scheduler.process.on_end.append(ended)


@frozen
class ClockStep:
    """The wall clock of a machine is wrong for a while; ``worker`` ``""`` is the scheduler's machine."""

    at: float
    worker: str
    by: float
    seconds: float

    def __str__(self) -> str:
        whose = f"of worker {self.worker}" if self.worker else "of the scheduler"
        return f"the clock {whose} is {self.by:+.0f} s wrong, for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        machine = world.workers[self.worker].machine if self.worker else world.scheduler_machine
        machine.clock_error += self.by

        def right() -> None:
            machine.clock_error -= self.by

        world.heal_after(self.seconds, right)
