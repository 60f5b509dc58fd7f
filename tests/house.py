"""The scheduler that tests are about: all its parts, wired as in ``twistd scheduler``, between doubles.

It is the only wiring that tests of the scheduler's parts use: time is a ``Clock``, the store and the workers are
those of ``tests.doubles``. A test says what workers and clients do, has it ``settle``, and looks at the outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from scheduler.cluster.build import ClusterParts, make_cluster, random_id
from scheduler.errors import Unreachable
from scheduler.messages import Heartbeat, HeartbeatAnswer, Peer, Registered, Registration
from scheduler.model import Job, JobSpec, Presence, Submission, Worker
from scheduler.net import DialRule
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING, QueueTerms, Target
from tests.doubles.runner import FakeJobRunner
from tests.doubles.store import ScriptedStore
from tests.doubles.workers import Call, Workers

#: Seconds; no test lasts so long.
FOREVER = 1e9

#: POSIX time when the clock says 0, unless a test has another.
EPOCH = 1_700_000_000.0

#: Where workers call from.
HOME = "127.0.0.1"
#: A caller there, without a certificate.
PEER = Peer(HOME)

#: Why a worker is unreachable that a test has not made online.
NEVER_CALLED = "it has not called since the scheduler was started"

ECHO = JobSpec(command="echo")
ANY = Target(selector={})


class Scheduler:
    """A scheduler that runs. ``restart`` makes all but ``store`` and ``runners`` anew."""

    clock: Clock
    workers: Workers
    parts: ClusterParts

    def __init__(
        self,
        wall_time: Callable[[], float] | None = None,
        *,
        workers: Workers | None = None,
        new_id: Callable[[], str] = random_id,
        **limits: Any,
    ) -> None:
        """``wall_time`` gives POSIX times, by default those of the clock; the rest is as for ``make_cluster``."""
        self.store = ScriptedStore()
        #: What runs on the workers, by their ids.
        self.runners: dict[str, FakeJobRunner] = {}
        self.wall_time = wall_time or (lambda: EPOCH + self.clock.seconds())
        self.new_id = new_id
        self._registering = False
        for_ever = {"lease": FOREVER, "keep_jobs": FOREVER, "forget_after": FOREVER}
        #: As for ``make_cluster``, from the next ``restart`` on.
        self.limits: dict[str, Any] = {"queue_max": 1000, **for_ever, **limits}
        self._begin(Workers(Clock()) if workers is None else workers)

    def _begin(self, workers: Workers) -> None:
        self.clock = workers.clock
        self.workers = workers
        rule = DialRule([], lambda name: succeed([]), keep_names=False)
        parts = self.parts = make_cluster(
            self.clock, self.wall_time, self._next_id, self.store, self.workers, rule, **self.limits
        )
        self._services = (*parts.records, *parts.work, *parts.admission)
        for service in self._services:
            service.startService()
        self._idle_timers = len(self.clock.getDelayedCalls())

    def _next_id(self) -> str:
        """The id of a job. A registration asks for one too, and drops it, as the worker has an id."""
        return random_id() if self._registering else self.new_id()

    def _runner(self, worker_id: str) -> FakeJobRunner:
        if worker_id not in self.runners:
            self.runners[worker_id] = self.workers.runners[worker_id] = FakeJobRunner(self.wall_time)
        return self.runners[worker_id]

    def restart(self) -> None:
        """The process is killed, and another begins with what the store holds. Its clock begins at 0."""
        self.store.forget()
        for stream in self.workers.running():
            stream.cancel()
        self._begin(self.workers.of_next_process(Clock()))

    async def stop(self) -> None:
        """The process ends in order."""
        for service in reversed(self._services):
            await maybeDeferred(service.stopService)

    def settle(self) -> None:
        """Turn the clock until nothing is due now. A reactor turns by itself."""
        if isinstance(self.clock, Clock):
            self.clock.advance(0)

    def take(self, method: str) -> Call:
        """The oldest call that is held, once all has settled; it must be of that method."""
        self.settle()
        return self.workers.take(method)

    def held(self) -> list[Call]:
        """The calls that are held, once all has settled."""
        self.settle()
        return self.workers.held

    def timers(self) -> int:
        """The number of timers beyond those of a scheduler that has nothing to do."""
        return len(self.clock.getDelayedCalls()) - self._idle_timers

    def worker(self, worker_id: str) -> Worker:
        """As the scheduler sees it."""
        return self.parts.ledger.registry.workers.get(worker_id)

    def job(self, job_id: str) -> Job:
        """As clients see it."""
        return self.parts.service.job(job_id)

    # what is known, told in values

    def presence(self, worker_id: str) -> Presence:
        """The presence of a worker, as the scheduler sees it."""
        return self.parts.ledger.registry.presences.of(worker_id)

    def add(self, *things: Worker | Job, online: bool = True, **told: Any) -> None:
        """Have the scheduler know these, and settle."""
        self.know(*things, online=online, **told)
        self.settle()

    def know(self, *things: Worker | Job, online: bool = True, **told: Any) -> None:
        """Have the scheduler know these at the same moment, before anything comes of it.

        A worker is ``online`` by signs of life, until it is lost, and has ``told`` these facts of its presence.
        """
        for thing in things:
            if isinstance(thing, Worker):
                self._add_worker(thing, online, Presence(**told))
            else:
                self.parts.ledger.learn(thing).addErrback(lambda _: None)

    def _add_worker(self, worker: Worker, online: bool, told: Presence) -> None:
        ledger, liveness = self.parts.ledger, self.parts.liveness
        self._runner(worker.id)
        ledger.learn(worker).addErrback(lambda _: None)
        if online:
            liveness.heard(worker.id, told)
            liveness.observe(worker.id, succeed(None))
        else:
            liveness.forget(worker.id)
            ledger.see(worker.id, evolve(told, reason=NEVER_CALLED))

    def submit(
        self, spec: JobSpec = ECHO, target: Target = ANY, terms: QueueTerms = NO_WAITING, key: RequestKey | None = None
    ) -> Deferred[Job]:
        """A client submits; the job as its request is answered."""
        accepted = self.parts.service.submit(Submission(spec, target, terms, key))
        return accepted.addCallback(lambda accepted: accepted.answered)


class House(Scheduler):
    """A scheduler, and what its workers do."""

    def give_id(self, worker_id: str, address: str = f"{HOME}:1", boot_id: str = "boot") -> None:
        """Have the scheduler know that it gave this id, unless it knows: to a worker that has deregistered since.

        A core worker, of no ``boot_id``, had it at that ``address``.
        """
        registry = self.parts.ledger.registry
        if registry.workers.find(worker_id) is None:
            address = address if not boot_id else f"{HOME}:1"
            registry.put_worker(Worker(worker_id, worker_id, address, boot_id=boot_id, deregistered_at=EPOCH))

    def register(self, worker_id: str, address: str, **facts: Any) -> Registered:
        """A worker that can be reached registers; what it runs is as before."""
        self.give_id(worker_id, address, facts.get("boot_id", ""))
        self.workers.runners[worker_id] = self._runner(worker_id)
        self._registering = True
        registered: Registered = result_of(
            self.parts.membership.register(Registration(address, worker_id, **facts), PEER)
        )
        self._registering = False
        return registered

    def beat(self, worker_id: str, **facts: Any) -> HeartbeatAnswer:
        """A worker sends a heartbeat with what runs there, and what has ended."""
        runner, worker = self._runner(worker_id), self.worker(worker_id)
        facts = {"nonce": worker.nonce, **facts}
        heartbeat = Heartbeat(worker.id, worker.boot_id, runner.running(), runner.unacknowledged(), **facts)
        answer = result_of(self.parts.membership.heartbeat(heartbeat, PEER))
        runner.acknowledge(answer.acknowledged)
        self.settle()
        return answer

    def report(self, worker_id: str, **facts: Any) -> None:
        """A worker tells by its heartbeat how its jobs are; one that sends none is asked, as by the polling."""
        worker = self.parts.ledger.registry.workers.find(worker_id)
        if worker is None:
            return
        if not worker.is_core:
            self.beat(worker_id, **facts)
            return
        for job in self.parts.ledger.registry.jobs.unfinished(worker_id):
            self.parts.service.query(worker_id, job.id)

    def end(self, job: Job, exit_code: int = 0, report: bool = True, **facts: Any) -> None:
        """A job ends on its worker; ``report``: its worker says so at once."""
        assert job.worker_id is not None
        self._runner(job.worker_id).end(job.id_on_worker, exit_code, **facts)
        if report:
            self.report(job.worker_id)

    def vanish(self, worker_id: str) -> None:
        """A worker can't be reached any more; the scheduler finds out when it calls it."""
        worker = self.worker(worker_id)
        del self.workers.runners[worker_id]
        for stream in self.workers.running():
            if stream.worker_id == worker_id:
                stream.cut(Unreachable(worker.name, sent=True))

    def lose(self, worker_id: str) -> None:
        """A worker can't be reached any more, and the scheduler knows."""
        self.vanish(worker_id)
        self._probe(worker_id)

    def find(self, worker_id: str) -> None:
        """A worker can be reached again, and says what runs there."""
        self.workers.runners[worker_id] = self._runner(worker_id)
        self._probe(worker_id)
        self.report(worker_id)

    def _probe(self, worker_id: str) -> None:
        probe = self.workers.probe(self.worker(worker_id))
        self.parts.liveness.observe(worker_id, probe).addErrback(lambda _: None)


def result_of(answer: Deferred[Any]) -> Any:
    """The result that is there; an error is raised."""
    results: list[Any] = []
    answer.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
