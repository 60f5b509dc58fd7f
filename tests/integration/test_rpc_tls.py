"""Certificates in both roles: accepted clients, believed servers, and changes during use."""

import datetime
import os
import socket
import ssl
from pathlib import Path

import grpc
import trustme
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Unreachable
from scheduler.model import JobState, Worker
from scheduler.net import Address
from scheduler.pb import worker_pb2, worker_pb2_grpc
from scheduler.rpc import worker_calls
from scheduler.rpc.scheduler_client import SchedulerClient
from scheduler.rpc.server import GrpcServer
from scheduler.rpc.worker_client import WorkerClient
from tests.contract.test_scheduler_client import FACTS, AsMembership
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.integration.rpc import ANY_PORT, RpcCase, a_job, a_worker

OURS, OTHERS = trustme.CA(), trustme.CA()


class TlsCase(RpcCase):
    """Makes certificates, and a worker with a job that uses them."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def files(
        self,
        name: str,
        *hosts: str,
        issuer: trustme.CA = OURS,
        trusted: trustme.CA | None = OURS,
        **dates: datetime.datetime,
    ) -> TlsFiles:
        """A pair for those hosts, and its holder's trusted authority; replaces an existing one of that name.

        ``dates`` are ``not_before`` and ``not_after``.
        """
        files = TlsFiles(
            self.folder / f"{name}.pem",
            self.folder / f"{name}.key",
            self.folder / f"{name}-ca.pem" if trusted else None,
        )
        pair = issuer.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **dates)
        self.put(files.crt_file, b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        self.put(files.key_file, pair.private_key_pem.bytes())
        if trusted is not None:
            self.put(files.ca_file, trusted.cert_pem.bytes())
        return files

    def put(self, path: Path, content: bytes) -> None:
        draft = path.with_suffix(".new")
        draft.write_bytes(content)
        os.replace(draft, path)

    def worker(self, tls: TlsFiles | None, address: Address = ANY_PORT) -> Worker:
        self.runner = FakeJobRunner()
        self.runner.start("j", a_job().spec, None)
        self.server: GrpcServer = self.worker_server(self.runner, tls, address)
        return a_worker(self.server.bound)

    async def works(self, client: WorkerClient, worker: Worker) -> None:
        self.assertEqual((await client.query_job(worker, "j")).state, JobState.RUNNING)

    async def refused(self, client: WorkerClient, worker: Worker, reason: str) -> None:
        """No call succeeds, a start was certainly not sent, and each error has the reason."""
        self.patch(worker_calls, "CHECK_VALID_SECONDS", 0.0)
        error = await self.assertFailure(client.start_job(worker, a_job("k")), Unreachable)
        self.assertFalse(error.sent)
        for _ in range(5):
            failed = await self.assertFailure(client.probe(worker), Unreachable)
            self.assertIn(reason, failed.reason)
        self.assertIn(reason, error.reason)
        self.assertEqual(self.runner.running(), ("j",))

    def plain_call(self, address: object, credentials: grpc.ChannelCredentials) -> None:
        """Make a call like a client of gRPC's own."""
        with grpc.secure_channel(str(address), credentials) as channel:
            worker_pb2_grpc.WorkerStub(channel).QueryJob(worker_pb2.QueryJobReq(jobID="j"), timeout=10)


class WorkerTests(TlsCase):
    """Calls from scheduler to worker."""

    async def test_both_known(self) -> None:
        """Both sides with certificates of a common authority accept each other."""
        await self.works(self.worker_client(self.files("client")), self.worker(self.files("server")))

    async def test_stranger_calls(self) -> None:
        """A client of another authority is refused, though it believes the server."""
        client = self.worker_client(self.files("client", issuer=OTHERS))
        await self.refused(client, self.worker(self.files("server")), "it may not accept the certificate")

    async def test_stranger_serves(self) -> None:
        """A server of another authority is not believed, though it would accept the client."""
        worker = self.worker(self.files("server", issuer=OTHERS, trusted=OURS))
        await self.refused(self.worker_client(self.files("client")), worker, "signed by an unknown authority")

    async def test_nameless(self) -> None:
        """A client without a certificate is refused."""
        worker = self.worker(self.files("server"))
        credentials = grpc.ssl_channel_credentials(OURS.cert_pem.bytes())
        error = await self.assertFailure(deferToThread(self.plain_call, worker.address, credentials), grpc.RpcError)
        self.assertIs(error.code(), grpc.StatusCode.UNAVAILABLE)

    async def test_nameless_is_welcome(self) -> None:
        """A server without an authority of its own accepts clients without a certificate."""
        worker = self.worker(self.files("server", trusted=None))
        await deferToThread(self.plain_call, worker.address, grpc.ssl_channel_credentials(OURS.cert_pem.bytes()))

    async def test_other_host(self) -> None:
        """A certificate for another host than the dialled one is not accepted."""
        worker = self.worker(self.files("server", "elsewhere.example"))
        client = self.worker_client(self.files("client"))
        await self.refused(client, worker, "no subject alternative name for 127.0.0.1")

    async def test_host_by_name(self) -> None:
        """A host that was dialled by name is verified by its name."""
        named = a_worker(self.worker(self.files("server", "localhost")).address.replace("127.0.0.1", "localhost"))
        await self.works(self.worker_client(self.files("client")), named)

    async def test_plain_text(self) -> None:
        """Plain text and TLS do not connect, in either direction."""
        await self.refused(self.worker_client(), self.worker(self.files("server")), "it may speak TLS alone")
        await self.refused(self.worker_client(self.files("client")), self.worker(None), "does not speak TLS")

    def test_unreadable(self) -> None:
        """Files that vanished since they were checked end the start, with the file's name."""
        files = self.files("gone")
        files.key_file.unlink()
        for service in (
            WorkerClient(reactor, files, "scheduler"),
            SchedulerClient(reactor, Address("127.0.0.1", 1), files),
        ):
            self.assertIn("gone.key", str(self.assertRaises(OSError, service.startService)))
        self.assertIn("gone.key", str(self.assertRaises(OSError, self.worker, files)))


