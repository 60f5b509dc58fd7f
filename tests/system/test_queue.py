"""Waiting jobs and repeated requests, with real daemons, one of which is killed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.system.api import Api, online_api
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config

#: Runs until a file exists.
UNTIL = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]):\n time.sleep(0.05)"

#: Records that it ran, and fails.
NOTE = "import sys\nopen(sys.argv[1], 'a').write(sys.argv[2])\nsys.exit(3)"


def python(code: str, *args: object) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-c", code, *map(str, args)]}


@pytest_twisted.ensureDeferred
async def test_the_queue_outlives_the_scheduler(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """Jobs that wait when the scheduler is killed run in their order once there is a slot, each once."""
    scheduler = daemons("scheduler", SCHEDULER)
    scheduler.keep_ports()
    scheduler.start()
    daemons("worker", worker_config(scheduler.endpoints["grpc"]).replace("slots = 50", "slots = 1")).start()
    api = await online_api(scheduler)
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    first = await api.submit(selector={}, **python(UNTIL, gate))
    jobs = {
        letter: await api.submit(selector={}, priority=priority, **python(NOTE, notes, letter))
        for letter, priority in (("a", 0), ("b", 5), ("c", 0))
    }
    stopped = await api.submit(selector={}, **python(NOTE, notes, "d"))
    status, document = await api.call("POST", f"/v1/jobs/{stopped}/stop")
    assert (status, document["state"]) == (200, "stopped")
    scheduler.crash()
    assert {job["id"] for job in (await api.get("/v1/jobs?state=queued"))["jobs"]} == set(jobs.values())
    gate.write_text("")
    assert (await api.ended(first))["state"] == "succeeded"
    for job in jobs.values():
        await api.until(f"/v1/jobs/{job}", lambda document: document["state"] == "failed")
    assert notes.read_text() == "bac"


@pytest_twisted.ensureDeferred
async def test_a_key_outlives_the_scheduler(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """A request that is repeated after a crash starts nothing again, and gets the job as it is now."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    body = {"worker": "w1", **python(NOTE, tmp_path / "notes", "x")}
    key = {"Idempotency-Key": "8f14e45f"}
    status, first = await api.call("POST", "/v1/jobs", body, **key)
    assert status == 201
    ended = await api.ended(first["id"])
    scheduler.crash()
    assert await api.call("POST", "/v1/jobs", body, **key) == (201, ended)
    assert (await api.call("POST", "/v1/jobs", {**body, "priority": 1}, **key))[0] == 422
    assert (tmp_path / "notes").read_text() == "x"


@pytest_twisted.ensureDeferred
async def test_retry(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """A job that fails is retried as often as requested, each time as another job."""
    api = Api(cluster[0])
    await api.online()
    notes = tmp_path / "notes"
    first = await api.submit(**python(NOTE, notes, "x"), retry={"attempts": 2, "delay": "100ms"})
    await deferToThread(wait_until, lambda: notes.exists() and notes.read_text() == "xxx", "three runs")
    listed = await api.until("/v1/jobs?state=failed", lambda document: len(document["jobs"]) == 3)
    last, middle, oldest = listed["jobs"]
    assert (oldest["id"], middle["retry_of"], last["retry_of"]) == (first, first, middle["id"])
    assert [job["retry"]["attempts"] for job in (oldest, middle, last)] == [2, 1, 0]


@pytest_twisted.ensureDeferred
async def test_wait_for_the_last_attempt(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """A client that waits for a job with a retry is answered at the end of the last attempt; the links lead to it."""
    api = Api(cluster[0])
    await api.online()
    once = "import os, sys\nif not os.path.exists(sys.argv[1]):\n open(sys.argv[1], 'w')\n sys.exit(3)"
    body = {"worker": "w1", **python(once, tmp_path / "ran"), "retry": {"attempts": 3, "delay": "1s"}}
    status, last = await api.call("POST", "/v1/jobs?wait=30", body)
    assert (status, last["state"], last["exit_code"]) == (201, "succeeded", 0)
    first = await api.job(last["retry_of"])
    assert (first["exit_code"], first["retried_by"], first["retry_of"]) == (3, last["id"], None)
    group = (await api.get(f"/v1/jobs?group_id={first['id']}"))["jobs"]
    assert [job["id"] for job in group] == [last["id"], first["id"]]


@pytest_twisted.ensureDeferred
async def test_a_stop_ends_all_attempts(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """A failed job is not retried once it was stopped, even after a crash of the scheduler."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    notes = tmp_path / "notes"
    first = await api.submit(**python(NOTE, notes, "x"), queue_timeout="1h", retry={"attempts": 3, "delay": "10m"})
    assert (await api.ended(first))["exit_code"] == 3
    scheduler.crash()
    await api.online()
    status, document = await api.call("POST", f"/v1/jobs/{first}/stop")
    assert (status, document["id"], document["state"]) == (200, first, "failed")
    core = await api.call("POST", "/stop", {"worker_id": "w1", "job_id": first})
    assert core == (200, {"success": True})
    group = (await api.get(f"/v1/jobs?group_id={first}"))["jobs"]
    assert [job["state"] for job in group] == ["stopped", "failed"]
    assert [job["id"] for job in group] == [document["retried_by"], first]
    assert notes.read_text() == "x"
