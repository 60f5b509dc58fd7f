"""Work that really crosses threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from scheduler.errors import DeadlineExceeded, Invalid, ShuttingDown, Unavailable
from scheduler.threads import Hop, Pool

#: Seconds that no test waits unless something is broken.
LONG = 60.0


def a_pool(test: TestCase, size: int) -> Pool:
    """A pool that runs until the test ends."""
    pool = Pool(reactor, "test-pool", size)
    pool.startService()
    test.addCleanup(pool.stopService)
    return pool


class Work:
    """Work for a thread: it says that it has begun, and goes on when it is told."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        self.go_on.wait(LONG)
        return "done"


class PoolTests(TestCase):
    async def test_runs_elsewhere(self) -> None:
        """Work runs in a thread of the pool, and its result comes back to the reactor's."""
        name = await a_pool(self, 1).run(lambda suffix: threading.current_thread().name + suffix, "!")
        self.assertTrue(name.startswith("PoolThread-test-pool") and name.endswith("!"), name)
        self.assertIs(threading.current_thread(), threading.main_thread())

    async def test_failure(self) -> None:
        """An exception in the thread is the failure of the Deferred."""

        def raises_thd() -> None:
            raise Invalid("x", "is none")

        await self.assertFailure(a_pool(self, 1).run(raises_thd), Invalid)

    async def test_size(self) -> None:
        """The number of simultaneous calls is limited."""
        pool, meet = a_pool(self, 3), threading.Barrier(3)
        running, most, lock = 0, 0, threading.Lock()

        def work_thd() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            meet.wait(LONG)
            with lock:
                running -= 1

        await gatherResults([pool.run(work_thd) for _ in range(9)])
        self.assertEqual(most, 3)

    async def test_no_more_threads(self) -> None:
        """If the machine has no further thread, the existing ones do the work; without any it is refused."""
        pool, work_thd = Pool(reactor, "ready", 3, least=1), Work()
        pool.startService()
        self.addCleanup(pool.stopService)

        class Refused(threading.Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        work = pool.run(work_thd)
        await deferToThread(work_thd.begun.wait, LONG)
        self.patch(ThreadPool, "threadFactory", Refused)
        waiting = [pool.run(work_thd) for _ in range(2)]
        self.assertEqual(sum("ready" in thread.name for thread in threading.enumerate()), 1)
        work_thd.go_on.set()
        self.assertEqual(await gatherResults([work, *waiting]), ["done"] * 3)
        await self.assertFailure(a_pool(self, 2).run(work_thd), Unavailable)
        await pool.stopService()

    async def test_stop_waits(self) -> None:
        """A pool stops when its last call has ended, whose result is still delivered; later calls are refused."""
        pool, work_thd = Pool(reactor, "test-pool", 1), Work()
        pool.startService()

        work = pool.run(work_thd)
        await deferToThread(work_thd.begun.wait, LONG)
        stopped = pool.stopService()
        await self.assertFailure(pool.run(work_thd), ShuttingDown)
        self.assertNoResult(stopped)
        work_thd.go_on.set()
        self.assertEqual(await work, "done")
        await stopped
        self.assertFalse([thread for thread in threading.enumerate() if "PoolThread-test-pool" in thread.name])

    async def test_start_again(self) -> None:
        pool = Pool(reactor, "test-pool", 1)
        for _ in range(2):
            pool.startService()
            self.assertEqual(await pool.run(lambda: 1), 1)
            await pool.stopService()


class HopTests(TestCase):
    def setUp(self) -> None:
        self.hop = Hop(reactor)
        self.pool = a_pool(self, 1)

    def call(self, function: Callable[[], Any], deadline: float = LONG) -> Deferred[Any]:
        return self.pool.run(self.hop.call_thd, "the call", deadline, function)

    async def test_there_and_back(self) -> None:
        """The function is called on the reactor's thread, and the thread gets the result of its Deferred."""
        answer: Deferred[threading.Thread] = Deferred()

        def function() -> Deferred[threading.Thread]:
            reactor.callLater(0, answer.callback, threading.current_thread())
            return answer

        self.assertIs(await self.call(function), threading.main_thread())

    async def test_failure(self) -> None:
        """The thread gets the exception."""

        def function() -> None:
            raise Invalid("x", "is none")

        await self.assertFailure(self.call(function), Invalid)

    async def test_deadline(self) -> None:
        """The thread's wait is limited, and what it waited for is cancelled."""
        cancelled: Deferred[None] = Deferred()
        slow: Deferred[None] = Deferred(lambda _: cancelled.callback(None))
        await self.assertFailure(self.call(lambda: slow, 0.01), DeadlineExceeded)
        await cancelled

    async def test_close_frees_threads(self) -> None:
        """A waiting thread is free as soon as the hop is closed, whatever its deadline."""
        asked: Deferred[None] = Deferred()

        def function() -> Deferred[None]:
            asked.callback(None)
            return Deferred()

        call = self.call(function)
        await asked
        self.hop.close()
        await self.assertFailure(call, ShuttingDown)
        await self.assertFailure(self.call(function), ShuttingDown)
