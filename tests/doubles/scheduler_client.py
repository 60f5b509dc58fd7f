"""The scheduler as a worker sees it, in memory, and its failure twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from scheduler.errors import DeadlineExceeded, NotFound, SchedulerError, Unreachable, Unsupported
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, Registered, Registration
from scheduler.worker_interfaces import ISchedulerClient

T = TypeVar("T")

Call = tuple[str, Registration | Heartbeat | str]


@implementer(ISchedulerClient)
class FakeSchedulerClient:
    """A healthy scheduler that records its calls; the ids it assigns are ``w1``, ``w2``...

    ``knows`` are ids of jobs that need no description. While ``failure`` is set every call fails with it. While
    ``holding``, answers wait for ``release``, and a call takes effect when it is answered.
    """

    def __init__(self, lease: float = 30.0) -> None:
        self.lease = lease
        self.calls: list[Call] = []
        self.failure: SchedulerError | None = None
        self.holding = False
        self.workers: dict[str, Registration] = {}
        self.knows: set[str] = set()
        self.acknowledges = True
        #: The number of next heartbeats whose answers ask for a registration.
        self.registrations_wanted = 0
        #: Its count of commits, and the number of next heartbeats whose answers ask for all ended jobs.
        self.commit_count = 0
        self.reports_wanted = 0
        self.reports: dict[str, JobReport] = {}
        self._assigned = 0
        self._held: list[tuple[Callable[[], Deferred[Any]], Deferred[Any]]] = []
        self._cut: Callable[[], None] = lambda: None

    # what a test does and asks

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """The sent heartbeats, in order, answered or not."""
        return [what for _, what in self.calls if isinstance(what, Heartbeat)]

    @property
    def methods(self) -> list[str]:
        """The called methods, in order."""
        return [method for method, _ in self.calls]

    @property
    def pending(self) -> int:
        """The number of calls without an answer."""
        return len(self._held)

    def release(self) -> None:
        """Answer all waiting calls, and hold no more."""
        self.holding = False
        held, self._held = self._held, []
        for answer, answered in held:
            answer().chainDeferred(answered)

    def forget_everything(self) -> None:
        """Forget everything, like after a restart without a store."""
        self.workers.clear()
        self.knows.clear()
        self.reports.clear()

    def cut(self) -> None:
        """Cut the connection."""
        self._cut()

    # ISchedulerClient

    def hang_up(self) -> None:
        held, self._held = self._held, []
        for _, answered in held:
            answered.errback(Unreachable("the scheduler", sent=True, kind="scheduler"))

    def on_cut(self, notify: Callable[[], None]) -> None:
        self._cut = notify

    def register(self, registration: Registration) -> Deferred[Registered]:
        return self._call("register", registration, self._register)

    def deregister(self, worker_id: str, nonce: str) -> Deferred[None]:
        return self._call("deregister", worker_id, self._deregister)

    def heartbeat(self, heartbeat: Heartbeat) -> Deferred[HeartbeatAnswer]:
        return self._call("heartbeat", heartbeat, self._heartbeat)

    def _call(self, method: str, what: Registration | Heartbeat | str, act: Callable[[Any], T]) -> Deferred[T]:
        self.calls.append((method, what))

        def answer() -> Deferred[T]:
            if self.failure is not None:
                return fail(self.failure)
            try:
                return succeed(act(what))
            except SchedulerError as error:
                return fail(error)

        if not self.holding:
            return answer()
        answered: Deferred[T] = Deferred()
        self._held.append((answer, answered))
        return answered

    def _register(self, registration: Registration) -> Registered:
        worker_id = registration.worker_id
        if not worker_id:
            self._assigned += 1
            worker_id = f"w{self._assigned}"
        self.workers[worker_id] = evolve(registration, worker_id=worker_id)
        return Registered(worker_id, self.lease, self.commit_count)

    def _deregister(self, worker_id: str) -> None:
        if self.workers.pop(worker_id, None) is None:
            raise NotFound("worker", worker_id)

    def _heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        if heartbeat.worker_id not in self.workers:
            raise NotFound("worker", heartbeat.worker_id)
        for report in heartbeat.described:
            self.knows.add(report.status.job_id)
        ended = (*heartbeat.ended, *(report for report in heartbeat.described if report.status.state.final))
        for report in ended:
            self.reports[report.status.job_id] = report
        mentioned = (*heartbeat.running, *(report.status.job_id for report in ended))
        kept = tuple(report.status.job_id for report in ended if report.status.job_id in self.knows)
        self.reports_wanted -= (report_all := self.reports_wanted > 0)
        self.registrations_wanted -= (register_again := self.registrations_wanted > 0)
        return HeartbeatAnswer(
            register_again=register_again,
            lease=self.lease,
            commit_count=self.commit_count,
            report_all=report_all,
            acknowledged=kept if self.acknowledges else (),
            describe=tuple(job_id for job_id in mentioned if job_id not in self.knows),
        )


class CoreSchedulerClient(FakeSchedulerClient):
    """A core scheduler: it lacks heartbeats, ignores earlier ids, and sends no lease."""

    def _register(self, registration: Registration) -> Registered:
        return evolve(super()._register(evolve(registration, worker_id="")), lease=0)

    def _heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        raise Unsupported("the scheduler", "Heartbeat")


class UnreachableSchedulerClient(FakeSchedulerClient):
    """An address without a server."""

    def __init__(self) -> None:
        super().__init__()
        self.failure = Unreachable("the scheduler")


class RefusingSchedulerClient(FakeSchedulerClient):
    """Refuses every call with that error."""

    def __init__(self, error: SchedulerError) -> None:
        super().__init__()
        self.failure = error


class SilentSchedulerClient(FakeSchedulerClient):
    """Calls arrive but are never answered, so all end at their deadline, in seconds of the clock."""

    def __init__(self, clock: Clock, deadline: float = 10.0) -> None:
        super().__init__()
        self._clock = clock
        self._deadline = deadline

    def _call(self, method: str, what: Registration | Heartbeat | str, act: Callable[[Any], T]) -> Deferred[T]:
        super()._call(method, what, act).addErrback(lambda _: None)  # this result reaches no caller either

        def too_late() -> T:
            raise DeadlineExceeded(method, self._deadline)

        return deferLater(self._clock, self._deadline, too_late)
