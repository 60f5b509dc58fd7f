"""The simulated parts, as providers of the contract suites: a small world whose time passes while a test waits."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from scheduler.interfaces import IStore
from scheduler.model import Stream
from tests.simulation.jobs import SimulatedJobs
from tests.simulation.loop import Loop
from tests.simulation.machine import Folder, Machine, Run, Spool
from tests.simulation.machine import Plan as JobPlan
from tests.simulation.network import Caller, Endpoint, Network
from tests.simulation.process import Process
from tests.simulation.store import Database, SimulatedStore
from tests.simulation.trace import Trace

#: Virtual seconds that pass in one turn of the reactor.
TURN = 0.1

#: Seconds that a job runs until a test ends it.
UNTIL_TOLD = 1e6


class SimulatedCase(TestCase):
    """Has a loop, a network, and a process that makes calls. Virtual time passes until the test is over."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.trace = Trace(self.loop)
        self.network = Network(self.loop, Random(1), self.trace)
        self.crashes: list[Failure] = []
        self.network.attach("10.0.0.1", "here")
        self.network.attach("10.0.0.2", "there")
        self.caller = Caller(self.process("caller"), "here", "10.0.0.1")
        self._turn: IDelayedCall = reactor.callLater(0, self._pass)
        self.addCleanup(lambda: self._turn.cancel())  # noqa: PLW0108 - of the one there is by then
        self.addCleanup(lambda: self.assertEqual([str(crash) for crash in self.crashes], []))

    def _pass(self) -> None:
        self._turn = reactor.callLater(0, self._pass)
        self.loop.run(self.loop.now + TURN)

    def process(self, name: str) -> Process:
        return Process(self.loop, name, lambda _, reason: self.crashes.append(reason))

    def listen(self, server: Any) -> str:
        """Listen with ``server``; its address."""
        self.server = self.process("server")
        self.network.listen(1, Endpoint(self.server, "there", server))
        return "10.0.0.2:1"


class ToldMachine(Machine):
    """A machine whose jobs write and end when a test says so."""

    def __init__(self, loop: Loop, trace: Trace) -> None:
        super().__init__(loop, trace, "there", "10.0.0.2", self._ran)
        self.runs: list[Run] = []
        self._written: dict[str, bytes] = {}

    def _ran(self, run: Run) -> None:
        self.runs.append(run)

    def output(self, spool: Spool, stream: Stream) -> bytes:
        return self._written.get(spool.job_id, b"") if stream is Stream.STDOUT else b""

    def write(self, job_id: str, data: bytes) -> None:
        self._written[job_id] = self._written.get(job_id, b"") + data
        self._tell_watches(job_id)

    def finish(self, job_id: str, code: int) -> None:
        self.loop.after(0, self.exits, job_id, code, None)


class ToldJobs(SimulatedCase):
    """Has ``runner`` and ``jobs``, both the jobs of a worker on a machine of that kind."""

    def setUp(self) -> None:
        super().setUp()
        self.machine = ToldMachine(self.loop, self.trace)
        self.runner = self.jobs = SimulatedJobs(self.process("worker"), self.machine, Folder(), Random(1))

    def job(self) -> Any:
        return JobPlan(UNTIL_TOLD, 0, 0).spec()

    def write(self, job_id: str, text: str) -> None:
        self.machine.write(job_id, text.encode())

    def finish(self, job_id: str, code: int) -> None:
        self.machine.finish(job_id, code)


@implementer(IStore)
class StoreOfProcess:
    """The database as a new process sees it, with the lifecycle of a service."""

    def __init__(self, process: Process, database: Database, trace: Trace) -> None:
        self._store = SimulatedStore(process, database, Random(1), trace)
        self.load, self.save, self.stopService = self._store.load, self._store.save, self._store.close
        self.count_commits, self.verify = self._store.count_commits, self._store.verify
        self.read_specs = self._store.read_specs
        self.restore_from = self._store.restore_from
        self.read_audit, self.on_entries = self._store.read_audit, self._store.on_entries

    @property
    def commit_count(self) -> int:
        """The count of the last commit."""
        return self._store.commit_count

    def startService(self) -> None:
        """Nothing to do: the store runs already."""
