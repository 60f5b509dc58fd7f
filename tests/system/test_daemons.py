"""Starting, refusing to start, and stopping, like a user."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted
import trustme
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.system.api import Api, online_api
from tests.system.conftest import BIN, SCHEDULER, Daemon, wait_until, worker_config

Make = Callable[..., Daemon]


def refusal(program: str, file: Path, *, daemonized: bool) -> str:
    """The stderr of a twistd that refuses to start; its stdout is empty, its exit code 1."""
    mode = [] if daemonized else ["-n"]
    command = [str(BIN / "twistd"), *mode, program, "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=file.parent)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("daemonized", [False, True])
def test_refusals(daemons: Make, tmp_path: Path, daemonized: bool) -> None:
    """A refusal is one line that names file, key, value and what is allowed, daemonized or not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "no.pem").write_text("no certificate")
        pem = f'crt_file = "{tmp_path}/no.pem"\nkey_file = "{tmp_path}/no.pem"\n'
        http, grpc = (f'[{server}_server]\naddr = "127.0.0.1:{{}}"\n'.format for server in ("http", "grpc"))
        for number, (program, text, words) in enumerate(
            (
                ("scheduler", http(port) + grpc(0), ("addr", str(port), "taken", "free")),
                ("scheduler", http(0) + grpc(port), ("addr", str(port), "taken", "free")),
                ("worker", grpc(port), ("addr", str(port), "taken", "free")),
                ("scheduler", "[grpc_server]\nuse_tls = true\n", ("crt_file", "server.pem")),
                ("scheduler", f"[grpc_server]\nuse_tls = true\n{pem}", ("crt_file", "no.pem", "PEM")),
                ("scheduler", "[http_server]\nadr = 1\n", ("adr", "addr")),
                ("worker", '[scheduler]\naddr = "unix:/run/x"\n', ("addr", "unix:/run/x", "host:port")),
                ("worker", '[worker]\nslots = "two"\n', ("slots", "two")),
                ("worker", f"[worker.labels]\nx = '{'y' * 300}'\n", ("worker.labels", "x", "at most 253 characters")),
                ("scheduler", '[http_server]\naddr = "0.0.0.0:0"\n', ("addr", "0.0.0.0:0", "allow_insecure")),
                ("worker", '[grpc_server]\naddr = "0.0.0.0:0"\n', ("addr", "0.0.0.0:0", "ca_file")),
            )
        ):
            daemon = daemons(program, text, f"d{number}")
            said = refusal(program, daemon.file, daemonized=daemonized)
            assert said.count("\n") == 1, said
            for word in (daemon.file.name, *words):
                assert word in said, said


def test_start_twice(daemons: Make) -> None:
    """A second process on the same state folder or database is refused; the first one is not disturbed."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    url = f'url = "sqlite:///{scheduler.state}/scheduler.db"'
    other = daemons("scheduler", f"{SCHEDULER}[store]\n{url}\n", "other")
    for file, words in ((scheduler.file, ("state_dir", "in use")), (other.file, (f"[store] {url}", "in use"))):
        said = refusal("scheduler", file, daemonized=False)
        assert said.count("\n") == 1
        for word in words:
            assert word in said, said
    scheduler.kill()
    other.start()
    other.kill()


@pytest.mark.parametrize("daemonized", [False, True])
def test_unfit_databases(daemons: Make, daemonized: bool) -> None:
    """A database of a later version, or a file that is none, is refused in one line and left unchanged."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    scheduler.kill()
    file = scheduler.state / "scheduler.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("update scheduler_schema set version = 99")
    said = refusal("scheduler", scheduler.file, daemonized=daemonized)
    assert said.count("\n") == 1
    for word in (scheduler.file.name, str(file), "of version 99", "versions up to"):
        assert word in said, said
    file.write_bytes(b"not a database, " * 1000)
    said = refusal("scheduler", scheduler.file, daemonized=daemonized)
    assert said.count("\n") == 1
    assert f'[store] url = "sqlite:///{file}": can\'t be used: file is not a database' in said


