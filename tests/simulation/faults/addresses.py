"""Workers whose address changes.

A new address does not heal: the worker keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.world import World


def _is_taken(world: World, machine: Machine) -> bool:
    """Whether the address of a machine that is off has gone to another machine, which keeps it."""
    return world.network.machine_of(machine.address) not in {None, machine.name}


@frozen
class NewAddress:
    """A worker's machine gets another IP address, while everything on it runs on."""

    at: float
    worker: str

    def __str__(self) -> str:
        return f"the machine of worker {self.worker} gets another address"

    def strike(self, world: World) -> None:
        world.move(world.workers[self.worker].machine, world.new_address())


@frozen
class SwapAddresses:
    """The machines of two workers swap their IP addresses, while everything on them runs on."""

    at: float
    worker: str
    other: str

    def __str__(self) -> str:
        return f"the machines of workers {self.worker} and {self.other} swap their addresses"

    def strike(self, world: World) -> None:
        one, two = world.workers[self.worker].machine, world.workers[self.other].machine
        ones, twos = one.address, two.address
        if _is_taken(world, one) or _is_taken(world, two):
            return
        world.move(one, twos)
        world.move(two, ones)


@frozen
class TakeAddress:
    """A worker's machine is off for ``down`` seconds, and the machine of another worker takes over its IP address.

    ``restart``: the worker on the other machine is killed and started again, since its address has changed.
    """

    at: float
    dead: str
    worker: str
    down: float
    restart: bool

    def __str__(self) -> str:
        also = ", and is started anew" if self.restart else ""
        return f"the machine of worker {self.dead} dies for {self.down:.1f} s; {self.worker} gets its address{also}"

    def strike(self, world: World) -> None:
        dead, taker = world.workers[self.dead], world.workers[self.worker]
        if dead.machine is taker.machine or _is_taken(world, dead.machine):
            return
        free = dead.machine.address
        world.switch_off(dead.machine)
        world.move(taker.machine, free)
        if self.restart:
            taker.kill()
            taker.start()
        world.heal_after(self.down, lambda: world.switch_on(dead.machine))


@frozen
class RestartElsewhere:
    """A worker is killed, and started again ``down`` seconds later at another port or IP address; its jobs run on."""

    at: float
    worker: str
    down: float
    port: bool

    def __str__(self) -> str:
        what = "port" if self.port else "address"
        return f"worker {self.worker} is killed, for {self.down:.1f} s, and comes back at another {what}"

    def strike(self, world: World) -> None:
        node = world.workers[self.worker]
        node.kill()
        if self.port:
            node.port += 1
        else:
            world.move(node.machine, world.new_address())
        world.heal_after(self.down, node.start)
