"""The audit of a real scheduler: complete after a kill, in the log, and checked by ``schedctl audit verify``."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.system.api import online_api
from tests.system.conftest import SCHEDULER, Daemon, worker_config
from tests.system.schedctl import User


def rows(scheduler: Daemon, statement: str) -> list[tuple[object, ...]]:
    """The rows that a statement returns in the scheduler's file, while it does not run."""
    with sqlite3.connect(scheduler.state / "scheduler.db") as connection:
        return list(connection.execute(statement))


@pytest.mark.parametrize(
    ("point", "jobs"), [("scheduler.before-audit-commit", 0), ("scheduler.after-commit-before-rpc", 1)]
)
@pytest_twisted.ensureDeferred
async def test_killed_at_a_start(point: str, jobs: int, daemons: Callable[..., Daemon]) -> None:
    """After ``kill -9`` around the commit of a start, the job and its entry are both there, or neither."""
    scheduler = daemons("scheduler", SCHEDULER)
    scheduler.keep_ports()
    scheduler.start()  # its first token is in the audit, too
    scheduler.kill()
    scheduler.inside = ("env", f"SCHEDULER_FAILPOINTS={point}")
    scheduler.start()
    daemons("worker", worker_config(scheduler.endpoints["grpc"])).start()
    api = await online_api(scheduler)
    job, request_id = {"worker": "w1", "command": "true"}, {"X-Request-ID": "the-start"}
    submitted = Deferred.fromCoroutine(api.call("POST", "/v1/jobs", job, **request_id))
    submitted.addErrback(lambda _: None)  # nobody answers
    assert scheduler.process is not None
    assert await deferToThread(scheduler.process.wait, 60) == -signal.SIGKILL
    await submitted
    assert rows(scheduler, "select count(*) from jobs") == [(jobs,)]
    started = rows(scheduler, "select target, request_id from audit where action = 'start'")
    assert started == [(job_id, "the-start") for (job_id,) in rows(scheduler, "select id from jobs")]
    scheduler.inside = ()
    scheduler.start()
    await api.online()
    entries = (await api.get("/v1/audit"))["entries"]
    assert [each["seq"] for each in entries if each["action"] == "start"] == [2] * jobs


@pytest_twisted.ensureDeferred
async def test_in_the_log(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    """Each entry is a line of the log; a change by another program is found, and an anchor from the log too."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="true", args=["--password=visible"], env={"SECRET": "s3cret"})
    await api.ended(job)
    user = User(scheduler, tmp_path)
    code, out, err = await deferToThread(user.run, "audit", "verify")
    assert (code, err) == (0, b""), out
    head = out.decode().split()[-1]
    scheduler.kill(signal.SIGTERM)
    scheduler.start()
    await api.online()
    log = scheduler.log.read_text()
    (line,) = [line for line in log.splitlines() if " scheduler.audit: " in line and job in line]
    assert f" start {job} w1 ok " in line
    assert f"scheduler.audit: audit head {head.replace(':', ' ')}" in log
    assert "s3cret" not in log
    assert rows(scheduler, "select count(*) from audit where details like '%s3cret%'") == [(0,)]
    (details,) = rows(scheduler, f"select details from audit where target = '{job}'")
    assert json.loads(str(details[0]))["args"] == ["--password=visible"]
    assert (await deferToThread(user.run, "audit", "verify", "--anchor", head))[0] == 0
    with sqlite3.connect(scheduler.state / "scheduler.db") as connection:
        connection.execute("update audit set who = 'token:other' where target = ?", [job])
    code, out, _ = await deferToThread(user.run, "audit", "verify", "--anchor", head)
    assert code == 1
    assert out.startswith(b"The audit was changed: row "), out
