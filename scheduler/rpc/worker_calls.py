"""The calls to a worker as pool threads make them. Each returns values of the model or raises a ``SchedulerError``.

Theory of operation. The caller of a start, or of a signal, must learn whether the request was sent. So a health check
on the same channel precedes it: if the check fails, nothing was sent. A call that the same process answered a moment
ago is as good as a check. Once the request is sent, only a few answers prove that nothing was started. They are those
that a worker gives before it looks at the call: no such method, no room, meant for another process, caller refused.

The meaning of a status depends on its possible makers (``scheduler.rpc.status``):

| status | ``StartJob`` | ``SignalJob`` | any other |
| --- | --- | --- | --- |
| with an error of this project in its metadata | that error, but for ``NotFound`` | that error | that error |
| with ``Refused`` or ``Unauthenticated`` there | not sent: nothing ran | not sent | the worker can't be reached |
| UNAVAILABLE, CANCELLED | sent, unanswered | sent, unanswered | the worker can't be reached |
| DEADLINE_EXCEEDED | sent, unanswered | sent, unanswered | no answer in time |
| UNIMPLEMENTED | no worker, nothing ran | it can't do that | of ``QueryJob``: no worker; else it can't do that |
| RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded" | nothing ran | not sent | no room |
| an answer that can't be read, of any other code | sent, unanswered | sent, unanswered | a fault |
| NOT_FOUND | a fault | no such job | no such job |
| any other, RESOURCE_EXHAUSTED too | a fault | a fault | a fault |

An answer, an error too, counts only if it comes from the process that the call is meant for
(``scheduler.rpc.addressing``). If another process carries out a start instead of refusing it, the start counts as sent.
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

from scheduler.errors import (
    ANOTHER_PROCESS,
    AnswerUnreadable,
    Busy,
    Conflict,
    DeadlineExceeded,
    Invalid,
    Misdirected,
    NotAWorker,
    NotFound,
    OffsetBeyondEnd,
    OutputPruned,
    Refused,
    SchedulerError,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import JobStatus
from scheduler.model import JobState
from scheduler.pb import worker_pb2, worker_pb2_grpc
from scheduler.rpc import convert, reasons, status
from scheduler.rpc.addressing import Addressee, nonce_in
from scheduler.rpc.channel import MAX_WORKER_CALLS, Channel

T = TypeVar("T")

_log = Logger()
_ANSWERED, _FAILED = "{method} on {worker}: answered in {ms:.1f} ms", "{method} on {worker}: {code}"

#: Seconds that the health check before a start, or a probe, may take.
CHECK_DEADLINE_SECONDS = 5.0
#: Seconds without an answer after which a process counts as gone, if another process asks for its name or address.
ANSWERS_DEADLINE_SECONDS = 2.0
#: Seconds for which an answer replaces a health check. Under load, a check takes about as long.
CHECK_VALID_SECONDS = 0.02
#: Seconds after its deadline during which a late answer of a core worker to a start is still accepted.
LATE_ANSWER_MAX_SECONDS = 300.0


class Stubs:
    """A channel to a worker, its stubs, and what is known of the process that answers there."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.worker = worker_pb2_grpc.WorkerStub(channel.grpc_channel)
        self.health = health_pb2_grpc.HealthStub(channel.grpc_channel)
        #: When the worker last answered a unary call (``time.monotonic``), and the nonce of the process that answered.
        self.answered = (-math.inf, "")
        #: Whether the worker is believed to implement ``QueryJobs``.
        self.answers_many = True
        #: Whether the last health check timed out, and nothing has been answered since.
        self.silent = False
        #: Number of probes since ``silent`` became true.
        self.probed_silent = 0
        #: Calls in flight, streams included.
        self.calls = 0


def check_thd(stubs: Stubs, to: Addressee, seconds: float, in_all: float = 0.0) -> None:
    """Make a health check. Any answer of the addressee is a success.

    Raises ``Unreachable`` if no answer comes or the call is refused, ``Misdirected`` if another process answers,
    ``Busy`` if the server has no room for the call and does not name its process. ``in_all``: the seconds named in the
    reason, if this check is one of several attempts.
    """
    try:
        _, call = stubs.health.Check.with_call(health_pb2.HealthCheckRequest(), timeout=seconds, metadata=to.metadata)
        answer = call.trailing_metadata()
    except grpc.RpcError as failure:
        failure.with_traceback(None)
        code, answer = failure.code(), failure.trailing_metadata()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            stubs.silent = True
            raise Unreachable(to.name, reason=reasons.no_answer(in_all or seconds)) from failure
        if code in _NO_ANSWER:
            raise Unreachable(to.name, reason=_why(stubs.channel, failure)) from failure
        stubs.silent = False
        told = status.error_from_status(failure)
        if isinstance(told, Misdirected):
            raise Misdirected(to.name) from failure
        if isinstance(told, _NOT_ADMITTED):
            raise Unreachable(to.name, reason=_not_admitted(told)) from failure
        if to.nonce and not nonce_in(answer) and status.is_without_a_place(failure):
            raise Busy(f"places for calls at worker {to.name!r}", MAX_WORKER_CALLS) from failure
    except ValueError:  # the channel was closed
        raise Unreachable(to.name) from None
    stubs.silent = False
    if not to.gave(answer):
        raise Misdirected(to.name)


