"""Programs that are no workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from attrs import frozen
from twisted.internet.defer import Deferred, fail

from scheduler.errors import NotAWorker, Unsupported
from scheduler.messages import Registration
from scheduler.model import JobSpec, Stream
from tests.simulation.acts import Forget
from tests.simulation.network import Caller, Endpoint
from tests.simulation.process import Process
from tests.simulation.scheduler_calls import SimulatedSchedulerClient
from tests.simulation.world import SCHEDULER_ADDRESS, SCHEDULER_PORT, World

#: The port of such a program, and the seconds between tries to have it forgotten. At first it may be online.
PORT = 40000
FORGET_AGAIN = 5.0


class Stranger:
    """A gRPC server of another program: its health service answers, and it has no method of a worker."""

    def __init__(self, address: str) -> None:
        self._address = address

    def _lacks(self, method: str) -> NotAWorker:
        return NotAWorker(self._address, method)

    def core_start(self, spec: JobSpec, known_as: str) -> Deferred[str]:
        """The program has no such method."""
        return fail(self._lacks("StartJob"))

    def core_query(self, job_id: str) -> NoReturn:
        """The program has no such method."""
        raise self._lacks("QueryJob")

    def core_stop(self, job_id: str) -> NoReturn:
        """The program has no such method."""
        raise Unsupported(self._address, "StopJob")

    def read_output_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> NoReturn:
        """The program has no such method."""
        raise Unsupported(self._address, "ReadOutput")

    def watch_output(self, job_id: str, stream: Stream, notify: Callable[[], None]) -> Deferred[Callable[[], None]]:
        """The program has no such method."""
        return fail(Unsupported(self._address, "StreamJob"))


@frozen
class RegisterStranger:
    """The address of a program that is no worker is registered, and forgotten in the end."""

    at: float
    seconds: float

    def __str__(self) -> str:
        return f"a program that is no worker is registered, for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        machine = world.new_machine()
        address = f"{machine.address}:{PORT}"
        process = Process(world.loop, f"stranger on {machine.name}", world.around.crashed)
        world.network.listen(PORT, Endpoint(process, machine.name, Stranger(address)))
        caller = Caller(process, machine.name, machine.address)
        client = SimulatedSchedulerClient(world.network, lambda: caller, f"{SCHEDULER_ADDRESS}:{SCHEDULER_PORT}")
        client.register(Registration(address)).addErrback(lambda _: None)

        def end() -> None:
            process.end()
            forget_at(world, address)

        world.heal_after(self.seconds, end)


def forget_at(world: World, address: str) -> None:
    """A client has all workers at that address forgotten."""
    scheduler = world.scheduler
    if scheduler is None or not scheduler.serving:
        world.loop.after(FORGET_AGAIN, forget_at, world, address)
        return
    there = scheduler.parts.ledger.registry.workers.at_address(address)
    for worker in there:
        Forget(0.0, worker.id).begin(world)
    if there:
        world.loop.after(FORGET_AGAIN, forget_at, world, address)
