"""A run: machines, programs, clients and faults, all decided by a seed.

``World(seed, profile)`` plans the faults and acts; ``run`` carries them out. A plan can be given instead, with some of
it left out: this is how a failing run is shrunk. Each source of randomness is named and seeded by its name, so a part
that is left out affects the rest as little as possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from attrs import frozen
from twisted.python.failure import Failure

from scheduler.cluster.workers.register_again import REGISTER_AGAIN_SECONDS
from scheduler.terms import Target
from tests.simulation.aftermath import Aftermath
from tests.simulation.core_worker import CoreWorkerNode
from tests.simulation.faults.addresses import NewAddress, SwapAddresses, TakeAddress
from tests.simulation.faults.identity import Failover, RestoreDatabase, SameName
from tests.simulation.flows import Flow, Serve, Take
from tests.simulation.judge import Judge, Violation
from tests.simulation.logs import watched
from tests.simulation.loop import Loop
from tests.simulation.machine import Folder, Machine, Run
from tests.simulation.network import Call, Caller, Network
from tests.simulation.nodes import LEASE, InstalledWorker, SchedulerProcess, Surroundings, WorkerProcess
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.rules.leftovers import REST
from tests.simulation.store import Database
from tests.simulation.trace import Trace

#: The scheduler's machine, its IP address, and the address of its gRPC server.
SCHEDULER = "s"
SCHEDULER_ADDRESS = "10.0.0.1"
SCHEDULER_PORT = 50000
HTTP_PORT = 3000
WORKER_PORT = 30000

#: The machine of all clients, and its IP address.
CLIENT = "c"
CLIENT_ADDRESS = "10.0.0.2"

#: Seconds within which all sides usually agree: two heartbeats, the longest backoff, and a moment.
AGREEMENT = 2 * LEASE / 3 + 5.0 + 2.0

#: Faults after which workers have another address or name, without a registration of their own.
MOVES = (NewAddress, SwapAddresses, TakeAddress, SameName)

#: Seconds after that in which the last job has ended, and before their end in which no client does anything new.
END = 120.0
#: Seconds for which jobs, or attempts, may continue when all else is over.
LONGEST = 3000.0
LAST_MOMENT = 5.0

#: The most events of a run: many times the usual number.
EVENTS_MAX = 200_000


class WorkerNode(InstalledWorker[WorkerProcess]):
    """A worker of ours, with a state folder."""

    def __init__(
        self, world: World, name: str, machine: Machine, port: int, slots: int, labels: dict[str, str]
    ) -> None:
        super().__init__(name, machine, port)
        self.folder = Folder()
        self.slots = slots
        self.labels = labels
        self._world = world

    def make(self, name: str) -> WorkerProcess:
        scheduler = f"{SCHEDULER_ADDRESS}:{SCHEDULER_PORT}"
        return WorkerProcess(
            self._world.around,
            name,
            self.name,
            self.machine,
            self.folder,
            self.port,
            self.slots,
            self.labels,
            scheduler,
        )

    def namesake(self) -> WorkerNode:
        """Another worker with that name, on a machine of its own."""
        machine = self._world.new_machine()
        return WorkerNode(self._world, self.name, machine, WORKER_PORT, self.slots, self.labels)

    def clone(self) -> WorkerNode:
        """A worker with the same name and a copy of the folder."""
        clone = self.namesake()
        clone.folder = self.folder.clone()
        return clone


@frozen
class Outcome:
    """The result of a run."""

    seed: int
    violation: Violation | None
    trace: Trace
    jobs: int
    events: int
    #: The numbers of faults, by the names of their classes.
    faults: Mapping[str, int]


class World:
    """Everything in one run."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.loop = Loop()
        self.trace = Trace(self.loop)
        self.network = Network(self.loop, self.random("network"), self.trace)
        self.network.calm.slow = plan.slow
        self.database = Database()
        self.judge = Judge(self)
        self.around = Surroundings(
            self.loop,
            self.network,
            self.trace,
            self.random,
            self._crashed,
            self.judge.registered,
            self.judge.ends_reported,
            self.judge.ends_acknowledged,
            self.judge.deregistered,
            self.judge.arrived,
            self.judge.call_answered,
            self.judge.start_failed,
            self.judge.stopping,
        )
        self._ids = self.random("ids")
        self._struck: Counter[str] = Counter()
        self._machines = 0
        self._addresses = 0
        #: The functions that heal each present fault, by a token of each.
        self._healing: dict[object, Callable[[], None]] = {}
        self.scheduler_machine = self.machine(SCHEDULER, SCHEDULER_ADDRESS)
        self.network.attach(CLIENT_ADDRESS, CLIENT)
        self.client = Caller(Process(self.loop, "client", self._crashed), CLIENT, CLIENT_ADDRESS)
        self.scheduler: SchedulerProcess | None = None
        self._scheduler_starts = 0
        self.workers: dict[str, WorkerNode] = {}
        self.core_workers: dict[str, CoreWorkerNode] = {}
        for worker in plan.workers:
            machine = self.new_machine()
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
        """All workers, ours and core workers, by their names in the plan."""
        return {**self.workers, **self.core_workers}

    def target(self, target: Target) -> Target:
        """The target as a client writes it, who knows a core worker by its present id."""
        node = self.core_workers.get(target.worker or "")
        return target if node is None else Target(node.worker_id or "none")

    def random(self, name: str) -> Random:
        """A source of randomness with that name."""
        return Random(f"{self.seed} {name}")

    def new_id(self) -> str:
        """A new id of a job or a worker."""
        return f"{self._ids.getrandbits(48):012x}"

    def machine(self, name: str, address: str = "") -> Machine:
        """A new machine, attached to the network."""
        self._machines += 1
        made = Machine(self.loop, self.trace, name, address or f"10.0.1.{self._machines}", self._began)
        self.network.attach(made.address, name)
        return made

    def new_machine(self) -> Machine:
        """A new machine for a worker."""
        return self.machine(f"m{self._machines}")

    def new_address(self) -> str:
        """An IP address that no machine ever had."""
        self._addresses += 1
        return f"10.0.2.{self._addresses}"

    def _began(self, run: Run) -> None:
        self.judge.began(run)

    def _crashed(self, process: str, reason: Failure) -> None:
        self.judge.crashed(process, reason)

    # what faults and clients do

    def heal_after(self, seconds: float, heal: Callable[[], None]) -> None:
        """Call ``heal`` after that time, or when all faults are over, if that is sooner; at once if they are over."""
        if self.loop.now >= self.plan.length:
            heal()
            return
        token = object()

        def once() -> None:
            if self._healing.pop(token, None) is not None:
                heal()

        self._healing[token] = once
        self.loop.after(seconds, once)

    def move(self, machine: Machine, address: str) -> None:
        """Give the machine that IP address instead of its own."""
        self.trace.add("network", f"{machine.name} has {address}, and had {machine.address}")
        self.network.detach(machine.address, machine.name)
        machine.address = address
        if machine.on:
            self.network.attach(address, machine.name)

    def switch_off(self, machine: Machine) -> None:
        """End all processes of the machine, without a notice to others."""
        self.network.detach(machine.address, machine.name)
        machine.on = False
        for node in self.nodes.values():
            if node.machine is machine:
                node.kill()
        machine.reboot()

    def switch_on(self, machine: Machine) -> None:
        """Switch the machine on, with another address if it lost its own, and start its workers."""
        if machine.on:
            return
        machine.on = True
        if self.network.machine_of(machine.address) is not None:
            machine.address = self.new_address()
        self.network.attach(machine.address, machine.name)
        for node in self.nodes.values():
            if node.machine is machine:
                node.start()

    def start_scheduler(self) -> None:
        """Start the scheduler, unless it runs."""
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
    def agreement(self) -> float:
        """Seconds within which all sides agree once the faults are over.

        A worker that moves is asked to register again at most once a minute, so it may take that long until each is
        called at its address. If the store was set back, ends are acknowledged a heartbeat later.
        """
        faults = self.plan.faults
        moves = any(isinstance(fault, MOVES) for fault in faults)
        set_back = any(isinstance(fault, RestoreDatabase | Failover) for fault in faults)
        return AGREEMENT + (REGISTER_AGAIN_SECONDS if moves else 0.0) + (LEASE / 3 if set_back else 0.0)

    @property
    def clients_end(self) -> float:
        """The time when the last client gives up, by the loop's clock."""
        return self.plan.length + self.agreement + END - LAST_MOMENT

    @property
    def submissions_end(self) -> float:
        """The time when the last client gives up submitting a job."""
        return self.plan.length + self.agreement

    def names(self) -> tuple[str, ...]:
        """All names of workers, and all ids that they were given."""
        return (*self.workers, *self.judge.facts.core, *self.judge.facts.owners)

    def heal(self) -> None:
        """End all faults, and let everything run."""
        self.trace.add("world", "all faults are over")
        self.network.cut.clear()
        self.network.storms.clear()
        self.database.troubles.clear()
        self.database.stalls_until = 0.0
        for each in list(self._healing.values()):
            each()
        for each in self.workers.values():
            each.folder.evictions.clear()
        for worker in self.nodes.values():
            worker.machine.shortage = ""
            if worker.running is not None:
                worker.running.process.thaw()
            worker.start()
        if self.scheduler is not None:
            self.scheduler.process.thaw()
        self.start_scheduler()
        Aftermath(self).begin()

    # the run

    def begin(self) -> None:
        """Start everything, and schedule all planned events."""
        self.start_scheduler()
        for worker in self.nodes.values():
            worker.start()
        for fault in self.plan.faults:
            self.loop.at(fault.at, self._strike, fault)
        for act in self.plan.acts:
            self.loop.at(act.at, act.begin, self)

    def run(self) -> Outcome:
        """Run until the end, or until a rule is broken."""
        with watched(self.judge.logged):
            self._run()
        return Outcome(self.seed, self.judge.violation, self.trace, self.judge.jobs, self.loop.events, self._struck)

    def _run(self) -> None:
        self.begin()
        for until, check in (
            (self.plan.length, self.heal),
            (self.plan.length + self.agreement, self.judge.agreed),
            (self.plan.length + self.agreement + END, self.judge.ended),
        ):
            self.loop.run(until, self._over)
            if self.judge.violation is not None:
                break
            check()
        else:
            until = self.loop.now + LONGEST
            while self.judge.facts.running() and self.loop.now < until and not self._over():
                self.loop.run(self.loop.now + REST, self._over)
            self.loop.run(self.loop.now + REST, lambda: self._over() or self.judge.at_rest())
            self.judge.rested()

    def _over(self) -> bool:
        """Whether a rule is broken; one of them is that the run ends."""
        if self.loop.events > EVENTS_MAX:
            self.judge.broken("comes to rest", f"{EVENTS_MAX} events, and more to come")
        return self.judge.violation is not None

    def _strike(self, fault: Any) -> None:
        self._struck[type(fault).__name__] += 1
        self.trace.add("fault", str(fault))
        fault.strike(self)
