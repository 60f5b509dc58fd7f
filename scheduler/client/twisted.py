"""The client for programs with a reactor: the methods of ``Client``, with Deferreds, on treq.

A method that returns a value in ``Client`` returns a Deferred of this value here. A method that returns an iterator
there returns ``Items`` here: read them with ``async for`` in a coroutine, or with ``each`` and a callback elsewhere.
Cancelling a Deferred closes its connection and abandons the request. A job that the request started continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

from scheduler.client.address import DEFAULT_URL, read_target
from scheduler.client.exchange import Deliver, Script, Source, Trouble
from scheduler.client.operations import Operations, presented
from scheduler.client.submission import JobFields
from scheduler.client.twisted_channel import Channel, Uncompressed, trust_root
from scheduler.client.values import Job, Result

#: Seconds, at most, to establish a connection.
CONNECT_TIMEOUT_SECONDS = 10.0

#: Idle connections that are kept for further requests.
KEPT_CONNECTIONS = 10

T = TypeVar("T")
P = ParamSpec("P")

_log = Logger()


def _method(
    operation: Callable[Concatenate[Operations, P], Script[T]],
) -> Callable[Concatenate[TwistedClient, P], Deferred[T]]:
    def method(client: TwistedClient, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return client._do(operation(client._operations, *args, **kwargs))

    return presented(method, operation)


def _iterator(
    operation: Callable[Concatenate[Operations, P], Source[T]],
) -> Callable[Concatenate[TwistedClient, P], Items[T]]:
    def method(client: TwistedClient, /, *args: P.args, **kwargs: P.kwargs) -> Items[T]:
        return Items(operation(client._operations, *args, **kwargs), client._new_channel())

    return presented(method, operation)


class TwistedClient:
    """``Client`` with Deferreds. Each method has the same arguments, results and errors."""

    def __init__(
        self,
        reactor: Any,
        url: str = DEFAULT_URL,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        patience: float = 60.0,
        ca_file: str | None = None,
        on_trouble: Callable[[str | None], object] | None = None,
    ) -> None:
        """``reactor`` makes the connections and runs the timers. The other arguments are those of ``Client``."""
        target = read_target(url, token)
        if "%" in target.host:
            raise ValueError(f"{url!r}: Twisted's HTTP client can't dial an address with a zone; use a name, or Client")
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = KEPT_CONNECTIONS
        self._pool.retryAutomatically = False  # only ``repeating`` knows which requests may be sent twice
        policy = BrowserLikePolicyForHTTPS(trust_root(ca_file))
        agent = Agent(reactor, policy, connectTimeout=min(CONNECT_TIMEOUT_SECONDS, timeout), pool=self._pool)
        http = HTTPClient(Uncompressed(agent))
        self._new_channel = lambda: Channel(reactor, http, target, timeout, Trouble(on_trouble))
        self._operations = Operations(reactor.seconds, timeout, patience)

    async def __aenter__(self) -> TwistedClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections().addCallback(lambda _: None)
        return closed

    def run(
        self,
        command: str | Sequence[str] | None = None,
        *,
        check: bool = False,
        on_start: Callable[[Job], object] | None = None,
        stop_on_interrupt: bool = False,
        key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Deferred[Result]:
        """See ``Client.run``. Cancelling the Deferred is the interrupt."""
        accepted: list[Job] = []

        def started(job: Job) -> None:
            accepted.append(job)
            if on_start is not None:
                on_start(job)

        def interrupted(failure: Failure) -> Failure:
            if stop_on_interrupt and accepted and failure.check(CancelledError):
                stopping = self.stop(accepted[0].id)
                stopping.addErrback(lambda why: _log.failure("job {job} may run on", why, job=accepted[0].id))
            return failure

        return self._do(self._operations.run(command, check, started, key, fields)).addErrback(interrupted)

    submit = _method(Operations.submit)
    job = _method(Operations.job)
    jobs = _iterator(Operations.jobs)
    wait = _method(Operations.wait)
    stop = _method(Operations.stop)
    stop_matching = _method(Operations.stop_matching)
    signal = _method(Operations.signal)
    remove = _method(Operations.remove)

    output = _iterator(Operations.output)
    follow = _iterator(Operations.follow)

    workers = _method(Operations.workers)
    worker = _method(Operations.worker)
    drain = _method(Operations.drain)
    resume = _method(Operations.resume)
    forget = _method(Operations.forget)

    create_token = _method(Operations.create_token)
    tokens = _method(Operations.tokens)
    revoke_token = _method(Operations.revoke_token)
    audit = _iterator(Operations.audit)

    version = _method(Operations.version)
    ready = _method(Operations.ready)

    def _do(self, script: Script[T]) -> Deferred[T]:
        channel = self._new_channel()

        async def driven() -> T:
            try:
                step = next(script)
                while True:
                    step = script.send(await channel.perform(step))
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                script.close()
                channel.close()

        return channel.cancellable(driven())


class Items(Generic[T]):
    """Items that arrive one after the other: use ``async for item in items``, or ``items.each(callback)``.

    The connection is paused while no item is requested. Reading to the end closes it. A caller that may stop earlier
    uses ``async with items:``, or calls ``close``.
    """

    def __init__(self, source: Source[T], channel: Channel) -> None:
        self._source = source
        self._channel = channel
        self._result: Any = None
        self._closed = False

    def __aiter__(self) -> Items[T]:
        return self

    def __anext__(self) -> Deferred[T]:
        """Wait for the next item. Fails with ``StopAsyncIteration`` at the end. Cancelling closes the items."""
        return self._channel.cancellable(self._next())

    def each(self, consume: Callable[[T], Any]) -> Deferred[None]:
        """Call ``consume`` with each item, and wait for the Deferred that it may return. Fires at the end."""

        async def consumed() -> None:
            async with self:
                async for item in self:
                    answer = consume(item)
                    if isinstance(answer, Deferred):
                        await answer

        return Deferred.fromCoroutine(consumed())

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._channel.close()
            self._source.close()

    async def __aenter__(self) -> Items[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _next(self) -> T:
        try:
            while not self._closed:
                step = self._source.send(self._result)
                if isinstance(step, Deliver):
                    self._result = None
                    return step.item
                self._result = await self._channel.perform(step)
        except StopIteration:
            pass
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopAsyncIteration
