"""A call of a route: its parameters, its body, its idempotency key, and the form of answer that it accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

from attrs import frozen
from twisted.web.server import Request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from scheduler import wire
from scheduler.api.context import Context
from scheduler.api.errors import ProblemError
from scheduler.api.guard import values_of
from scheduler.api.parameters import Query
from scheduler.api.recording import audited, record_reads
from scheduler.errors import Invalid, NotFound, Unauthenticated
from scheduler.interfaces import IScheduler
from scheduler.limits import BODY_MAX_BYTES
from scheduler.model import Job
from scheduler.names import is_id
from scheduler.reading import Object, shown
from scheduler.request_keys import REQUEST_KEY_MAX_CHARACTERS, RequestKey, is_request_key
from scheduler.security.principals import Principal

#: The media types in which a job's output can be answered.
EVENTS, PLAIN = "text/event-stream", "text/plain"

#: The request header with an idempotency key, and the response header of a repeated answer.
KEY_HEADER, REPLAYED_HEADER = "Idempotency-Key", b"Idempotent-Replayed"

_JSON_TYPES = ("application/json", "application/x-www-form-urlencoded")


@frozen
class Call:
    """A call of a route.

    ``principal`` is ``None`` for an open route that somebody without rights calls; otherwise ``context`` has the
    scheduler as the principal sees it. ``route`` is the route's method and
    path. ``document`` is the JSON of the request's body, and ``body`` the value
    that the route's body reader made of it; ``{}`` and ``None`` where the route reads no body.
    """

    context: Context
    request: Request
    principal: Principal | None
    route: str
    query: Query
    document: Object
    body: Any

    @property
    def scheduler(self) -> IScheduler:
        """The scheduler as the principal sees it, with the acts of this call recorded.

        Raises ``Unauthenticated`` if there is no principal.
        """
        if self.principal is None:
            raise Unauthenticated("the request has no token; send `Authorization: Bearer TOKEN`")
        return audited(self.context.scheduler, self.context.audit, self.principal, self.request)

    def note_reads(self, jobs: Iterable[Job]) -> None:
        """Have the audit record that the answer shows output of these jobs."""
        if self.principal is not None:
            record_reads(self.context.scheduler, self.context.audit, self.principal, self.request, jobs)

    @property
    def head(self) -> bool:
        """Whether the client asks for the headers alone (HEAD)."""
        return self.request.method == b"HEAD"

    def header(self, name: str) -> str | None:
        """The values of a header, joined by commas; ``None`` if there is none."""
        values = values_of(self.request.requestHeaders, name)
        return ",".join(values) if values else None

    def follows(self) -> None:
        """Count this call among the streams of its principal until it ends.

        Raises ``TooManyRequests`` if the principal may have no more.
        """
        self.context.followers.add(self.principal, self.request.notifyFinish())

    def key(self) -> tuple[RequestKey | None, bool]:
        """The idempotency key, and whether it was answered before; then this answer gets a header that says so.

        Two requests are the same if route and body are; the form of the body, and of the wanted answer, do not count.
        Raises ``Invalid`` for a malformed key, or several.
        """
        values = values_of(self.request.requestHeaders, KEY_HEADER.lower())
        if not values:
            return None, False
        if len(values) > 1:
            raise Invalid(KEY_HEADER, f"is given {len(values)} times")
        text = values[0]
        if not is_request_key(text):
            raise Invalid(
                KEY_HEADER, f"{shown(text)} must be 1 to {REQUEST_KEY_MAX_CHARACTERS} printable characters of ASCII"
            )
        body = json.dumps(self.document, sort_keys=True, separators=(",", ":"))
        key = RequestKey(text, hashlib.sha256(f"{self.route}\n{body}".encode("ascii")).hexdigest())
        again = self.scheduler.replays(key)
        if again:
            self.request.setHeader(REPLAYED_HEADER, b"true")
        return key, again

    def wants_events(self, otherwise: str) -> bool:
        """Whether ``Accept`` names server-sent events, with at least the ``q`` that it gives to ``otherwise``.

        As in RFC 9110, 12.5.1: a type that is named goes before a wildcard, and a type with ``q=0`` is never sent.
        """
        accepted = parse_accept_header(self.header("accept"), MIMEAccept)
        named = max((q for kind, q in accepted if parse_options_header(kind)[0].lower() == EVENTS), default=0)
        return named > 0 and named >= accepted.quality(otherwise)

    def check_chunks(self) -> None:
        """Refuse (426) clients of HTTP/1.0: without chunks they can't tell the end of a body from a cut connection."""
        if self.request.clientproto == b"HTTP/1.0":
            detail = (
                "follow needs HTTP/1.1: a client of HTTP/1.0 can't tell the end of the output from a cut connection; "
                "nginx in between needs proxy_http_version 1.1"
            )
            headers = {"Upgrade": "HTTP/1.1", "Connection": "Upgrade"}
            raise ProblemError(426, detail, headers, type="http-version")


def read_document(request: Request) -> Object:
    """The JSON object in a request's body. Raises ``Invalid``, or ``ProblemError`` for a 413 or 415."""
    if values_of(request.requestHeaders, "content-encoding"):
        raise ProblemError(415, "the body must not be encoded (Content-Encoding)", type="unsupported-media-type")
    for header in values_of(request.requestHeaders, "content-type"):
        kind, options = parse_options_header(header.lower())
        if kind not in _JSON_TYPES or options not in ({}, {"charset": "utf-8"}):
            raise ProblemError(
                415, f"the body must be application/json in UTF-8, not {shown(header)}", type="unsupported-media-type"
            )
    body = cast(BinaryIO, request.content).read(BODY_MAX_BYTES + 1)
    if len(body) > BODY_MAX_BYTES:
        raise ProblemError(413, f"a body is at most {BODY_MAX_BYTES} bytes", type="body-too-large")
    return wire.load(body)


def checked_id(job_id: str) -> str:
    """``job_id``, if a job can have that id. Raises ``NotFound`` if not."""
    if not is_id(job_id):
        raise NotFound("job", job_id)
    return job_id
