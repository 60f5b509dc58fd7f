"""Errors across the wire: one table, read in both directions.

An error of ours becomes the gRPC status below, with its sentence as details and
its name and data beside it in the trailing metadata, so that the other side
raises the same error again. A status without that came from gRPC itself or from
a program that knows only the fixed part; it is read by its code.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import grpc
from attrs import frozen
from grpc import StatusCode

from scheduler import errors
from scheduler.errors import SchedulerError

#: Of the trailing metadata; the value is JSON: ``{"error": "NotFound", "kind": "job", "name": "..."}``.
METADATA_KEY = "scheduler-error-bin"

#: Characters of one text that travel; all metadata of a call must stay below 8 KiB.
_LONGEST = 500


@frozen
class Row:
    """``arguments`` are those the error is made from; ``message`` is its text, any other an attribute of it."""

    code: StatusCode
    arguments: tuple[str, ...] = ("message",)


TABLE: dict[type[SchedulerError], Row] = {
    errors.Invalid: Row(StatusCode.INVALID_ARGUMENT, ("field", "problem")),
    errors.NotFound: Row(StatusCode.NOT_FOUND, ("kind", "name")),
    errors.Conflict: Row(StatusCode.FAILED_PRECONDITION),
    errors.Refused: Row(StatusCode.PERMISSION_DENIED),
    errors.Unsupported: Row(StatusCode.UNIMPLEMENTED, ("worker", "capability")),
    errors.WorkerFault: Row(StatusCode.INTERNAL, ("worker", "detail")),
    errors.OffsetBeyondEnd: Row(StatusCode.OUT_OF_RANGE, ("offset", "size")),
    errors.DeadlineExceeded: Row(StatusCode.DEADLINE_EXCEEDED, ("what", "seconds")),
    errors.StartUnanswered: Row(StatusCode.UNKNOWN, ("worker", "job_id")),
    errors.Unavailable: Row(StatusCode.UNAVAILABLE, ("message", "retry_after")),
    errors.Unreachable: Row(StatusCode.UNAVAILABLE, ("name", "sent", "kind")),
    errors.NoFreeSlot: Row(StatusCode.RESOURCE_EXHAUSTED, ("message", "retry_after")),
    errors.Busy: Row(StatusCode.RESOURCE_EXHAUSTED, ("what", "limit")),
    errors.StoreFailed: Row(StatusCode.UNAVAILABLE, ("message", "retry_after")),
    errors.ShuttingDown: Row(StatusCode.UNAVAILABLE, ()),
}

_BY_NAME = {error.__name__: error for error in TABLE}


def abort(context: grpc.ServicerContext, error: SchedulerError) -> NoReturn:
    """End the call with the error's status."""
    row = TABLE[type(error)]
    data: dict[str, Any] = {"error": type(error).__name__}
    for argument in row.arguments:
        value = str(error) if argument == "message" else getattr(error, argument)
        data[argument] = value[:_LONGEST] if isinstance(value, str) else value
    context.set_trailing_metadata(((METADATA_KEY, json.dumps(data).encode()),))
    context.abort(row.code, str(error)[:_LONGEST])


def told(failure: grpc.RpcError) -> SchedulerError | None:
    """The error of ours that the other side answered with, ``None`` if it was no such answer."""
    metadata: Any = failure.trailing_metadata() or ()
    for key, value in metadata:
        if key == METADATA_KEY:
            try:
                data = json.loads(value)
                error = _BY_NAME[data["error"]]
                return error(*(data[argument] for argument in TABLE[error].arguments))
            except (ValueError, KeyError, TypeError, AttributeError):
                return None  # of a later version
    return None
