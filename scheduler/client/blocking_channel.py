"""The transport of ``Client``: carries out the steps of a script with urllib3, and checks the end of every answer.

``http.client``, which urllib3 uses, takes the end of a connection for the end of a line. So truncated headers look
complete, and so does a chunked body whose last line is truncated. Here a line must have its end, and a body must have a
length, so that a broken connection is never taken for an answer.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from typing import Any

import urllib3
from attrs import define
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ClosedPoolError, HTTPError, NameResolutionError, ProtocolError, ReadTimeoutError

from scheduler.client.address import Target, body
from scheduler.client.exchange import Head, Loss, NoAnswer, Open, Read, Request, Step, Trouble, loss_of

#: Seconds, at most, to establish a connection.
CONNECT_TIMEOUT_SECONDS = 10.0

#: Bytes read at once.
READ_MAX_BYTES = 256 * 1024

#: The beginning of every HTTP answer.
_HTTP = b"HTTP/"


@define(eq=False)
class Channel:
    """The requests of one script (``exchange``), one at a time."""

    _pool: urllib3.HTTPConnectionPool
    _target: Target
    _timeout: float
    _trouble: Trouble
    _response: urllib3.BaseHTTPResponse | None = None
    _delimited: bool = False

    def perform(self, step: Step) -> Any:
        if isinstance(step, Open):
            head = self._open(step.request)
            self._trouble.after(head)
            return head
        if isinstance(step, Read):
            return self._read()
        self._trouble.before(step)
        time.sleep(step.seconds)
        return None

    def close(self) -> None:
        """End the script. A connection whose body was not read to its end can't be used again, and is closed."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _open(self, request: Request) -> Head | NoAnswer:
        self.close()
        silence = self._timeout if request.silence is None else request.silence
        try:
            response = self._pool.urlopen(
                request.method,
                self._target.path(request),
                body(request),
                dict(self._target.headers(request)),
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_SECONDS, self._timeout), read=silence),
                preload_content=False,
            )
        except _NotConnected as error:
            return error.outcome
        except ClosedPoolError:
            return NoAnswer(Loss.CLOSED, "the client was closed")
        except (HTTPError, OSError) as error:
            return NoAnswer(_loss(error), _why(error))
        self._response = response
        headers = {name.lower(): value for name, value in response.headers.items()}
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._delimited = chunked or headers.get("content-length", "").isdigit() or response.status == 204
        if "content-encoding" in headers:  # added by a proxy; the request did not ask for it
            headers.pop("content-length", None)
        return Head(response.status, headers)

    def _read(self) -> bytes | NoAnswer:
        assert self._response is not None
        try:
            data: bytes = self._response.read1(READ_MAX_BYTES)
        except (HTTPError, OSError) as error:
            self.close()
            return NoAnswer(Loss.LOST, _why(error))
        if not data:
            self._response.release_conn()
            self._response = None
            if not self._delimited:
                return NoAnswer(Loss.LOST, "the answer does not say how long it is")
        return data


class _NotConnected(Exception):
    """Raised inside urllib3 if connecting fails, so that only this error counts as "nothing was sent"."""

    def __init__(self, outcome: NoAnswer) -> None:
        super().__init__(outcome.why)
        self.outcome = outcome


class _NotHttp(http.client.BadStatusLine):
    """The first line of an answer is not one of HTTP."""

    def __init__(self, line: bytes) -> None:
        super().__init__(repr(line))
        self.loss = loss_of(line)


class _Lines:
    """A buffered reader of an answer.

    Its ``readline`` raises if the connection ended within a line, or if the first line is not HTTP.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._first = True

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._reader.readline(limit)
        if self._first and not _HTTP.startswith(line[: len(_HTTP)]):
            raise _NotHttp(line)
        self._first = False
        if not line.endswith(b"\n") and len(line) != limit:
            raise ConnectionResetError("the connection was closed before the answer was complete")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp: Any = _Lines(self.fp)


class _Plain(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        _connect(super().connect)


class _Secure(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        _connect(super().connect)


def _connect(connect: Callable[[], None]) -> None:
    try:
        connect()
    except ssl.SSLError as error:
        # A handshake that was cut may succeed another time; a handshake with an untrusted certificate can't.
        loss = Loss.UNSENT if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) else Loss.UNTRUSTED
        raise _NotConnected(NoAnswer(loss, f"TLS: {_why(error)}")) from error
    except (HTTPError, OSError) as error:
        raise _NotConnected(NoAnswer(Loss.UNSENT, _why(error))) from error


def new_pool(target: Target, ca_file: str | None) -> urllib3.HTTPConnectionPool:
    """The connection pool for a scheduler. Raises ``OSError`` or ``ssl.SSLError`` for an unreadable ``ca_file``."""
    if target.scheme == "http":
        plain = urllib3.HTTPConnectionPool(target.host_in_url, target.port)
        plain.ConnectionCls = _Plain
        return plain
    context = ssl.create_default_context(cafile=ca_file)
    secure = urllib3.HTTPSConnectionPool(target.host_in_url, target.port, ssl_context=context)
    secure.ConnectionCls = _Secure
    return secure


def _loss(error: BaseException) -> Loss:
    """The kind of loss: the answer never came, was cut, or was not HTTP."""
    inner = _within(error)
    return inner.loss if isinstance(inner, _NotHttp) else Loss.LOST


def _within(error: BaseException) -> BaseException:
    """The exception that urllib3 wrapped in ``error``, without setting it as the cause; otherwise ``error``."""
    if isinstance(error, ProtocolError) and len(error.args) > 1 and isinstance(error.args[1], Exception):
        return error.args[1]
    return error


def _why(error: BaseException) -> str:
    """The reason of a failure as a clause, without urllib3's own names if possible."""
    error = _within(error)
    if isinstance(error, _NotHttp):
        return "what answers there does not speak HTTP"
    if isinstance(error, ReadTimeoutError):
        return "no answer in time"
    if isinstance(error, NameResolutionError):
        return "the name of its host is not known"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    if isinstance(cause, TimeoutError):
        return "no connection in time"
    return str(cause) or type(cause).__name__
