"""Each call to a worker as a thread makes it: from a request to values of the model, or an error of ours.

Theory of operation. A start, or a signal, must be known to have left or not. So each is
preceded, on the same channel, by a health check: where that fails nothing was
sent. A call that was answered there a moment ago is as good as a check. After it
only an answer that the worker gives before it looks at a call (no such method,
no room) says that nothing was started.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.daemon.logs import METADATA_KEY
from scheduler.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    Invalid,
    NotAWorker,
    NotFound,
    OffsetBeyondEnd,
    OutputPruned,
    SchedulerError,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Chunk, JobStatus
from scheduler.model import JobState
from scheduler.pb import worker_pb2, worker_pb2_grpc
from scheduler.rpc import convert, reasons, status
from scheduler.rpc.channel import Channel, Metadata
from scheduler.texts import bounded_text

T = TypeVar("T")

_log = Logger()
_ANSWERED, _FAILED = "{method} on {worker}: answered in {ms:.1f} ms", "{method} on {worker}: {code}"

#: Seconds the check before a start, or a probe, may take.
CHECK_DEADLINE_SECONDS = 5.0
#: Seconds after which a process that does not answer counts as gone, where another one wants its name or address.
ANSWERS_DEADLINE_SECONDS = 2.0
#: Seconds for which an answer is as good as a check. Where there is much to do, a check takes as long itself.
CHECK_VALID_SECONDS = 0.02
#: Seconds after its deadline that a call is given up which gRPC itself has not ended.
ABANDONED_AFTER_SECONDS = 1.0


class Stubs:
    """A worker's line, and what speaks over it."""

    def __init__(self, line: Channel) -> None:
        self.line = line
        self.worker = worker_pb2_grpc.WorkerStub(line.channel)
        self.health = health_pb2_grpc.HealthStub(line.channel)
        #: When a unary call to the worker last succeeded, by ``time.monotonic``.
        self.answered_at = -math.inf
        #: Whether the worker answers ``QueryJobs``, as far as is known.
        self.answers_many = True


def check_thd(stubs: Stubs, worker: str, seconds: float) -> None:
    """``Unreachable`` unless there was an answer of any kind."""
    try:
        stubs.health.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
    except grpc.RpcError as failure:
        failure.with_traceback(None)
        if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Unreachable(worker, reason=reasons.no_answer(seconds)) from failure
        if failure.code() in _NO_ANSWER:
            raise Unreachable(worker, reason=_why(stubs.line, failure)) from failure
    except ValueError:  # the channel was closed
        raise Unreachable(worker) from None


def start_thd(
    sent_thd: Callable[[], None] | None,
    stubs: Stubs,
    worker: str,
    request: worker_pb2.StartJobReq,
    seconds: float,
    metadata: Metadata,
) -> JobStatus:
    """How the job is; ``sent_thd`` is called once the start is on its way."""
    left = _checked_thd(stubs, worker, seconds, CHECK_VALID_SECONDS)
    answer = _made_thd(stubs, "StartJob", worker, request, left, metadata, sent_thd)
    if answer.HasField("status"):
        return _read_answer(worker, lambda: convert.status_from_pb(answer.status))
    return JobStatus(_read_answer(worker, lambda: convert.checked_id("jobID", answer.jobID)), JobState.RUNNING)


def stop_thd(
    stubs: Stubs, worker: str, request: worker_pb2.StopJobReq, seconds: float, metadata: Metadata
) -> JobStatus | None:
    """Answered when the stop was taken, or when the job has ended, as the request says; ``None``: no status came."""
    answer = _made_thd(stubs, "StopJob", worker, request, seconds, metadata)
    if not answer.HasField("status"):
        return None
    return _read_answer(worker, lambda: convert.status_of_from_pb(request.jobID, answer.status))


def signal_thd(stubs: Stubs, worker: str, request: worker_pb2.SignalJobReq, seconds: float, metadata: Metadata) -> None:
    """``Unreachable``: the signal was not sent; ``DeadlineExceeded``: nobody can say whether it arrived."""
    left = _checked_thd(stubs, worker, seconds, 0.0)
    began = time.monotonic()
    try:
        _made_thd(stubs, "SignalJob", worker, request, left, metadata)
    except Unreachable as error:
        raise DeadlineExceeded(f"SignalJob on worker {worker!r}", round(time.monotonic() - began, 1)) from error


def remove_thd(stubs: Stubs, worker: str, request: worker_pb2.RemoveJobReq, seconds: float, metadata: Metadata) -> None:
    """Answered when the job is removed; ``JobNotEnded``."""
    _made_thd(stubs, "RemoveJob", worker, request, seconds, metadata)


def query_thd(
    stubs: Stubs, worker: str, request: worker_pb2.QueryJobReq, seconds: float, metadata: Metadata
) -> JobStatus:
    """How the job is; ``NotFound``."""
    answer = _made_thd(stubs, "QueryJob", worker, request, seconds, metadata)
    return _read_answer(worker, lambda: convert.query_from_pb(request.jobID, answer))


