"""The contract of every client of workers: reads and streams of output."""

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from scheduler.errors import Conflict, OffsetBeyondEnd, OutputPruned
from scheduler.interfaces import IOutputStream
from scheduler.messages import Chunk
from scheduler.model import Stream
from tests.contract.worker_clients import MIB, InMemory, OverTheWire, Simulated
from tests.integration.rpc import a_job


class Contract:
    """Mixed into a ``ClientCase``."""

    async def read(self, offset: int, size: int, stream: Stream = Stream.STDOUT) -> Chunk:
        return await self.client.read_output(self.worker, "j", stream, offset, size)

    async def test_read(self) -> None:
        """A read returns the existing output, up to the requested size, and its length."""
        await self.started()
        self.runner.write("j", b"hello\0\xff")
        self.runner.write("j", b"err", Stream.STDERR)
        self.assertEqual(await self.read(1, 3), Chunk(b"ell", 1, False, 7))
        self.assertEqual(await self.read(0, 100), Chunk(b"hello\0\xff", 0, False, 7))
        self.assertEqual(await self.read(0, 0), Chunk(b"", 0, False, 7))
        self.assertEqual(await self.read(7, 1), Chunk(b"", 7, False, 7))
        self.assertEqual(await self.read(0, 9, Stream.STDERR), Chunk(b"err", 0, False, 3))
        self.runner.end("j")
        self.assertEqual(await self.read(0, 100), Chunk(b"hello\0\xff", 0, True, 7))
        self.assertEqual(await self.read(0, 7), Chunk(b"hello\0\xff", 0, True, 7))
        self.assertEqual(await self.read(0, 6), Chunk(b"hello\0", 0, False, 7))

    async def test_read_much(self) -> None:
        """A large read returns a part, and the next one continues after it."""
        await self.started()
        self.runner.write("j", bytes(5 * MIB))
        chunk = await self.read(0, 1 << 40)
        self.assertEqual((chunk.offset, chunk.size), (0, 5 * MIB))
        self.assertTrue(0 < chunk.next_offset <= 5 * MIB)

    async def test_beyond_end(self) -> None:
        """For an offset past the end the error has the length."""
        await self.started()
        self.runner.write("j", b"abc")
        stream, _ = self.follow(offset=9)
        for call in (self.client.read_output(self.worker, "j", Stream.STDOUT, 9, 1), stream.finished):
            error = await self.failure(OffsetBeyondEnd, call)
            self.assertEqual((error.offset, error.size), (9, 3))

    async def test_pruned(self) -> None:
        """Pruned output differs from output that never existed, in a read and in a stream in progress."""
        await self.started()
        self.runner.write("j", bytes(4 * MIB))
        stream, received = self.follow()
        received.holding = True
        await received.has(1)
        self.runner.end("j")
        self.runner.acknowledge(["j"])
        self.runner.prune("j")
        received.release()
        reads = [Deferred.fromCoroutine(self.read(*span)) for span in ((0, 1), (0, 0), (9 * MIB, 1))]
        for call in (stream.finished, *reads):
            self.assertEqual((await self.failure(OutputPruned, call)).job_id, "j")
        self.assertFalse(any(chunk.end for chunk in received.chunks))
        await self.failure(Conflict, self.client.start_job(self.worker, a_job()))

    async def test_stream(self) -> None:
        """A stream has the existing output, then the new, and ends with the job."""
        await self.started()
        self.runner.write("j", b"before")
        stream, received = self.follow(offset=3)
        verifyObject(IOutputStream, stream)
        await received.has(3)
        for part in (b"\0\xff", b"\n", b"more"):
            self.runner.write("j", part)
            self.runner.write("j", b"other", Stream.STDERR)
            await received.has(len(self.runner.read_output_thd("j", Stream.STDOUT, 3, 100).data))
        self.runner.end("j")
        self.assertIsNone(await stream.finished)
        self.assertEqual(received.data, b"ore\0\xff\nmore")
        self.assertEqual([chunk.end for chunk in received.chunks], [False] * (len(received.chunks) - 1) + [True])
        position = 3
        for chunk in received.chunks:
            self.assertEqual(chunk.offset, position)
            position = chunk.next_offset

    async def test_cut(self) -> None:
        """The end has the reason why output was cut, read and streamed; earlier chunks do not."""
        await self.started()
        self.runner.write("j", b"hello")
        self.runner.end("j", output_error="stdout: No space left on device")
        for offset in (0, 5):
            stream, received = self.follow(offset=offset)
            await stream.finished
            whole = received.chunks[-1]
            for chunk in (whole, await self.read(offset, 100)):
                self.assertEqual((chunk.data, chunk.end), (b"hello"[offset:], True))
                self.assertEqual(chunk.cut, "stdout: No space left on device")
        self.assertEqual((await self.read(0, 4)).cut, "")

    async def test_stream_of_nothing(self) -> None:
        """The stream of a job that ended without output is only its end."""
        await self.started()
        self.runner.end("j")
        for which in Stream:
            stream, received = self.follow(which)
            await stream.finished
            self.assertEqual(received.chunks, [Chunk(b"", 0, True)])

    async def test_streams_side_by_side(self) -> None:
        """Each stream of a job arrives completely, however large it is."""
        await self.started()
        data = bytes(range(256)) * (20 * MIB // 256) + b"rest"
        self.runner.write("j", data)
        streams = [self.follow() for _ in range(3)]
        self.runner.end("j")
        for stream, received in streams:
            await stream.finished
            self.assertTrue(received.data == data)

    async def test_held_up(self) -> None:
        """A receiver that is not done with a chunk gets no other, and misses none."""
        await self.started()
        stream, received = self.follow()
        received.holding = True
        self.runner.write("j", b"first")
        await received.has(5)
        for _ in range(20):  # long enough for a chunk that must not come
            self.runner.write("j", bytes(MIB))
            await self.client.query_job(self.worker, "j")
        self.assertEqual(len(received.chunks), 1)
        self.runner.end("j")
        received.release()
        await stream.finished
        self.assertEqual(received.data, b"first" + bytes(20 * MIB))

    async def test_cancelled(self) -> None:
        """After a cancel nothing is delivered, even if more was on its way; a second cancel does nothing."""
        await self.started()
        self.runner.write("j", bytes(8 * MIB))
        stream, received = self.follow()
        received.holding = True
        await received.has(1)
        stream.cancel()
        stream.cancel()
        received.release()
        self.runner.write("j", b"more")
        for _ in range(5):
            await self.client.query_job(self.worker, "j")
        self.assertEqual(len(received.chunks), 1)

    async def test_cancelled_by_receiver(self) -> None:
        """A receiver may cancel within its call."""
        await self.started()
        self.runner.write("j", bytes(8 * MIB))
        chunks: list[Chunk] = []
        cancelled: Deferred[None] = Deferred()

        def deliver(chunk: Chunk) -> Deferred[None]:
            chunks.append(chunk)
            stream.cancel()
            cancelled.callback(None)
            return Deferred()  # this never fires

        stream = self.client.stream_output(self.worker, "j", Stream.STDOUT, 0, deliver)
        await cancelled
        for _ in range(5):
            await self.client.query_job(self.worker, "j")
        self.assertEqual(len(chunks), 1)


class FakeTests(Contract, InMemory):
    pass


class SimulatedTests(Contract, Simulated):
    pass


class RealTests(Contract, OverTheWire):
    pass
