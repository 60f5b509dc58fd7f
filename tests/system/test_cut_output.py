"""Incomplete output: a body that is followed never ends as if the output were complete."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import pytest_twisted

from tests.namespaces import in_namespaces
from tests.processes import children
from tests.system.api import Api, online_api
from tests.system.conftest import SCHEDULER, Daemon, worker_config
from tests.system.test_survival import zygote_of

Cluster = tuple[Daemon, Daemon]


def small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """A command that makes ``folder`` a disk of that size for a program; skips if that is impossible."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)  # it is the state folder of a daemon
    return tuple(in_namespaces(f"mount -t tmpfs -o size={size} none {quote(str(folder))}"))


async def events(api: Api, job: str, last: str) -> list[tuple[str, Any]]:
    """The name and data of the events after ``last``."""
    download = await api.open(f"/v1/jobs/{job}/output?offset={last}", events=True)
    assert await download.ended
    blocks = download.body.decode().split("\n\n")
    fields = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    return [(each["event"], json.loads(each["data"])) for each in fields if "data" in each]


async def check_cut(api: Api, job: str, reached: int, why: str) -> None:
    """Check every kind of request at the offset at which a follower of a job's stdout was cut."""
    output = f"/v1/jobs/{job}/output"
    ended = await api.job(job)
    assert ended["stdout_bytes"] == reached
    for query in (f"?follow=1&offset={reached}", "?follow=1&tail=0"):
        status, problem = await api.call("GET", f"{output}{query}")
        assert (status, problem["status"]) == (410, 410)
        assert problem["detail"] == f"the output of job {job!r} was cut: {why}"
    later = await api.open(f"{output}?follow=1&offset={reached - 5}")
    assert not await later.ended
    assert len(later.body) == 5
    for query, size in (("", reached), (f"?offset={reached}", 0)):
        snapshot = await api.open(f"{output}{query}")
        assert await snapshot.ended
        assert len(snapshot.body) == size
    assert (await api.call("GET", f"{output}?offset={reached + 1}"))[0] == 416
    assert (await api.call("GET", output, Range=f"bytes={reached}-"))[0] == 416
    *_, (name, told) = await events(api, job, f"{reached},{ended['stderr_bytes']}")
    assert (name, told) == ("end", ended)


@pytest_twisted.ensureDeferred
async def test_full_disk(daemons: Callable[..., Daemon]) -> None:
    """A full disk cuts the output of a job that succeeds all the same, and the bodies of its followers."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], more='spool_min_free = "0%"'))
    worker.inside = small_disk(worker.state / "jobs", "12m")
    worker.start()
    api = await online_api(scheduler)
    command = "trap '' PIPE; head -c 30000000 /dev/zero 2>/dev/null; exit 0"
    download = await api.open("/v1/jobs?follow=1", job={"command": "sh", "args": ["-c", command]})
    assert not await download.ended
    ended = await api.ended(download.job_id)
    why = "stdout: No space left on device"
    assert (ended["state"], ended["exit_code"], ended["output_error"]) == ("succeeded", 0, why)
    assert 10_000_000 < len(download.body) < 30_000_000
    await check_cut(api, download.job_id, len(download.body), why)


@pytest_twisted.ensureDeferred
async def test_output_limit(cluster: Cluster) -> None:
    """A job that exceeds its output limit is ended; its output up to the limit exists, and is marked as cut."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    download = await api.open("/v1/jobs?follow=1", job={"command": "yes", "output_limit": "1MB"})
    assert not await download.ended
    assert download.body == b"y\n" * 500_000
    ended = await api.ended(download.job_id)
    why = "output limit of 1000000 bytes reached"
    assert (ended["state"], ended["reason"], ended["output_error"]) == ("failed", why, why)
    assert (ended["output_limit"], ended["stdout_bytes"]) == (1_000_000, 1_000_000)
    await check_cut(api, download.job_id, 1_000_000, why)


@pytest_twisted.ensureDeferred
async def test_killed_shim(cluster: Cluster) -> None:
    """The data in a job's pipes is lost with its shim, so its output does not count as complete."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    download = await api.open("/v1/jobs?follow=1", job={"command": "sh", "args": ["-c", "echo up; exec sleep 600"]})
    await download.has(3)
    (shim,) = (pid for pid in children(zygote_of(worker)) if list(children(pid)))
    os.kill(shim, signal.SIGKILL)
    assert not await download.ended
    assert download.body == b"up\n"
    ended = await api.ended(download.job_id)
    assert ended["state"] == "lost"
    why = "the job is lost, and what it wrote last may be missing"
    assert ended["output_error"] == why
    status, problem = await api.call("GET", f"/v1/jobs/{download.job_id}/output?follow=1&offset=3")
    assert (status, problem["detail"]) == (410, f"the output of job {download.job_id!r} was cut: {why}")
