"""Errors across the wire: one table, read in both directions.

An error of this project (``scheduler.errors``) becomes the gRPC status below. Its message becomes the details, and its
name and data go into the trailing metadata, so that the other side can raise the same error. A status without this
metadata was made by gRPC itself, or by a program that speaks only the core protocol. Such a status is read by its code.

gRPC itself makes a status in two places. The library of the server makes one if the program never saw the call, or
raised. The client's own library makes one if no answer came, or an unreadable answer. Neither makes a status with a
code in ``OF_PROGRAMS_ALONE``. Only a status that the other program made says what that program did. The texts that tell
the makers apart are those of grpcio 1.76 to 1.85; ``tests/integration/test_rpc_makers.py`` produces them with real
servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import grpc
from grpc import StatusCode

from scheduler import errors
from scheduler.errors import SchedulerError
from scheduler.texts import bounded_text

#: Key in the trailing metadata. The value is JSON: ``{"error": "NotFound", "kind": "job", "name": "..."}``.
METADATA_KEY = "scheduler-error-bin"

#: Bytes of one text that are sent. gRPC may refuse the whole answer if its encoded metadata exceeds 8 KiB.
_TEXT_MAX_BYTES = 500


class Row(NamedTuple):
    """A status code, and the arguments of the error: ``message`` is its text, the others are attributes."""

    code: StatusCode
    arguments: Mapping[str, type]


_UNAVAILABLE = {"message": str, "retry_after": int}

TABLE: dict[type[SchedulerError], Row] = {
    errors.Invalid: Row(StatusCode.INVALID_ARGUMENT, {"field": str, "problem": str}),
    errors.NotFound: Row(StatusCode.NOT_FOUND, {"kind": str, "name": str}),
    errors.BeyondReach: Row(StatusCode.NOT_FOUND, {"kind": str, "name": str}),
    errors.Conflict: Row(StatusCode.FAILED_PRECONDITION, {"message": str}),
    errors.Draining: Row(StatusCode.FAILED_PRECONDITION, {"worker": str}),
    errors.NoMatch: Row(StatusCode.FAILED_PRECONDITION, {"message": str}),
    errors.NameTaken: Row(StatusCode.FAILED_PRECONDITION, {"message": str}),
    errors.WorkerOnline: Row(StatusCode.FAILED_PRECONDITION, {"worker": str}),
    errors.JobNotRunning: Row(StatusCode.FAILED_PRECONDITION, {"job_id": str, "state": str}),
    errors.JobNotEnded: Row(StatusCode.FAILED_PRECONDITION, {"job_id": str, "state": str}),
    errors.JobRemoved: Row(StatusCode.FAILED_PRECONDITION, {"job_id": str}),
    errors.Unauthenticated: Row(StatusCode.UNAUTHENTICATED, {"message": str}),
    errors.Refused: Row(StatusCode.PERMISSION_DENIED, {"message": str}),
    errors.ScopeNeeded: Row(StatusCode.PERMISSION_DENIED, {"principal": str, "needed": str}),
    errors.Unsupported: Row(StatusCode.UNIMPLEMENTED, {"worker": str, "capability": str}),
    errors.WorkerFault: Row(StatusCode.INTERNAL, {"worker": str, "detail": str}),
    errors.AnswerUnreadable: Row(StatusCode.INTERNAL, {"worker": str, "detail": str}),
    errors.KeyReused: Row(StatusCode.FAILED_PRECONDITION, {"key": str}),
    errors.OutputPruned: Row(StatusCode.DATA_LOSS, {"job_id": str}),
    errors.OutputCut: Row(StatusCode.DATA_LOSS, {"job_id": str, "reason": str}),
    errors.OutputGone: Row(StatusCode.DATA_LOSS, {"job_id": str, "reason": str}),
    errors.LeftRunning: Row(StatusCode.FAILED_PRECONDITION, {"job_id": str, "leftover": tuple, "reason": str}),
    errors.OffsetBeyondEnd: Row(StatusCode.OUT_OF_RANGE, {"offset": int, "size": int}),
    errors.DeadlineExceeded: Row(StatusCode.DEADLINE_EXCEEDED, {"what": str, "seconds": float}),
    errors.StartUnanswered: Row(StatusCode.UNKNOWN, {"worker": str, "job_id": str}),
    errors.Unavailable: Row(StatusCode.UNAVAILABLE, _UNAVAILABLE),
    errors.Unreachable: Row(StatusCode.UNAVAILABLE, {"name": str, "sent": bool, "kind": str, "reason": str}),
    errors.Misdirected: Row(StatusCode.FAILED_PRECONDITION, {"name": str}),
    errors.NotAWorker: Row(StatusCode.UNAVAILABLE, {"name": str, "method": str}),
    errors.NoFreeSlot: Row(StatusCode.RESOURCE_EXHAUSTED, _UNAVAILABLE),
    errors.QueueFull: Row(StatusCode.RESOURCE_EXHAUSTED, {"limit": int}),
    errors.TooManyRequests: Row(StatusCode.RESOURCE_EXHAUSTED, _UNAVAILABLE),
    errors.KeyInUse: Row(StatusCode.ABORTED, {"key": str}),
    errors.KeyUnsettled: Row(StatusCode.ABORTED, {"key": str}),
    errors.Busy: Row(StatusCode.RESOURCE_EXHAUSTED, {"what": str, "limit": int}),
    errors.StoreFailed: Row(StatusCode.UNAVAILABLE, _UNAVAILABLE),
    errors.ShuttingDown: Row(StatusCode.UNAVAILABLE, {}),
}


#: Codes of statuses that only the called program makes, never gRPC itself.
OF_PROGRAMS_ALONE = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.ABORTED,
        StatusCode.OUT_OF_RANGE,
        StatusCode.DATA_LOSS,
    }
)

#: Beginnings of the details when this process's library got something unreadable, or nothing, in place of an answer.
_NO_READABLE_ANSWER = re.compile(
    r"Stream removed|CLIENT: Received message larger than max|received (initial |trailing )?metadata size exceeds"
    r"|Received RST_STREAM|Received http2 header with status|No status received|Exception deserializing response!"
    r"|Decompression failed|Compression bit set|Compression algorithm not supported|Unexpected error decompressing"
    r"|Error parsing"
)

#: Beginning of the details when a grpcio server had no thread for the call, so its program never saw it.
_NO_PLACE = "Concurrent RPC limit exceeded"

_BY_NAME = {error.__name__: error for error in TABLE}


def abort(context: grpc.ServicerContext, error: SchedulerError) -> NoReturn:
    """End the call with the status for the error. Raises, as gRPC's ``abort`` does."""
    row = TABLE[type(error)]
    data: dict[str, Any] = {"error": type(error).__name__}
    for argument, kind in row.arguments.items():
        value = str(error) if argument == "message" else getattr(error, argument)
        data[argument] = _short(value) if kind is str else kind(value)
    more = context.trailing_metadata() or ()
    context.set_trailing_metadata((*more, (METADATA_KEY, json.dumps(data, ensure_ascii=False).encode())))
    context.abort(row.code, _short(str(error)))


