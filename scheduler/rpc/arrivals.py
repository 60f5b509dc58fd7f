"""Calls get a thread when their message is there, and are cancelled when it does not come.

Theory of operation. grpcio gives a call a thread as soon as its headers are there, and the thread waits for the
message, for ever. A few clients that open calls and send nothing would hold every thread. Here the message is received
first, without a thread: the thread that serves all calls asks for it and is told, as of every other event. grpcio has
nothing public for that, but lets a method name its pool (``experimental_thread_pool``). So each method gets one whose
``submit`` receives the message and then passes the call on. That also saves the call from waking a thread twice.

This uses private parts of ``grpc/_server.py``, the same in 1.76 and in 1.85. Nothing starts where one is missing, and
the tests of half-open calls fail where one works otherwise.

The streams of other services (reflection, the watch of health checks) do wait in a thread: for a further message, or
until the client takes an answer. They have a few threads of their own, and are cancelled where no message came for
five seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from functools import wraps
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the stubs leave it out
from grpc._server import (
    _RECEIVE_MESSAGE_TOKEN,
    _abort,
    _is_rpc_state_active,
    _receive_message,
    _RequestIterator,
)

#: Seconds a client may keep a call waiting for a message.
MESSAGE_DEADLINE_SECONDS = 5.0
#: The same while more than ``CROWD`` calls wait: as soon as they are cancelled, as many again may come.
CROWDED_DEADLINE_SECONDS = 1.0
CROWD = 512
#: Seconds between two looks at the calls that wait, and how many of them are cancelled then at most.
CHECK_INTERVAL_SECONDS = 0.25
MAX_CANCELLED_AT_ONCE = 250
#: Calls that wait at once; a further one cancels the one that has waited longest.
MAX_WAITING_CALLS = 4096
#: Streams of other services at once, those included that wait for a thread; further ones are refused.
MAX_OTHER_STREAMS = 64

# What a pool answers grpcio, which counts the calls that are not done: these are counted here.
_UNCOUNTED: futures.Future[None] = futures.Future()
_UNCOUNTED.set_result(None)


class Cancellable(Protocol):
    """A call."""

    def cancel(self) -> object: ...


class WaitingCalls:
    """Calls that wait for their client, in the order in which they began to. Used from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[Cancellable, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._since)

    def begin(self, call: Cancellable) -> None:
        """It waits from now, whether or not it did before."""
        with self._lock:
            self._since.pop(call, None)
            self._since[call] = self._clock()
            oldest = next(iter(self._since)) if len(self._since) > MAX_WAITING_CALLS else None
            if oldest is not None:
                del self._since[oldest]
        if oldest is not None:
            oldest.cancel()

    def end(self, call: Cancellable) -> None:
        """It does not wait any more."""
        with self._lock:
            self._since.pop(call, None)

    def cancel_old(self) -> None:
        """Cancel those that have waited for too long: not many at once, as each may be followed by another."""
        now = self._clock()
        with self._lock:
            old: list[Cancellable] = []
            for call, since in self._since.items():
                is_crowded = len(self._since) - len(old) > CROWD
                patience = CROWDED_DEADLINE_SECONDS if is_crowded else MESSAGE_DEADLINE_SECONDS
                if since + patience > now or len(old) == MAX_CANCELLED_AT_ONCE:
                    break
                old.append(call)
            for call in old:
                del self._since[call]
        for call in old:
            call.cancel()

    def cancel_all(self) -> None:
        """The server is about to end."""
        with self._lock:
            waiting, self._since = list(self._since), {}
        for call in waiting:
            call.cancel()


class _Entrance(futures.ThreadPoolExecutor):
    """Passes calls on to ``pool``, ``most`` at a time with those that wait for one of them.

    grpcio takes it for a pool, for which it must be of this class. It has no threads of its own.
    """

    def __init__(self, waiting: WaitingCalls, pool: futures.ThreadPoolExecutor, most: int) -> None:
        super().__init__(1)
        self._waiting = waiting
        self._pool = pool
        self._places = threading.Semaphore(most)

    def _pass(self, event: Any, state: Any, *call: Any) -> None:
        """``call`` is what grpcio submitted. It is refused, in gRPC's own words, where it would be one too many."""
        if not self._places.acquire(blocking=False):
            with state.condition:
                full = b"Concurrent RPC limit exceeded!"
                _abort(state, event.call, cygrpc.StatusCode.resource_exhausted, full)
            self._over(event)
            return
        try:
            self._pool.submit(*call).add_done_callback(lambda _: self._left(event))
        except RuntimeError:  # the server has stopped, or the machine has no thread at all
            event.call.cancel()
            self._left(event)

    def _left(self, event: Any) -> None:
        self._places.release()
        self._over(event)

    def _over(self, event: Any) -> None:
        """The call has no thread any more."""


