"""The HTTP server: limits on what comes in, the guard, request ids, the access log, and the way out.

``make_site`` puts it together. One request passes, in this order: the limits on
headers, body and time (``Channel``, ``Request``), the guard, the routes. All of
these answer with problem documents. Each request, answered or not, is one line
of the log.

A body that is too large is refused when its length is known or the limit is
passed, not when it has arrived. To close at once would reset the connection
under a client that is still sending, and the answer would be lost; so what it
sends is thrown away for a while.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable, Collection
from contextvars import copy_context
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IConsumer, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource

from scheduler.api.answers import problem_answer, send
from scheduler.api.app import make_app
from scheduler.api.errors import SUBMISSIONS, Problem, no_such_route, problem_of, submission_problem
from scheduler.api.guard import refusal
from scheduler.api.peers import gone, keep_alive
from scheduler.api.request import BODY_MAX_BYTES
from scheduler.api.streams import UnderWay
from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import Busy, ShuttingDown
from scheduler.interfaces import IScheduler

#: Seconds a connection may be silent between requests.
IDLE_MAX_SECONDS = 60.0

#: Seconds for all headers of a request, and then for all of its body.
HEADERS_DEADLINE_SECONDS, BODY_DEADLINE_SECONDS = 20.0, 60.0

#: Seconds and bytes for which the rest of a refused body is thrown away.
LINGER_MAX_SECONDS, LINGER_MAX_BYTES = 30.0, 256 * 1024 * 1024

#: Connections over the limit that are told so; more are closed at once.
MAX_SPARE_CONNECTIONS = 64

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_log = Logger()


def make_site(
    scheduler: IScheduler,
    clock: IReactorTime,
    wall_time: Callable[[], float],
    allowed_hosts: Collection[str] | None,
    max_connections: int = 10_000,
) -> ApiSite:
    """The factory to listen with.

    ``clock`` is the reactor; ``wall_time`` gives POSIX times, for filters like ``24h``;
    ``allowed_hosts`` are names and addresses in lower case, without port or brackets; ``None``: see ``guard.refusal``.
    """
    under_way = UnderWay()
    routes = make_app(scheduler, clock, wall_time, under_way).resource()
    hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
    return ApiSite(routes, clock, hosts, under_way, max_connections)


class Request(server.Request):
    """A request that is never too large, has an id, and is logged once."""

    site: ApiSite
    channel: Channel
    #: The body is larger than it may be.
    oversized = False

    def __init__(self, channel: Channel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.site = channel.site
        self.request_id = ""
        #: Fields that follow the body of a chunked response, where it comes to its end.
        self.trailers: dict[str, str] = {}
        self._received = 0
        self._began = channel.site.clock.seconds()

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()
        self.oversized = (length or 0) > BODY_MAX_BYTES

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        self.oversized = self.oversized or self._received > BODY_MAX_BYTES
        if not self.oversized and self.content is not None:
            self.content.write(data)

    def process(self) -> None:
        given = self.getHeader(b"x-request-id") or b""
        self.request_id = given.decode("ascii") if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        copy_context().run(self._process)

    def _process(self) -> None:
        REQUEST_ID.set(self.request_id)
        self.responseHeaders.setRawHeaders("Server", ["scheduler"])
        self.responseHeaders.setRawHeaders("Date", [http.datetimeToString()])
        self.responseHeaders.setRawHeaders("X-Request-ID", [self.request_id])
        self.responseHeaders.setRawHeaders("Cache-Control", ["no-store"])
        self.responseHeaders.setRawHeaders("X-Content-Type-Options", ["nosniff"])
        try:
            problem = self._refusal()
            if problem is not None:
                send(self, problem_answer(problem.of_submission(False) if self._submits else problem))
                return
            self.prepath, self.postpath = [], [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    @property
    def _submits(self) -> bool:
        """Whether it is to submit a job."""
        return (self.method.decode("latin-1"), self.path.decode("latin-1")) in SUBMISSIONS

    def _refusal(self) -> Problem | None:
        """Why this is not for the routes."""
        problem = refusal(self.requestHeaders, self.site.allowed_hosts, getattr(self.host, "host", ""))
        if problem is None and self.oversized:
            problem = Problem(413, f"a body is at most {BODY_MAX_BYTES} bytes", type="body-too-large")
        if problem is None and self.site.draining:
            problem = problem_of(Failure(ShuttingDown()))
        if problem is None and self.channel.crowded:
            problem = problem_of(Failure(Busy("connections", self.site.max_connections)))
        if problem is None:
            problem = _problem_of_line(self.method, self.path)
        if self.oversized or self.site.draining or self.channel.crowded:
            self.channel.persistent = 0
            self.responseHeaders.setRawHeaders("Connection", ["close"])
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
            self.chunked = 0  # that was the last chunk
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        if self.request_id and not self.finished:
            self._ended(aborted=True)
        super().connectionLost(reason)

    def _ended(self, aborted: bool) -> None:
        _log.info(
            "{client} {method} {path} {status} {bytes} B {ms:.1f} ms{cut}",
            client=getattr(self.client, "host", "-"),
            method=self.method.decode("ascii"),
            path=self.path.decode("latin-1"),
            status=self.code,
            bytes=self.sentLength,
            ms=round(1000 * (self.site.clock.seconds() - self._began), 1),
            cut=" cut" if aborted else "",
            aborted=aborted,
            request_id=self.request_id,
        )


def _problem_of_line(method: bytes, path: bytes) -> Problem | None:
    if not method.isupper():
        # the routes would take it for the one that is
        return Problem(400, "a method is in upper case", type="invalid-request")
    if not path.startswith(b"/"):
        return Problem(400, "the request's target must be a path, like /v1/jobs", type="invalid-request")
    if path.startswith(b"//") or b"%2f" in path.lower():
        return no_such_route()  # not another name for one that there is
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return Problem(400, "the path is not percent-encoded UTF-8", type="invalid-request")
    return None


class Channel(http.HTTPChannel):
    """A connection that can't be held open by sending slowly."""

    site: ApiSite

    def __init__(self) -> None:
        super().__init__()
        self._deadline: IDelayedCall | None = None
        self._refused = False
        #: Bytes still to be thrown away before this is cut.
        self._lingering = 0
        #: It is one too many, and may only be told so.
        self.crowded = False

    def connectionMade(self) -> None:
        super().connectionMade()
        keep_alive(self.transport)
        self.site.channels.add(self)
        self.crowded = len(self.site.channels) > self.site.max_connections

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._set_deadline(None)
        super().connectionLost(reason)
        self.site.lost(self)

    def dataReceived(self, data: bytes) -> None:
        if self._deadline is None and not self._handlingRequest:
            self._set_deadline(HEADERS_DEADLINE_SECONDS)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        if (self.length or 0) > BODY_MAX_BYTES:
            request.requestHeaders.removeHeader("Expect")
        super().allHeadersReceived()
        self._set_deadline(BODY_DEADLINE_SECONDS)
        if request.oversized:
            self.length = 0  # it is answered now, whatever is still to come

    def rawDataReceived(self, data: bytes) -> None:
        if self._lingering:
            self._throw_away(data)
            return
        super().rawDataReceived(data)
        # In chunks, it turns out only on the way that they are too many.
        if self.requests and self.requests[-1].oversized and not self._handlingRequest:
            self.allContentReceived()

    def allContentReceived(self) -> None:
        self._set_deadline(None)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self._refused = request.oversized
        pipelined = bool(self._dataBuffer)
        super().requestDone(request)
        if pipelined and self.persistent and not self._handlingRequest and self._deadline is None:
            self._set_deadline(HEADERS_DEADLINE_SECONDS)

    def loseConnection(self) -> None:
        if not self._refused:
            super().loseConnection()
        elif not self._lingering:
            self._lingering = LINGER_MAX_BYTES
            self._set_deadline(LINGER_MAX_SECONDS)
            cast(IConsumer, self._networkProducer).unregisterProducer()
            if (half_close := getattr(self.transport, "loseWriteConnection", None)) is not None:
                half_close()

    def close_when_done(self) -> None:
        """Close it, after the answer to a request that is under way."""
        self.persistent = 0
        if not self.requests:
            self.loseConnection()

    def abort(self) -> None:
        """Close it at once."""
        cast(ITCPTransport, self.transport).abortConnection()

    def _throw_away(self, data: bytes) -> None:
        self._lingering -= len(data)
        if self._lingering <= 0:
            self._lingering = 1
            self.abort()

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        self.abort()