def _short(text: str) -> str:
    """The text, cut to ``_TEXT_MAX_BYTES`` bytes. Lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace")[:_TEXT_MAX_BYTES].decode("utf-8", "ignore")


def _read(value: Any) -> Any:
    if isinstance(value, str):
        return bounded_text(value)
    return tuple(value) if isinstance(value, list) else value


def error_from_status(failure: grpc.RpcError) -> SchedulerError | None:
    """The error that the other side raised; ``None`` if the status does not carry an error."""
    metadata: Any = failure.trailing_metadata() or ()
    for key, value in metadata:
        if key == METADATA_KEY:
            try:
                data = json.loads(value)
                error = _BY_NAME[data["error"]]
                arguments = [(_read(data[argument]), kind) for argument, kind in TABLE[error].arguments.items()]
            except (ValueError, KeyError, TypeError, RecursionError):
                return None  # sent by a later version, or malformed
            if all(type(argument) is kind for argument, kind in arguments):
                return error(*(argument for argument, _ in arguments))
    return None


def is_unreadable(failure: grpc.RpcError) -> bool:
    """Whether this process's own gRPC library made the status: the answer was too large, garbled or missing."""
    text = failure.details() or ""
    return failure.code() not in OF_PROGRAMS_ALONE and _NO_READABLE_ANSWER.match(text) is not None


def is_without_a_place(failure: grpc.RpcError) -> bool:
    """Whether the server's gRPC library refused the call because too many are in progress, unseen by the program."""
    return failure.code() is StatusCode.RESOURCE_EXHAUSTED and (failure.details() or "").startswith(_NO_PLACE)


def words(failure: grpc.RpcError) -> str:
    """The details of a status, safe to show; the name of its code if there are none."""
    return bounded_text(failure.details() or "") or failure.code().name
