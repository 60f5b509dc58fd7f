"""Jobs that run only while a client attends them, reasons of waiting, and facts about workers' machines."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest_twisted

from tests.system.api import Api, online_api, pause
from tests.system.conftest import SCHEDULER, Daemon, worker_config

WHY = "stopped: no client followed it or waited for it for 3 s"


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes(cluster: tuple[Daemon, Daemon]) -> None:
    """A job runs while it is followed, and is stopped, with its processes, when its only client is cut off."""
    api = Api(cluster[0])
    await api.online()
    job = {"command": "sh", "args": ["-c", "echo here; sleep 600"], "unattended_timeout": "3s"}
    follower = await api.open("/v1/jobs?follow=1", job=job)
    await follower.has(5)
    await pause(6)
    assert (await api.job(follower.job_id))["state"] == "running"
    follower.transport.loseConnection()
    ended = await api.until(f"/v1/jobs/{follower.job_id}", lambda document: document["finished_at"] is not None)
    assert (ended["state"], ended["reason"], ended["signal"]) == ("stopped", WHY, "SIGTERM")


@pytest_twisted.ensureDeferred
async def test_the_scheduler_is_killed(cluster: tuple[Daemon, Daemon]) -> None:
    """A job whose clients went with the scheduler is unattended: the next process stops it."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="sleep", args=["600"], unattended_timeout="3s")
    scheduler.crash()
    ended = await api.until(f"/v1/jobs/{job}", lambda document: document["finished_at"] is not None)
    assert (ended["state"], ended["reason"]) == ("stopped", WHY)


@pytest_twisted.ensureDeferred
async def test_waiting_for(daemons: Callable[..., Daemon]) -> None:
    """Queued jobs have a reason; the worker is shown with its disk, and with its clock, which agrees with ours."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"]).replace("slots = 50", "slots = 1")).start()
    api = await online_api(scheduler)
    first, second, third = [await api.submit(selector={}, command="sleep", args=["600"]) for _ in range(3)]
    assert (await api.job(first))["waiting_for"] is None
    detail = "1 worker matches; its only slot is taken"
    expected = [{"why": "no-free-slot", "detail": detail, "place": place} for place in (2, 1)]
    assert [job["waiting_for"] for job in (await api.get("/v1/jobs?state=queued"))["jobs"]] == expected
    await api.call("POST", "/v1/workers/w1/drain")
    shown = (await api.job(third))["waiting_for"]
    assert shown == {"why": "draining", "detail": "1 worker matches; it is draining", "place": 2}
    (known,) = (await api.until("/v1/workers", lambda document: document["workers"][0]["disk"] is not None))["workers"]
    found = os.statvfs(worker.state)
    assert (known["disk"]["size"], known["disk"]["inodes"]) == (found.f_blocks * found.f_frsize, found.f_files)
    assert 0 < known["disk"]["free"] <= known["disk"]["size"]
    assert abs(known["clock_difference"]) < 5
    for job in (third, second, first):
        await api.call("POST", f"/v1/jobs/{job}/stop")
