"""Certificates of an authority that is not of ``schedctl ca``: who may call with them, and under which names."""

import trustme
from attrs import evolve

from scheduler.daemon.servers import TlsFiles
from scheduler.messages import Registration
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from scheduler.rpc.callers import CallerRules
from scheduler.security.presented import serial_text
from tests.contract.test_scheduler_client import AsMembership
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.house import House
from tests.integration.identities import SCHEDULER, serial, worker_identity
from tests.integration.identity_case import IdentityCase

B = worker_identity("b")


class ForeignTests(IdentityCase):
    """Servers and callers with certificates of such an authority."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = trustme.CA()

    def pair(self, file: str, *names: str, common_name: str | None = None) -> TlsFiles:
        pair = self.authority.issue_cert("127.0.0.1", *names, common_name=common_name)
        files = TlsFiles(self.lab.folder / f"{file}.pem", self.lab.folder / f"{file}.key", self.lab.folder / "root.pem")
        files.crt_file.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        files.key_file.write_bytes(pair.private_key_pem.bytes())
        self.authority.cert_pem.write_to_path(str(files.ca_file))
        return files

    async def test_not_listed(self) -> None:
        """With peer_names, a certificate with other names is refused, whatever its common name."""
        worker = self.worker(self.pair("server"), CallerRules(("scheduler.example.com",)))
        thief = self.pair("thief", "box.example.com", common_name="scheduler.example.com")
        stub = worker_pb2_grpc.WorkerStub(self.connection(thief, worker.address, "127.0.0.1"))
        self.assertIn("box.example.com", await self.denied(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")))
        await self.worker_client(self.pair("scheduler", "Scheduler.Example.com")).probe(worker)

    async def test_names(self) -> None:
        """A worker that peer_names lists may use this name or its first label, and no other."""
        membership = House().parts.membership
        server = self.scheduler_server(
            membership, self.pair("server"), rules=CallerRules(("a.example.com", "b.example.com"))
        )
        files = self.pair("a", "a.example.com", "unlisted.example.com")
        stub = scheduler_pb2_grpc.SchedulerStub(self.connection(files, server.bound, "127.0.0.1"))
        for name in ("b", "b.example.com", "unlisted"):
            request = scheduler_pb2.RegisterReq(address="127.0.0.1:1", bootID="boot", nonce="n", name=name)
            self.assertIn(repr(name), await self.denied(stub.RegisterWorker, request))
        for port, name in enumerate(("a", "a.example.com"), 1):
            request = scheduler_pb2.RegisterReq(
                address=f"127.0.0.1:{port}", bootID="boot", nonce="n", folderID=f"folder-{port}", name=name
            )
            await self.called(stub.RegisterWorker, request)

    async def test_any(self) -> None:
        """Without peer_names, every certificate of the authority may call, and use any name."""
        membership = AsMembership(FakeSchedulerClient())
        server = self.scheduler_server(membership, self.pair("server"))
        client = self.scheduler_client(server.bound, self.pair("any", "any.example.com"))
        await client.register(Registration("127.0.0.1:1", name="b"))
        self.assertEqual([peer.names for peer in membership.peers], [()])

    async def test_revoked(self) -> None:
        """A revoked certificate is refused, too, without peer_names."""
        files = self.pair("scheduler")
        worker = self.worker(self.pair("server"), CallerRules(revoked=self.revoked_file(serial_text(serial(files)))))
        stub = worker_pb2_grpc.WorkerStub(self.connection(files, worker.address, "127.0.0.1"))
        self.assertIn("revoked", await self.denied(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")))

    async def test_without_authority(self) -> None:
        """A server that asks for no certificates, with an identity of its own, refuses everybody."""
        own = evolve(self.lab.pair(B), ca_file=None)
        worker = self.worker(own)
        stub = worker_pb2_grpc.WorkerStub(
            self.connection(self.lab.pair(SCHEDULER), worker.address, "b.worker.lab.internal")
        )
        self.assertIn("no certificate", await self.denied(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")))
