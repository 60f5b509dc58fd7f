"""Workers that are found elsewhere than before.

A new address does not heal: it is how things are from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tests.simulation.world import World


@frozen
class NewAddress:
    """A worker's machine gets another IP address, while all on it runs on."""

    at: float
    worker: str

    def __str__(self) -> str:
        return f"the machine of worker {self.worker} gets another address"

    def strike(self, world: World) -> None:
        world.move(world.workers[self.worker].machine, world.new_address())


@frozen
class SwapAddresses:
    """The machines of two workers get each the IP address that the other had, while all on them runs on."""

    at: float
    worker: str
    other: str

    def __str__(self) -> str:
        return f"the machines of workers {self.worker} and {self.other} swap their addresses"

    def strike(self, world: World) -> None:
        one, two = world.workers[self.worker].machine, world.workers[self.other].machine
        ones, twos = one.address, two.address
        if any(world.network.machine_of(each.address) not in {None, each.name} for each in (one, two)):
            return  # a machine that is off has lost its address to another one meanwhile, which keeps it
        world.move(one, twos)
        world.move(two, ones)


@frozen
class TakeAddress:
    """A worker's machine is switched off for ``down`` seconds, and another one's gets the IP address that it had.

    ``restart``: the worker of the other machine is killed and started again by that, as it has a new address.
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
        if dead.machine is taker.machine:
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
    """A worker is killed, and ``down`` seconds later started again at another port, or IP address; its jobs run on."""

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
