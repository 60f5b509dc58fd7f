"""The only module where work crosses threads, in both directions, always with a deadline.

Theory of operation. The reactor thread owns the registry and every HTTP connection. Blocking work (a gRPC stub, a
database) runs on a ``Pool`` of our own. The reactor's pool is not used: it has ten threads, shared with name
resolution. A gRPC servicer runs in a pool of grpc's and calls the reactor with ``Hop.call_thd``, which waits for a
limited time. The hop is closed first at shutdown, because a thread that waits for ever would keep the process alive.

A Deferred of a pool can't be cancelled, since its thread continues. So a function in a pool must end by itself, by the
deadline of the RPC it makes. Its name ends in ``_thd``. It touches nothing that the reactor owns, and returns frozen
values.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from scheduler.errors import Busy, DeadlineExceeded, ShuttingDown, Unavailable

T = TypeVar("T")


class Pool(Service):
    """A pool of threads for blocking work. The threads exist from ``startService`` to ``stopService``."""

    def __init__(self, reactor: IReactorFromThreads, name: str, size: int, least: int = 0) -> None:
        """Make a pool. ``least`` threads are started at once, because the machine may have none to give later.

        A further thread starts only if all are busy: work that moves between more threads than needed is slower.
        """
        self._reactor = reactor
        self._size = size
        self._least = least
        self.setName(name)
        self._threads: ThreadPool | None = None

    def startService(self) -> None:
        super().startService()
        self._threads = ThreadPool(self._least, self._size, self.name)
        self._threads.start()

    def stopService(self) -> Deferred[None]:
        """Stop the pool. Fires when every thread has ended. Running work must end by its own deadline."""
        super().stopService()
        threads, self._threads = self._threads, None
        done: Deferred[None] = Deferred()
        if threads is None:
            done.callback(None)
            return done

        # ThreadPool.stop joins its threads, so it needs a thread outside of the pool.
        def join_thd() -> None:
            # The list may contain a thread that the machine could not start. It can't be joined.
            threads.threads[:] = [thread for thread in threads.threads if thread.ident is not None]
            threads.stop()
            self._reactor.callFromThread(done.callback, None)

        threading.Thread(target=join_thd, name=f"{self.name}-stop", daemon=True).start()
        return done

    def run(self, function_thd: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Call the function in one of the threads. Fails with ``ShuttingDown`` if the pool does not run.

        If the machine can't start another thread, the call waits for an existing one; ``Unavailable`` if there is none.
        """
        if self._threads is None:
            return fail(ShuttingDown())
        answer: Deferred[T] = Deferred()
        # Callbacks belong to the request that made this call: its id is in the context.
        context = copy_context()
        call = partial(deferToThreadPool, self._reactor, self._threads, function_thd, *args, **kwargs)
        try:
            done = call()
        except RuntimeError as error:
            if not self._threads.workers:
                return fail(Unavailable(f"no thread for {self.name}: {error}"))
            self._threads.adjustPoolsize(maxthreads=self._threads.workers)  # to wait for an existing thread
            done = call()
            self._threads.adjustPoolsize(maxthreads=self._size)
        done.addBoth(lambda result: context.run(answer.callback, result))  # a Failure starts the errbacks
        return answer


class _Answer(NamedTuple):
    """The result of a call: a value, or a list with one error."""

    value: Any
    errors: list[BaseException]