#: Has its argument called with the late answer to a start, on a thread of gRPC that serves all calls: it must be quick.
Listen = Callable[[Callable[[JobStatus | Failure], None]], None]


def start_thd(
    late_thd: Callable[[Listen], None] | None,
    stubs: Stubs,
    to: Addressee,
    request: worker_pb2.StartJobReq,
    seconds: float,
) -> JobStatus:
    """Start a job and return its status.

    If no answer comes in time, ``late_thd`` is called before ``DeadlineExceeded`` is raised, and may await a late
    answer.
    """
    left = _checked_thd(stubs, to, seconds, CHECK_VALID_SECONDS)
    if late_thd is None:
        return _read_start(to, _made_thd(stubs, "StartJob", to, request, left))
    in_all = left + LATE_ANSWER_MAX_SECONDS
    under_way: Any = None

    def send_thd() -> tuple[Any, Any]:
        nonlocal under_way
        under_way = stubs.worker.StartJob.future(request, timeout=in_all, metadata=to.metadata)
        try:
            return under_way.result(left), under_way
        except grpc.FutureTimeoutError:
            late_thd(listen_thd)
            raise DeadlineExceeded(f"StartJob on worker {to.name!r}", round(left, 1)) from None

    def listen_thd(tell_thd: Callable[[JobStatus | Failure], None]) -> None:
        def over_thd(_: object) -> None:
            try:
                heard = _made_thd(stubs, "StartJob", to, request, in_all, lambda: (under_way.result(0), under_way))
                tell_thd(_read_start(to, heard))
            except SchedulerError:
                tell_thd(Failure())

        under_way.add_done_callback(over_thd)

    return _read_start(to, _made_thd(stubs, "StartJob", to, request, left, send_thd))


def _read_start(to: Addressee, answer: Any) -> JobStatus:
    try:
        if answer.HasField("status"):
            return convert.status_from_pb(answer.status)
        return JobStatus(convert.checked_core_id("jobID", answer.jobID), JobState.RUNNING)
    except Invalid as error:
        raise AnswerUnreadable(to.name, str(error)) from None


def ask_thd(method: str, read: Callable[[Any], T], stubs: Stubs, to: Addressee, request: Any, seconds: float) -> T:
    """Make a call without a check before it, and return what ``read`` makes of its answer."""
    answer = _made_thd(stubs, method, to, request, seconds)
    try:
        return read(answer)
    except Invalid as error:
        raise WorkerFault(to.name, str(error)) from None


def signal_thd(stubs: Stubs, to: Addressee, request: worker_pb2.SignalJobReq, seconds: float) -> None:
    """Send a signal. ``Unreachable``: it was not sent. ``DeadlineExceeded``: it may have arrived."""
    left = _checked_thd(stubs, to, seconds, 0.0)
    began = time.monotonic()
    try:
        _made_thd(stubs, "SignalJob", to, request, left)
    except (Unreachable, AnswerUnreadable) as error:
        if isinstance(error, Unreachable) and not error.sent:
            raise
        raise DeadlineExceeded(f"SignalJob on worker {to.name!r}", round(time.monotonic() - began, 1)) from error


def query_together_thd(
    stubs: Stubs, to: Addressee, request: worker_pb2.QueryJobsReq, seconds: float
) -> list[JobStatus | Failure | None]:
    """For each job, in order: its status, a failure of its own, or ``None`` if the answer does not contain the job."""
    try:
        answer = _made_thd(stubs, "QueryJobs", to, request, seconds)
    except Unsupported:
        stubs.answers_many = False
        return [None] * len(request.jobID)
    told = {status.jobID: status for status in answer.status}
    return [_status_or_failure(to, told[job_id]) if job_id in told else None for job_id in request.jobID]


def _status_or_failure(to: Addressee, status: worker_pb2.JobStatus) -> JobStatus | Failure:
    try:
        return convert.status_from_pb(status)
    except Invalid as error:
        return Failure(WorkerFault(to.name, str(error)))


def _checked_thd(stubs: Stubs, to: Addressee, seconds: float, fresh: float) -> float:
    """Check that the worker answers. Returns the seconds left for the call. Raises ``Unreachable`` if it does not.

    An answer of the same process that is no older than ``fresh`` seconds replaces the check.
    """
    before = time.monotonic()
    answered_at, nonce = stubs.answered
    if before - answered_at > fresh or nonce != to.nonce:
        check_thd(stubs, to, min(seconds, CHECK_DEADLINE_SECONDS))
    return max(seconds - (time.monotonic() - before), 0.1)