def query_together_thd(
    stubs: Stubs, worker: str, request: worker_pb2.QueryJobsReq, seconds: float, metadata: Metadata
) -> list[JobStatus | Failure | None]:
    """How each job is, in their order, or a failure of its own; ``None`` where the answer says nothing of it."""
    try:
        answer = _made_thd(stubs, "QueryJobs", worker, request, seconds, metadata)
    except Unsupported:
        stubs.answers_many = False
        return [None] * len(request.jobID)
    except NotFound:  # which one? none may be given up for it
        raise WorkerFault(worker, "QueryJobs was answered with NOT_FOUND") from None
    told = {status.jobID: status for status in answer.status}
    return [_status_or_failure_thd(worker, told[job_id]) if job_id in told else None for job_id in request.jobID]


def _status_or_failure_thd(worker: str, status: worker_pb2.JobStatus) -> JobStatus | Failure:
    try:
        return _read_answer(worker, lambda: convert.status_from_pb(status))
    except WorkerFault as fault:
        return Failure(fault)


def read_thd(stubs: Stubs, worker: str, request: worker_pb2.ReadOutputReq, seconds: float, metadata: Metadata) -> Chunk:
    """What there is now, ``max`` bytes at most."""
    answer = _made_thd(stubs, "ReadOutput", worker, request, seconds, metadata)
    return _read_answer(worker, lambda: convert.chunk_from_read(answer, request.offset, request.max))


def _checked_thd(stubs: Stubs, worker: str, seconds: float, fresh: float) -> float:
    """The seconds that are left for a call that must not be sent in vain; ``Unreachable``.

    An answer that is no older than ``fresh`` seconds is as good as a check.
    """
    before = time.monotonic()
    if before - stubs.answered_at > fresh:
        check_thd(stubs, worker, min(seconds, CHECK_DEADLINE_SECONDS))
    return max(seconds - (time.monotonic() - before), 0.1)


def _made_thd(
    stubs: Stubs,
    method: str,
    worker: str,
    request: Any,
    seconds: float,
    metadata: Metadata,
    sent_thd: Callable[[], None] | None = None,
) -> Any:
    call, before = getattr(stubs.worker, method), time.monotonic()
    request_id = dict(metadata).get(METADATA_KEY, "")
    try:
        if sent_thd is None:
            answer = call(request, timeout=seconds, metadata=metadata)
        else:
            under_way = call.future(request, timeout=seconds, metadata=metadata)
            sent_thd()
            answer = under_way.result(seconds + ABANDONED_AFTER_SECONDS)
    except grpc.RpcError as failure:
        _log.debug(_FAILED, method=method, worker=worker, code=failure.code().name, request_id=request_id)
        raise understood(failure, stubs.line, worker, method, request.jobID, seconds) from failure
    except ValueError:  # the channel was closed between the check and the call
        raise Unreachable(worker, sent=True) from None
    except (grpc.FutureTimeoutError, RuntimeError) as failure:  # gRPC could start no thread to hear the answer
        raise Unreachable(worker, sent=True) from failure
    stubs.answered_at = time.monotonic()
    _log.debug(_ANSWERED, method=method, worker=worker, ms=1000 * (stubs.answered_at - before), request_id=request_id)
    return answer


def _read_answer(worker: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except Invalid as error:
        raise WorkerFault(worker, str(error)) from None


#: Methods of the core protocol without which nothing is a worker.
_EVERY_WORKER_HAS = frozenset({"StartJob", "QueryJob"})

_NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def _why(line: Channel, failure: grpc.RpcError) -> str:
    """The reason of ``Unreachable``; ``""`` of a call that this process cut."""
    return "" if failure.code() is grpc.StatusCode.CANCELLED else line.why(failure)


def understood(
    failure: grpc.RpcError, line: Channel, worker: str, method: str, job_id: str, seconds: float
) -> SchedulerError:
    """The error the caller is promised for what the worker, or gRPC, answered."""
    # The frames of its traceback hold it, where it is the call itself: that would be kept until a garbage collection.
    failure.with_traceback(None)
    told = status.error_from_status(failure)
    if isinstance(told, NotFound | Conflict | OutputPruned | OffsetBeyondEnd | Busy) or type(told) is Unavailable:
        return told  # not ShuttingDown: what was under way may have been done all the same
    match failure.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return NotAWorker(worker, method) if method in _EVERY_WORKER_HAS else Unsupported(worker, method)
        case grpc.StatusCode.NOT_FOUND:
            return NotFound("job", job_id)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Unavailable(
                f"worker {worker!r} has no room for the call: {bounded_text(failure.details() or '')}", retry_after=1
            )
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unreachable(worker, sent=True, reason=_why(line, failure))
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{method} on worker {worker!r}", round(seconds, 1))
        case _:
            return WorkerFault(worker, bounded_text(failure.details() or "") or failure.code().name)