class AfterMessage(_Entrance):
    """For methods with one request: a call is passed on once that is there."""

    def submit(self, run: Any, answer_thd: Any, event: Any, state: Any, *rest: Any) -> Any:  # type: ignore[override]
        """On the thread that serves all calls, which has the lock of the state."""
        method, _, deserializer, serializer = rest
        received = _receive_message(state, event.call, deserializer)

        def request() -> Any:
            with state.condition:
                given, state.request = state.request, None
                return given if _is_rpc_state_active(state) else None  # ``None``: the method is not called

        def on_message(outcome: Any) -> Any:
            self._waiting.end(event.call)
            done = received(outcome)
            with state.condition:
                is_active, is_there = _is_rpc_state_active(state), state.request is not None
                if is_active and not is_there:
                    none = b"The method requires exactly one request message."
                    _abort(state, event.call, cygrpc.StatusCode.unimplemented, none)
            if is_active and is_there:
                self._pass(event, state, run, answer_thd, event, state, method, request, deserializer, serializer)
            return done

        event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), on_message)
        state.due.add(_RECEIVE_MESSAGE_TOKEN)
        self._waiting.begin(event.call)
        return _UNCOUNTED


class OtherStreams(_Entrance):
    """For streams that wait for their client in a thread."""

    def submit(self, run: Any, answer_thd: Any, event: Any, state: Any, *rest: Any) -> Any:  # type: ignore[override]
        """On the thread that serves all calls."""
        method, argument, *codecs = rest

        def heard() -> Any:
            given = argument()
            return self._heard(event.call, given) if isinstance(given, _RequestIterator) else given

        self._waiting.begin(event.call)
        self._pass(event, state, run, answer_thd, event, state, method, heard, *codecs)
        return _UNCOUNTED

    def _heard(self, call: Cancellable, requests: Iterator[Any]) -> Iterator[Any]:
        for request in requests:
            self._waiting.begin(call)
            yield request

    def _over(self, event: Any) -> None:
        self._waiting.end(event.call)


class MessageFirst(grpc.ServerInterceptor):  # type: ignore[type-arg]  # it has none while it runs
    """Gives each method its pool."""

    def __init__(
        self,
        services: Sequence[str],
        waiting: WaitingCalls,
        threads: futures.ThreadPoolExecutor,
        other_threads: futures.ThreadPoolExecutor,
        calls: int,
        streams: int,
    ) -> None:
        """``calls`` have ``threads`` or wait for one, and as many ``streams`` of the ``services``."""
        self._services = services
        self._calls = AfterMessage(waiting, threads, calls)
        self._streams = AfterMessage(waiting, threads, streams)
        self._other_streams = OtherStreams(waiting, other_threads, MAX_OTHER_STREAMS)
        self._watches = AfterMessage(waiting, self._other_streams, MAX_OTHER_STREAMS)
        #: Of each method that was called: how it is answered. One thread uses it.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method not in self._handlers:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = self._placed(handler, method.split("/")[1] in self._services)
        return self._handlers[method]

    def _placed(self, handler: Any, is_ours: bool) -> grpc.RpcMethodHandler[Any, Any]:
        """The same, in its pool."""
        requests, responses = (
            "stream" if many else "unary" for many in (handler.request_streaming, handler.response_streaming)
        )
        method = getattr(handler, f"{requests}_{responses}")

        @wraps(method)
        def answer_thd(*args: Any) -> Any:
            return method(*args)

        pool: _Entrance = self._calls
        if handler.request_streaming:
            pool = self._other_streams
        elif handler.response_streaming:
            pool = self._streams if is_ours else self._watches
        answer_thd.experimental_thread_pool = pool  # type: ignore[attr-defined]
        make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
        made: grpc.RpcMethodHandler[Any, Any] = make(
            answer_thd, handler.request_deserializer, handler.response_serializer
        )
        return made
