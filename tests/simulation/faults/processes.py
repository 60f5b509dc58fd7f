"""Programs and machines that end, stop and pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class KillScheduler:
    """The scheduler is killed, and started again ``down`` seconds later."""

    at: float
    down: float

    def __str__(self) -> str:
        return f"the scheduler is killed, for {self.down:.1f} s"

    def strike(self, world: World) -> None:
        if world.scheduler is not None:
            world.scheduler.process.end()
        world.loop.after(self.down, world.start_scheduler)


@frozen
class StopScheduler:
    """The scheduler is stopped gracefully, and started again ``down`` seconds after its end."""

    at: float
    down: float

    def __str__(self) -> str:
        return f"the scheduler is stopped, for {self.down:.1f} s"

    def strike(self, world: World) -> None:
        scheduler = world.scheduler
        if scheduler is not None and scheduler.process.alive and not scheduler.process.frozen:
            scheduler.stop().addCallback(lambda _: world.heal_after(self.down, world.start_scheduler))


@frozen
class KillWorker:
    """A worker process is killed, and started again ``down`` seconds later; its jobs run on."""

    at: float
    worker: str
    down: float

    def __str__(self) -> str:
        return f"worker {self.worker} is killed, for {self.down:.1f} s"

    def strike(self, world: World) -> None:
        node = world.nodes[self.worker]
        node.kill()
        world.loop.after(self.down, node.start)


@frozen
class StopWorker:
    """A worker process is stopped gracefully, and started again ``down`` seconds after its end."""

    at: float
    worker: str
    down: float

    def __str__(self) -> str:
        return f"worker {self.worker} is stopped, for {self.down:.1f} s"

    def strike(self, world: World) -> None:
        node = world.nodes[self.worker]
        if node.running is None or not node.running.process.alive or node.running.process.frozen:
            return
        stopped = node.running.stop()
        stopped.addCallback(lambda _: world.heal_after(self.down, node.start))


@frozen
class Reboot:
    """A worker's machine reboots, which ends everything that runs on it."""

    at: float
    worker: str
    down: float

    def __str__(self) -> str:
        return f"the machine of worker {self.worker} reboots, for {self.down:.1f} s"

    def strike(self, world: World) -> None:
        machine = world.nodes[self.worker].machine
        world.switch_off(machine)
        world.heal_after(self.down, lambda: world.switch_on(machine))


@frozen
class Freeze:
    """A process pauses for a while, as after SIGSTOP; ``worker`` ``""`` is the scheduler."""

    at: float
    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.worker or 'the scheduler'} is frozen for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        running = world.nodes[self.worker].running if self.worker else world.scheduler
        if running is not None:
            running.process.freeze()
            world.loop.after(self.seconds, running.process.thaw)


@frozen
class Shortage:
    """A worker's machine can't start a process for a while."""

    at: float
    worker: str
    seconds: float

    def __str__(self) -> str:
        return f"the machine of worker {self.worker} can start nothing for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        machine = world.nodes[self.worker].machine
        machine.shortage = "no more processes"

        def heal() -> None:
            machine.shortage = ""

        world.loop.after(self.seconds, heal)
