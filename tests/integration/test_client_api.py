"""Both Python clients over real sockets, to the HTTP API in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from scheduler import __version__
from scheduler.client import ApiProblem, Client, Ended, Job, Output, OutputLost, Version
from scheduler.model import JobState, Stream
from tests.clients import Blocking, Twisted
from tests.integration.test_http_sockets import MIB, SocketTestCase


class ApiTests(SocketTestCase):
    """Against the HTTP API, over a scheduler in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.url = f"http://127.0.0.1:{self.port}"
        self.clients: list[Any] = []

    async def tearDown(self) -> None:
        for client in self.clients:
            await client.close()
        await super().tearDown()

    def client(self, kind: Callable[..., Any], **settings: Any) -> Any:
        self.clients.append(kind(self.url, **settings))
        return self.clients[-1]

    async def test_live(self) -> None:
        """Events arrive as the job writes, and end with it."""
        for kind in (Blocking, Twisted):
            job = self.fleet.add_job()
            got: list[Any] = []
            waiting: list[tuple[int, Deferred[None]]] = []

            def seen(event: Any, got: list[Any] = got, waiting: list[tuple[int, Deferred[None]]] = waiting) -> None:
                if isinstance(event, Output):
                    got.append(event)
                while waiting and len(got) >= waiting[0][0]:
                    waiting.pop(0)[1].callback(None)

            following = self.client(kind).items("follow", job.id, each=seen)
            for number, (stream, data) in enumerate(((Stream.STDOUT, b"a\xff"), (Stream.STDERR, b"b")), 1):
                arrived: Deferred[None] = Deferred()
                waiting.append((number, arrived))
                self.fleet.write(job.id, data, stream)
                await arrived
            self.fleet.end(job.id, 5)
            events = await following
            self.assertEqual(got, [Output("stdout", 0, b"a\xff"), Output("stderr", 0, b"b")])
            self.assertIsInstance(events[-1], Ended)
            self.assertEqual(events[-1].job.exit_code, 5)

    def read_up_to(self) -> int:
        """The last offset at which the scheduler has read output so far."""
        return max(call.args[2] for call in self.house.workers.calls if call.method == "read_output")

    async def test_left_early(self) -> None:
        """A caller that stops early has read no more than buffers hold, and the connection is closed."""
        output = os.urandom(MIB) * 64
        self.house.workers.piece = 256 * 1024
        job = self.fleet.add_job(output, state=JobState.SUCCEEDED)

        def first() -> bytes:
            with Client(self.url) as client:
                pieces = client.output(job.id, follow=True)
                data = next(pieces)
                offsets.append(self.read_up_to())
                pieces.close()  # type: ignore[attr-defined]
                return data

        offsets: list[int] = []
        self.assertEqual(output[: len(data := await deferToThread(first))], data)
        await self.everyone_gone()
        client = self.client(Twisted).client
        async with client.output(job.id, follow=True) as pieces:
            async for data in pieces:
                self.assertEqual(output[: len(data)], data)
                # Many other requests are served meanwhile.
                for _ in range(300):
                    await client.ready()
                offsets.append(self.read_up_to())
                break
        self.assertEqual(len(offsets), 2)
        self.assertLess(max(offsets), 32 * MIB)

    async def test_cancelled(self) -> None:
        """A cancelled Deferred closes its connection, and its request is not repeated."""
        client = self.client(Twisted).client
        job = self.fleet.add_job(b"some")
        waiting = client.wait(job.id)
        items = client.follow(job.id)
        while not isinstance(await items.__anext__(), Output):
            pass
        following = items.__anext__()
        while self.house.parts.feed.idle:
            await client.ready()
        for deferred in (waiting, following):
            deferred.cancel()
            await self.assertFailure(deferred, CancelledError)
        await self.assertFailure(items.__anext__(), StopAsyncIteration)
        await client.close()
        await self.everyone_gone()

    async def test_each(self) -> None:
        """Without a coroutine, a callback gets the items, one after the other."""
        client = self.client(Twisted).client
        job = self.fleet.add_job(b"some", state=JobState.SUCCEEDED)
        got: list[Any] = []
        held: Deferred[None] = Deferred()

        def consume(event: Any) -> Deferred[None]:
            got.append(event)
            return held

        done = client.follow(job.id).each(consume)
        while not got:
            await client.ready()
        self.assertEqual(len(got), 1)
        held.callback(None)
        await done
        self.assertIsInstance(got[-1], Ended)

        def fails(event: Any) -> None:
            raise ZeroDivisionError

        await self.assertFailure(client.follow(job.id).each(fails), ZeroDivisionError)

    async def test_interrupted(self) -> None:
        """``run`` that is interrupted leaves its job running, or stops it, as requested."""
        for stop, state in ((False, JobState.RUNNING), (True, JobState.STOPPED)):
            started: list[Job] = []

            def interrupted(job: Job, started: list[Job] = started) -> None:
                started.append(job)
                raise KeyboardInterrupt

            def run(stop: bool = stop, interrupted: Callable[[Job], None] = interrupted) -> bool:
                with Client(self.url) as client:
                    try:
                        client.run("true", worker="w1", on_start=interrupted, stop_on_interrupt=stop)
                    except KeyboardInterrupt:
                        return True
                return False

            self.assertTrue(await deferToThread(run))
            self.assertIs(self.scheduler.job(started[0].id).state, state)

            accepted: Deferred[Job] = Deferred()
            running = self.client(Twisted).run("true", worker="w1", on_start=accepted.callback, stop_on_interrupt=stop)
            job = await accepted
            running.cancel()
            await self.assertFailure(running, CancelledError)
            if stop:
                await self.client(Twisted).wait(job.id, 20)
            self.assertIs(self.scheduler.job(job.id).state, state)

    async def test_errors(self) -> None:
        """Refusals of the API are errors with their type; cut output raises OutputLost after all existing bytes."""
        for kind in (Blocking, Twisted):
            client = self.client(kind)
            error = await self.assertFailure(client.submit("true", worker="nobody"), ApiProblem)
            self.assertEqual((error.status, error.started), (404, False))
            await self.assertFailure(client.job("nothing"), ApiProblem)
            error = await self.assertFailure(client.submit("true", worker="w1", colour="red"), ApiProblem)
            self.assertIn("colour", str(error))
            job = self.fleet.end(self.fleet.add_job(b"some").id, output_error="disk full")
            got: list[bytes] = []
            await self.assertFailure(client.items("output", job.id, follow=True, each=got.append), OutputLost)
            self.assertEqual(b"".join(got), b"some")

    async def test_workers(self) -> None:
        """Requests about workers, and whether the scheduler takes work."""
        for kind in (Blocking, Twisted):
            client = self.client(kind)
            self.assertEqual([worker.name for worker in await client.workers()], ["w1"])
            self.assertTrue((await client.drain("w1")).draining)
            self.assertFalse((await client.resume("w1")).draining)
            self.assertEqual((await client.worker("w1")).state, "online")
            await self.assertFailure(client.forget("w1"), ApiProblem)
            self.assertTrue((await client.ready()).ready)
            self.assertEqual(await client.version(), Version(__version__, "v1"))

    async def test_jobs(self) -> None:
        """Lists, waits and stops."""
        for kind in (Blocking, Twisted):
            client = self.client(kind)
            jobs = [await client.submit("true", worker="w1", labels={"of": kind.__name__}) for _ in range(3)]
            listed = await client.items("jobs", label={"of": kind.__name__})
            self.assertEqual({job.id for job in listed}, {job.id for job in jobs})
            self.assertEqual(len(await client.items("jobs", limit=2)), 2)
            self.assertEqual((await client.stop(jobs[0].id)).state, "stopped")
            stopped = await client.stop_matching(label={"of": kind.__name__})
            self.assertEqual({job.id for job in stopped}, {job.id for job in jobs[1:]})
            self.assertTrue((await client.wait(jobs[1].id, 20)).final)
