"""The transport of ``TwistedClient``: carries out the steps of a script with treq, reading bodies on demand."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from attrs import define
from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError, RequestNotSent  # raised by the public Agent, but private
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from scheduler.client.address import Target, body
from scheduler.client.exchange import Head, Loss, NoAnswer, Open, Read, Request, Step, Trouble, loss_of

T = TypeVar("T")


@define(eq=False)
class Channel:
    """The requests of one script (``exchange``), one at a time."""

    _reactor: Any
    _http: HTTPClient
    _target: Target
    _timeout: float
    _trouble: Trouble
    #: Seconds for the present request without a byte.
    _silence: float = 0.0
    _body: _Body | None = None
    _pending: Deferred[Any] | None = None
    _cancelled: bool = False

    def cancellable(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run the coroutine, for its result. A cancelled Deferred fails at once, never as a lost answer."""
        result: Deferred[T] = Deferred(self._cancel)

        def settle(outcome: T | Failure) -> None:
            if not result.called:  # otherwise it was cancelled while the coroutine ran
                result.callback(outcome)

        Deferred.fromCoroutine(coroutine).addBoth(settle)
        return result

    async def perform(self, step: Step) -> Any:
        if self._cancelled:
            raise CancelledError
        if isinstance(step, Open):
            head = await self._open(step.request)
            self._trouble.after(head)
            return head
        if isinstance(step, Read):
            return await self._read()
        self._trouble.before(step)
        await self._wait(deferLater(self._reactor, step.seconds))
        return None

    def close(self) -> None:
        """End the script. A connection whose body was not read to its end can't be used again, and is closed."""
        shut, self._body = self._body, None
        if shut is not None:
            shut.close()

    def _cancel(self, _: Deferred[Any]) -> None:
        self._cancelled = True
        if self._pending is not None:
            self._pending.cancel()

    async def _open(self, request: Request) -> Head | NoAnswer:
        self.close()
        self._silence = self._timeout if request.silence is None else request.silence
        asked = self._http.request(
            request.method,
            self._target.base + self._target.path(request),
            headers=Headers({name: [value] for name, value in self._target.headers(request).items()}),
            data=body(request),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        try:
            response = await self._wait(asked, self._silence)
        except _Late:
            return NoAnswer(Loss.LOST, "no answer in time")
        except CancelledError:
            raise
        except Exception as error:
            return NoAnswer(_loss(error), _why(error))
        self._body = _Body(self._reactor)
        response.deliverBody(self._body)
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        if response.length is not UNKNOWN_LENGTH:  # Twisted removes the header itself from the response
            headers["content-length"] = str(response.length)
        return Head(response.code, headers)

    async def _read(self) -> bytes | NoAnswer:
        assert self._body is not None
        try:
            data: bytes | NoAnswer = await self._wait(self._body.read(), self._silence)
        except _Late:
            data = NoAnswer(Loss.LOST, "no answer in time")
        if not data or isinstance(data, NoAnswer):
            self.close()
        return data

    async def _wait(self, pending: Deferred[Any], seconds: float | None = None) -> Any:
        """The result of ``pending``; ``_Late`` after ``seconds``, ``CancelledError`` if the caller gave up."""
        if seconds is not None:
            pending.addTimeout(seconds, self._reactor, lambda *_: Failure(_Late()))
        self._pending = pending
        try:
            return await pending
        except Exception:
            if self._cancelled:
                raise CancelledError from None
            raise
        finally:
            self._pending = None


class _Late(Exception):
    """No result came within the given seconds."""


@implementer(IAgent)
class Uncompressed:
    """An agent that asks for uncompressed answers. treq would ask for compressed ones, which proxies hold back."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("accept-encoding", ["identity"])
        return self._agent.request(method, uri, headers, bodyProducer)


class _Body(Protocol):
    """A body that is read on demand. Its connection is paused while nothing is read.

    Data is handed out in a separate turn of the reactor. So a caller that hangs up is not inside the parser, which
    would continue, and keep the connection for the next request.
    """

    transport: Any  # one that can be paused

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pieces: list[bytes] = []
        self._end: bytes | NoAnswer | None = None
        self._waiting: Deferred[bytes | NoAnswer] | None = None

    def read(self) -> Deferred[bytes | NoAnswer]:
        """Wait for data, or take the data that has arrived; ``b""`` at the end."""
        self._waiting = Deferred()
        if self._pieces or self._end is not None:
            self._reactor.callLater(0, self._tell)
        elif self.transport is not None:
            self.transport.resumeProducing()
        return self._waiting

    def close(self) -> None:
        """Hang up, unless the body has ended."""
        if self._end is None and self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if not self._pieces:
            self._reactor.callLater(0, self._tell)
        self._pieces.append(data)
        if self.transport is not None:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = b"" if reason.check(ResponseDone) else NoAnswer(Loss.LOST, _why(reason.value))
        self._reactor.callLater(0, self._tell)

    def _tell(self) -> None:
        waiting = self._waiting
        if waiting is None or waiting.called:
            return
        if self._pieces:
            data, self._pieces = b"".join(self._pieces), []
            self._waiting = None
            waiting.callback(data)
        elif self._end is not None:
            self._waiting = None
            waiting.callback(self._end)


def trust_root(ca_file: str | None) -> Any:
    """The trust root for TLS; ``None``: the system's. Raises ``OSError`` or ``ValueError`` for an unfit file."""
    if ca_file is None:
        return None
    pem = Path(ca_file).read_bytes()
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
    if not blocks:
        raise ValueError(f"{ca_file} has no certificate")
    return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error, and the errors that twisted.web wraps in it."""
    found = []
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is not None:
            found.append(each)
            waiting += [reason.value for reason in getattr(each, "reasons", None) or ()]
    return found


def _loss(error: BaseException) -> Loss:
    causes = _causes(error)
    if any(isinstance(each, VerificationError) or _refused_by_tls(each) for each in causes):
        return Loss.UNTRUSTED
    for each in causes:
        if isinstance(each, ParseError) and not each.data.startswith(b"HTTP/"):
            return loss_of(each.data)
    if isinstance(error, (ConnectError, DNSLookupError, RequestNotSent)):
        return Loss.UNSENT
    return Loss.LOST


def _refused_by_tls(error: BaseException) -> bool:
    """Whether the certificate was refused, or the peer does not speak TLS. A broken connection does not count."""
    return isinstance(error, TlsError) and re.search("verify failed|wrong version|record layer", str(error)) is not None


def _why(error: BaseException | None) -> str:
    """The reason of a failure as a clause."""
    last = _causes(error)[-1]
    if isinstance(last, ParseError):
        return "what answers there does not speak HTTP"
    if isinstance(last, DNSLookupError):
        return "the name of its host is not known"
    if isinstance(last, ConnectError) and last.osError is not None:
        return str(last)
    return str(last).rstrip(".") or type(last).__name__