class SchedulerTests(TlsCase):
    """Calls from worker to scheduler."""

    def client(self, tls: TlsFiles | None) -> SchedulerClient:
        server = self.scheduler_server(AsMembership(FakeSchedulerClient()), self.files("server"))
        return self.scheduler_client(server.bound, tls)

    async def test_known(self) -> None:
        """A worker with a known certificate registers."""
        self.assertEqual((await self.client(self.files("client")).register(FACTS)).worker_id, "w1")

    async def test_strangers(self) -> None:
        """Others can't; the reason is in the error, and in the log once."""
        logged: list[str] = []

        def note(event: dict) -> None:
            if event.get("log_namespace") == "scheduler.rpc.scheduler_client.SchedulerClient":
                logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        for tls, reason in (
            (None, "it may speak TLS alone"),
            (self.files("a", issuer=OTHERS), "it may not accept the certificate"),
            (self.files("b", trusted=OTHERS), "signed by an unknown authority"),
        ):
            client = self.client(tls)
            for _ in range(3):
                error = await self.assertFailure(client.register(FACTS), Unreachable)
                self.assertIn(reason, error.reason)
            (line,) = logged
            self.assertRegex(line, "^calls to the scheduler at 127.0.0.1:[0-9]+ fail: ")
            self.assertTrue(line.endswith(error.reason))
            logged.clear()


class ChangeTests(TlsCase):
    """Certificates that change during use."""

    def shown(self, worker: Worker) -> bytes:
        """The server's present certificate, shown to any client."""
        host, _, port = worker.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port)), 10) as raw, context.wrap_socket(raw) as connection:
            return connection.getpeercert(binary_form=True)

    def held(self, files: TlsFiles) -> bytes:
        return ssl.PEM_cert_to_DER_cert(files.crt_file.read_text().split("\n\n")[0])

    async def test_server(self) -> None:
        """A server shows the new certificate, and keeps the previous one while the new files do not match."""
        files = self.files("server")
        worker = self.worker(files)
        first = self.held(files)
        self.assertEqual(await deferToThread(self.shown, worker), first)
        key = files.key_file.read_bytes()
        self.files("server")
        new_key = files.key_file.read_bytes()
        self.put(files.key_file, key)
        self.assertEqual(await deferToThread(self.shown, worker), first)
        self.put(files.key_file, new_key)
        self.assertNotEqual(self.held(files), first)
        self.assertEqual(await deferToThread(self.shown, worker), self.held(files))
        await self.works(self.worker_client(self.files("client")), worker)

    async def test_all(self) -> None:
        """Another authority for all takes over without a restart, with the next call of a client."""
        worker = self.worker(self.files("server"))
        client = self.worker_client(self.files("client"))
        await self.works(client, worker)
        self.files("server", issuer=OTHERS, trusted=OTHERS)
        await self.works(client, worker)
        await self.server.stopService()
        worker = self.worker(self.files("server"), self.server.bound)
        self.files("server", issuer=OTHERS, trusted=OTHERS)
        await self.refused(client, worker, "signed by an unknown authority")
        self.files("client", issuer=OTHERS, trusted=OTHERS)
        await self.works(client, worker)

    async def test_worker_side(self) -> None:
        """The new authority takes over with the next call of a worker to its scheduler, too."""
        server = self.scheduler_server(AsMembership(FakeSchedulerClient()), self.files("server"))
        client = self.scheduler_client(server.bound, self.files("client", issuer=OTHERS, trusted=OTHERS))
        await self.assertFailure(client.register(FACTS), Unreachable)
        self.files("client")
        self.assertEqual((await client.register(FACTS)).worker_id, "w1")
