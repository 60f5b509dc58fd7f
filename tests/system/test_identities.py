"""A scheduler and workers over mutual TLS, with certificates of ``schedctl ca``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from scheduler.client import Client
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config
from tests.system.schedctl import command_line

Make = Callable[..., Daemon]


class Lab:
    """An authority in a folder, used by its commands alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca("init", "--cluster", "lab")

    def ca(self, *arguments: str) -> str:
        """The output of ``schedctl ca``."""
        command = command_line("ca", *arguments, "--dir", str(self.folder))
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def table(self, name: str) -> str:
        """The keys of ``[grpc_server]`` for the pair with that name."""
        return (
            f'use_tls = true\ncrt_file = "{self.folder}/{name}.pem"\nkey_file = "{self.folder}/{name}.key"\n'
            f'ca_file = "{self.folder}/ca.pem"\nrevoked = "{self.folder}/revoked.txt"\n'
        )

    def configured(self, config: str, name: str) -> str:
        """The configuration with the pair of that name."""
        return config.replace("[grpc_server]\n", f"[grpc_server]\n{self.table(name)}", 1)

    def serial(self, name: str) -> str:
        """The serial of a certificate, as ``schedctl ca show`` prints it."""
        shown = subprocess.run(
            command_line("ca", "show", f"{self.folder}/{name}.pem"), check=True, capture_output=True, text=True
        ).stdout
        return next(line.split()[1] for line in shown.splitlines() if line.startswith("  serial"))

    def channel(self, name: str, address: str, verified: str) -> grpc.Channel:
        """A channel with a stolen pair."""
        files = [(self.folder / file).read_bytes() for file in ("ca.pem", f"{name}.key", f"{name}.pem")]
        options = [("grpc.ssl_target_name_override", verified)]
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "ca")
    (lab.folder / "revoked.txt").touch()
    lab.ca("issue", "scheduler", "--host", "localhost")
    for name in ("a", "b"):
        lab.ca("issue", "worker", name)
    return lab


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    """The status with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_cluster(daemons: Make, lab: Lab) -> None:
    """Jobs run over mutual TLS. A stolen worker's pair drives nothing. Renewal and revocation need no restart."""
    scheduler = daemons("scheduler", lab.configured(SCHEDULER, "scheduler"))
    scheduler.keep_ports()
    scheduler.start()
    address = scheduler.endpoints["grpc"]
    workers = {}
    for name in ("a", "b"):
        # The name resolves to an address for which no certificate is valid.
        dialled = address.replace("127.0.0.1", "localhost")
        workers[name] = daemons("worker", lab.configured(worker_config(dialled, name), name), name).start()
    client = Client(f"http://{scheduler.endpoints['http']}")

    def all_online() -> bool:
        return [worker.state for worker in client.workers()] == ["online"] * 2

    wait_until(all_online, "both workers are online")
    for name in workers:
        assert client.run("echo", args=["hello"], worker=name).stdout == b"hello\n"

    thief = worker_pb2_grpc.WorkerStub(lab.channel("a", workers["b"].endpoints["grpc"], "b.worker.lab.internal"))
    start = worker_pb2.StartJobReq(command="touch", path=str(lab.folder / "stolen"), jobID="stolen")
    assert code_of(lambda: thief.StartJob(start, timeout=10)) is grpc.StatusCode.PERMISSION_DENIED
    stub = scheduler_pb2_grpc.SchedulerStub(lab.channel("a", address, "scheduler.lab.internal"))
    worker_id = client.worker("b").id
    for call in (
        lambda: stub.Heartbeat(scheduler_pb2.HeartbeatReq(workerID=worker_id, bootID="boot"), timeout=10),
        lambda: stub.DeregisterWorker(scheduler_pb2.DeregisterReq(workerID=worker_id), timeout=10),
        lambda: stub.RegisterWorker(scheduler_pb2.RegisterReq(address="127.0.0.1:1", name="b"), timeout=10),
    ):
        assert code_of(call) is grpc.StatusCode.PERMISSION_DENIED
    assert not (lab.folder / "stolen").exists()

    stolen = [lab.serial(name) for name in ("a", "scheduler")]
    for pair in (("worker", "a"), ("scheduler",)):
        lab.ca("issue", *pair, "--renew")
    for name in workers:
        assert client.run("echo", args=["renewed"], worker=name).stdout == b"renewed\n"
    wait_until(lambda: "read anew" in workers["a"].log.read_text(), "the worker has called with its new pair")
    (lab.folder / "revoked.txt").write_text("\n".join(stolen))
    for name in workers:
        assert client.run("echo", args=["revoked"], worker=name).stdout == b"revoked\n"
    assert all_online()
    (lab.folder / "revoked.txt").write_text(lab.serial("b"))
    wait_until(lambda: "is revoked" in workers["b"].log.read_text(), "the worker whose pair is revoked is refused")
    assert "is revoked" in scheduler.log.read_text()


def test_doctor(daemons: Make, lab: Lab) -> None:
    """With certificates of ``schedctl ca``, doctor finds nothing wrong with them or with the connections."""
    scheduler = daemons("scheduler", lab.configured(SCHEDULER, "scheduler")).start()
    worker = daemons("worker", lab.configured(worker_config(scheduler.endpoints["grpc"], "a"), "a")).start()
    http = f"http://{scheduler.endpoints['http']}"
    client = Client(http)
    wait_until(lambda: [each.state for each in client.workers()] == ["online"], "the worker is online")
    for daemon, identity in ((scheduler, "scheduler://lab/scheduler"), (worker, "scheduler://lab/worker/a")):
        command = command_line("--url", http, "doctor", "--config", str(daemon.file))
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        assert f"The certificate says that this is {identity}" in said
        wrong = [line for line in said.splitlines() if line.startswith(("error", "warning"))]
        assert [line for line in wrong if "disk" not in line and "inodes" not in line] == []


def test_wrong_pair(daemons: Make, lab: Lab) -> None:
    """A worker with another worker's pair does not start, and says which name its certificate has."""
    worker = daemons("worker", lab.configured(worker_config("127.0.0.1:1", "a"), "b"))
    with pytest.raises(pytest.fail.Exception) as failed:
        worker.start()
    assert "[worker] name = \"a\": must be that in the certificate of [grpc_server] crt_file: 'b'" in str(failed.value)
