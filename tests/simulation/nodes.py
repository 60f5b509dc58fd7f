"""The programs of a run, each as real as possible: the scheduler, and workers.

The scheduler is the whole of ``cluster``, wired by ``make_cluster``, between a simulated store and simulated calls. A
worker is the real link to the scheduler over simulated jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from scheduler.cluster.build import ClusterParts, make_cluster
from scheduler.daemon.services import Ordered, Step
from scheduler.messages import Registration
from scheduler.model import FEATURES, Worker
from scheduler.net import DialRule
from scheduler.security.audit import Sender
from scheduler.security.audited import Audited
from scheduler.worker.conversation import Conversation
from scheduler.worker.link import Link
from tests.simulation.jobs import FolderCount, FolderId, SimulatedJobs
from tests.simulation.loop import Loop
from tests.simulation.machine import Folder, Machine
from tests.simulation.network import Caller, Endpoint, Network
from tests.simulation.process import Process
from tests.simulation.scheduler_calls import SimulatedSchedulerClient
from tests.simulation.store import Database, SimulatedStore
from tests.simulation.trace import Trace
from tests.simulation.worker_calls import SimulatedWorkerClient

#: Seconds for which a worker may be silent.
LEASE = 30.0

#: Jobs that may be queued, and seconds for which an ended job, and a deregistered worker, is kept: longer than any run.
QUEUE_MAX = 1000
KEEP_JOBS = FORGET_AFTER = 30 * 86400.0

#: Seconds that a graceful stop of the scheduler may take.
STOP_TIMEOUT = 20.0


@frozen
class Surroundings:
    """The common part of a run's programs. ``random`` gives each a source of randomness of its own."""

    loop: Loop
    network: Network
    trace: Trace
    random: Callable[[str], Random]
    crashed: Callable[[str, Failure], None]
    #: Called with an id under which a worker with that folder registered; with the jobs whose ends a worker reports, by
    #: its id; and with those whose ends the scheduler acknowledges.
    registered: Callable[[str, Folder], None]
    ends_reported: Callable[[str, Sequence[str]], None]
    ends_acknowledged: Callable[[Sequence[str]], None]
    #: Called with the id of a worker that the scheduler has deregistered.
    deregistered: Callable[[str], None]
    #: Called for a call to a worker that a server accepts, with its name; for one that is answered; for a start that
    #: has failed on a worker; and for a stop that is sent to one.
    arrived: Callable[[Worker, str, Any], None]
    call_answered: Callable[[Worker, Exception | None], None]
    start_failed: Callable[[Worker], None]
    stopping: Callable[[Worker, str], None]


class _Reactor:
    """The part of a reactor that ``Ordered`` needs, for one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.seconds = process.clock.seconds
        self.callLater = process.clock.callLater

    def stop(self) -> None:
        """Called if its start failed."""
        self._process.end()


class SchedulerProcess:
    """A run of the scheduler, from its start until it is killed or has stopped."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        machine: Machine,
        database: Database,
        new_id: Callable[[], str],
        ports: tuple[int, int],
        loaded: Callable[[SchedulerProcess], None],
    ) -> None:
        """``ports`` are those for workers and for clients. ``loaded`` is called when it has loaded its store."""
        self.process = Process(around.loop, name, around.crashed)
        self._ports = ports
        #: Whether it accepts requests.
        self.serving = False
        caller = Caller(self.process, machine.name, machine.address)
        store = SimulatedStore(self.process, database, around.random(f"{name} store"), around.trace)
        self.calls = SimulatedWorkerClient(
            around.network,
            caller,
            f"nonce-{name}",
            around.arrived,
            around.call_answered,
            around.start_failed,
            around.stopping,
        )
        rule = DialRule([], lambda name: succeed([]), keep_names=False)
        self.parts: ClusterParts = make_cluster(
            self.process.clock,
            machine.wall_time,
            new_id,
            store,
            self.calls,
            rule,
            lease=LEASE,
            queue_max=QUEUE_MAX,
            keep_jobs=KEEP_JOBS,
            forget_after=FORGET_AFTER,
        )
        #: The object that clients call.
        self.service: Any = Audited(self.parts.service, self.parts.audit, Sender("local:client", "10.0.0.9"))
        self._around = around
        self._machine = machine
        reactor: Any = _Reactor(self.process)
        self._services = Ordered(reactor, STOP_TIMEOUT, lambda _: None, lambda: None)
        server = Step(start=self._listen, stop=self._close)
        told = Step(start=lambda: loaded(self))
        for service in (
            Step(stop=store.close),
            *self.parts.records,
            told,
            *self.parts.work,
            server,
            *self.parts.admission,
        ):
            service.setServiceParent(self._services)

    def start(self) -> None:
        """Begin to run."""
        self._around.trace.add(self.process.name, "starts")
        self.process.run(self._services.startService)

    def stop(self) -> Deferred[None]:
        """Stop like on SIGTERM; fires when it has ended."""
        self._around.trace.add(self.process.name, "is told to stop")
        return self.process.stop(lambda: self._services.stopService().addBoth(lambda _: self.process.end()))

    def _listen(self) -> None:
        self.serving = True
        self.process.on_end.append(self._ended)
        for port, served in zip(self._ports, (self.parts.membership, self.service), strict=True):
            self._around.network.listen(port, Endpoint(self.process, self._machine.name, served))

    def _ended(self) -> None:
        self.serving = False

    def _close(self) -> None:
        self.serving = False
        for_workers, for_clients = self._ports
        self._around.network.close(self._machine.name, for_workers)
        self._around.network.refuse(self._machine.name, for_clients)


