"""Jobs that end while the scheduler's database can't be written: real daemons, and a second writer of the file."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import ensureDeferred

from tests.system.api import Api
from tests.system.conftest import Daemon
from tests.system.test_survival import count, counted

Cluster = tuple[Daemon, Daemon]

#: Part of the reason of a job whose end is not saved yet.
UNSAVED = "it has ended, and its end can't be saved yet: database unavailable: "


@contextmanager
def taken_over(scheduler: Daemon) -> Iterator[None]:
    """Another program holds the database's write lock."""
    other = sqlite3.connect(scheduler.state / "scheduler.db", isolation_level=None)
    try:
        other.execute("begin immediate")
        yield
    finally:
        other.close()


def is_held(job: Any) -> bool:
    """Whether the job's reason says that its end is not saved yet; its state is the one before."""
    assert (job["state"], job["exit_code"], job["finished_at"]) == ("running", None, None), job
    return (job["reason"] or "").startswith(UNSAVED)


@pytest_twisted.ensureDeferred
async def test_shown_when_saved(cluster: Cluster, tmp_path: Path) -> None:
    """The end is shown once it is saved, to waiting and following clients without another request."""
    api, gate = Api(cluster[0]), tmp_path / "gate"
    await api.online()
    job = await api.submit(**count(lines=4, code=3, gate=gate))
    download = await api.open(f"/v1/jobs/{job}/output?follow=1")
    waited = ensureDeferred(api.get(f"/v1/jobs/{job}?wait=60"))
    with taken_over(cluster[0]):
        gate.touch()
        await api.until(f"/v1/jobs/{job}", is_held)
        assert (await api.call("GET", f"/v1/jobs/{job}?wait=0&check=1"))[0] == 504
        query = {"worker_id": "w1", "job_id": job}
        assert await api.call("POST", "/query", query) == (200, {"done": False, "error": False, "error_text": ""})
        status, problem = await api.call("DELETE", f"/v1/jobs/{job}")
        assert (status, problem["type"]) == (503, "/problems/store-failing")
        assert (await api.call("GET", "/readyz"))[0] == 503
        assert (waited.called, download.ended.called) == (False, False)
    assert (await waited)["exit_code"] == 3
    assert (await download.ended, bytes(download.body)) == (True, counted(4))
    assert (await api.call("GET", "/readyz"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_killed_before_that(cluster: Cluster, tmp_path: Path) -> None:
    """A scheduler that is killed before the end was saved hears of it from the worker, and no other end was shown."""
    scheduler, _ = cluster
    api, gate = Api(scheduler), tmp_path / "gate"
    await api.online()
    job = await api.submit(**count(lines=4, code=3, gate=gate))
    with taken_over(scheduler):
        gate.touch()
        await api.until(f"/v1/jobs/{job}", is_held)
        scheduler.kill(signal.SIGKILL)
    scheduler.start()
    assert (await api.ended(job))["exit_code"] == 3
    assert await api.follow(job) == counted(4)
