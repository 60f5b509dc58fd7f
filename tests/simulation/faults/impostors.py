"""Programs that use the ids of workers, which are public."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from scheduler.messages import Heartbeat, JobReport, JobStatus, Registration
from scheduler.model import JobState
from tests.simulation.faults.strangers import PORT, Stranger, forget_at
from tests.simulation.machine import Folder
from tests.simulation.network import Caller, Endpoint
from tests.simulation.process import Process
from tests.simulation.scheduler_calls import SimulatedSchedulerClient
from tests.simulation.world import SCHEDULER_ADDRESS, SCHEDULER_PORT, World

#: A program that knows only the id of a worker is not taken for that worker.
RULE = "an id is its worker's"


def _public_id(world: World, name: str) -> str:
    """The id of the worker of that name in the plan, as clients can see it; ``""``: it has none yet."""
    core = world.core_workers.get(name)
    return world.workers[name].folder.worker_id if core is None else core.worker_id


def _client(world: World, caller: Caller, registered: Callable[[str], None]) -> SimulatedSchedulerClient:
    """``registered`` is called with the id given to the registration, even if the answer is lost."""
    return SimulatedSchedulerClient(world.network, lambda: caller, f"{SCHEDULER_ADDRESS}:{SCHEDULER_PORT}", registered)


@frozen
class TakeId:
    """A program that is no worker registers once under the id of a worker or core worker.

    ``folder``: with a folder id of its own. ``core``: as a core worker, without a folder id.
    """

    at: float
    worker: str
    seconds: float
    folder: bool
    core: bool

    def __str__(self) -> str:
        how = "as a core worker" if self.core else f"with {'another' if self.folder else 'no'} folder id"
        return f"a stranger registers under the id of {self.worker}, {how}, for {self.seconds:.1f} s"

    def strike(self, world: World) -> None:
        worker_id = _public_id(world, self.worker)
        if not worker_id:
            return
        machine = world.new_machine()
        process = Process(world.loop, f"stranger on {machine.name}", world.around.crashed)
        address = f"{machine.address}:{PORT}"
        world.network.listen(PORT, Endpoint(process, machine.name, Stranger(address)))
        registration = Registration(address, worker_id)
        if not self.core:
            secret = f"secret-of-{machine.name}" if self.folder else ""
            nonce = f"nonce-{machine.name}"
            registration = evolve(registration, slots=1, boot_id=machine.boot_id, folder_id=secret, nonce=nonce)

        def registered(got: str) -> None:
            if got == worker_id:
                world.judge.broken(RULE, f"a stranger at {address} is {self.worker} ({worker_id})")
            else:
                world.judge.registered(got, Folder(lost=True))

        client = _client(world, Caller(process, machine.name, machine.address), registered)
        client.register(registration).addErrback(lambda _: None)

        def end() -> None:
            process.end()
            forget_at(world, address)

        world.heal_after(self.seconds, end)


@frozen
class ForgedHeartbeat:
    """A program sends a heartbeat under the id of a worker or core worker, which reports all its jobs as ended."""

    at: float
    worker: str

    def __str__(self) -> str:
        return f"a stranger sends a heartbeat in the name of {self.worker}, by which its jobs have ended"

    def strike(self, world: World) -> None:
        worker_id, scheduler = _public_id(world, self.worker), world.scheduler
        if not worker_id or scheduler is None or not scheduler.serving:
            return
        machine = world.new_machine()
        process = Process(world.loop, f"stranger on {machine.name}", world.around.crashed)
        jobs = scheduler.parts.ledger.registry.jobs.unfinished(worker_id)
        ended = [
            JobReport(JobStatus(job.id_on_worker, JobState.FAILED, "exit status 77", exit_code=77)) for job in jobs
        ]
        heartbeat = Heartbeat(worker_id, machine.boot_id, ended=tuple(ended))
        client = _client(world, Caller(process, machine.name, machine.address), lambda _: None)
        taken = f"a heartbeat of a stranger is taken for one of {self.worker} ({worker_id})"
        client.heartbeat(heartbeat).addCallbacks(lambda _: world.judge.broken(RULE, taken), lambda _: None)
