"""Signals, removal and usage of jobs, with real daemons."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.system.api import Api, online_api, pause
from tests.system.conftest import Daemon, wait_until

Cluster = tuple[Daemon, Daemon]

#: Prints a line for each USR1 until it is told to end.
LISTENING = """
import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"heard\\n"))
os.write(1, b"up\\n")
while True:
    time.sleep(0.05)
"""

BURNING = "import time\nwhile time.process_time() < 0.5:\n sum(range(1000))"


async def said(api: Api, job_id: str, text: bytes) -> None:
    """Wait until the job's output is exactly that."""
    for _ in range(400):
        download = await api.open(f"/v1/jobs/{job_id}/output")
        await download.ended
        if bytes(download.body) == text:
            return
        await pause(0.05)
    raise AssertionError(f"{job_id} wrote only {bytes(download.body)!r}")


async def gone(api: Api, job_id: str) -> None:
    """Wait until the job does not exist."""
    for _ in range(600):
        status, document = await api.call("GET", f"/v1/jobs/{job_id}")
        if status == 404:
            return
        await pause(0.05)
    raise AssertionError(f"it is still there: {document}")


@pytest_twisted.ensureDeferred
async def test_usage(cluster: Cluster) -> None:
    """A job that has ended shows the resources that its processes used."""
    api = Api(cluster[0])
    await api.online()
    job = await api.submit(command="sh", args=["-c", f"{sys.executable} -c '{BURNING}'; exit 0"])
    usage = (await api.ended(job))["usage"]
    assert 0.5 <= usage["cpu_seconds"] < 1.0, usage
    assert usage["max_rss"] > 1_000_000, usage


@pytest_twisted.ensureDeferred
async def test_signals(cluster: Cluster) -> None:
    """A signal arrives once, also after the worker was killed; a job that a signal ends has failed."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(command=sys.executable, args=["-c", LISTENING])
    await said(api, job, b"up\n")
    status, document = await api.call("POST", f"/v1/jobs/{job}/signal", {"signal": "USR1"})
    assert (status, document["state"]) == (200, "running")
    await said(api, job, b"up\nheard\n")
    worker.kill(signal.SIGKILL)
    status, document = await api.call("POST", f"/v1/jobs/{job}/signal", {"signal": "USR1"})
    assert (status, document["type"]) == (503, "/problems/worker-unreachable")
    worker.start()
    await api.until(f"/v1/jobs/{job}", lambda job: job["state"] == "running")
    await api.online()
    status, _ = await api.call("POST", f"/v1/jobs/{job}/signal", {"signal": "USR1", "to": "tree"})
    assert status == 200
    await said(api, job, b"up\nheard\nheard\n")
    await api.call("POST", f"/v1/jobs/{job}/signal", {"signal": "KILL"})
    ended = await api.ended(job)
    assert (ended["state"], ended["signal"]) == ("failed", "SIGKILL")
    status, document = await api.call("POST", f"/v1/jobs/{job}/signal", {"signal": "USR1"})
    assert (status, document["type"]) == (409, "/problems/job-not-running")


@pytest_twisted.ensureDeferred
async def test_remove(cluster: Cluster) -> None:
    """A removed job is gone on both sides, its key starts nothing again, and a running job is not removed."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    body: dict[str, Any] = {"worker": "w1", "command": "sh", "args": ["-c", "echo hello"]}
    headers = {"Idempotency-Key": "once"}
    _, job = await api.call("POST", "/v1/jobs?wait=30", body, **headers)
    folder = worker.state / "jobs" / job["id"]
    assert folder.exists()
    assert await api.call("DELETE", f"/v1/jobs/{job['id']}") == (204, None)
    await deferToThread(wait_until, lambda: not folder.exists(), "the folder goes")
    for _ in range(2):
        for path in ("", "/output"):
            assert (await api.call("GET", f"/v1/jobs/{job['id']}{path}"))[0] == 404
        status, problem = await api.call("POST", "/v1/jobs", body, **headers)
        assert (status, problem["type"], problem["job_id"]) == (410, "/problems/job-removed", job["id"])
        scheduler.crash()
        await api.online()
    assert (await api.get("/v1/jobs"))["jobs"] == []
    running = await api.submit(command="sleep", args=["600"])
    status, problem = await api.call("DELETE", f"/v1/jobs/{running}")
    assert (status, problem["type"]) == (409, "/problems/job-not-ended")
    await api.call("POST", f"/v1/jobs/{running}/stop")
    assert (await api.call("DELETE", f"/v1/jobs/{running}"))[0] == 204


@pytest_twisted.ensureDeferred
async def test_remove_while_both_die(cluster: Cluster) -> None:
    """A removal that was requested while the worker was dead is carried out when it is back, and the job stays gone."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    jobs = [await api.submit(command="sh", args=["-c", f"echo {number}"]) for number in range(3)]
    for job in jobs:
        await api.ended(job)
    worker.kill(signal.SIGKILL)
    for job in jobs:
        status, document = await api.call("DELETE", f"/v1/jobs/{job}")
        assert (status, document["id"]) == (202, job)
        assert document["remove_requested_at"] is not None
    scheduler.crash()
    for job in jobs:
        assert (await api.job(job))["remove_requested_at"] is not None
    worker.start()
    for job in jobs:
        await gone(api, job)
    for daemon in (worker, scheduler):
        daemon.crash()
    await api.online()
    assert (await api.get("/v1/jobs"))["jobs"] == []
    assert not [name for name in (worker.state / "jobs").iterdir() if name.name in jobs]
