"""A worker that is stopped without jobs is offline, and jobs wait until it is back; real daemons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_twisted

from tests.system.api import Api, online_api
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config
from tests.system.schedctl import User

Cluster = tuple[Daemon, Daemon]

GPU = 'labels = {gpu = "a100"}\n'


async def offline(api: Api, name: str = "w1") -> Any:
    """The worker with that name, once it is offline."""
    return await api.until(f"/v1/workers/{name}", lambda worker: worker["state"] == "offline")


@pytest_twisted.ensureDeferred
async def test_restart_of_a_drained_worker(cluster: Cluster) -> None:
    """A graceful restart of an idle worker keeps its id and its drain, even across a restart of the scheduler."""
    scheduler, worker = cluster
    api = Api(scheduler)
    (before,) = await api.online()
    assert (await api.call("POST", "/v1/workers/w1/drain"))[0] == 200
    worker.kill()
    (gone,) = (await api.get("/v1/workers"))["workers"]  # it had deregistered before it ended
    assert (gone["state"], gone["draining"], gone["running_jobs"]) == ("offline", True, 0)
    assert gone["reason"].startswith("it deregistered at 20"), gone
    for field in ("id", "name", "labels", "slots"):
        assert gone[field] == before[field]
    assert await api.get("/readyz") == {"ready": True, "workers_online": 0}
    scheduler.kill()
    scheduler.start()
    assert (await api.get("/v1/workers"))["workers"] == [gone]
    worker.start()
    (after,) = await api.online()
    assert (after["id"], after["name"], after["draining"], after["reason"]) == (before["id"], "w1", True, None)


@pytest_twisted.ensureDeferred
async def test_jobs_wait_for_it(daemons: Callable[..., Daemon]) -> None:
    """A selector that only an offline worker matches is no conflict: jobs wait for it, and run when it is back."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], more=GPU)).start()
    api = await online_api(scheduler)
    worker.kill()
    await offline(api)
    job = {"command": "true", "selector": {"gpu": "a100"}}
    status, refused = await api.call("POST", "/v1/jobs", {**job, "queue_timeout": 0})
    assert (status, refused["type"]) == (503, "/problems/no-free-slot")
    status, refused = await api.call("POST", "/v1/jobs", {"command": "true", "worker": "w1"})
    assert (status, refused["type"]) == (503, "/problems/worker-unreachable")
    status, refused = await api.call("POST", "/v1/jobs", {**job, "selector": {"gpu": "h100"}})
    assert (status, refused["type"]) == (409, "/problems/no-match")
    waiting = [await api.submit(**job), await api.submit(command="true", queue_timeout="5m")]
    for job_id in waiting:
        shown = await api.job(job_id)
        assert (shown["state"], shown["waiting_for"]["why"]) == ("queued", "unreachable")
    assert "deregistered" in shown["waiting_for"]["detail"]
    worker.start()
    for job_id in waiting:
        assert (await api.ended(job_id))["state"] == "succeeded"


@pytest_twisted.ensureDeferred
async def test_forgotten_by_a_client(cluster: Cluster, tmp_path: Path) -> None:
    """``schedctl`` shows an offline worker and can forget it; a job that waits for it by name fails then."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    worker.kill()
    await offline(api)
    user = User(scheduler, tmp_path)
    code, out, err = user.run("workers")
    assert code == 0, err
    assert b" offline " in out
    assert b"it deregistered at 20" in out
    code, out, err = user.run("doctor")
    assert code == 1
    assert b"Every worker is offline" in out + err
    assert b"It is offline: it deregistered at 20" in out + err
    job = await api.submit(command="true", queue_timeout="5m")
    code, _, err = user.run("forget", "w1")
    assert code == 0, err
    assert (await api.get("/v1/workers"))["workers"] == []
    assert (await api.ended(job))["reason"] == "worker 'w1' was forgotten"
    worker.start()
    await api.online()


@pytest_twisted.ensureDeferred
async def test_forget_after(daemons: Callable[..., Daemon]) -> None:
    """A worker is forgotten after ``forget_after``, even if the scheduler was down meanwhile; ``0``: at once."""
    scheduler = daemons("scheduler", SCHEDULER + 'forget_after = "2s"\n')
    scheduler.keep_ports()
    scheduler.start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"])).start()
    api = await online_api(scheduler)
    worker.kill()
    await offline(api)
    scheduler.kill()
    scheduler.start()
    await api.until("/v1/workers", lambda found: found["workers"] == [])
    assert "is forgotten: it deregistered longer than 2s ago" in scheduler.log.read_text()
    scheduler.kill()
    scheduler.file.write_text(scheduler.file.read_text().replace('"2s"', "0"))
    scheduler.start()
    worker.start()
    await api.online()
    worker.kill()
    assert (await api.get("/v1/workers"))["workers"] == []


@pytest_twisted.ensureDeferred
async def test_name(daemons: Callable[..., Daemon]) -> None:
    """Another worker may take its name. It is then listed by its id, with its drain."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    first = daemons("worker", worker_config(scheduler.endpoints["grpc"]), "first").start()
    api = Api(scheduler)
    (before,) = await api.online()
    assert (await api.call("POST", "/v1/workers/w1/drain"))[0] == 200
    first.kill()
    await offline(api)
    daemons("worker", worker_config(scheduler.endpoints["grpc"]), "second").start()
    await api.online()
    old = await api.get(f"/v1/workers/{before['id']}")
    assert (old["name"], old["labels"]["name"]) == (before["id"], before["id"])
    assert (old["state"], old["draining"]) == ("offline", True)
    assert (await api.get("/v1/workers/w1"))["id"] != before["id"]
    ended = await api.ended(await api.submit(command="true"))
    assert ended["state"] == "succeeded"
    wait_until(lambda: "is called by its id from now on" in scheduler.log.read_text(), "that is in the log")