def test_help() -> None:
    """Both programs have a help."""
    for program in ("scheduler", "worker"):
        command = [BIN / "twistd", program, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0
        assert f"etc/{program}.toml" in done.stdout
        assert "--config" in done.stdout


@pytest_twisted.ensureDeferred
async def test_daemonized(daemons: Make) -> None:
    """Without -n both fork twice, write a pidfile, serve, log to a file and end by SIGTERM, leaving nothing behind."""
    scheduler = daemons("scheduler", SCHEDULER)
    await deferToThread(scheduler.start, foreground=False)
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"]))
    await deferToThread(worker.start, foreground=False)
    api = await online_api(scheduler)
    job = await api.submit(command="echo", args=["hi"])
    assert await api.follow(job) == b"hi\n"
    for daemon in (worker, scheduler):
        pidfile = daemon.state / f"{daemon.program}.pid"
        assert int(pidfile.read_text()) == daemon.pid
        await deferToThread(daemon.kill)
        assert not pidfile.exists()
        assert not (daemon.state / "endpoints.json").exists()
        assert "Traceback" not in daemon.log.read_text()


@pytest_twisted.ensureDeferred
async def test_request_id(cluster: tuple[Daemon, Daemon]) -> None:
    """A request's id is in its answer and in the log lines of both daemons."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = {"worker": "w1", "command": "true"}
    _, started = await api.call("POST", "/v1/jobs", job, **{"X-Request-ID": "trace-me-1"})
    await api.ended(started["id"])
    for daemon in (scheduler, worker):
        lines = [line for line in daemon.log.read_text().splitlines() if "request_id=trace-me-1" in line]
        assert any(started["id"] in line for line in lines), daemon.log_tail()


@pytest_twisted.ensureDeferred
async def test_mutual_tls(daemons: Make, tmp_path: Path) -> None:
    """With certificates of one authority on both sides a job runs; a worker of another authority never registers."""
    authorities = {"ours": trustme.CA(), "theirs": trustme.CA()}
    tables = {}
    for name, authority in authorities.items():
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        folder = tmp_path / name
        folder.mkdir()
        certificate.private_key_pem.write_to_path(folder / "server.key")
        (folder / "server.key").chmod(0o600)
        certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        tables[name] = "[grpc_server]\nuse_tls = true\n" + "".join(
            f'{key} = "{folder}/{file}"\n'
            for key, file in {"crt_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}.items()
        )
    scheduler = daemons("scheduler", SCHEDULER.replace("[grpc_server]\n", tables["ours"])).start()
    for name, table in tables.items():
        text = worker_config(scheduler.endpoints["grpc"], name).replace("[grpc_server]\n", table)
        daemons("worker", text, f"worker-{name}").start()
    api = Api(scheduler)
    (worker,) = await api.online("ours")
    assert worker["name"] == "ours"
    job = await api.submit(worker="ours", command="echo", args=["hi"])
    assert await api.follow(job) == b"hi\n"


@pytest_twisted.ensureDeferred
async def test_stop_under_load(daemons: Make) -> None:
    """SIGTERM ends a scheduler in time in spite of 100 open streams, a stop that is awaited, and a start on a worker
    that hangs. No stream ends as if it were complete.
    """
    scheduler = daemons("scheduler", f'shutdown_timeout = "6s"\n{SCHEDULER}').start()
    workers = [daemons("worker", worker_config(scheduler.endpoints["grpc"], name), name) for name in ("w1", "w2")]
    for worker in workers:
        worker.start()
    api = Api(scheduler)
    await api.online("w1", "w2")
    job = await api.submit(command="sh", args=["-c", "trap '' TERM; while :; do echo x; sleep 0.1; done"])
    downloads = [await api.open(f"/v1/jobs/{job}/output?follow=1") for _ in range(100)]
    stop = ensureDeferred(api.call("POST", f"/v1/jobs/{job}/stop"))
    await api.until(f"/v1/jobs/{job}", lambda j: j["stop_requested_at"])
    os.kill(workers[1].pid, signal.SIGSTOP)
    start = ensureDeferred(api.call("POST", "/v1/jobs", {"worker": "w2", "command": "true"}))
    start.addErrback(lambda _: None)  # it is answered, or cut
    await api.until("/v1/jobs?worker=w2", lambda page: page["jobs"])
    asked = time.monotonic()
    await deferToThread(scheduler.kill, signal.SIGTERM)
    assert time.monotonic() - asked < 8
    assert [await download.ended for download in downloads] == [False] * 100
    status, stopping = await stop
    assert (status, stopping["state"]) == (202, "running")
    await start
    assert "Traceback" not in scheduler.log.read_text()


def _count(folder: str, pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/{folder}"))


@pytest_twisted.ensureDeferred
async def test_garbage(cluster: tuple[Daemon, Daemon]) -> None:
    """Bad requests over a real socket give no 500 and no traceback, and cost no descriptor and no thread."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    for _ in range(3):  # after this, everything that is made once exists
        await api.ended(await api.submit(command="true"))
    before = [(daemon, _count("fd", daemon.pid), _count("task", daemon.pid)) for daemon in (scheduler, worker)]
    job = {"worker": "w1", "command": "true"}
    for method, path, body, status in (
        ("POST", "/v1/jobs", [], 400),
        ("POST", "/v1/jobs", {**job, "commando": 1}, 400),
        ("POST", "/v1/jobs", {**job, "args": "x"}, 400),
        ("POST", "/v1/jobs", {**job, "args": ["\0"]}, 400),
        ("POST", "/v1/jobs", {**job, "command": "a\nb"}, 400),
        ("POST", "/v1/jobs", {**job, "args": ["x"] * 10_000}, 201),
        ("POST", "/v1/jobs", {**job, "worker": "w9"}, 404),
        ("POST", "/v1/jobs", {"selector": {"gpu": "no"}, "command": "true"}, 409),
        ("POST", "/start", {"worker_id": "w1", "command": "no-such-program", "path": ""}, 201),
        ("POST", "/query", {"worker_id": "w1", "job_id": "../../etc"}, (400, 404)),
        ("POST", "/stop", {"worker_id": "w1"}, 400),
        ("DELETE", "/v1/jobs", None, 405),
        ("GET", "/v1/jobs/%00", None, (400, 404)),
        ("GET", "/v1/jobs?state=happy", None, 400),
        ("GET", "/nowhere", None, 404),
    ):
        answer, document = await api.call(method, path, body)
        assert answer in (status if isinstance(status, tuple) else (status,)), (method, path, body, document)
        assert answer == 201 or document["detail"]
        assert ("error" in document) == (answer != 201 and path in ("/start", "/stop", "/query"))
    assert (await api.call("GET", "/v1/workers", Origin="http://evil.example"))[0] == 403
    assert (await api.call("GET", "/v1/workers", Host="evil.example"))[0] == 403
    for raw in (b"\x16\x03\x01\x00", b"GET / HTTP/9\r\n\r\n", b"POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Le"):
        host, port = scheduler.endpoints["http"].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as cut:
            cut.sendall(raw)
    for daemon, fds, threads in before:
        wait_until(lambda pid=daemon.pid, fds=fds: _count("fd", pid) <= fds + 3, "descriptors are given back")
        assert _count("task", daemon.pid) <= threads + 40  # pools grow to their sizes and no further
        assert "Traceback" not in daemon.log.read_text()


@pytest_twisted.ensureDeferred
async def test_log_level(daemons: Make) -> None:
    """At ``debug`` both daemons log their calls, but no data of jobs; at ``error`` they log nothing."""
    logs: dict[str, tuple[str, str]] = {}
    for level in ("debug", "error"):
        scheduler = daemons("scheduler", f'log_level = "{level}"\n{SCHEDULER}', f"scheduler-{level}").start()
        config = worker_config(scheduler.endpoints["grpc"])
        worker = daemons("worker", f'log_level = "{level}"\n{config}', f"worker-{level}").start()
        api = await online_api(scheduler)
        job = await api.submit(shell="cat; echo $TOKEN", args=["s3cret"], stdin="s3cret", env={"TOKEN": "s3cret"})
        assert (await api.ended(job))["state"] == "succeeded"
        worker.kill()
        scheduler.kill()
        logs[level] = scheduler.log.read_text(), worker.log.read_text()
    by_scheduler, by_worker = logs["debug"]
    assert "StartJob on w1: answered" in by_scheduler
    assert "Heartbeat from ipv4:" in by_scheduler
    assert "StartJob from ipv4:" in by_worker
    assert "s3cret" not in by_scheduler + by_worker
    assert logs["error"] == ("", "")
