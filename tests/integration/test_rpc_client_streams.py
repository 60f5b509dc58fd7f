"""Streams of output from workers: how many there are at once, and how they end early."""

import threading
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import blockingCallFromThread

from scheduler.errors import Busy, DeadlineExceeded
from scheduler.messages import Chunk
from scheduler.model import JobState, Stream
from scheduler.rpc import worker_client
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import RpcCase, a_job, a_worker, later


class StreamTests(RpcCase):
    """Streams, and the threads they hold."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client()

    def open(self, worker, deliver=lambda chunk: None):
        return self.client.stream_output(worker, "j", Stream.STDOUT, 0, deliver)

    def with_output(self):
        """A worker with a job that runs and has written something."""
        runner = FakeJobRunner()
        runner.start("j", a_job().spec, None)
        runner.write("j", b"x")
        return a_worker(self.worker_server(runner).bound)

    async def test_all_streams(self) -> None:
        """The number of streams is limited. One more is Busy at once, and a cancelled one makes room at once."""
        worker = a_worker(self.silent_address())
        for _ in range(2):
            streams = [await self.open_when_free(worker) for _ in range(worker_client.MAX_OUTPUT_STREAMS)]
            self.assertEqual(self.assertRaises(Busy, self.open, worker).limit, worker_client.MAX_OUTPUT_STREAMS)
            for stream in streams:
                stream.cancel()

    async def open_when_free(self, worker):
        while True:
            try:
                return self.open(worker)
            except Busy:
                await later(0.01)

    async def test_cancelled_while_held(self) -> None:
        """A stream that is cancelled while its receiver delays it makes room at once."""
        self.patch(worker_client, "MAX_OUTPUT_STREAMS", 1)
        worker = self.with_output()
        held: Deferred[None] = Deferred()

        def deliver(chunk: Chunk) -> Deferred[None]:
            held.callback(None)
            return Deferred()

        stream = self.open(worker, deliver)
        await held
        await later(0)  # not inside the receiver's call
        began = time.monotonic()
        stream.cancel()
        (await self.open_when_free(worker)).cancel()
        self.assertLess(time.monotonic() - began, worker_client.HELD_UP_MAX_SECONDS / 2)

    async def test_receiver_fails(self) -> None:
        """A receiver that raises ends its stream."""
        worker = self.with_output()

        def deliver(chunk: Chunk) -> None:
            raise ZeroDivisionError

        await self.assertFailure(self.open(worker, deliver).finished, ZeroDivisionError)

    async def test_held_too_long(self) -> None:
        """A receiver that is never done is cut off."""
        self.patch(worker_client, "HELD_UP_MAX_SECONDS", 0.1)
        worker = self.with_output()
        await self.assertFailure(self.open(worker, lambda chunk: Deferred()).finished, DeadlineExceeded)

    async def test_more_than_a_worker_has(self) -> None:
        """A worker whose streams are all in use says so, answers everything else, and has room when one ends."""
        worker = self.with_output()
        received = [Deferred() for _ in range(64)]
        streams = [self.open(worker, lambda chunk, each=each: each.callback(None)) for each in received]
        await gatherResults(received)
        self.assertEqual((await self.assertFailure(self.open(worker).finished, Busy)).limit, 64)
        self.assertEqual((await self.client.query_job(worker, "j")).state, JobState.RUNNING)
        streams.pop().cancel()
        while True:
            received = Deferred()
            streams.append(self.open(worker, received.callback))
            streams[-1].finished.addErrback(received.errback)
            try:
                await received
                break
            except Busy:
                await later(0.01)
        for stream in streams:
            stream.cancel()

    def test_reactor_is_free(self) -> Deferred:
        """No silent worker blocks the reactor thread."""
        worker = a_worker(self.silent_address())
        streams = [self.open(worker) for _ in range(8)]
        probes = [self.client.probe(worker).addErrback(lambda _: None) for _ in range(8)]
        began = time.monotonic()
        done: Deferred[None] = Deferred()

        def check() -> None:
            blockingCallFromThread(reactor, lambda: None)
            reactor.callFromThread(done.callback, None)

        threading.Thread(target=check).start()

        def over(_: object) -> Deferred:
            self.assertLess(time.monotonic() - began, 3.0)
            for stream in streams:
                stream.cancel()
            self.client.forget(worker.id)
            return gatherResults(probes)

        return done.addCallback(over)
