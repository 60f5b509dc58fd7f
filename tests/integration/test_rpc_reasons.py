"""The reasons of ``Unreachable``, from servers that really fail so, with the texts of the installed grpcio."""

from __future__ import annotations

import datetime
import signal
import socket
import ssl
import struct
from collections.abc import Callable

import grpc
import trustme
from twisted.internet.threads import deferToThread

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import DeadlineExceeded, Unreachable
from scheduler.net import Address
from scheduler.pb import worker_pb2
from scheduler.rpc import channel
from scheduler.rpc.reasons import reason
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import a_job, a_worker
from tests.integration.test_rpc_tls import OTHERS, OURS, TlsCase

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)

NOT_ACCEPTED = "the peer closed the connection: it may not accept the certificate that it is shown"


class ReasonCase(TlsCase):
    async def reason(self, address: object, tls: TlsFiles | None = None, deadline: float = 10.0) -> str:
        """The reason of two probes, which is the same though the second makes no connection of its own."""
        client = self.worker_client(tls, deadline)
        worker = a_worker(address)
        first, second = [(await self.assertFailure(client.probe(worker), Unreachable)).reason for _ in range(2)]
        self.assertEqual(first, second)
        return first

    def speaking(self, speak: Callable[[socket.socket], None]) -> Address:
        """The address of a server that calls ``speak`` with each connection, and then closes it."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def serve_thd() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        speak(connection)
                    except OSError:
                        continue

        deferToThread(serve_thd)
        self.addCleanup(listening.shutdown, socket.SHUT_RDWR)
        return Address(*listening.getsockname())


class ConnectionTests(ReasonCase):
    async def test_refused(self) -> None:
        """Nothing listens; with TLS and by name, too."""
        dead = self.dead_address()
        for tls in (None, self.files("client")):
            for address in (dead, Address("localhost", dead.port)):
                self.assertEqual(await self.reason(address, tls), "connection refused")

    async def test_no_name(self) -> None:
        """The name of the host has no address."""
        self.assertEqual(await self.reason("no-such-host.invalid:1"), "its name does not resolve")

    async def test_dropped(self) -> None:
        """Packets are dropped: the deadline of the check, or gRPC's own, passes."""
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(full.close)
        for _ in range(3):  # a connection that is not accepted, and those for which there is no room
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        await self.times_out(Address(*full.getsockname()), None)

    async def test_mute(self) -> None:
        """The connection comes up, and nothing is sent on it."""
        for tls in (None, self.files("client")):
            await self.times_out(self.silent_address(), tls)

    async def times_out(self, address: Address, tls: TlsFiles | None) -> None:
        # What is left of the half second when the call is made: less if the machine is busy.
        self.assertRegex(await self.reason(address, tls, deadline=0.5), r"^no answer within 0\.[1-5] s$")
        options = [each for each in channel.OPTIONS if each[0] != "grpc.min_reconnect_backoff_ms"]
        options.append(("grpc.min_reconnect_backoff_ms", 500))
        credentials = None if tls is None else grpc.ssl_channel_credentials()
        made = (
            grpc.insecure_channel(str(address), options=options)
            if credentials is None
            else grpc.secure_channel(str(address), credentials, options=options)
        )
        self.addCleanup(made.close)
        call = made.unary_unary("/jobscheduler.Worker/QueryJob", worker_pb2.QueryJobReq.SerializeToString)
        error = await self.assertFailure(deferToThread(call, worker_pb2.QueryJobReq(), timeout=30), grpc.RpcError)
        self.assertIs(error.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(reason(error.details(), str(address), tls is not None, 5.0), "no answer within 5 s")

    async def test_reset(self) -> None:

        def reset(connection: socket.socket) -> None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        for tls in (None, self.files("client")):
            self.assertEqual(await self.reason(self.speaking(reset), tls), "connection reset")

    async def test_other_protocol(self) -> None:
        """The peer speaks something else."""

        def speak(connection: socket.socket) -> None:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        self.assertEqual(await self.reason(self.speaking(speak)), "the peer does not speak gRPC")
        self.assertEqual(await self.reason(self.speaking(speak), self.files("client")), "the peer does not speak TLS")

    async def test_killed(self) -> None:
        """The process is killed during a call, or shuts down."""
        process, address = self.process("tests.integration.rpc_worker")
        client = self.worker_client()
        await client.query_job(a_worker(address), "j")
        process.send_signal(signal.SIGSTOP)
        call = client.stop_job(a_worker(address), "j")
        process.kill()
        error = await self.assertFailure(call, Unreachable)
        self.assertIn(error.reason, ("connection closed", "connection reset", "connection refused"))
        runner = FakeJobRunner()
        runner.shutting_down = True
        worker = a_worker(self.worker_server(runner).bound, "leaving")
        self.assertEqual(
            (await self.assertFailure(client.start_job(worker, a_job()), Unreachable)).reason, "shutting down"
        )


class CertificateTests(ReasonCase):
    pairs = 0

    def https(self, files: TlsFiles, newest: ssl.TLSVersion, *protocols: str) -> Address:
        """A TLS server that is no gRPC server, and wants a certificate of ``OURS``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.crt_file, files.key_file)
        context.load_verify_locations(files.ca_file)
        context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, newest
        if protocols:
            context.set_alpn_protocols(protocols)

        def speak(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(100)

        return self.speaking(speak)

    def serving(self, *hosts: str, issuer: trustme.CA = OURS, **dates: datetime.datetime) -> Address:
        self.pairs += 1  # a server reads its own files again when they change
        files = self.files(f"server-{self.pairs}", *hosts, issuer=issuer, **dates)
        return self.worker_server(FakeJobRunner(), files).bound

    async def test_of_the_server(self) -> None:
        """This client does not accept the server's certificate."""
        client = self.files("client")
        unknown = "certificate signed by an unknown authority"
        for address, expected in (
            (self.serving(issuer=OTHERS), unknown),
            (self.serving(not_after=PAST), "certificate expired"),
            (self.serving(not_before=FUTURE, not_after=FUTURE), "certificate not yet valid"),
            (self.serving("10.0.0.7"), "no subject alternative name for 127.0.0.1"),
            (self.serving("elsewhere.example"), "no subject alternative name for 127.0.0.1"),
        ):
            self.assertEqual(await self.reason(address, client), expected)
        named = Address("localhost", self.serving("127.0.0.1").port)
        self.assertEqual(await self.reason(named, client), "no subject alternative name for localhost")

    async def test_of_the_client(self) -> None:
        """The server does not accept this client's certificate, and only closes the connection."""
        for files in (self.files("other", issuer=OTHERS), self.files("old", not_after=PAST)):
            self.assertEqual(await self.reason(self.serving(), files), NOT_ACCEPTED)

    async def test_alert(self) -> None:
        """A server with an older TLS says that it does not accept the certificate."""
        address = self.https(self.files("server"), ssl.TLSVersion.TLSv1_2, "h2")
        told = await self.reason(address, self.files("other", issuer=OTHERS))
        self.assertEqual(told, "the peer does not accept the certificate that it is shown")

    async def test_without_tls(self) -> None:
        """TLS on one side meets plain text on the other."""
        plain = self.worker_server(FakeJobRunner()).bound
        self.assertEqual(await self.reason(plain, self.files("client")), "the peer does not speak TLS")
        self.assertEqual(await self.reason(self.serving()), "the peer closed the connection: it may speak TLS alone")

    async def test_https(self) -> None:
        """A web server with TLS is no worker."""
        address = self.https(self.files("server"), ssl.TLSVersion.TLSv1_3, "http/1.1")
        self.assertEqual(await self.reason(address, self.files("client")), "the peer does not speak gRPC")


class SchedulerTests(ReasonCase):
    async def test_worker_side(self) -> None:
        """A worker gets the reason why it can't reach its scheduler."""
        client = self.scheduler_client(self.dead_address())
        error = await self.assertFailure(client.deregister("w", ""), Unreachable)
        self.assertEqual((error.kind, error.reason), ("scheduler", "connection refused"))
        client = self.scheduler_client(self.silent_address(), deadline=0.5)
        await self.assertFailure(client.deregister("w", ""), DeadlineExceeded)
