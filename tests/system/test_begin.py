"""Jobs whose worker is killed before they begin, and the output of jobs that no worker has any more."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.system.api import online_api
from tests.system.conftest import SCHEDULER, Daemon, worker_config
from tests.system.test_queue import NOTE, UNTIL, python


@pytest.mark.parametrize("point", ["worker.after-spool-rename", "worker.before-begin"])
@pytest_twisted.ensureDeferred
async def test_killed_before_it_begins(point: str, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """A queued job whose worker is killed just as the job begins runs once, when the worker is back."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"]).replace("slots = 50", "slots = 1")).start()
    api = await online_api(scheduler)
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    first = await api.submit(selector={}, **python(UNTIL, gate))
    queued = await api.submit(selector={}, queue_timeout=600, **python(NOTE, notes, "a"))
    worker.kill(signal.SIGKILL)
    worker.inside = ("env", f"SCHEDULER_FAILPOINTS={point}")
    worker.start()
    await api.until(f"/v1/jobs/{first}", lambda job: job["state"] == "running")
    gate.write_text("")
    assert worker.process is not None
    assert await deferToThread(worker.process.wait, 60) == -signal.SIGKILL
    worker.inside = ()
    worker.start()
    ended = await api.until(f"/v1/jobs/{queued}", lambda job: job["finished_at"] is not None)
    assert (ended["state"], ended["exit_code"], notes.read_text()) == ("failed", 3, "a")


@pytest_twisted.ensureDeferred
async def test_output_of_a_forgotten_worker(cluster: tuple[Daemon, Daemon]) -> None:
    """The output of a job that ended on a forgotten worker is gone, with the reason, until the worker is back."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="echo", args=["hello"])
    assert (await api.ended(job))["state"] == "succeeded"
    worker.kill(signal.SIGKILL)
    await api.until("/v1/workers/w1", lambda each: each["state"] == "unreachable")
    for query in ("", "?follow=1"):
        status, problem = await api.call("GET", f"/v1/jobs/{job}/output{query}")
        assert (status, problem["type"]) == (503, "/problems/worker-unreachable")
    assert (await api.call("DELETE", "/v1/workers/w1"))[0] == 204
    for query in ("", "?follow=1", "?tail=1"):
        status, problem = await api.call("GET", f"/v1/jobs/{job}/output{query}")
        assert (status, problem["type"], problem["job_id"]) == (410, "/problems/output-gone", job)
        assert problem["detail"] == f"the output of job {job!r} is gone: worker 'w1' is not known any more"
    assert (await api.job(job))["state"] == "succeeded"
    worker.start()
    await api.online()
    assert await api.follow(job) == b"hello\n"
