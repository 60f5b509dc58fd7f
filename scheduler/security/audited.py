"""The scheduler as one sender's requests reach it: each act is recorded in the audit.

``Audited`` stands around another ``IScheduler``. It passes everything on, and has every act under way while its
operation runs. So an act that the scheduler refuses, or another wrapper within, is recorded with the error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import asdict, evolve
from twisted.internet.defer import Deferred
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure

from scheduler.deferreds import shielded
from scheduler.errors import SchedulerError
from scheduler.interfaces import Accepted, IOutputReader, IScheduler
from scheduler.messages import Chunk
from scheduler.model import Job, JobSpec, JobState, Stream, Submission
from scheduler.security import acts
from scheduler.security.acts import ActUnderWay
from scheduler.security.audit import NOT_STARTED, OK, Act, Details, Sender, compact, time_text
from scheduler.security.trail import Audit, result_of
from scheduler.views import JobFilter, WorkerView

T = TypeVar("T")

#: Characters of a job's command, path and arguments that are recorded. Of longer ones the rest is left out.
COMMAND_MAX_CHARACTERS, ARGS_MAX_CHARACTERS = 1024, 4096

_Passing: Any = proxyForInterface(IScheduler, "_scheduler")


class Audited(_Passing):  # type: ignore[misc]
    """A scheduler whose acts are recorded as those of one sender."""

    def __init__(self, scheduler: IScheduler, audit: Audit, sender: Sender) -> None:
        super().__init__(scheduler)
        self._audit = audit
        self._sender = sender

    # -- acts

    def submit(self, wanted: Submission) -> Deferred[Accepted]:
        act = self._act("start", "", wanted.target.worker or "", spec_details(wanted))
        under_way = ActUnderWay(act, acts.job_with(wanted.spec), of_jobs=True)

        def unheard(accepted: Accepted) -> None:
            accepted.answered.addErrback(lambda reason: reason.trap(SchedulerError))

        def failed(reason: Failure, job: Job) -> Failure:
            self._audit.record(evolve(under_way.of(job), time=self._audit.now(), result=result_of(reason.value)))
            return reason

        def answered(job: Job) -> Job:
            if job.state is JobState.FAILED and job.started_at is None:
                self._audit.record(evolve(under_way.of(job), time=self._audit.now(), result=NOT_STARTED))
            return job

        def watched(accepted: Accepted) -> Accepted:
            over = accepted.answered.addCallbacks(answered, failed, errbackArgs=(accepted.job,))
            return evolve(accepted, answered=shielded(over))

        return self._audit.carry_out(
            under_way,
            lambda: self._scheduler.submit(wanted).addCallback(watched),
            acts_of=lambda _, accepted: [] if under_way.taken else [under_way.of(accepted.job)],
            unheard=unheard,
        )

    def stop(self, job_id: str, worker: str | None = None) -> Deferred[Job]:
        return self._on_job("stop", job_id, lambda: self._scheduler.stop(job_id, worker))

    def stop_matching(self, which: JobFilter) -> Deferred[tuple[Job, ...]]:
        act = self._act("stop", "", "", {"filter": _filter(which)})
        under_way = ActUnderWay(act, acts.stopped_since(act.time - 0.001), of_jobs=True)

        def acts_of(act: Act, jobs: Sequence[Job]) -> Sequence[Act]:
            return [under_way.of(job) for job in jobs] or [act]

        return self._audit.carry_out(under_way, lambda: self._scheduler.stop_matching(which), acts_of=acts_of)

    def signal(self, job_id: str, signal: str, to: str) -> Deferred[None]:
        act = self._act("signal", job_id, self._worker_of(job_id), {"signal": signal, "to": to})
        under_way = ActUnderWay(act, acts.nothing)
        return self._audit.carry_out(under_way, lambda: self._scheduler.signal(job_id, signal, to), unsaved=OK)

    def remove(self, job_id: str) -> Deferred[bool]:
        return self._on_job("remove", job_id, lambda: self._scheduler.remove(job_id))

    def drain(self, name: str) -> Deferred[WorkerView]:
        return self._on_worker("drain", name, lambda: self._scheduler.drain(name))

    def resume(self, name: str) -> Deferred[WorkerView]:
        return self._on_worker("resume", name, lambda: self._scheduler.resume(name))

    def forget(self, name: str) -> Deferred[None]:
        return self._on_worker("forget", name, lambda: self._scheduler.forget(name))

    # -- reads

    def open_output(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        reader: IOutputReader = self._scheduler.open_output(job_id, stream, offset)
        self.note_read(job_id)
        return reader

    def read_output(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        reading: Deferred[Chunk] = self._scheduler.read_output(job_id, stream, offset, size)
        if size:
            self.note_read(job_id)
        return reading

    def note_read(self, job_id: str) -> None:
        """Record that output of the job was read, if the job is another principal's."""
        job = self._find(job_id)
        if job is not None and job.created_by is not None and job.created_by != self._sender.who:
            self._audit.read(self._act("read", job_id, job.worker_name or "", {"created_by": job.created_by}))

    # -- how

    def _on_job(self, action: str, job_id: str, operation: Callable[[], Deferred[T]]) -> Deferred[T]:
        job = self._find(job_id)
        act = self._act(action, job_id, self._worker_of(job_id))
        under_way = ActUnderWay(act, acts.nothing if job is None else acts.job(job))
        return self._audit.carry_out(under_way, operation)

    def _on_worker(self, action: str, name: str, operation: Callable[[], Deferred[T]]) -> Deferred[T]:
        try:
            worker = self._scheduler.worker(name).worker
        except SchedulerError:
            return self._audit.carry_out(ActUnderWay(self._act(action, name, ""), acts.nothing), operation)
        return self._audit.carry_out(ActUnderWay(self._act(action, name, worker.name), acts.worker(worker)), operation)

    def _act(self, action: str, target: str, worker: str, details: Details | None = None) -> Act:
        return self._sender.act(self._audit.now(), action, target, worker, details=details)

    def _find(self, job_id: str) -> Job | None:
        try:
            job: Job = self._scheduler.job(job_id)
        except SchedulerError:
            return None
        return job

    def _worker_of(self, job_id: str) -> str:
        job = self._find(job_id)
        return "" if job is None else job.worker_name or ""


