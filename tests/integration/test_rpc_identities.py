"""Identities in certificates: who may call whom, and under which names; with real servers and certificates."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from attrs import evolve
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import NotFound, Refused, Unreachable
from scheduler.messages import Heartbeat, Registration
from scheduler.model import JobState, Worker
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from scheduler.rpc import worker_calls
from scheduler.rpc.callers import CallerRules
from scheduler.security.identities import Identity, Role
from scheduler.security.presented import serial_text
from tests.contract.test_scheduler_client import AsMembership
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.house import House
from tests.integration.identities import SCHEDULER, Lab, serial, worker_identity
from tests.integration.identity_case import IdentityCase
from tests.integration.rpc import a_job

A, B = worker_identity("a"), worker_identity("b")
UNKNOWN = grpc.StatusCode.UNAVAILABLE


class WorkerTests(IdentityCase):
    """A worker serves only the scheduler of its cluster."""

    def stub(self, files: TlsFiles, worker: Worker, verified: str = "b.worker.lab.internal") -> Any:
        return worker_pb2_grpc.WorkerStub(self.connection(files, worker.address, verified))

    async def test_another_worker(self) -> None:
        """With the pair of one worker, no method of another worker works, nor of the same one."""
        worker = self.worker(self.lab.pair(B))
        for identity in (A, B):
            stub = self.stub(self.lab.pair(identity, file="stolen"), worker)
            for method, request in (
                (stub.StartJob, worker_pb2.StartJobReq(command="true", jobID="j")),
                (stub.StopJob, worker_pb2.StopJobReq(jobID="j")),
                (stub.SignalJob, worker_pb2.SignalJobReq(jobID="j", signal="TERM")),
                (stub.RemoveJob, worker_pb2.RemoveJobReq(jobID="j")),
                (stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")),
                (stub.QueryJobs, worker_pb2.QueryJobsReq(jobID=["j"])),
                (stub.ReadOutput, worker_pb2.ReadOutputReq(jobID="j", stream="STDOUT")),
                (
                    lambda request, timeout, stub=stub: list(stub.StreamJob(request, timeout=timeout)),
                    worker_pb2.StreamJobReq(jobID="j", stream="STDOUT"),
                ),
            ):
                self.assertIn("only a scheduler may", await self.denied(method, request))
        self.assertEqual(self.runner.running(), ())

    async def test_health(self) -> None:
        """The health service admits no other callers, so a check that succeeds means that calls are admitted."""
        worker = self.worker(self.lab.pair(B))
        for files, admitted in ((self.lab.pair(A), False), (self.lab.pair(SCHEDULER), True)):
            stub = health_pb2_grpc.HealthStub(self.connection(files, worker.address, "b.worker.lab.internal"))

            def watch(request: object, timeout: float, stub: Any = stub) -> object:
                return next(iter(stub.Watch(request, timeout=timeout)))

            for method in (stub.Check, watch):
                if admitted:
                    await self.called(method, health_pb2.HealthCheckRequest())
                else:
                    await self.denied(method, health_pb2.HealthCheckRequest())

    async def test_every_method(self) -> None:
        """The methods of the test above are all methods of a worker."""
        methods = worker_pb2.DESCRIPTOR.services_by_name["Worker"].methods_by_name
        self.assertEqual(len(methods), 8)

    async def test_no_reflection(self) -> None:
        """A server with certificates has no reflection service, whoever asks."""
        worker = self.worker(self.lab.pair(B))
        channel = self.connection(self.lab.pair(A), worker.address, "b.worker.lab.internal")
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        question = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        error = await self.assertFailure(deferToThread(lambda: list(ask(question, timeout=10))), grpc.RpcError)
        self.assertIs(error.code(), grpc.StatusCode.UNIMPLEMENTED)

    async def test_another_cluster(self) -> None:
        """The scheduler of another cluster is refused, even if it is of the same authority."""
        stranger = self.lab.pair(Identity("other", SCHEDULER.role), file="stranger")
        stub = self.stub(stranger, self.worker(self.lab.pair(B)))
        self.assertIn("another cluster", await self.denied(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")))

    async def test_no_identity(self) -> None:
        """A certificate of the authority with the scheduler's common name alone is refused."""
        worker = self.worker(self.lab.pair(B))
        nameless = self.lab.nameless("scheduler")
        stub = self.stub(nameless, worker)
        self.assertIn("states no identity", await self.denied(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")))

    async def test_foreign_authority(self) -> None:
        """A scheduler's certificate of another authority does not get through the handshake."""
        other = Lab(Path(self.mktemp()).absolute())
        thief = evolve(other.pair(SCHEDULER), ca_file=self.lab.certificate)
        stub = self.stub(thief, self.worker(self.lab.pair(B)))
        self.assertIs(await self.code(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")), UNKNOWN)

    async def test_expired(self) -> None:
        """An expired certificate does not get through the handshake."""
        expired = self.lab.pair(SCHEDULER, file="expired", age=timedelta(days=366))
        stub = self.stub(expired, self.worker(self.lab.pair(B)))
        self.assertIs(await self.code(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j")), UNKNOWN)

    async def test_scheduler(self) -> None:
        """The scheduler dials the IP address, verifies the name of the worker, and may do everything."""
        worker = self.worker(self.lab.pair(B))
        client = self.worker_client(self.lab.pair(SCHEDULER))
        await client.probe(worker)
        self.assertEqual((await client.start_job(worker, a_job("j"))).state, JobState.RUNNING)

    async def test_other_worker_at_the_address(self) -> None:
        """The certificate of another worker is not accepted, although it is valid for the host that is dialled."""
        worker = self.worker(self.lab.pair(A, "127.0.0.1", "localhost"))
        client = self.worker_client(self.lab.pair(SCHEDULER))
        error = await self.assertFailure(client.start_job(worker, a_job("j")), Unreachable)
        self.assertEqual((error.reason, error.sent), ("no subject alternative name for b.worker.lab.internal", False))
        await client.probe(evolve(worker, name="a"))

    async def test_probe_is_refused(self) -> None:
        """A worker that refuses the scheduler's calls can't be reached, and the reason says why."""
        worker = self.worker(self.lab.pair(B), CallerRules(revoked=self.revoked_file(self.serial_line(SCHEDULER))))
        client = self.worker_client(self.scheduler_files)
        for call in (client.probe(worker), client.start_job(worker, a_job("j"))):
            error = await self.assertFailure(call, Unreachable)
            self.assertIn("is revoked", error.reason)

    async def test_start_is_refused(self) -> None:
        """A start that a worker refuses, which answered a moment ago, was not sent: nothing ran."""
        self.patch(worker_calls, "CHECK_VALID_SECONDS", 60.0)
        worker = self.worker(self.lab.pair(B), CallerRules(revoked=self.revoked_file()))
        line = self.serial_line(SCHEDULER)
        client = self.worker_client(self.scheduler_files)
        await client.start_job(worker, a_job("j"))
        self.put(line)
        error = await self.assertFailure(client.start_job(worker, a_job("k")), Unreachable)
        self.assertFalse(error.sent)
        self.assertIn("is revoked", error.reason)
        self.assertEqual(self.runner.running(), ("j",))

    def serial_line(self, identity: Identity) -> str:
        """The line that revokes a new pair, which is in ``scheduler_files``."""
        self.scheduler_files = self.lab.pair(identity)
        return serial_text(serial(self.scheduler_files))

    async def test_revoked(self) -> None:
        """A serial that is added to the list is refused from the next call on, on a connection that exists."""
        client_files = self.lab.pair(SCHEDULER)
        worker = self.worker(self.lab.pair(B), CallerRules(revoked=self.revoked_file("# none")))
        stub, query = self.stub(client_files, worker), worker_pb2.QueryJobReq(jobID="j")
        self.assertIs(await self.code(stub.QueryJob, query), grpc.StatusCode.NOT_FOUND)
        text = serial_text(serial(client_files)).upper()
        self.put("# stolen", ":".join(text[at : at + 2] for at in range(0, len(text), 2)))
        self.assertIn("is revoked", await self.denied(stub.QueryJob, query))
        self.put("# found again")
        self.assertIs(await self.code(stub.QueryJob, query), grpc.StatusCode.NOT_FOUND)

    async def test_malformed_list(self) -> None:
        """A list that becomes malformed, or vanishes, leaves the last good one in force, and is logged once."""
        logged: list[str] = []

        def note(event: dict) -> None:
            if event.get("log_namespace") == "scheduler.rpc.revoked.RevokedFile":
                logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        client_files = self.lab.pair(SCHEDULER)
        rules = CallerRules(revoked=self.revoked_file(serial_text(serial(client_files))))
        stub = self.stub(client_files, self.worker(self.lab.pair(B), rules))
        query = worker_pb2.QueryJobReq(jobID="j")
        await self.denied(stub.QueryJob, query)
        for spoil, said in ((lambda: self.put("nonsense"), "line 1"), (self.list.unlink, "can't be read")):
            spoil()
            for _ in range(3):
                await self.denied(stub.QueryJob, query)
            (line,) = logged
            self.assertIn(said, line)
            logged.clear()

    async def test_logged(self) -> None:
        """A refusal is in the log, once for many calls."""
        logged: list[str] = []

        def note(event: dict) -> None:
            if event.get("log_namespace") == "scheduler.rpc.callers.Callers":
                logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        stub = self.stub(self.lab.pair(A), self.worker(self.lab.pair(B)))
        for _ in range(3):
            await self.denied(stub.QueryJob, worker_pb2.QueryJobReq(jobID="j"))
        (line,) = logged
        self.assertRegex(line, r"^a call from ipv4:127\.0\.0\.1:\d+ is refused: scheduler://lab/worker/a may not call")


class SchedulerTests(IdentityCase):
    """The scheduler serves only workers of its cluster, each under its own name."""

    def setUp(self) -> None:
        super().setUp()
        self.house = House()
        membership, refused = self.house.parts.membership, self.house.parts.audit.refused_call
        self.server = self.scheduler_server(membership, self.lab.pair(SCHEDULER), refused=refused)
        self.stub = self.stub_of(self.lab.pair(A))

    def stub_of(self, files: TlsFiles) -> Any:
        return scheduler_pb2_grpc.SchedulerStub(self.connection(files, self.server.bound, "scheduler.lab.internal"))

    def request(self, port: int, name: str, **more: Any) -> scheduler_pb2.RegisterReq:
        facts = {"name": name, "bootID": "boot", "folderID": f"folder-{name}", "nonce": f"nonce-{name}", **more}
        return scheduler_pb2.RegisterReq(address=f"127.0.0.1:{port}", **facts)

    def names(self) -> dict[str, str]:
        return {view.worker.name: view.worker.address for view in self.house.parts.service.workers()}

    async def b_registers(self) -> str:
        answer: Any = await self.called(self.stub_of(self.lab.pair(B)).RegisterWorker, self.request(2, "b"))
        return str(answer.workerID)

    async def test_scheduler(self) -> None:
        """With the scheduler's own pair, nothing of the scheduler can be called."""
        stub = self.stub_of(self.lab.pair(SCHEDULER))
        for method, request in (
            (stub.RegisterWorker, self.request(1, "a")),
            (stub.Heartbeat, scheduler_pb2.HeartbeatReq(workerID="w", bootID="boot")),
            (stub.DeregisterWorker, scheduler_pb2.DeregisterReq(workerID="w")),
        ):
            self.assertIn("only a worker may", await self.denied(method, request))
        methods = scheduler_pb2.DESCRIPTOR.services_by_name["Scheduler"].methods_by_name
        self.assertEqual(len(methods), 3)
        self.assertEqual(self.names(), {})

    async def test_registers_as_another(self) -> None:
        """A worker can't register under another name, be it free or taken."""
        for _ in range(2):
            self.assertIn("'b'", await self.denied(self.stub.RegisterWorker, self.request(1, "b")))
            await self.b_registers()

    async def test_takes_over(self) -> None:
        """A worker can't take over another's entry by its id, by its folder id, or by its address as a core worker."""
        worker_id = await self.b_registers()
        taken = {"folderID": "folder-b", "nonce": "new"}
        for request in (
            self.request(1, "a", **taken),
            self.request(1, "a", workerID=worker_id, **taken),
            self.request(2, "a", workerID=worker_id, **taken),
        ):
            self.assertIn("belongs to worker 'b'", await self.denied(self.stub.RegisterWorker, request))
        self.assertEqual(self.names(), {"b": "127.0.0.1:2"})

    async def test_acts_as_another(self) -> None:
        """A worker can't send a heartbeat of another, nor deregister it, even with its id and nonce."""
        worker_id = await self.b_registers()
        for nonce in ("nonce-b", "", "guessed"):
            beat = scheduler_pb2.HeartbeatReq(workerID=worker_id, bootID="boot", nonce=nonce)
            self.assertIn("not given to 'a'", await self.denied(self.stub.Heartbeat, beat))
            leave = scheduler_pb2.DeregisterReq(workerID=worker_id, nonce=nonce)
            self.assertIn("not given to 'a'", await self.denied(self.stub.DeregisterWorker, leave))
        self.assertEqual(self.names(), {"b": "127.0.0.1:2"})

    async def test_audited(self) -> None:
        """Each refusal is in the audit, with the principal in the certificate, also if that is of no use here."""
        worker_id, lab = await self.b_registers(), self.lab
        beat = scheduler_pb2.HeartbeatReq(workerID=worker_id, bootID="boot")
        await self.denied(self.stub.Heartbeat, beat)
        await self.denied(self.stub.RegisterWorker, self.request(1, "b"))
        await self.denied(self.stub_of(lab.pair(SCHEDULER)).Heartbeat, beat)
        await self.denied(self.stub_of(lab.pair(Identity("office", Role.WORKER, "b"), file="office")).Heartbeat, beat)
        acts = [entry.act for entry in self.house.store.audit.values()]
        method = "gRPC jobscheduler.Scheduler/"
        self.assertEqual(
            [(act.who, act.action, act.target, act.result, act.origin, act.uid) for act in acts],
            [
                ("worker:a", "refused", f"{method}Heartbeat", "refused", "127.0.0.1", None),
                ("worker:a", "refused", f"{method}RegisterWorker", "refused", "127.0.0.1", None),
                ("scheduler", "refused", f"{method}Heartbeat", "refused", "127.0.0.1", None),
                ("", "refused", f"{method}Heartbeat", "refused", "127.0.0.1", None),
            ],
        )

    async def test_itself(self) -> None:
        """A worker registers under its name, sends heartbeats and leaves; an unknown id is unknown to all."""
        client = self.scheduler_client(self.server.bound, self.lab.pair(A))
        facts = Registration("127.0.0.1:1", name="a", boot_id="boot", folder_id="folder", nonce="n")
        registered = await client.register(facts)
        await client.heartbeat(Heartbeat(registered.worker_id, "boot", nonce="n"))
        await self.assertFailure(client.heartbeat(Heartbeat("w9", "boot", nonce="n")), NotFound)
        await client.deregister(registered.worker_id, "n")
        error = await self.assertFailure(client.register(evolve(facts, name="other")), Refused)
        self.assertIn("'other'", str(error))

    async def test_core_worker(self) -> None:
        """A core worker, which gives no name, gets the one in its certificate."""
        await self.called(self.stub.RegisterWorker, scheduler_pb2.RegisterReq(address="127.0.0.1:1"))
        self.assertEqual(self.names(), {"a": "127.0.0.1:1"})
        other = self.stub_of(self.lab.pair(B))
        self.assertIn(
            "belongs to worker 'a'",
            await self.denied(other.RegisterWorker, scheduler_pb2.RegisterReq(address="127.0.0.1:1")),
        )

    async def test_wrong_scheduler(self) -> None:
        """A worker does not accept another party of its cluster in the scheduler's place, at the right address."""
        server = self.scheduler_server(
            AsMembership(FakeSchedulerClient()), self.lab.pair(B, "127.0.0.1", "localhost", file="impostor")
        )
        client = self.scheduler_client(server.bound, self.lab.pair(A))
        error = await self.assertFailure(client.register(Registration("127.0.0.1:1", name="a")), Unreachable)
        self.assertEqual(error.reason, "no subject alternative name for scheduler.lab.internal")
