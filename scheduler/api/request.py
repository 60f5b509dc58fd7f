"""What a request says: its parameters, its body, and how its answer is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, cast

from twisted.web.server import Request
from werkzeug.http import parse_accept_header

from scheduler import wire
from scheduler.api.errors import ProblemError
from scheduler.api.guard import values_of
from scheduler.api.query import Pairs, Query, read_pairs
from scheduler.errors import NotFound
from scheduler.fields import Object, shown
from scheduler.model import is_id

#: Of a request's body, in bytes.
BODY_MAX_BYTES = 1024 * 1024

#: The types of the answers that a job's output may have.
EVENTS, PLAIN = "text/event-stream", "text/plain"

_JSON_TYPES = ("application/json", "application/x-www-form-urlencoded")


def query_of(request: Request, allowed: Iterable[str] = ()) -> Query:
    """The request's parameters."""
    return Query(pairs_in(request), allowed)


def pairs_in(request: Request) -> Pairs:
    """The request's query string, apart."""
    return read_pairs(request.uri.partition(b"?")[2])


def body_of(request: Request) -> Object:
    """The request's JSON; ``Invalid``, or 413 or 415."""
    if values_of(request.requestHeaders, "content-encoding"):
        raise ProblemError(415, "the body must not be encoded (Content-Encoding)", type="unsupported-media-type")
    for header in values_of(request.requestHeaders, "content-type"):
        kind, _, parameters = header.lower().partition(";")
        charset = parameters.replace(" ", "").replace('"', "")
        if kind.strip() not in _JSON_TYPES or charset not in ("", "charset=utf-8"):
            raise ProblemError(
                415, f"the body must be application/json in UTF-8, not {shown(header)}", type="unsupported-media-type"
            )
    body = cast(BinaryIO, request.content).read(BODY_MAX_BYTES + 1)
    if len(body) > BODY_MAX_BYTES:
        raise ProblemError(413, f"a body is at most {BODY_MAX_BYTES} bytes", type="body-too-large")
    return wire.load(body)


def wants_events(request: Request, otherwise: str) -> bool:
    """Whether ``Accept`` names server-sent events, with no lower ``q`` than the type of the other answer has.

    As in RFC 9110, 12.5.1: a type that is named goes before a wildcard, and ``q=0`` is never.
    """
    accepted: dict[str, float] = {}
    for kind, quality in parse_accept_header(",".join(values_of(request.requestHeaders, "accept"))):
        accepted.setdefault(kind.partition(";")[0].lower(), quality)
    wildcards = (f"{otherwise.partition('/')[0]}/*", "*/*")
    other = next((accepted[kind] for kind in (otherwise, *wildcards) if kind in accepted), 0.0)
    return accepted.get(EVENTS, 0.0) > 0 and accepted[EVENTS] >= other


def check_chunks(request: Request) -> None:
    """426 to a client of HTTP/1.0, which knows no chunks: it could not tell the end of a body from a cut."""
    if request.clientproto == b"HTTP/1.0":
        detail = (
            "follow needs HTTP/1.1: a client of HTTP/1.0 can't tell the end of the output from a cut connection; "
            "nginx in between needs proxy_http_version 1.1"
        )
        headers = {"Upgrade": "HTTP/1.1", "Connection": "Upgrade"}
        raise ProblemError(426, detail, headers, type="http-version")


def checked_id(job_id: str) -> str:
    """``job_id``, if there can be a job of that id; ``NotFound``."""
    if not is_id(job_id):
        raise NotFound("job", job_id)
    return job_id
