"""Conversion between gRPC messages and values of the model.

Input from outside is checked here: an impossible id, time or number raises ``Invalid`` with the name of its field in
the message. An absent value is ``None`` in the model, and 0, ``""`` or unset in a message.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Sequence

from scheduler.errors import Invalid, Refused
from scheduler.messages import Chunk, JobReport, JobStatus, Registered, Registration, contradiction
from scheduler.model import (
    DEFAULT_LINGER_SECONDS,
    DEFAULT_STOP_GRACE_SECONDS,
    MAX_LEFTOVER,
    SIGNAL_NAMES,
    SIGNAL_TARGETS,
    STOP_MODES,
    STOP_SIGNALS,
    JobSpec,
    JobState,
    Stream,
    Usage,
    error_text,
)
from scheduler.names import is_id
from scheduler.pb import scheduler_pb2, worker_pb2
from scheduler.request_keys import RequestKey, is_principal, is_request_key
from scheduler.texts import CORE_ID_MAX_CHARACTERS, bounded_text, is_core_id

_STATES = {number: JobState[name] for name, number in worker_pb2.Outcome.items()}
_STREAMS = {number: Stream[name] for name, number in worker_pb2.Stream.items()}

#: Core workers name a signal by its description.
_SIGNALS = {f"signal: {signal.strsignal(number)}".lower(): number.name for number in signal.Signals}

_FINGERPRINT = re.compile(r"[0-9a-f]{1,128}")

#: The last second of the year 9999. A later time can't be formatted.
END_OF_TIME = 253402300799.0


def checked_id(field: str, text: str) -> str:
    """``text``, if it is a valid id. Raises ``Invalid`` if not."""
    if not is_id(text):
        raise Invalid(field, f"{text[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    return text


def checked_core_id(field: str, text: str) -> str:
    """``text``, if it is a valid id of the core protocol, which any program may choose. Raises ``Invalid`` if not."""
    if not is_core_id(text):  # the id may differ with each call, so it is not shown
        raise Invalid(field, f"is not 1 to {CORE_ID_MAX_CHARACTERS} printable characters")
    return text


def checked_size(field: str, value: int) -> int:
    """``value``, if it is a valid offset or number of bytes. Raises ``Invalid`` if not."""
    if value < 0:
        raise Invalid(field, f"{value} is negative")
    return value


def _time(field: str, value: float) -> float | None:
    if not 0 <= value <= END_OF_TIME:  # NaN fails this, too
        raise Invalid(field, f"{value!r} is not a POSIX time")
    return value or None


def checked_seconds(field: str, value: float) -> float:
    """``value``, if it is a valid number of seconds. Raises ``Invalid`` if not."""
    if not math.isfinite(value) or value < 0:
        raise Invalid(field, f"{value!r} is not a finite number of seconds of at least 0")
    return value


def _one_of(field: str, value: str, allowed: Sequence[str]) -> str:
    """``value`` if it is allowed; the first allowed value if it is empty. Raises ``Invalid`` for any other."""
    if not value:
        return allowed[0]
    if value not in allowed:
        raise Invalid(field, f"{value[:80]!r} is none of {', '.join(allowed)}")
    return value


def _usage(usage: worker_pb2.Usage) -> Usage:
    return Usage(checked_size("maxRss", usage.maxRss), checked_seconds("cpuSeconds", usage.cpuSeconds))


def _umask(value: int) -> int:
    if value > 0o777:
        raise Invalid("umask", f"{value:o} is not an octal number from 0 to 777")
    return value


# -- a job's spec


def start_to_pb(
    job_id: str, spec: JobSpec, created_at: float | None, key: RequestKey | None = None
) -> worker_pb2.StartJobReq:
    """The message that starts a job."""
    return worker_pb2.StartJobReq(
        jobID=job_id,
        command=spec.command,
        path=spec.path,
        args=spec.args,
        env=spec.env,
        cwd=spec.cwd,
        stdin=spec.stdin,
        script=spec.script,
        timeout=spec.timeout,
        stopGrace=spec.stop_grace,
        labels=spec.labels,
        mergeStderr=spec.merge_stderr,
        createdAt=created_at or 0,
        outputLimit=spec.output_limit,
        linger=spec.linger,
        stopSignal=spec.stop_signal,
        stopMode=spec.stop_mode,
        umask=spec.umask,
        requestKey="" if key is None else key.key,
        requestFingerprint="" if key is None else key.fingerprint,
        requestPrincipal="" if key is None else key.principal or "",
    )


def core_start_to_pb(spec: JobSpec) -> worker_pb2.StartJobReq:
    """The message that starts a job on a core worker: command and path alone."""
    return worker_pb2.StartJobReq(command=spec.command, path=spec.path)


def spec_from_pb(start: worker_pb2.StartJobReq) -> JobSpec:
    """The spec in the message of a start. Raises ``Invalid`` for an impossible number."""
    return JobSpec(
        command=start.command,
        path=start.path,
        args=tuple(start.args),
        env=dict(start.env),
        cwd=start.cwd,
        stdin=start.stdin if start.HasField("stdin") else None,
        script=start.script if start.HasField("script") else None,
        timeout=checked_seconds("timeout", start.timeout) if start.HasField("timeout") else None,
        stop_grace=checked_seconds("stopGrace", start.stopGrace)
        if start.HasField("stopGrace")
        else DEFAULT_STOP_GRACE_SECONDS,
        labels=dict(start.labels),
        merge_stderr=start.mergeStderr,
        output_limit=checked_size("outputLimit", start.outputLimit) if start.HasField("outputLimit") else None,
        linger=checked_seconds("linger", start.linger) if start.HasField("linger") else DEFAULT_LINGER_SECONDS,
        stop_signal=_one_of("stopSignal", start.stopSignal, STOP_SIGNALS),
        stop_mode=_one_of("stopMode", start.stopMode, STOP_MODES),
        umask=_umask(start.umask) if start.HasField("umask") else None,
    )


def created_at_from_pb(start: worker_pb2.StartJobReq) -> float | None:
    """The time of the job's creation in the message of a start. Raises ``Invalid`` for an impossible time."""
    return _time("createdAt", start.createdAt)


