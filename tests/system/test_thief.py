"""The thief: with one worker's folder, one token, and the database, in turn, gets what docs/security.md says."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from attrs import frozen

from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from tests.system.conftest import Daemon, wait_until
from tests.system.schedctl import command_line

CLUSTER = "lab"


def schedctl(*arguments: str, url: str = "") -> str:
    """The output of a command that succeeds."""
    environ = {**os.environ, **({"SCHEDULER_URL": url} if url else {})}
    done = subprocess.run(
        command_line(*arguments), check=False, capture_output=True, text=True, timeout=60, env=environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def scheduler_toml(keys: Path) -> str:
    return f"""
[grpc_server]
addr = "127.0.0.1:0"
use_tls = true
crt_file = "{keys}/scheduler.pem"
key_file = "{keys}/scheduler.key"
ca_file = "{keys}/ca.pem"
[http_server]
addr = "127.0.0.1:0"
"""


def worker_toml(keys: Path, name: str, scheduler: str) -> str:
    return f"""
[grpc_server]
addr = "127.0.0.1:0"
use_tls = true
crt_file = "{keys}/{name}.pem"
key_file = "{keys}/{name}.key"
ca_file = "{keys}/ca.pem"
[scheduler]
addr = "{scheduler}"
[worker]
name = "{name}"
labels = {{team = "{name}"}}
slots = 50
"""


@frozen
class Site:
    """A scheduler and its workers ``a`` and ``b``, with mutual TLS, and an administrator's token."""

    scheduler: Daemon
    a: Daemon
    b: Daemon
    keys: Path
    admin: str

    def http(
        self, method: str, path: str, body: Any = None, token: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the document of an answer."""
        host, _, port = self.scheduler.endpoints["http"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        # Via: without it this process, which has the scheduler's user, would need no token
        given = {"Via": "1.1 thief", **({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(text) if is_json and text else text

    def channel(self, address: str, pair: str, named: str) -> grpc.Channel:
        """A channel with the pair of ``pair`` to a server whose certificate has the DNS name ``named``."""
        credentials = grpc.ssl_channel_credentials(
            (self.keys / "ca.pem").read_bytes(),
            (self.keys / f"{pair}.key").read_bytes(),
            (self.keys / f"{pair}.pem").read_bytes(),
        )
        return grpc.secure_channel(address, credentials, options=(("grpc.ssl_target_name_override", named),))

    def token(self, name: str, scope: str, *more: str) -> str:
        url = f"http://{self.scheduler.endpoints['http']}"
        made = schedctl("--token", self.admin, "token", "create", name, "--scope", scope, *more, url=url)
        return made.strip().splitlines()[-1]

    def job(self, worker: str, *command: str) -> str:
        status, job = self.http(
            "POST", "/v1/jobs", {"worker": worker, "command": command[0], "args": command[1:]}, self.admin
        )
        assert status == 201, job
        return str(job["id"])


@pytest.fixture
def site(daemons: Callable[..., Daemon], tmp_path: Path) -> Site:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    schedctl("ca", "init", "--cluster", CLUSTER, "--dir", str(keys))
    schedctl("ca", "issue", "scheduler", "--host", "127.0.0.1", "--dir", str(keys))
    for name in ("a", "b"):
        schedctl("ca", "issue", "worker", name, "--host", "127.0.0.1", "--dir", str(keys))
    scheduler: Daemon = daemons("scheduler", scheduler_toml(keys)).start()
    a, b = (
        daemons("worker", worker_toml(keys, name, scheduler.endpoints["grpc"]), name).start() for name in ("a", "b")
    )
    made = Site(scheduler, a, b, keys, (scheduler.state / "admin.token").read_text().strip())

    def online() -> bool:
        _, document = made.http("GET", "/v1/workers", token=made.admin)
        return sorted(each["name"] for each in document["workers"] if each["state"] == "online") == ["a", "b"]

    wait_until(online, "both workers are online")
    return made


def refused(call: Callable[..., Any], request: Any) -> grpc.StatusCode:
    """The status with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    code: grpc.StatusCode = caught.value.code()
    return code


def test_key_of_a_worker(site: Site, tmp_path: Path) -> None:
    """The key pair of worker ``a`` starts nothing on ``b``, and says nothing for ``b``."""
    denied = grpc.StatusCode.PERMISSION_DENIED
    _, document = site.http("GET", "/v1/workers", token=site.admin)
    ids = {each["name"]: each["id"] for each in document["workers"]}
    running = site.job("b", "sleep", "600")

    with site.channel(site.b.endpoints["grpc"], "a", f"b.worker.{CLUSTER}.internal") as channel:
        worker = worker_pb2_grpc.WorkerStub(channel)
        witness = tmp_path / "started"
        assert refused(worker.StartJob, worker_pb2.StartJobReq(command="touch", path=str(witness))) is denied
        for call, request in (
            (worker.StopJob, worker_pb2.StopJobReq(jobID=running)),
            (worker.QueryJob, worker_pb2.QueryJobReq(jobID=running)),
            (worker.ReadOutput, worker_pb2.ReadOutputReq(jobID=running)),
        ):
            assert refused(call, request) is denied
        assert (
            refused(
                lambda req, timeout: list(worker.StreamJob(req, timeout=timeout)),
                worker_pb2.StreamJobReq(jobID=running),
            )
            is denied
        )
        assert not witness.exists()

    with site.channel(site.scheduler.endpoints["grpc"], "a", f"scheduler.{CLUSTER}.internal") as channel:
        scheduler = scheduler_pb2_grpc.SchedulerStub(channel)
        register = scheduler_pb2.RegisterReq(address="127.0.0.1:9", name="b", bootID="boot")
        assert refused(scheduler.RegisterWorker, register) is denied
        with_id = scheduler_pb2.RegisterReq(address="127.0.0.1:9", name="b", bootID="boot", workerID=ids["b"])
        assert refused(scheduler.RegisterWorker, with_id) is denied
        beat = scheduler_pb2.HeartbeatReq(workerID=ids["b"], bootID="boot")
        assert refused(scheduler.Heartbeat, beat) is denied
        assert refused(scheduler.DeregisterWorker, scheduler_pb2.DeregisterReq(workerID=ids["b"])) is denied
        # under its own name it may not take the id of another
        stolen = scheduler_pb2.RegisterReq(address="127.0.0.1:9", name="a", bootID="boot", workerID=ids["b"])
        assert refused(scheduler.RegisterWorker, stolen) is denied

    def recorded() -> set[str]:
        _, audit = site.http("GET", "/v1/audit?action=refused&who=worker:a", token=site.admin)
        return {entry["target"] for entry in audit["entries"] if entry["result"] == "refused"}

    methods = ("RegisterWorker", "Heartbeat", "DeregisterWorker")
    wait_until(lambda: recorded() == {f"gRPC jobscheduler.Scheduler/{each}" for each in methods}, "all is recorded")

    # a worker's pair is no credential over HTTP, and `b` goes on as if nothing had been
    status, job = site.http("GET", f"/v1/jobs/{running}", token=site.admin)
    assert (status, job["state"]) == (200, "running")
    assert {each["name"]: each["id"] for each in site.http("GET", "/v1/workers", token=site.admin)[1]["workers"]}[
        "b"
    ] == ids["b"]


def test_revoked_worker(site: Site) -> None:
    """A stolen pair is worth nothing from the next call on once its serial is in ``revoked``."""
    site.scheduler.kill()
    revoked = site.scheduler.folder / "revoked.txt"
    revoked.write_text("")
    text = site.scheduler.file.read_text().replace("[http_server]", 'revoked = "revoked.txt"\n[http_server]')
    site.scheduler.file.write_text(text)
    site.scheduler.start()
    with site.channel(site.scheduler.endpoints["grpc"], "a", f"scheduler.{CLUSTER}.internal") as channel:
        scheduler = scheduler_pb2_grpc.SchedulerStub(channel)
        beat = scheduler_pb2.HeartbeatReq(workerID="nobody", bootID="boot")
        assert refused(scheduler.Heartbeat, beat) is grpc.StatusCode.NOT_FOUND
        shown = schedctl("ca", "show", str(site.keys / "a.pem"))
        serial = next(line.split()[-1] for line in shown.splitlines() if "serial" in line.lower())
        revoked.write_text(f"{serial}\n")
        assert refused(scheduler.Heartbeat, beat) is grpc.StatusCode.PERMISSION_DENIED


def test_token_of_one_worker(site: Site) -> None:
    """A ``run`` token for worker ``a`` drives ``a`` alone: ``b`` is 403, its jobs are 404, administration is 403."""
    token = site.token("thief", "run", "--workers", "team=a")
    theirs = site.job("b", "sleep", "600")

    status, document = site.http("GET", "/v1/workers", token=token)
    assert [each["name"] for each in document["workers"]] == ["a"]
    assert site.http("POST", "/v1/jobs?wait=30", {"worker": "a", "command": "true"}, token)[0] == 201
    assert site.http("POST", "/v1/jobs", {"worker": "b", "command": "true"}, token)[0] == 403
    assert site.http("POST", "/start", {"worker_id": "b", "command": "true", "path": ""}, token)[0] == 403
    assert site.http("POST", "/v1/jobs", {"selector": {"team": "b"}, "command": "true"}, token)[0] == 409
    status, job = site.http("POST", "/v1/jobs?wait=30", {"selector": {}, "command": "true"}, token)
    assert (status, job["worker_name"], job["created_by"]) == (201, "a", "token:thief")
    for method, path, body in (
        ("GET", f"/v1/jobs/{theirs}", None),
        ("GET", f"/v1/jobs/{theirs}?wait=1", None),
        ("GET", f"/v1/jobs/{theirs}/output", None),
        ("GET", f"/v1/jobs/{theirs}/output?follow=1", None),
        ("POST", f"/v1/jobs/{theirs}/stop", {}),
        ("POST", f"/v1/jobs/{theirs}/signal", {"signal": "SIGKILL"}),
        ("DELETE", f"/v1/jobs/{theirs}", None),
    ):
        assert site.http(method, path, body, token)[0] == 404, path
    for path in ("/stop", "/query"):
        assert site.http("POST", path, {"worker_id": "b", "job_id": theirs}, token)[0] in (403, 404), path
    assert theirs not in json.dumps(site.http("GET", "/v1/jobs", token=token)[1])
    site.http("POST", "/v1/jobs/stop", {"state": "running"}, token)
    for method, path, body in (
        ("POST", "/v1/workers/a/drain", {}),
        ("DELETE", "/v1/workers/a", None),
        ("GET", "/v1/tokens", None),
        ("POST", "/v1/tokens", {"name": "x", "scope": "admin"}),
        ("GET", "/v1/audit", None),
    ):
        status, problem = site.http(method, path, body, token)
        assert (status, problem["needed_scope"]) == (403, "admin"), path
    assert site.http("GET", f"/v1/jobs/{theirs}", token=site.admin)[1]["state"] == "running"

    # revoked, it is worth nothing at once
    tokens = site.http("GET", "/v1/tokens", token=site.admin)[1]["tokens"]
    (revoked,) = (each["id"] for each in tokens if each["name"] == "thief")
    assert site.http("DELETE", f"/v1/tokens/{revoked}", token=site.admin)[0] == 204
    assert site.http("GET", "/v1/workers", token=token)[0] == 401
    # all of it is in the audit, with the thief's name
    rows = site.http("GET", "/v1/audit?who=token:thief", token=site.admin)[1]
    acts = json.dumps(rows)
    assert '"start"' in acts
    assert token not in acts


def test_database(site: Site) -> None:
    """The file of the store has no token that can be used, and its digests are no tokens."""
    token = site.token("ci", "run")
    site.scheduler.kill()
    content = b"".join(each.read_bytes() for each in site.scheduler.state.glob("scheduler.db*"))
    for secret in (token, site.admin):
        assert secret.encode() not in content
        assert secret.split("_")[2].encode() not in content
    site.scheduler.start()
    _, tokens = site.http("GET", "/v1/tokens", token=site.admin)
    assert {"admin", "ci"} <= {each["name"] for each in tokens["tokens"]}
    for each in tokens["tokens"]:
        assert not [value for value in each.values() if isinstance(value, str) and len(value) >= 64]
    for forged in ("0" * 64, f"sched_{tokens['tokens'][0]['id']}_{'0' * 43}_00000000", f"{token}x", token[:-1]):
        assert site.http("GET", "/v1/workers", token=forged)[0] == 401
    assert site.http("GET", "/v1/workers", token=token)[0] == 200


def test_nothing_at_all(site: Site) -> None:
    """Without a credential only the health of the process can be seen; a plain connection to gRPC gets nothing."""
    assert site.http("GET", "/healthz")[0] == 200
    assert site.http("GET", "/readyz")[0] == 200
    for path in ("/v1/workers", "/v1/jobs", "/v1/tokens", "/v1/audit", "/v1/version", "/no/such/route"):
        status, problem = site.http("GET", path)
        assert (status, problem["type"]) == (401, "/problems/unauthenticated"), path
    with grpc.insecure_channel(site.b.endpoints["grpc"]) as channel:
        started = worker_pb2.StartJobReq(command="true")
        assert refused(worker_pb2_grpc.WorkerStub(channel).StartJob, started) is grpc.StatusCode.UNAVAILABLE
    host, _, port = site.b.endpoints["grpc"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.settimeout(60)
        assert b"200" not in connection.recv(100)
