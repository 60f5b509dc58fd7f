"""One run: machines, programs, clients and faults, all of it decided by a seed.

``World(seed, profile)`` plans the faults and what clients do; ``run`` makes it happen. A plan can be given
instead, with some of it left out: so a failing run is made smaller. Each source of randomness is named and is
seeded by its name, so what is left out disturbs the rest as little as possible.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scheduler.model import JobState, Target
from tests.simulation.acts import Drain, Forget
from tests.simulation.core_worker import CoreWorkerNode
from tests.simulation.flows import Flow, Serve, Take
from tests.simulation.judge import Judge, Violation
from tests.simulation.logs import watched
from tests.simulation.loop import Loop
from tests.simulation.machine import Folder, Machine, Run
from tests.simulation.network import Call, Caller, Network
from tests.simulation.nodes import LEASE, SchedulerProcess, Surroundings, WorkerProcess
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.rules.leftovers import REST
from tests.simulation.store import Database
from tests.simulation.trace import Trace

#: The scheduler's machine, its IP address, and where its gRPC server listens.
SCHEDULER = "s"
SCHEDULER_ADDRESS = "10.0.0.1"
SCHEDULER_PORT = 50000
HTTP_PORT = 3000
WORKER_PORT = 30000

#: The machine of all clients, and its IP address.
CLIENT = "c"
CLIENT_ADDRESS = "10.0.0.2"

#: Seconds in which all sides agree once the faults are over: two heartbeats and the longest backoff, and a moment.
AGREEMENT = 2 * LEASE / 3 + 5.0 + 2.0

#: Seconds after that in which the last job has ended, and before their end in which no client does anything new.
END = 120.0
LAST_MOMENT = 5.0


class WorkerNode:
    """A worker that is installed on a machine: a name, a state folder, and the process that runs now."""

    def __init__(
        self, world: World, name: str, machine: Machine, port: int, slots: int, labels: dict[str, str]
    ) -> None:
        self.name = name
        self.machine = machine
        self.folder = Folder()
        self.port = port
        self.slots = slots
        self.labels = labels
        self.running: WorkerProcess | None = None
        self._world = world
        self._starts = 0

    def start(self) -> None:
        """Start its process, unless it runs."""
        if self.running is not None and self.running.process.alive:
            return
        self._starts += 1
        self.running = WorkerProcess(
            self._world.around,
            f"{self.name}.{self._starts}",
            self.name,
            self.machine,
            self.folder,
            self.port,
            self.slots,
            self.labels,
            f"{SCHEDULER_ADDRESS}:{SCHEDULER_PORT}",
        )
        self.running.start()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        if self.running is not None:
            self.running.process.end()

    def stop(self) -> Deferred[None] | None:
        """As SIGTERM does."""
        return None if self.running is None else self.running.stop()


@frozen
class Outcome:
    """What became of a run."""

    seed: int
    violation: Violation | None
    trace: Trace
    jobs: int
    events: int


class World:
    """Everything there is in one run."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.loop = Loop()
        self.trace = Trace(self.loop)
        self.network = Network(self.loop, self.random("network"), self.trace)
        self.network.calm.slow = plan.slow
        self.database = Database()
        self.judge = Judge(self)
        self.around = Surroundings(self.loop, self.network, self.trace, self.random, self._crashed)
        self._ids = self.random("ids")
        self._machines = 0
        self.scheduler_machine = self.machine(SCHEDULER, SCHEDULER_ADDRESS)
        self.network.attach(CLIENT_ADDRESS, CLIENT)
        self.client = Caller(Process(self.loop, "client", self._crashed), CLIENT, CLIENT_ADDRESS)
        self.scheduler: SchedulerProcess | None = None
        self._scheduler_starts = 0
        self.workers: dict[str, WorkerNode] = {}
        self.core_workers: dict[str, CoreWorkerNode] = {}
        for number, worker in enumerate(plan.workers, 1):
            machine = self.machine(f"m{number}")
            self.workers[worker.name] = WorkerNode(
                self, worker.name, machine, WORKER_PORT, worker.slots, dict(worker.labels)
            )

        for number, planned in enumerate(plan.core_workers, 1):
            machine = self.machine(f"core{number}")
            self.core_workers[planned.name] = CoreWorkerNode(
                self.around, planned, machine, WORKER_PORT, f"{SCHEDULER_ADDRESS}:{SCHEDULER_PORT}"
            )

    @property
    def nodes(self) -> dict[str, WorkerNode | CoreWorkerNode]:
        """All workers, ours and core workers, by the names that they have in the plan."""
        return {**self.workers, **self.core_workers}

    def target(self, target: Target) -> Target:
        """As a client writes it, who knows a core worker by the id that it has now."""
        node = self.core_workers.get(target.worker or "")
        return target if node is None else Target(node.worker_id or "none")

    def random(self, name: str) -> Random:
        """A source of randomness of that name."""
        return Random(f"{self.seed} {name}")

    def new_id(self) -> str:
        """Of a job or a worker."""
        return f"{self._ids.getrandbits(48):012x}"

    def machine(self, name: str, address: str = "") -> Machine:
        """A new one, attached to the network."""
        self._machines += 1
        made = Machine(self.loop, self.trace, name, address or f"10.0.1.{self._machines}", self._began)
        self.network.attach(made.address, name)
        return made

    def _began(self, run: Run) -> None:
        self.judge.began(run)

    def _crashed(self, process: str, reason: Failure) -> None:
        self.judge.crashed(process, reason)

    # what faults and clients do

    def start_scheduler(self) -> None:
        """Start it, unless it runs."""
        if self.scheduler is not None and self.scheduler.process.alive:
            return
        self._scheduler_starts += 1
        name = f"scheduler.{self._scheduler_starts}"
        ports = (SCHEDULER_PORT, HTTP_PORT)
        scheduler = self.scheduler = SchedulerProcess(
            self.around, name, self.scheduler_machine, self.database, self.new_id, ports, self.judge.loaded
        )
        self.judge.watch(scheduler)
        scheduler.start()

    def ask(self, name: str, request: Callable[[Any], Any], wire: str = "", seconds: float = 60.0) -> Call:
        """A client's request to the scheduler, which is given up after so many seconds."""
        return self.network.call(self.client, f"{SCHEDULER_ADDRESS}:{HTTP_PORT}", name, request, seconds, wire)

    def stream(self, name: str, serve: Serve, take: Take, wire: str = "") -> Flow:
        """A client's request whose answer is a stream."""
        return Flow(self.network, self.client, f"{SCHEDULER_ADDRESS}:{HTTP_PORT}", name, serve, take, wire=wire)

    @property
    def clients_end(self) -> float:
        """When the last client gives up, by the loop's clock."""
        return self.plan.length + AGREEMENT + END - LAST_MOMENT

    @property
    def submissions_end(self) -> float:
        """When the last client gives up to submit a job."""
        return self.plan.length + AGREEMENT

    def names(self) -> tuple[str, ...]:
        """All names that workers have."""
        return (*self.workers, *self.judge.facts.core)

    def heal(self) -> None:
        """End all faults, and have everything run."""
        self.trace.add("world", "all faults are over")
        self.network.cut.clear()
        self.network.storms.clear()
        self.database.troubles.clear()
        self.database.stalls_until = 0.0
        for worker in self.nodes.values():
            worker.machine.shortage = ""
            if worker.running is not None:
                worker.running.process.thaw()
            worker.start()
        if self.scheduler is not None:
            self.scheduler.process.thaw()
        self.start_scheduler()
        for worker in self.workers:
            self.loop.after(3.0, Drain(0.0, worker, resume=True).begin, self)
        self.loop.after(6.0, self._forget_departed)

    def _forget_departed(self) -> None:
        """A core worker that deregistered never comes back under its id: clients have its jobs given up."""
        facts = self.judge.facts
        unknown = [job.worker_id or "" for job in facts.shown.values() if job.state is JobState.UNKNOWN]
        for worker_id in dict.fromkeys(unknown):
            if worker_id in facts.core and not self._is_known(worker_id):
                Forget(0.0, worker_id).begin(self)

    def _is_known(self, worker_id: str) -> bool:
        scheduler = self.scheduler
        return scheduler is not None and scheduler.parts.ledger.registry.find_worker(worker_id) is not None

    # the run

    def run(self) -> Outcome:
        """Until it is over, or a rule is broken."""
        with watched(self.judge.logged):
            self._run()
        return Outcome(self.seed, self.judge.violation, self.trace, self.judge.jobs, self.loop.events)

    def _run(self) -> None:
        self.start_scheduler()
        for worker in self.nodes.values():
            worker.start()
        for fault in self.plan.faults:
            self.loop.at(fault.at, self._strike, fault)
        for act in self.plan.acts:
            self.loop.at(act.at, act.begin, self)
        for until, check in (
            (self.plan.length, self.heal),
            (self.plan.length + AGREEMENT, self.judge.agreed),
            (self.plan.length + AGREEMENT + END, self.judge.ended),
        ):
            self.loop.run(until, lambda: self.judge.violation is not None)
            if self.judge.violation is not None:
                break
            check()
        else:
            self.loop.run(self.loop.now + REST, lambda: self.judge.violation is not None or self.judge.at_rest())
            self.judge.rested()

    def _strike(self, fault: Any) -> None:
        self.trace.add("fault", str(fault))
        fault.strike(self)