def key_from_pb(start: worker_pb2.StartJobReq) -> RequestKey | None:
    """The idempotency key in the message of a start. Raises ``Invalid`` if a part of it is malformed."""
    if not start.requestKey:
        return None
    if not is_request_key(start.requestKey) or not _FINGERPRINT.fullmatch(start.requestFingerprint):
        raise Invalid("requestKey", "is no key of a request, or has no fingerprint")
    if start.requestPrincipal and not is_principal(start.requestPrincipal):
        raise Invalid("requestPrincipal", "is no name of a principal")
    return RequestKey(start.requestKey, start.requestFingerprint, start.requestPrincipal or None)


def signal_from_pb(message: worker_pb2.SignalJobReq) -> tuple[str, str]:
    """The signal, and the receivers of the signal. Raises ``Invalid`` for unknown ones."""
    if not message.signal:
        raise Invalid("signal", "is empty")
    return _one_of("signal", message.signal, SIGNAL_NAMES), _one_of("to", message.to, SIGNAL_TARGETS)


# -- the status of a job


def status_to_pb(status: JobStatus) -> worker_pb2.JobStatus:
    """The message for the status of a job that its worker started or refused."""
    usage = status.usage
    return worker_pb2.JobStatus(
        jobID=status.job_id,
        outcome=status.state.name,
        reason=status.reason,
        startedAt=status.started_at or 0,
        finishedAt=status.finished_at or 0,
        exitCode=status.exit_code,
        signal=status.signal or "",
        stdoutBytes=status.stdout_bytes,
        stderrBytes=status.stderr_bytes,
        tree=status.tree,
        leftover=status.leftover,
        outputError=status.output_error,
        backgroundEnded=status.background_ended,
        usage=None if usage is None else worker_pb2.Usage(maxRss=usage.max_rss, cpuSeconds=usage.cpu_seconds),
    )


def status_from_pb(message: worker_pb2.JobStatus) -> JobStatus:
    """The status in a message. Raises ``Invalid`` for an impossible id, outcome or number, and for a contradiction."""
    status = _told_from_pb(message)
    if problem := contradiction(status):
        raise Invalid("status", problem)
    return status


def _told_from_pb(status: worker_pb2.JobStatus) -> JobStatus:
    if status.outcome not in _STATES:
        raise Invalid("outcome", f"{status.outcome} is none that is known here")
    return JobStatus(
        job_id=checked_id("jobID", status.jobID),
        state=_STATES[status.outcome],
        reason=bounded_text(status.reason),
        started_at=_time("startedAt", status.startedAt),
        finished_at=_time("finishedAt", status.finishedAt),
        exit_code=status.exitCode if status.HasField("exitCode") else None,
        signal=bounded_text(status.signal) or None,
        stdout_bytes=checked_size("stdoutBytes", status.stdoutBytes) if status.HasField("stdoutBytes") else None,
        stderr_bytes=checked_size("stderrBytes", status.stderrBytes) if status.HasField("stderrBytes") else None,
        tree=bounded_text(status.tree),
        leftover=tuple(status.leftover[:MAX_LEFTOVER]),
        output_error=bounded_text(status.outputError),
        background_ended=checked_size("backgroundEnded", status.backgroundEnded),
        usage=_usage(status.usage) if status.HasField("usage") else None,
    )


def status_of_from_pb(job_id: str, message: worker_pb2.JobStatus) -> JobStatus:
    """The status in a message. Raises ``Invalid`` also if the status is not about ``job_id``."""
    status = status_from_pb(message)
    if status.job_id != job_id:
        raise Invalid("jobID", f"{status.job_id!r} is not the job that was asked about")
    return status


