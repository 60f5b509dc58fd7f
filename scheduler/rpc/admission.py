"""Gives a call a thread only when its message has arrived, and cancels calls whose message does not come.

Theory of operation. grpcio gives a call a thread as soon as its headers are there, and the thread waits for the message
without limit. A few clients that open calls and send nothing would occupy every thread. Here the message is received
first, without a thread: the thread that serves all calls requests it, and is notified as of any other event. grpcio has
no public interface for that, but a method may name its pool (``experimental_thread_pool``). So each method gets a pool
whose ``submit`` receives the message and then passes the call on. This also saves one of two thread wake-ups per call.

The module uses private parts of ``grpc/_server.py``, which are the same in 1.76 and in 1.85. If one is missing, the
import fails and nothing starts. If one works differently, the tests of half-open calls fail.

The streams of other services (reflection, the watch of health checks) do wait in a thread, for a further message or
until the client takes an answer. They have a few threads of their own, and are cancelled if no message came for five
seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from functools import partial, wraps
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the stubs leave it out
from grpc._server import _RECEIVE_MESSAGE_TOKEN, _abort, _is_rpc_state_active, _receive_message, _RequestIterator

#: Seconds that a client may keep a call waiting for a message.
MESSAGE_DEADLINE_SECONDS = 5.0
#: Seconds that a client may keep a call waiting for a message while more than ``CROWD`` calls wait. The time is short,
#: since as many calls again may come once these are cancelled.
CROWDED_DEADLINE_SECONDS = 1.0
CROWD = 512
#: Seconds between two checks of the waiting calls, and the most calls that one check cancels.
CHECK_INTERVAL_SECONDS = 0.25
MAX_CANCELLED_AT_ONCE = 250
#: Calls that may wait at once. One more cancels the call that has waited longest.
MAX_WAITING_CALLS = 4096
#: Streams of other services at once, including those that wait for a thread. Further ones are refused.
MAX_OTHER_STREAMS = 64

# ``submit`` returns this to grpcio, which counts the calls that are not done. They are counted here instead.
_UNCOUNTED: futures.Future[None] = futures.Future()
_UNCOUNTED.set_result(None)


class Cancellable(Protocol):
    """A call that can be cancelled."""

    def cancel(self) -> object: ...


class WaitingCalls:
    """Calls that wait for their client, longest first. Used from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[Cancellable, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._since)

    def begin(self, call: Cancellable) -> None:
        """Note that the call waits from now on, even if it waited before."""
        with self._lock:
            self._since.pop(call, None)
            self._since[call] = self._clock()
            oldest = next(iter(self._since)) if len(self._since) > MAX_WAITING_CALLS else None
            if oldest is not None:
                del self._since[oldest]
        if oldest is not None:
            oldest.cancel()

    def end(self, call: Cancellable) -> None:
        with self._lock:
            self._since.pop(call, None)

    def cancel_old(self) -> None:
        """Cancel calls that have waited too long. Some are left to the next check, since others may follow them."""
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
        """Cancel all waiting calls, before the server ends."""
        with self._lock:
            waiting, self._since = list(self._since), {}
        for call in waiting:
            call.cancel()


class _Entrance(futures.ThreadPoolExecutor):
    """Passes calls on to ``pool``: at most ``most`` at once, including those that wait for a thread of the pool.

    It is an executor only because grpcio requires this class. It has no threads of its own.
    """

    def __init__(self, waiting: WaitingCalls, pool: futures.ThreadPoolExecutor, most: int) -> None:
        super().__init__(1)
        self._waiting = waiting
        self._pool = pool
        self._places = threading.Semaphore(most)

    def _pass(self, event: Any, state: Any, *call: Any) -> None:
        """Submit ``call``, as grpcio gave it, to the pool. If there are too many, refuse it with gRPC's own text."""
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
        """Note that the call no longer has a thread."""


class AfterMessage(_Entrance):
    """Entrance of methods with one request message: passes a call on once this message has arrived."""

    def submit(self, run: Any, answer_thd: Any, event: Any, state: Any, *rest: Any) -> Any:  # type: ignore[override]
        """Take a call from grpcio. Runs on the thread that serves all calls, which holds the lock of ``state``."""
        method, _, deserializer, serializer = rest
        received = _receive_message(state, event.call, deserializer)

        def request() -> Any:
            with state.condition:
                given, state.request = state.request, None
                return given if _is_rpc_state_active(state) else None  # grpcio does not call the method for ``None``

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
    """Entrance of streams that wait for their client in a thread."""

    def submit(self, run: Any, answer_thd: Any, event: Any, state: Any, *rest: Any) -> Any:  # type: ignore[override]
        """Take a call from grpcio. Runs on the thread that serves all calls."""
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


class MessageFirst(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Gives each method its pool: an entrance to the threads that its calls may use."""

    def __init__(
        self,
        services: Sequence[str],
        waiting: WaitingCalls,
        threads: futures.ThreadPoolExecutor,
        other_threads: futures.ThreadPoolExecutor,
        calls: int,
        streams: int,
    ) -> None:
        """``calls`` unary calls may run on ``threads`` or wait for them, and as many ``streams`` of ``services``."""
        self._services = services
        self._calls = AfterMessage(waiting, threads, calls)
        self._streams = AfterMessage(waiting, threads, streams)
        self._other_streams = OtherStreams(waiting, other_threads, MAX_OTHER_STREAMS)
        self._watches = AfterMessage(waiting, self._other_streams, MAX_OTHER_STREAMS)
        #: The handler, with its pool, of each method that was called. Only grpcio's serving thread uses it.
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
        pool: _Entrance = self._calls
        if handler.request_streaming:
            pool = self._other_streams
        elif handler.response_streaming:
            pool = self._streams if is_ours else self._watches

        def placed(method: Callable[..., Any]) -> Callable[..., Any]:
            answer_thd = partial(method)
            answer_thd.experimental_thread_pool = pool  # type: ignore[attr-defined]
            return answer_thd

        return wrapped(handler, placed)


def wrapped(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler that does the same, by the method that ``wrap`` makes of its method."""
    kind = "_".join("stream" if many else "unary" for many in (handler.request_streaming, handler.response_streaming))
    method = getattr(handler, kind)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    made: grpc.RpcMethodHandler[Any, Any] = make(
        wraps(method)(wrap(method)), handler.request_deserializer, handler.response_serializer
    )
    return made
