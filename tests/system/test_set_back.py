"""Databases that are set back, under real daemons: a file that is restored, and rows that a standby lacks."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests import postgres
from tests.system.api import Api, online_api, pause
from tests.system.conftest import Daemon, wait_until, worker_config

CONFIG = '[http_server]\naddr = "127.0.0.1:0"\n[grpc_server]\naddr = "127.0.0.1:0"\n[cluster]\nlease = "6s"\n'


async def submit(api: Api, file: Path, key: str, **more: object) -> dict[str, object]:
    """Submit a job that appends a line to a file, so its runs can be counted."""
    body = {"command": "/bin/sh", "args": ["-c", f"echo ran >> {file}"], "worker": "w1", **more}
    status, job = await api.call("POST", "/v1/jobs", body, **{"Idempotency-Key": key})
    assert status in (200, 201), job
    return job


@pytest_twisted.ensureDeferred
async def test_a_file_is_restored(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """Jobs that ran after the backup are known with their ends and keys, and nothing runs twice."""
    scheduler = daemons("scheduler", CONFIG)
    scheduler.keep_ports()
    scheduler.start()
    daemons("worker", worker_config(scheduler.endpoints["grpc"])).start()
    api = await online_api(scheduler)
    before = await submit(api, tmp_path / "before", "before")
    await api.ended(before["id"])
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(scheduler.state / "scheduler.db")) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    jobs = {key: (await submit(api, tmp_path / key, key))["id"] for key in ("k1", "k2", "k3")}
    for job_id in jobs.values():
        await api.ended(job_id)
    await pause(3.0)  # for a heartbeat, whose answer tells the worker the count of commits
    scheduler.kill(signal.SIGKILL)
    for name in ("scheduler.db", "scheduler.db-wal", "scheduler.db-shm"):
        (scheduler.state / name).unlink(missing_ok=True)
    (scheduler.state / "scheduler.db").write_bytes(backup.read_bytes())
    scheduler.start()
    for key, job_id in jobs.items():
        assert (await submit(api, tmp_path / key, key))["id"] == job_id
        job = await api.get(f"/v1/jobs/{job_id}")
        assert (job["state"], (tmp_path / key).read_text()) == ("succeeded", "ran\n")
    assert "the store was set back" in scheduler.log.read_text()


@pytest.mark.skipif(bool(postgres.why_not()), reason="needs PostgreSQL")
@pytest_twisted.ensureDeferred
async def test_rows_that_a_standby_lacks(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """The scheduler's records are saved again while it runs, and are there after a restart."""
    url = postgres.server().url()
    scheduler = daemons("scheduler", f'{CONFIG}[store]\nurl = "{url}"\n')
    scheduler.keep_ports()
    scheduler.start()
    daemons("worker", worker_config(scheduler.endpoints["grpc"])).start()
    api = await online_api(scheduler)
    job_id = (await submit(api, tmp_path / "file", "key"))["id"]
    await api.ended(job_id)
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as database:
        for table in ("jobs", "job_specs", "removed_jobs"):
            database.execute(f"delete from {table}")
        database.execute("update scheduler_schema set commits = 1")
    await deferToThread(wait_until, lambda: "the database holds all" in scheduler.log.read_text(), "it is saved again")
    scheduler.crash()
    assert (await api.get(f"/v1/jobs/{job_id}"))["state"] == "succeeded"
    assert (await submit(api, tmp_path / "file", "key"))["id"] == job_id
    assert (tmp_path / "file").read_text() == "ran\n"
