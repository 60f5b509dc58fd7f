"""An HTTP request: its limits, the guard, its id, and its line in the log.

A body that is too large is refused when its length is known or the limit is passed, not when it has arrived:
``scheduler.api.connection`` throws the rest away. Every refusal is a problem document. Each request, answered or not,
is one line of the log.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import lru_cache
from time import time
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server

from scheduler.api.answers import problem_answer, send
from scheduler.api.clients import client_address
from scheduler.api.errors import Problem, no_such_route, problem_of, submission_problem
from scheduler.api.guard import LOOPBACK_HOSTS, refusal
from scheduler.api.quotas import BodyBytes, Shares
from scheduler.api.recording import record_refusal
from scheduler.api.routes import SUBMISSIONS
from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import Busy, ShuttingDown, TooManyRequests, Unavailable
from scheduler.limits import BODY_FREE_BYTES, BODY_MAX_BYTES
from scheduler.net import IPNetwork, address_group
from scheduler.random_ids import random_uuid
from scheduler.security.trail import Audit
from scheduler.texts import cut_tokens

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_log = Logger()


class BaseSite(server.Site):
    """The part of ``connection.ApiSite`` that requests use."""

    clock: IReactorTime
    allowed_hosts: frozenset[str] | None
    max_connections: int
    #: The open connections, by address or local user, and the requests under way that trusted proxies pass on.
    connections: Shares
    bodies: BodyBytes
    trusted_proxies: Sequence[IPNetwork]
    audit: Audit | None
    #: Says whether the sender of a request has a principal.
    knows: Callable[[server.Request], bool]
    draining = False

    def too_many(self, address: str) -> TooManyRequests:
        """The error for an address or local user that has as many connections as one may have."""
        return TooManyRequests(f"{address} has {self.connections.most} connections, and no more are allowed")


class BaseChannel(http.HTTPChannel):
    """The part of ``connection.Channel`` that requests use."""

    site: BaseSite
    #: The error with which requests are answered, as the connection is one too many; ``None`` if it is not.
    crowded: Unavailable | None = None
    #: The user of this machine who has the other end of the connection; ``None``: it is not known, or elsewhere.
    uid: int | None = None
    #: Whether it is a connection over a Unix socket.
    is_unix = False


class Request(server.Request):
    """A request whose body is never stored beyond its limit, with an id and one line in the log."""

    site: BaseSite
    channel: BaseChannel
    #: Whether the body is larger than ``BODY_MAX_BYTES``.
    oversized = False
    #: Whether there was no room for the body among those of all clients.
    unheld = False
    #: Whether a large body follows of a sender who has no principal.
    unwelcome = False
    #: The address of the client, which a trusted proxy may have stated; ``""`` if it has none.
    client_address = ""

    def __init__(self, channel: BaseChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.site = channel.site
        self.request_id = ""
        #: Trailers of a chunked response: sent after the last chunk if the response ends properly.
        self.trailers: dict[str, str] = {}
        self._received = 0
        #: Bytes of the body that are counted among those of all clients.
        self._held = 0
        #: The address for whose share of connections this request counts, if a proxy passed it on.
        self._counted = ""
        self._began = self.site.clock.seconds()

    def headers_received(self, length: int | None) -> None:
        """Look at the sender before the body comes, which has ``length`` bytes; ``None``: it comes in chunks."""
        self.client = self.channel.getPeer()
        self.client_address = client_address(
            getattr(self.client, "host", ""), self.requestHeaders, self.site.trusted_proxies
        )
        self.unwelcome = (length is None or length > BODY_FREE_BYTES) and not self.site.knows(self)

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()
        self.oversized = (length or 0) > BODY_MAX_BYTES

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        self.oversized = self.oversized or self._received > BODY_MAX_BYTES
        more = max(self._received - BODY_FREE_BYTES, 0) - self._held
        if self.refused_body or self.content is None:
            return
        if more > 0 and not self.site.bodies.take(more):
            self.unheld = True
            return
        self._held += max(more, 0)
        self.content.write(data)

    @property
    def refused_body(self) -> bool:
        """Whether the request is answered before all of its body has come."""
        return self.oversized or self.unheld or self.unwelcome

    def _drop_body(self) -> None:
        if self._received:
            self.site.bodies.give_back(self._held)
            self._held = 0
            self.content = io.BytesIO()

    def process(self) -> None:
        given = self.getHeader(b"x-request-id") or b""
        self.request_id = given.decode("ascii") if _GIVEN_ID.fullmatch(given) else random_uuid().hex
        copy_context().run(self._process)
        self._drop_body()  # a handler has read it by now

    def _process(self) -> None:
        REQUEST_ID.set(self.request_id)
        self.responseHeaders.setRawHeaders("Server", ["scheduler"])
        self.responseHeaders.setRawHeaders("Date", [_date(int(time()))])
        self.responseHeaders.setRawHeaders("X-Request-ID", [self.request_id])
        self.responseHeaders.setRawHeaders("Cache-Control", ["no-store"])
        self.responseHeaders.setRawHeaders("X-Content-Type-Options", ["nosniff"])
        try:
            if (problem := self._refusal()) is not None:
                if problem.type != "too-many-requests" or self.channel.crowded is not None:
                    # No request behind it is read: the client, or a proxy, may see another end of it. But a proxy goes
                    # on after the refusal of one of its clients who makes too many requests.
                    self.channel.persistent = 0
                    self.responseHeaders.setRawHeaders("Connection", ["close"])
                if problem.status == 403:
                    record_refusal(self.site.audit, self, "", problem.type)
                send(self, problem_answer(problem.of_submission(False) if self._submits else problem))
                return
            if self.unwelcome:
                self.channel.persistent = 0  # the body is still to come
                self.responseHeaders.setRawHeaders("Connection", ["close"])
            self.prepath, self.postpath = [], [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    @property
    def _submits(self) -> bool:
        return (self.method.decode("latin-1"), self.path.decode("latin-1")) in SUBMISSIONS

    def _refusal(self) -> Problem | None:
        """The problem if the request is refused before it reaches the routes; ``None`` if it is not."""
        hosts = self.site.allowed_hosts
        if hosts is not None and self.channel.is_unix:  # no name leads there, so none has to be configured
            hosts |= LOOPBACK_HOSTS
        problem = refusal(self.requestHeaders, hosts, getattr(self.host, "host", ""), self.isSecure())
        if problem is None and self.oversized:
            problem = Problem(413, f"a body is at most {BODY_MAX_BYTES} bytes", type="body-too-large")
        if problem is None and self.site.draining:
            problem = problem_of(Failure(ShuttingDown()))
        if problem is None and self.unheld:
            problem = problem_of(Failure(Busy("bytes of bodies under way", self.site.bodies.most)))
        if problem is None and self.channel.crowded is not None:
            problem = problem_of(Failure(self.channel.crowded))
        if problem is None and self.client_address != getattr(self.client, "host", ""):
            self._counted = address_group(self.client_address)
            if not self.site.connections.take(self._counted):
                problem = problem_of(Failure(self.site.too_many(self._counted)))
        if problem is None:
            problem = _problem_of_line(self.method, self.path)
        return problem

    def processingFailed(self, reason: Failure) -> None:
        problem = submission_problem(reason) if self._submits else problem_of(reason)
        if self.startedWriting or self._disconnected:
            self.loseConnection()
        else:
            send(self, problem_answer(problem))

    def finish(self) -> None:
        self._ended(aborted=False)
        if self.chunked and self.trailers:
            fields = "".join(f"{name}: {value}\r\n" for name, value in self.trailers.items())
            self.channel.write(f"0\r\n{fields}\r\n".encode("ascii"))
            self.chunked = 0  # the last chunk is written
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        self._drop_body()
        if self.request_id and not self.finished:
            self._ended(aborted=True)
        super().connectionLost(reason)
        self.transport = None  # else what was not sent would stay until the garbage collector finds this request

    def _ended(self, aborted: bool) -> None:
        if self._counted:
            self.site.connections.give_back(self._counted)
        _log.info(
            "{client} {method} {path} {status} {bytes} B {ms:.1f} ms{cut}",
            client=self.client_address or "-",
            method=self.method.decode("ascii"),
            path=cut_tokens(self.path.decode("latin-1")),
            status=self.code,
            bytes=self.sentLength,
            ms=round(1000 * (self.site.clock.seconds() - self._began), 1),
            cut=" cut" if aborted else "",
            aborted=aborted,
            request_id=self.request_id,
        )


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """The header ``Date`` of answers in this second of POSIX time."""
    return str(http.datetimeToString(second), "ascii")


def _problem_of_line(method: bytes, path: bytes) -> Problem | None:
    if not method.isupper():
        # the router ignores case
        return Problem(400, "a method is in upper case", type="invalid-request")
    if not path.startswith(b"/"):
        return Problem(400, "the request's target must be a path, like /v1/jobs", type="invalid-request")
    if path.startswith(b"//") or b"%2f" in path.lower():
        return no_such_route()  # so that no route has a second name
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return Problem(400, "the path is not percent-encoded UTF-8", type="invalid-request")
    return None