def _made_thd(
    stubs: Stubs,
    method: str,
    to: Addressee,
    request: Any,
    seconds: float,
    make_thd: Callable[[], tuple[Any, Any]] | None = None,
) -> Any:
    """Make the call and return its answer. ``make_thd``, if given, makes it, and returns the answer and gRPC's call."""
    before = time.monotonic()
    try:
        if make_thd is None:
            call = getattr(stubs.worker, method)
            answer, under_way = call.with_call(request, timeout=seconds, metadata=to.metadata)
        else:
            answer, under_way = make_thd()
        metadata = under_way.trailing_metadata()
    except grpc.RpcError as failure:
        _log.debug(_FAILED, method=method, worker=to.name, code=failure.code().name, request_id=to.request_id)
        raise understood(failure, stubs.channel, to, method, request.jobID, seconds) from failure
    except ValueError:  # the channel was closed between the check and the call
        raise Unreachable(to.name, sent=True) from None
    except _UNHEARD as failure:
        raise Unreachable(to.name, sent=True) from failure
    if not to.gave(metadata):
        raise answered_by_another(to, method)
    if answer is None:  # gRPC also reports a call as successful that ended well without a message
        raise AnswerUnreadable(to.name, NO_MESSAGE)
    now = time.monotonic()
    stubs.answered, stubs.silent = (now, to.nonce), False
    _log.debug(_ANSWERED, method=method, worker=to.name, ms=round(1000 * (now - before), 1), request_id=to.request_id)
    return answer


#: Raised by a call whose answer was not received: it was cut, or gRPC could start no thread for the answer.
_UNHEARD = (grpc.FutureCancelledError, RuntimeError)

#: The reason for a call that ended well, without an answer.
NO_MESSAGE = "its answer has no message"

#: Methods of the core protocol that every worker has.
_EVERY_WORKER_HAS = frozenset({"StartJob", "QueryJob"})

#: Methods that take effect in any process that carries them out, also in one that the call was not meant for.
_DONE_ANYWHERE = frozenset({"StartJob", "SignalJob"})

#: Methods about a single job. For other methods, NOT_FOUND does not say which job is meant.
_OF_A_JOB = frozenset({"StopJob", "QueryJob", "SignalJob", "RemoveJob", "ReadOutput", "StreamJob"})

#: Kinds of thing that a worker may report as not found.
_JOB_KINDS = frozenset({"job", "output of job"})

#: The errors of a worker that refuses this process, before it looks at the call.
_NOT_ADMITTED = (Unauthenticated, Refused)


def _not_admitted(error: SchedulerError) -> str:
    return f"it refuses calls of this scheduler: {error}"


_NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def _why(channel: Channel, failure: grpc.RpcError) -> str:
    """The reason for ``Unreachable``; ``""`` if this process itself cut the call."""
    return "" if failure.code() is grpc.StatusCode.CANCELLED else channel.why(failure)


def answered_by_another(to: Addressee, method: str) -> Unreachable:
    """The error for a call that another process carried out instead of refusing it."""
    if method in _DONE_ANYWHERE:
        return Unreachable(to.name, sent=True, reason=ANOTHER_PROCESS)
    return Misdirected(to.name)


def understood(
    failure: grpc.RpcError, channel: Channel, to: Addressee, method: str, job_id: str, seconds: float
) -> SchedulerError:
    """The error for a failed call, by the table in the module's docstring."""
    # ``failure`` may be the call itself. The frames of its traceback refer to it, which would keep it until a garbage
    # collection.
    failure.with_traceback(None)
    told, code, answer = status.error_from_status(failure), failure.code(), failure.trailing_metadata()
    if isinstance(told, Misdirected):
        return Misdirected(to.name)
    # A status that gRPC itself made, on either side, can't name a process.
    unreadable, no_place = status.is_unreadable(failure), status.is_without_a_place(failure)
    of_grpc = told is None and not nonce_in(answer) and (code in _NO_ANSWER or unreadable or no_place)
    if not to.gave(answer) and not of_grpc:
        return Misdirected(to.name) if code is grpc.StatusCode.UNIMPLEMENTED else answered_by_another(to, method)
    if isinstance(told, _NOT_ADMITTED):
        return Unreachable(to.name, reason=_not_admitted(told))
    if isinstance(told, Conflict | OutputPruned | OffsetBeyondEnd | Busy) or type(told) is Unavailable:
        return told  # not ShuttingDown: the worker may have carried out the call all the same
    match code:
        case grpc.StatusCode.UNIMPLEMENTED if method in _EVERY_WORKER_HAS:
            return NotAWorker(to.name, method)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unreachable(to.name, sent=True, reason=_why(channel, failure))
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{method} on worker {to.name!r}", round(seconds, 1))
    if unreadable:
        return AnswerUnreadable(to.name, status.words(failure))
    if no_place:
        return Unavailable(f"worker {to.name!r} has no room for the call: {status.words(failure)}", retry_after=1)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported(to.name, method)
    if code is grpc.StatusCode.NOT_FOUND and method in _OF_A_JOB:
        return told if isinstance(told, NotFound) and told.kind in _JOB_KINDS else NotFound("job", job_id)
    return WorkerFault(to.name, status.words(failure))