class Running(Protocol):
    """A run of a worker, of either kind."""

    process: Process

    def start(self) -> None:
        """Begin to run."""

    def stop(self) -> Deferred[None]:
        """Stop like on SIGTERM; fires when it has ended."""


class WorkerProcess:
    """A run of a worker of ours."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        worker_name: str,
        machine: Machine,
        folder: Folder,
        port: int,
        slots: int,
        labels: dict[str, str],
        scheduler: str,
    ) -> None:
        self.process = Process(around.loop, name, around.crashed)
        self.machine = machine
        self._around = around
        self.folder = folder
        self.port = port
        self.jobs = SimulatedJobs(self.process, machine, folder, around.random(f"{name} jobs"))

        def caller() -> Caller:
            return Caller(self.process, machine.name, machine.address)

        def facts() -> Registration:
            return Registration(
                address=f"0.0.0.0:{port}",
                name=worker_name,
                labels=labels,
                slots=slots,
                boot_id=machine.boot_id,
                version="1",
                features=FEATURES,
            )

        def registered(worker_id: str) -> None:
            around.registered(worker_id, folder)

        client = SimulatedSchedulerClient(
            around.network,
            caller,
            scheduler,
            registered,
            around.ends_reported,
            around.ends_acknowledged,
            around.deregistered,
        )
        rng = around.random(f"{name} link")
        clock, identity = self.process.clock, self.jobs.identity
        commit_count = FolderCount(self.process, folder)
        conversation = Conversation(
            clock,
            client,
            self.jobs,
            facts,
            FolderId(folder),
            commit_count,
            identity,
            rng,
            machine.wall_time,
            lambda: None,
        )
        self.link = Link(clock, client, self.jobs, identity, conversation, rng)

    def start(self) -> None:
        """Begin to run."""
        self._around.trace.add(self.process.name, f"starts on {self.machine.name}")
        self.process.run(self._begin)

    def _begin(self) -> None:
        self.jobs.recover()
        self._around.network.listen(self.port, Endpoint(self.process, self.machine.name, self.jobs))
        self.link.startService()

    def stop(self) -> Deferred[None]:
        """Stop like on SIGTERM; fires when it has ended."""
        self._around.trace.add(self.process.name, "is told to stop")
        return self.process.stop(lambda: self.link.stopService().addBoth(self._left))

    def _left(self, _: object) -> None:
        self._around.network.close(self.machine.name, self.port)
        self.jobs.shut_down()
        self.process.end()


R = TypeVar("R", bound=Running)


class InstalledWorker(Generic[R]):
    """A worker that is installed on a machine: its present process, and the next ones."""

    def __init__(self, name: str, machine: Machine, port: int) -> None:
        self.name = name
        self.machine = machine
        self.port = port
        self.running: R | None = None
        self._starts = 0

    def make(self, name: str) -> R:
        """A process of that name, which does not run yet."""
        raise NotImplementedError

    def start(self) -> None:
        """Start its process, unless it runs, or its machine is off: then it is started with the machine."""
        if not self.machine.on or (self.running is not None and self.running.process.alive):
            return
        self._starts += 1
        self.running = self.make(f"{self.name}.{self._starts}")
        self.running.start()

    def kill(self) -> None:
        """Kill the process like ``kill -9``."""
        if self.running is not None:
            self.running.process.end()

    def stop(self) -> Deferred[None] | None:
        """Stop the process like SIGTERM."""
        return None if self.running is None else self.running.stop()
