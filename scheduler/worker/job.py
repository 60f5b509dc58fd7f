"""One job as the reactor remembers it, and those who wait for what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from scheduler.deferreds import Waiters
from scheduler.messages import JobStatus, RequestKey
from scheduler.model import JobSpec
from scheduler.worker.pidfd import Pidfd
from scheduler.worker.shim.spool import Identity

Notify = Callable[[], None]


class OutputWatch(Protocol):
    """``scheduler.worker.watch.OutputWatch``: calls ``notify`` when a file has grown."""

    def add(self, path: str, notify: Notify) -> Notify: ...


@define(eq=False)
class RunningJob:
    """A job that is started, runs, or has ended."""

    status: JobStatus
    #: Without stdin and script; ``None`` once acknowledged: hardly anybody asks any more.
    spec: JobSpec | None
    #: Not known either of a job that this process found acknowledged.
    created_at: float | None
    #: Of the request that it came from; likewise.
    key: RequestKey | None = None
    #: The start has not been answered.
    starting: bool = False
    stop_asked: bool = False
    #: The process before this one was asked to start it.
    taken_back: bool = False
    #: That it has ended and can't be decided on yet was logged.
    undecided: bool = False
    shim: Pidfd | None = None
    #: Who the shim is, or was, once that is known.
    shim_identity: Identity | None = None
    #: Wait for the start's answer, and for the end.
    for_start: Waiters[JobStatus] = field(factory=Waiters)
    for_end: Waiters[JobStatus] = field(factory=Waiters)
    watchers: list[Notify] = field(factory=list)

    @property
    def id(self) -> str:
        return self.status.job_id

    @property
    def command(self) -> str:
        """What it runs, in a word."""
        return self.spec.command or "script" if self.spec else ""
