"""Pairs that are replaced under load: no call fails, in either direction, and soon the new pairs are used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Refused, Unreachable
from scheduler.messages import Chunk, Heartbeat, Registration
from scheduler.model import JobState, Stream, Worker
from scheduler.rpc.callers import CallerRules
from scheduler.rpc.revoked import RevokedFile
from scheduler.security.presented import serial_text
from tests.doubles.runner import FakeJobRunner
from tests.house import House
from tests.integration.identities import SCHEDULER, Lab, serial, worker_identity
from tests.integration.rpc import RpcCase, a_job, a_worker

BOX = worker_identity("box")
#: Calls under way at once in each direction, and pairs that are made while they go on.
LOAD, ROTATIONS = 4, 10


class RotationTests(RpcCase):
    """A scheduler and a worker that call each other, both with servers that heed a list of revoked certificates."""

    def setUp(self) -> None:
        super().setUp()
        self.lab = Lab(Path(self.mktemp()).absolute())
        self.list = self.lab.folder / "revoked.txt"
        self.list.touch()
        rules = CallerRules(revoked=RevokedFile(self.list))
        self.pairs: list[TlsFiles] = [self.lab.pair(SCHEDULER), self.lab.pair(BOX)]
        self.runner = FakeJobRunner()
        worker_server = self.worker_server(self.runner, self.pairs[1], rules=rules)
        scheduler_server = self.scheduler_server(House().parts.membership, self.pairs[0], rules=rules)
        self.worker: Worker = evolve(a_worker(worker_server.bound), name="box")
        self.of_scheduler = self.worker_client(self.pairs[0])
        self.of_worker = self.scheduler_client(scheduler_server.bound, self.pairs[1])
        self.made = 0
        self.rotating = True

    async def set_up(self) -> None:
        await self.of_scheduler.start_job(self.worker, a_job("j"))
        facts = Registration("127.0.0.1:1", name="box", boot_id="boot", folder_id="folder", nonce="n")
        registered = await self.of_worker.register(facts)
        self.heartbeat = Heartbeat(registered.worker_id, "boot", nonce="n")

    def rotate(self) -> None:
        """Replace both pairs, as ``schedctl ca issue --renew`` does."""
        self.lab.pair(SCHEDULER)
        self.lab.pair(BOX)

    async def query(self) -> None:
        self.assertIs((await self.of_scheduler.query_job(self.worker, "j")).state, JobState.RUNNING)

    async def beat(self) -> None:
        await self.of_worker.heartbeat(self.heartbeat)

    async def calling(self, call: Callable[[], Awaitable[None]]) -> None:
        """Make one call after the other until all pairs are replaced; a call that fails fails the test."""
        while self.rotating:
            await call()
            self.made += 1

    async def test_under_load(self) -> None:
        """No call fails while both pairs are replaced again and again."""
        await self.set_up()
        calls = [Deferred.fromCoroutine(self.calling(call)) for call in (self.query, self.beat) for _ in range(LOAD)]

        async def rotating() -> None:
            for _ in range(ROTATIONS):
                before = self.made
                self.rotate()
                while self.made < before + 10 * LOAD:
                    await self.query()
            self.rotating = False

        await gatherResults([Deferred.fromCoroutine(rotating()), *calls])
        self.assertGreater(self.made, ROTATIONS * LOAD)

    async def test_revoked_after_renewal(self) -> None:
        """The next call uses the new pair, so that the old one can be revoked without a failed call."""
        await self.set_up()
        await self.query()
        await self.beat()
        old = [serial(files) for files in self.pairs]
        self.rotate()
        await self.query()
        await self.beat()
        self.list.write_text("\n".join(map(serial_text, old)))
        await self.query()
        await self.beat()
        # the same list refuses the pairs that are in use now
        self.list.write_text("\n".join(serial_text(serial(files)) for files in self.pairs))
        await self.assertFailure(Deferred.fromCoroutine(self.beat()), Refused)
        await self.assertFailure(self.of_scheduler.probe(self.worker), Unreachable)

    async def test_stream(self) -> None:
        """A stream goes on when the pairs are replaced, and ends by itself."""
        await self.set_up()
        got: list[Chunk] = []
        first: Deferred[None] = Deferred()

        def deliver(chunk: Chunk) -> None:
            got.append(chunk)
            if not first.called:
                first.callback(None)

        self.runner.write("j", b"before")
        stream = self.of_scheduler.stream_output(self.worker, "j", Stream.STDOUT, 0, deliver)
        await first
        self.rotate()
        await self.query()  # on a new channel
        self.runner.write("j", b"after")
        self.runner.end("j")
        await stream.finished
        self.assertEqual(b"".join(chunk.data for chunk in got), b"beforeafter")
        self.assertTrue(got[-1].end)

    async def test_other_identity(self) -> None:
        """A pair of another identity is not taken over: it needs a restart."""
        await self.set_up()
        self.lab.pair(worker_identity("other"), file="box")
        await self.beat()
        self.lab.pair(BOX)
        await self.beat()