class Hop:
    """Calls from a thread to the reactor, with an answer to wait for."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._closed = False
        self._waiting: set[futures.Future[_Answer]] = set()
        self._lock = threading.Lock()

    @property
    def idle(self) -> bool:
        return not self._waiting

    def call_thd(self, what: str, deadline: float, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function`` on the reactor thread; wait at most ``deadline`` seconds for its result.

        If none comes in time, cancel its Deferred and raise ``DeadlineExceeded`` that names ``what``. Raises
        ``ShuttingDown`` once the hop is closed.
        """
        answer: futures.Future[_Answer] = futures.Future()
        started: list[Deferred[Any]] = []

        def start() -> None:
            if answer.done():
                return
            result = maybeDeferred(function, *args)
            started.append(result)
            result.addCallbacks(
                lambda value: _settle(answer, value, None), lambda reason: _settle(answer, None, reason)
            )

        with self._lock:
            if self._closed:
                raise ShuttingDown()
            self._waiting.add(answer)
        try:
            self._reactor.callFromThread(start)
            value, errors = answer.result(deadline)
        except futures.TimeoutError:
            if answer.cancel():
                self._reactor.callFromThread(_cancel, started)
                raise DeadlineExceeded(what, deadline) from None
            value, errors = answer.result(0)
        finally:
            with self._lock:
                self._waiting.discard(answer)
        if errors:
            # The error is removed from its list. An error that its own traceback refers to would keep a gRPC call, and
            # with it one of the connection's streams, until the next garbage collection.
            raise errors.pop()
        return value

    def tell_thd(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` on the reactor thread, without waiting for it."""
        self._reactor.callFromThread(function, *args)

    def close(self) -> None:
        """Fail every waiting call, and all later ones, with ``ShuttingDown``."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for answer in waiting:
            _settle(answer, None, Failure(ShuttingDown()))


def _cancel(deferreds: list[Deferred[Any]]) -> None:
    for deferred in deferreds:
        deferred.cancel()


def _settle(answer: futures.Future[_Answer], value: Any, reason: Failure | None) -> None:
    error = None if reason is None else reason.value
    with contextlib.suppress(futures.InvalidStateError):  # the caller gave up
        answer.set_result(_Answer(value, [] if error is None else [error]))


@define
class _Queue:
    """The calls for one key: the number in flight, and the waiting ones in order."""

    running: int = 0
    waiting: deque[tuple[Callable[[], Deferred[Any]], Deferred[Any]]] = field(factory=deque)


class Limiter:
    """At most ``at_once`` calls in flight for each key. Then ``queue`` calls may wait; further ones fail with ``Busy``.

    So a stuck worker can hold a few threads of a pool, but never all. Several stuck workers can't hold all either:
    while half of the ``threads`` are in use, a key has one call in flight. A place becomes free when its call has
    really ended, not when the caller gave up.
    """

    def __init__(self, what: str, at_once: int, queue: int, threads: int) -> None:
        self._what = what
        self._at_once = at_once
        self._queue_max = queue
        self._half = threads // 2
        self._running = 0
        self._queues: dict[str, _Queue] = {}

    @property
    def idle(self) -> bool:
        return not self._queues and not self._running

    def run(self, key: str, call: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Make the call now or when a place is free. A call that is cancelled while it waits is never made."""
        queue = self._queues.setdefault(key, _Queue())
        if not self._may_begin(queue) and len(queue.waiting) >= self._queue_max:
            return fail(Busy(f"{self._what} of {key}", self._at_once + self._queue_max))
        answer: Deferred[T] = Deferred(lambda _: self._withdraw(queue, answer))
        # A waiting call may be made in a callback of another request, but belongs to the request that asked for it.
        queue.waiting.append((partial(copy_context().run, call), answer))
        self._advance(key, queue)
        return answer

    def _may_begin(self, queue: _Queue) -> bool:
        return queue.running < (self._at_once if self._running < self._half else 1)

    def _advance(self, key: str, queue: _Queue) -> None:
        while queue.waiting and self._may_begin(queue):
            call, answer = queue.waiting.popleft()
            queue.running += 1
            self._running += 1
            maybeDeferred(call).addBoth(self._ended, key, queue, answer)
        if not queue.running and self._queues.get(key) is queue:
            del self._queues[key]

    def _ended(self, result: Any, key: str, queue: _Queue, answer: Deferred[Any]) -> None:
        queue.running -= 1
        self._running -= 1
        self._advance(key, queue)
        if not answer.called:
            answer.callback(result)  # a Failure starts the errbacks

    @staticmethod
    def _withdraw(queue: _Queue, answer: Deferred[Any]) -> None:
        queue.waiting = deque(entry for entry in queue.waiting if entry[1] is not answer)