def spec_details(wanted: Submission) -> Details:
    """The details of a start: command, path and arguments, the script's hash and first line. No variable, no input."""
    spec = wanted.spec
    details: dict[str, Any] = {"selector": dict(wanted.target.selector)} if wanted.target.selector is not None else {}
    if spec.script is not None:
        line = "" if spec.script_summary is None else spec.script_summary.first_line
        details["script"] = {"sha256": hashlib.sha256(spec.script).hexdigest(), "first_line": line}
    if spec.command:
        details["command"] = spec.command[:COMMAND_MAX_CHARACTERS]
    if spec.path:
        details["path"] = spec.path[:COMMAND_MAX_CHARACTERS]
    return {**details, **_args(spec)}


def _args(spec: JobSpec) -> Details:
    if not spec.args:
        return {}
    kept: list[str] = []
    room = ARGS_MAX_CHARACTERS
    for arg in spec.args:
        room -= len(compact(arg))
        if room < 0:
            break
        kept.append(arg)
    if len(kept) == len(spec.args):
        return {"args": kept}
    whole = hashlib.sha256(compact(spec.args).encode("ascii")).hexdigest()
    return {"args": kept, "args_omitted": len(spec.args) - len(kept), "args_sha256": whole}


def _filter(which: JobFilter) -> Details:
    """The filters that were given, by name, as texts."""
    given = {name: value for name, value in asdict(which).items() if value not in (None, {}, frozenset())}
    if which.states:
        given["states"] = sorted(state.value for state in which.states)
    times = {name: time_text(value) for name, value in given.items() if isinstance(value, float)}
    return {**given, **times}
