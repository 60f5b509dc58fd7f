"""Floods and garbage on both gRPC servers: other clients are answered meanwhile and afterwards, and nothing is left."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import grpc
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from scheduler.rpc.channel import MESSAGE_MAX_BYTES
from scheduler.rpc.server import GrpcServer
from tests.integration import floods
from tests.integration.http2 import GOAWAY, HEADERS, RST_STREAM
from tests.integration.rpc import a_worker, later
from tests.integration.test_rpc_half_open import HalfOpenCase
from tests.integration.test_rpc_tls import TlsCase
from tests.processes import descriptors, memory

#: Seconds that a call of another client may take, on a busy machine.
CALL_MAX_SECONDS = 5.0

#: MiB by which a flood may make this process, which is client and server, grow.
GROWTH_MAX_MIB = 150.0

TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


class FloodCase(HalfOpenCase):
    """Floods a server while another client calls it."""

    def path(self, server: GrpcServer) -> str:
        """The path of a method of the server."""
        return "/jobscheduler.Worker/StopJob" if server is self.worker else "/jobscheduler.Scheduler/Heartbeat"

    async def withstands(self, server: GrpcServer, flood: Callable[[floods.Address], Any]) -> Any:
        """Run ``flood`` in a thread; its result. Others are answered meanwhile and after it, and no file stays open."""
        calls = self.calls(server)
        await deferToThread(self.call_all, calls)
        files, used = descriptors(os.getpid()), memory(os.getpid())
        over, most = threading.Event(), [used]

        def watched() -> list[float]:
            took = []
            while not over.is_set():
                took.append(self.call_all(calls))
                most.append(memory(os.getpid()))
            return [*took, self.call_all(calls)]

        def ended(result: Any) -> Any:
            over.set()
            return result

        flooding: Deferred[Any] = deferToThread(flood, (server.bound.host, server.bound.port)).addBoth(ended)
        took = await deferToThread(watched)
        result = await flooding
        if isinstance(result, Failure):
            result.raiseException()
        self.assertLess(max(took), CALL_MAX_SECONDS)
        self.assertLess(max(most) - used, GROWTH_MAX_MIB)
        while descriptors(os.getpid()) > files:
            await later(0.05)
        return result

    def call_all(self, calls: tuple[Callable[[], object], ...]) -> float:
        """Make the calls; the seconds that took."""
        began = time.monotonic()
        for call in calls:
            call()
        return time.monotonic() - began

    async def both(
        self, pieces: Callable[[str], Any], reads: bool = True, wanted: Collection[int] = ()
    ) -> list[floods.Frames]:
        """Flood both servers, with ``pieces`` for the path of a method; the frames that each sent."""
        servers = (self.worker, self.scheduler)
        return [
            await self.withstands(
                server, partial(floods.flood, pieces=pieces(self.path(server)), reads=reads, wanted=wanted)
            )
            for server in servers
        ]


class FloodTests(FloodCase):
    """Many small frames, each of which makes the server do something."""

    async def test_rapid_reset(self) -> None:
        """Calls that are cancelled at once, five thousand of them (CVE-2023-44487)."""
        await self.both(lambda path: floods.rapid_reset(path, 5000))
        while self.worker.waiting or self.scheduler.waiting:
            await later(0.05)

    async def test_pings(self) -> None:
        """A client that pings without end is told to go away (CVE-2019-9512)."""
        for frames in await self.both(lambda _: floods.pings(200_000)):
            (away,) = (payload for kind, _, _, payload in frames if kind == GOAWAY)
            self.assertIn(b"too_many_pings", away)

    async def test_settings(self) -> None:
        """Settings, each of which is to be acknowledged, whether the client reads or not (CVE-2019-9515)."""
        for reads in (True, False):
            await self.both(lambda _: floods.settings(200_000), reads)

    async def test_empty_data(self) -> None:
        """A message in frames without a byte (CVE-2019-9518)."""
        await self.both(lambda path: floods.empty_data(path, 200_000))

    async def test_continuations(self) -> None:
        """Headers without an end are refused, and not kept (CVE-2024-27316)."""
        for frames in await self.both(lambda path: floods.continuations(path, 32)):
            self.assertTrue({GOAWAY, RST_STREAM, HEADERS} & {kind for kind, *_ in frames}, frames)

    async def test_silent_connections(self) -> None:
        """Connections on which nothing comes."""

        def silent(address: floods.Address) -> None:
            connections = [socket.create_connection(address) for _ in range(300)]
            time.sleep(2)
            for connection in connections:
                connection.close()

        for server in (self.worker, self.scheduler):
            await self.withstands(server, silent)


class SizeTests(FloodCase):
    """Calls that are too large."""

    async def refusal(self, server: GrpcServer, size: int, **more: Any) -> grpc.StatusCode:
        """The status of a call with a message of that size."""
        call = self.channel(server.bound).unary_unary(self.path(server))
        error = await self.assertFailure(deferToThread(call, b"a" * size, timeout=10, **more), grpc.RpcError)
        return error.code()

    async def test_metadata(self) -> None:
        """Metadata over the limit is refused, and so is much more of it."""
        for server in (self.worker, self.scheduler):
            for count in (30, 1000):
                metadata = [(f"x-{number}", "a" * 1000) for number in range(count)]
                self.assertIs(await self.refusal(server, 0, metadata=metadata), grpc.StatusCode.RESOURCE_EXHAUSTED)
            await deferToThread(self.call_all, self.calls(server))

    async def test_message(self) -> None:
        """A message over the limit is refused."""
        for server in (self.worker, self.scheduler):
            self.assertIs(await self.refusal(server, MESSAGE_MAX_BYTES + 1), grpc.StatusCode.RESOURCE_EXHAUSTED)
            await deferToThread(self.call_all, self.calls(server))

    async def test_announced(self) -> None:
        """A message that is said to have four gigabytes is refused before it comes."""
        refusal = {RST_STREAM, HEADERS}
        for frames in await self.both(lambda path: floods.announced(path, 2**32 - 1), wanted=refusal):
            self.assertTrue(refusal & {kind for kind, *_ in frames}, frames)

    async def test_gzip_bomb(self) -> None:
        """A compressed message of 512 MiB is refused; it is not unpacked into memory."""
        packed = floods.gzip_bomb(512)
        for server in (self.worker, self.scheduler):
            bomb = partial(floods.compressed_call, path=self.path(server), packed=packed)
            sent, frames = await self.withstands(server, bomb)
            self.assertGreater(sent, 0)
            self.assertTrue({RST_STREAM, HEADERS} & {kind for kind, *_ in frames}, (sent, frames))


class GarbageTests(FloodCase, TlsCase):
    """Bytes that are no HTTP/2."""

    async def test_garbage(self) -> None:
        """Random bytes, HTTP/1, TLS and odd frames: the connection is closed."""
        made = random.Random(7)
        for server in (self.worker, self.scheduler):
            for raw in (
                *(made.randbytes(size) for size in (1, 24, 1000, 100_000)),
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST /jobscheduler.Worker/StopJob HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
                TLS_HELLO + made.randbytes(500),
                floods.PREFACE + made.randbytes(1000),
                floods.BEGIN + b"\xff" * 1000,
            ):
                self.assertTrue(await self.withstands(server, partial(floods.closes, raw=raw)), raw[:40])

    async def test_tls_garbage(self) -> None:
        """On a port with TLS: random bytes, HTTP in the clear, HTTP/2 in the clear, broken handshakes."""
        made, tls = random.Random(7), self.files("worker")
        server = self.worker_server(self.runner, tls)
        client, job = self.worker_client(self.files("scheduler")), "j"
        worker = a_worker(server.bound)
        for raw in (
            *(made.randbytes(size) for size in (1, 100, 100_000)),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            floods.BEGIN,
            TLS_HELLO + made.randbytes(500),
            TLS_HELLO,
            b"\x16\x03\x01\xff\xff" + made.randbytes(70_000),
            b"\x15\x03\x01\x00\x02\x02\x28" * 1000,
        ):
            closing = deferToThread(floods.closes, (server.bound.host, server.bound.port), raw)
            self.assertFalse((await client.query_job(worker, job)).state.final)
            self.assertTrue(await closing, raw[:40])
            self.assertFalse((await client.query_job(worker, job)).state.final)