class ApiSite(server.Site):
    """The factory of connections; HTTP/1.1 only. See ``make_site``."""

    protocol = Channel  # type: ignore[assignment]
    requestFactory = Request  # noqa: N815
    noisy = False  # HttpServer says where it listens

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        allowed_hosts: frozenset[str] | None,
        under_way: UnderWay,
        max_connections: int,
    ) -> None:
        super().__init__(resource, timeout=IDLE_MAX_SECONDS, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.allowed_hosts = allowed_hosts
        self.draining = False
        self.channels: set[Channel] = set()
        self.under_way = under_way
        self.max_connections = max_connections
        self._drained: Deferred[None] | None = None

    def startFactory(self) -> None:
        """No log file, and no timer for its time stamps: each request logs itself."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.channels) >= self.max_connections + MAX_SPARE_CONNECTIONS:
            return None  # so it is closed
        return super().buildProtocol(addr)

    def lost(self, channel: Channel) -> None:
        """A connection is no more."""
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def cut_off_the_gone(self) -> None:
        """Free what is held for clients that are no more; to be called every ``peers.CHECK_INTERVAL_SECONDS``."""
        for channel in list(self.channels):
            if gone(channel.transport):
                channel.abort()

    def drain(self, grace: float) -> Deferred[None]:
        """Refuse new requests, end streams and long polls, let other requests be answered.

        Fires when the last connection is closed; those that are left after ``grace`` seconds are cut.
        """
        self.draining = True
        for channel in list(self.channels):
            channel.close_when_done()
        self.under_way.end()
        if not self.channels:
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._drained = drained
        cut = self.clock.callLater(grace, self._cut)

        def over(_: None) -> None:
            if cut.active():
                cut.cancel()

        return drained.addCallback(over)

    def _cut(self) -> None:
        _log.info("cutting {count} connections that have not ended", count=len(self.channels))
        for channel in list(self.channels):
            channel.abort()
