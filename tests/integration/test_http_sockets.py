"""Blocking clients over raw sockets: clients that look up too late, read too slowly, or are gone."""

import contextlib
import gc
import hashlib
import os
import socket
import struct
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scheduler.api.bodies import HELD_MAX_BYTES
from scheduler.api.server import HttpServer, make_site
from scheduler.model import JobSpec, JobState
from scheduler.net import Address
from tests.doubles.authentication import TRUSTING
from tests.unit.api.conversation import HOSTS, NOW, Response, Stage, read_response

MIB = 1024 * 1024


def request(line: str, body: bytes = b"", *headers: str) -> bytes:
    """A request that is the only one of its connection."""
    head = [f"{line} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def read_answer(connection: socket.socket) -> bytes:
    """Read until a response is complete or the server closes."""
    received = b""
    while (response := read_response(received)) is None or not response.complete:
        data = connection.recv(65536)
        if not data:
            break
        received += data
    return received


def exchange(port: int, *pieces: bytes) -> bytes:
    """Send everything, and only then read the answer."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return read_answer(connection)


def hang_up(port: int, sent: bytes, reset: bool, read: bool) -> None:
    """Send some bytes, perhaps read a little, and leave by a close or a reset."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(sent)
        if read:
            connection.recv(100)


def digest_of_chunks(connection: socket.socket) -> tuple[str, bool]:
    """Read a chunked response; the digest of its body, and whether it ended."""
    stream = connection.makefile("rb")
    while stream.readline().strip():
        pass
    digest = hashlib.sha256()
    while size := int(stream.readline() or b"0", 16):
        digest.update(stream.read(size))
        stream.readline()
    while (line := stream.readline()) not in (b"", b"\r\n"):
        pass  # a trailer
    return digest.hexdigest(), line == b"\r\n"


class ServiceTests(TestCase):
    timeout = 60

    async def test_bound_is_not_serving(self) -> None:
        """A client that connects while the process starts is answered once it has started, and not before."""
        scheduler, _, house = Stage(reactor).parts
        self.addCleanup(Deferred.fromCoroutine, house.stop())
        site = make_site(scheduler, TRUSTING, reactor, lambda: NOW, HOSTS)
        server = HttpServer(reactor, Address("127.0.0.1", 0), site, drain=5.0)
        server.privilegedStartService()
        self.addCleanup(server.stopService)
        assert server.bound is not None
        answer = deferToThread(exchange, server.bound.port, request("GET /v1/jobs"))
        asked = Deferred()
        reactor.callLater(0.2, asked.callback, None)
        await asked
        self.assertEqual(scheduler.calls, [])
        server.startService()
        self.assertIn(b" 200 ", (await answer).split(b"\r\n")[0])


class SocketTestCase(TestCase):
    """A listening server, which in the end has no connection, reader or error left."""

    timeout = 60

    def setUp(self) -> None:
        self.scheduler, self.fleet, self.house = Stage(reactor).parts
        self.site = make_site(self.scheduler, TRUSTING, reactor, lambda: NOW, HOSTS)
        self.listening = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.port = self.listening.getHost().port
        self._waiting: list[Deferred[None]] = []
        lost = self.site.lost

        def noticed(channel: Any) -> None:
            lost(channel)
            while self._waiting and not self.site.channels:
                self._waiting.pop().callback(None)

        self.site.lost = noticed  # type: ignore[method-assign]

    async def tearDown(self) -> None:
        await self.everyone_gone()
        self.assertTrue(self.house.parts.outputs.idle)
        await self.house.stop()
        self.assertTrue(self.house.parts.ledger.idle)
        await self.listening.stopListening()

    async def everyone_gone(self) -> None:
        """Wait until the server has noticed that all clients are gone."""
        # Connections are accepted in order, so all before this one have been accepted.
        await self.ask(request("GET /healthz"))
        if self.site.channels:
            gone: Deferred[None] = Deferred()
            self._waiting.append(gone)
            await gone

    async def ask(self, *pieces: bytes) -> Response:
        response = read_response(await deferToThread(exchange, self.port, *pieces))
        assert response is not None
        return response


class TooMuchTests(SocketTestCase):
    async def test_100_megabytes(self) -> None:
        """A client that sends 100 MB before it looks up sees the refusal, with a length told or in chunks."""
        for header, piece in (
            (b"Content-Length: 104857600", b"x" * MIB),
            (b"Transfer-Encoding: chunked", b"100000\r\n" + b"x" * MIB + b"\r\n"),
        ):
            head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n"
            response = await self.ask(head, *([piece] * 100))
            self.assertEqual((response.status, response.complete), (413, True))


class HangUpTests(SocketTestCase):
    async def test_each_stage(self) -> None:
        """A request that is left at any stage, by a close or a reset, frees everything it held."""
        job = self.fleet.add_job(b"x" * MIB)
        self.scheduler.held["query"] = Deferred()
        output = f"/v1/jobs/{job.id}/output"
        start = request("POST /start", b'{"worker_id": "w1", "command": "a"}')
        query = request("POST /query", f'{{"worker_id": "w1", "job_id": "{job.id}"}}'.encode())
        submit = b'{"worker": "w1", "command": "a"}'
        events = "Accept: text/event-stream"
        await self.everyone_gone()
        before = len(os.listdir("/proc/self/fd"))
        for sent, answered in (
            (b"", False),
            (start[:10], False),
            (start[:-10], False),
            (start, True),
            (request("GET /healthz") * 50, True),
            (request(f"GET /v1/jobs/{job.id}?wait=300"), False),
            (query, False),
            (request(f"GET {output}"), True),
            (request(f"GET {output}?follow=1"), True),
            (request(f"GET {output}", b"", events), True),
            (request("POST /v1/jobs?wait=300", submit), False),
            (request("POST /v1/jobs?follow=1", submit), True),
            (request("POST /v1/jobs", submit, events), True),
            (request("POST /start", b"x" * 2 * MIB), False),
        ):
            for read in {False, answered}:
                for reset in (False, True):
                    await deferToThread(hang_up, self.port, sent, reset, read)
        await self.everyone_gone()
        self.assertTrue(self.house.parts.outputs.idle)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertIs(self.scheduler.job(job.id).state, JobState.RUNNING)

    async def test_unsent(self) -> None:
        """All that a client has not read is freed once the connection is lost, before the garbage collector comes."""
        job = self.fleet.add_job(b"x" * MIB)
        connection = socket.create_connection(("127.0.0.1", self.port), 20)
        self.addCleanup(connection.close)
        connection.sendall(request(f"GET /v1/jobs/{job.id}/output?follow=1"))
        await deferToThread(connection.recv, 1)
        tcp = [weakref.ref(channel.transport) for channel in self.site.channels]
        gc.disable()
        self.addCleanup(gc.enable)
        connection.close()
        await self.everyone_gone()
        self.assertEqual([ref() for ref in tcp], [None])

    async def test_server_hangs_up(self) -> None:
        """At shutdown a follower's connection is closed without the end of the body."""
        job = self.fleet.add_job(b"some")

        def follow(seen: Callable[[], None]) -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
                connection.sendall(request(f"GET /v1/jobs/{job.id}/output?follow=1"))
                received = b""
                while b"some" not in received:
                    received += connection.recv(65536)
                reactor.callFromThread(seen)
                return received + read_answer(connection)

        seen: Deferred[None] = Deferred()
        following = deferToThread(follow, lambda: seen.callback(None))
        await seen
        await self.site.drain(20.0)
        response = read_response(await following)
        assert response is not None
        self.assertEqual((response.body, response.complete), (b"some", False))


def resident() -> int:
    """The bytes of memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class SlowClientTests(SocketTestCase):
    async def test_lists_of_large_jobs(self) -> None:
        """Forty clients that ask for large jobs and never read take little memory, and others are answered."""
        jobs = [
            self.fleet.add_job(spec=JobSpec(command="true", args=(f"{number:06}" * 150_000,)), created_at=NOW + number)
            for number in range(20)
        ]
        ended = self.fleet.add_job(spec=jobs[0].spec, state=JobState.SUCCEEDED, created_at=NOW + 20)
        events = "Accept: text/event-stream"
        asked = [
            request("GET /v1/jobs?limit=1000"),
            request(f"GET /v1/jobs/{ended.id}"),
            request(f"GET /v1/jobs/{ended.id}/output", b"", events),
            request("GET /v1/jobs?output=1"),
        ]
        before = resident()
        with contextlib.ExitStack() as stack:
            for number in range(40):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await deferToThread(client.connect, ("127.0.0.1", self.port))
                await deferToThread(client.sendall, asked[number % len(asked)])
            for _ in range(3):
                page = (await self.ask(request("GET /v1/jobs?limit=3"))).json()
                self.assertEqual([job["id"] for job in page["jobs"]], [ended.id, jobs[-1].id, jobs[-2].id])
            held = self.site.under_way.held
            self.assertGreater(held.total, 10 * MIB)
            self.assertLessEqual(held.total, HELD_MAX_BYTES)
            # Beside the held bytes there are copies for the sockets, and the pieces that are being made.
            self.assertLess(resident() - before, 192 * MIB)
        await self.everyone_gone()
        self.assertEqual(held.total, 0)

    async def test_back_pressure(self) -> None:
        """While a client reads nothing, output is read only as far as buffers go; then all of it arrives."""
        output = os.urandom(MIB) * 64
        self.house.workers.piece = 256 * 1024
        job = self.fleet.add_job(output, state=JobState.SUCCEEDED)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.settimeout(20)
            await deferToThread(connection.connect, ("127.0.0.1", self.port))
            await deferToThread(connection.sendall, request(f"GET /v1/jobs/{job.id}/output?follow=1"))
            # Other requests are answered meanwhile.
            for _ in range(50):
                self.assertEqual((await self.ask(request("GET /healthz"))).status, 200)
            offsets = [call.args[2] for call in self.house.workers.calls if call.method == "read_output"]
            self.assertLess(max(offsets), 16 * MIB)
            digest, complete = await deferToThread(digest_of_chunks, connection)
        self.assertEqual(digest, hashlib.sha256(output).hexdigest())
        self.assertTrue(complete)