def query_to_pb(status: JobStatus) -> worker_pb2.QueryJobRes:
    """The answer to a query: the fields of the core protocol, and the whole status in a field of ours."""
    text = error_text(status.state, status.reason)
    return worker_pb2.QueryJobRes(
        done=status.state.final, error=bool(text), errorText=text, status=status_to_pb(status)
    )


def query_from_pb(job_id: str, answer: worker_pb2.QueryJobRes) -> JobStatus:
    """The status in an answer. A core worker gives a text: ``exit status N`` is a code, ``signal: killed`` a signal."""
    if answer.HasField("status"):
        return status_of_from_pb(job_id, answer.status)
    if not answer.done:
        return JobStatus(job_id, JobState.RUNNING)
    if not answer.error:
        return JobStatus(job_id, JobState.SUCCEEDED, exit_code=0)
    text, _, number = answer.errorText.rpartition(" ")
    code = int(number) if text == "exit status" and number.isascii() and number.isdigit() and len(number) < 10 else None
    reason = bounded_text(answer.errorText) or "error"
    return JobStatus(job_id, JobState.FAILED, reason=reason, exit_code=code, signal=_SIGNALS.get(reason))


def report_to_pb(report: JobReport) -> scheduler_pb2.JobReport:
    """The message for a report, with the job's spec if the report has one."""
    message = scheduler_pb2.JobReport(status=status_to_pb(report.status))
    if report.spec is not None:
        message.start.CopyFrom(start_to_pb(report.status.job_id, report.spec, report.created_at, report.key))
    return message


def report_from_pb(report: scheduler_pb2.JobReport) -> JobReport:
    """The report in a message. Raises ``Invalid`` if a part is impossible. Contradictions are left to the cluster."""
    status = _told_from_pb(report.status)
    if not report.HasField("start"):
        return JobReport(status)
    start = report.start
    return JobReport(status, spec_from_pb(start), created_at_from_pb(start), key_from_pb(start))


# -- output


def stream_from_pb(number: int) -> Stream:
    """The stream with that number. Raises ``Invalid`` if there is none."""
    if number not in _STREAMS:
        raise Invalid("stream", f"{number} is neither 0 (stdout) nor 1 (stderr)")
    return _STREAMS[number]


def chunk_from_stream(message: worker_pb2.StreamJobRes) -> Chunk:
    """The chunk in a message of ``StreamJob``. Its ``size`` is 0, because the message has no field for it."""
    return Chunk(message.output, message.offset, message.end, cut=bounded_text(message.cut))


def chunk_from_read(message: worker_pb2.ReadOutputRes, offset: int, most: int) -> Chunk:
    """The chunk in an answer of ``ReadOutput``. Raises ``Invalid`` if it does not match the request."""
    chunk = Chunk(message.output, message.offset, message.end, message.size, bounded_text(message.cut))
    if chunk.offset != offset or len(chunk.data) > most or chunk.next_offset > chunk.size:
        raise Invalid("output", f"{len(chunk.data)} bytes from {chunk.offset} of {chunk.size} were not asked for")
    return chunk


# -- registration


def registration_to_pb(registration: Registration) -> scheduler_pb2.RegisterReq:
    """The message for a registration."""
    return scheduler_pb2.RegisterReq(
        address=registration.address,
        workerID=registration.worker_id,
        name=registration.name,
        labels=registration.labels,
        slots=registration.slots,
        bootID=registration.boot_id,
        version=registration.version,
        features=registration.features,
        folderID=registration.folder_id,
        nonce=registration.nonce,
        commitCount=registration.commit_count,
    )


def registration_from_pb(message: scheduler_pb2.RegisterReq) -> Registration:
    """The registration in a message. The cluster decides whether it is acceptable."""
    return Registration(
        address=message.address,
        worker_id=message.workerID,
        name=message.name,
        labels=dict(message.labels),
        slots=message.slots if message.HasField("slots") else None,
        boot_id=message.bootID,
        version=message.version,
        features=tuple(message.features),
        folder_id=message.folderID,
        nonce=message.nonce,
        commit_count=message.commitCount,
    )


def registered_to_pb(registered: Registered) -> scheduler_pb2.RegisterRes:
    """The answer to a registration. ``success`` is always true, because a refusal is a gRPC status."""
    return scheduler_pb2.RegisterRes(
        success=True, workerID=registered.worker_id, lease=registered.lease, commitCount=registered.commit_count
    )


def registered_from_pb(message: scheduler_pb2.RegisterRes, default_lease: float) -> Registered:
    """The registration in an answer. Raises ``Refused`` if there is neither ``success`` nor an id.

    A core scheduler sends no lease (seconds), chooses any id, and may leave ``success`` unset: an id is enough.
    """
    if not message.success and not message.workerID:
        raise Refused("the scheduler did not take the registration")
    lease = checked_seconds("lease", message.lease) or default_lease
    return Registered(checked_core_id("workerID", message.workerID), lease, message.commitCount)
