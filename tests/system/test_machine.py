"""Limits of a worker's machine, and what they mean for its jobs: real daemons, real limits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.trial.unittest import SkipTest

from tests.namespaces import in_namespaces
from tests.processes import alive
from tests.system.api import online_api
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config

Cluster = tuple[Daemon, Daemon]


@pytest_twisted.ensureDeferred
async def test_follow_without_inotify(daemons: Callable[..., Daemon]) -> None:
    """On a worker without inotify a follower gets the present output at once, and the rest as it comes."""
    try:
        inside = in_namespaces("echo 0 > /proc/sys/user/max_inotify_instances")
    except SkipTest as reason:
        pytest.skip(str(reason))
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"]))
    worker.inside = tuple(inside)
    worker.start()
    api = await online_api(scheduler)
    job = await api.submit(command="sh", args=["-c", "echo one; read line; sleep 0.2; echo two; sleep 600"])
    await api.until(f"/v1/jobs/{job}", lambda j: j["state"] == "running")
    download = await api.open(f"/v1/jobs/{job}/output?follow=1", limit=8)
    assert not await download.ended  # cut here, once both lines have come, while the job runs
    assert download.body == b"one\ntwo\n"
    assert (await api.job(job))["state"] == "running"
    await api.call("POST", f"/v1/jobs/{job}/stop")
    assert worker.log.read_text().count("max_user_instances") == 1


@pytest.mark.parametrize("foreground", [True, False])
@pytest_twisted.ensureDeferred
async def test_environment(daemons: Callable[..., Daemon], foreground: bool) -> None:
    """Jobs have the umask that twistd was started with, daemonized or not, and the variables of the configuration."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    more = 'env = {SITE = "here", LANG = "C"}\n'
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], more=more))
    worker.inside = ("sh", "-c", 'umask 027; exec "$@"', "sh")
    worker.start(foreground=foreground)
    api = await online_api(scheduler)
    job = await api.submit(command="sh", args=["-c", "umask; echo $SITE $LANG $OWN"], env={"OWN": "own", "LANG": "de"})
    await api.ended(job)
    assert await api.follow(job) == b"0027\nhere de own\n"
    if not foreground:
        worker.kill()


@pytest_twisted.ensureDeferred
async def test_removed_folder(cluster: Cluster) -> None:
    """A running job whose folder is removed is lost within seconds, and takes no slot."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="sleep", args=["600"])
    shutil.rmtree(worker.state / "jobs" / job)
    ended = await api.ended(job, 30)
    assert ended["state"] == "lost"
    assert ended["reason"].startswith("its spool was removed; processes of it still run: ")
    (known,) = (await api.get("/v1/workers"))["workers"]
    assert known["running_jobs"] == 0
    for pid in map(int, ended["reason"].rpartition(": ")[2].split(", ")):
        os.kill(pid, 9)


@pytest_twisted.ensureDeferred
async def test_no_room(daemons: Callable[..., Daemon]) -> None:
    """A worker without room for jobs says so, in its refusal and in its heartbeats, until it has room."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], more='spool_min_free = "100%"\n')).start()
    api = await online_api(scheduler)
    status, problem = await api.call("POST", "/v1/jobs", {"worker": "w1", "command": "true"})
    assert status == 503
    assert "less than the 100% of spool_min_free" in problem["detail"]
    (known,) = (await api.get("/v1/workers"))["workers"]
    assert known["state"] == "online"
    assert "less than the 100% of spool_min_free" in known["reason"]
    job = await api.submit(selector={}, command="true")
    assert (await api.job(job))["state"] == "queued"
    worker.kill()
    worker.file.write_text(worker.file.read_text().replace('spool_min_free = "100%"', ""))
    worker.start()
    assert (await api.ended(job, 30))["state"] == "succeeded"
    (known,) = (await api.get("/v1/workers"))["workers"]
    assert known["reason"] is None


@pytest_twisted.ensureDeferred
async def test_left_running(daemons: Callable[..., Daemon]) -> None:
    """A stop that leaves a process behind is 409 with its id, on both routes, until that process is gone."""
    # Without this capability root's shims can do no more than another user's.
    weak = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
    protected = ["--reuid=65534", "--clear-groups", "sleep", "600"]
    tried = subprocess.run([*weak, "setpriv", *protected[:2], "true"], capture_output=True, check=False, text=True)
    if tried.returncode:
        pytest.skip(f"a process of another user can't be had here: {tried.stderr.strip()}")
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"]))
    worker.inside = weak
    worker.start()
    api = await online_api(scheduler)
    job = await api.submit(command="setpriv", args=protected, stop_grace="0.1s")
    for method, path, body in (
        ("POST", f"/v1/jobs/{job}/stop", None),
        ("POST", f"/v1/jobs/{job}/stop", None),
        ("POST", "/stop", {"worker_id": "w1", "job_id": job}),
    ):
        status, problem = await api.call(method, path, body)
        (pid,) = problem["leftover"]
        assert (status, problem["success"], problem["job_id"]) == (409, False, job)
        assert f"1 process could not be ended: {pid}" in problem["detail"]
    ended = await api.job(job)
    assert (ended["state"], ended["leftover"]) == ("stopped", [pid])
    assert f"1 process could not be ended: {pid}" in ended["reason"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "the process has ended")
    assert (await api.call("POST", f"/v1/jobs/{job}/stop"))[0] == 200
    assert await api.call("POST", "/stop", {"worker_id": "w1", "job_id": job}) == (200, {"success": True})
