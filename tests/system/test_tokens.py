"""Tokens with a real scheduler: made with schedctl, used with curl, revoked, expired; the first one in its file."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.client import ApiProblem, Client
from tests.system.conftest import SCHEDULER, Cluster, Daemon, wait_until
from tests.system.schedctl import User, finish

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")

#: Exit codes of curl after a cut connection: a part of a body, no answer, a reset.
CUT = (18, 52, 56)

#: Prints a line, and then waits until it is stopped.
TALKER = {"shell": "echo begun; sleep 600", "worker": "w1"}


def curl(token: str, url: str, *arguments: str) -> tuple[int, bytes]:
    """The status and the body of a request."""
    done = subprocess.run(
        ["curl", "-s", "-w", "%{stderr}%{http_code}", "-H", f"Authorization: Bearer {token}", *arguments, url],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return int(done.stderr), done.stdout


def admin_client(scheduler: Daemon) -> Client:
    """A client with the token in ``admin.token``."""
    return Client(f"http://{scheduler.endpoints['http']}", (scheduler.state / "admin.token").read_text().strip())


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> User:
    scheduler, _ = cluster
    user = User(scheduler, tmp_path).online()
    user.environ["SCHEDULER_TOKEN"] = (scheduler.state / "admin.token").read_text().strip()
    return user


def make(user: User, name: str, *options: str) -> str:
    """The token that ``schedctl token create`` prints."""
    code, out, err = user.run("token", "create", name, *options)
    assert (code, err) == (0, b"")
    return out.decode().strip()


def test_used_and_revoked(cluster: Cluster, user: User) -> None:
    """A token lets curl in until it is revoked; then its stream is cut, and its running job goes on."""
    scheduler, _ = cluster
    token = make(user, "ci", "--scope", "run", "--expires", "90d")
    status, body = curl(token, f"{user.url}/v1/jobs", "-d", json.dumps(TALKER))
    job = json.loads(body)
    assert status == 201
    follow = f"{user.url}/v1/jobs/{job['id']}/output?follow=1"
    header = f"Authorization: Bearer {token}"
    follower = subprocess.Popen(["curl", "-sN", "-H", header, follow], stdout=subprocess.PIPE)
    waiter = subprocess.Popen(["curl", "-s", "-H", header, f"{user.url}/v1/jobs/{job['id']}?wait=300"])
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"begun\n"
    listed = [json.loads(line) for line in user.run("token", "ls", "--json")[1].splitlines()]
    assert {each["name"] for each in listed if each["last_used_at"]} >= {"admin", "ci"}

    code, _, err = user.run("token", "revoke", "ci")
    assert (code, b"is revoked" in err) == (0, True)
    assert follower.wait(60) in CUT
    assert waiter.wait(60) in CUT
    status, body = curl(token, f"{user.url}/v1/jobs")
    assert (status, json.loads(body)["type"]) == (401, "/problems/unauthenticated")
    assert user.client.job(job["id"]).state == "running"
    user.client.stop(job["id"])
    for secret in (token, user.environ["SCHEDULER_TOKEN"]):
        assert secret.split("_")[2] not in scheduler.log.read_text()
        assert secret.split("_")[2].encode() not in (scheduler.state / "scheduler.db").read_bytes()


def test_queued_job(cluster: Cluster, user: User) -> None:
    """A job that is queued when its token is revoked, here for its next attempt, is stopped, with the reason."""
    token = make(user, "queuer", "--scope", "run")
    body = json.dumps({"command": "false", "worker": "w1", "retry": {"attempts": 1, "delay": "1h"}})
    status, answer = curl(token, f"{user.url}/v1/jobs", "-d", body)
    assert status == 201
    job_id = json.loads(answer)["id"]
    wait_until(lambda: user.client.job(job_id).retried_by, "it failed, and is to be tried again")
    queued = user.client.job(user.client.job(job_id).retried_by or "")
    assert (queued.state, queued.created_by) == ("queued", "token:queuer")
    assert user.run("token", "revoke", "queuer")[0] == 0
    stopped = user.client.job(queued.id)
    assert (stopped.state, stopped.reason) == ("stopped", "token revoked")


def test_expired(cluster: Cluster, user: User) -> None:
    """A token expires in the middle of a stream, which is cut; the next request is told."""
    token = make(user, "short", "--scope", "run", "--expires", "4s")
    job = user.client.submit(**TALKER)
    url = f"{user.url}/v1/jobs/{job.id}/output?follow=1"
    follower = subprocess.Popen(["curl", "-sN", "-H", f"Authorization: Bearer {token}", url], stdout=subprocess.PIPE)
    code, out, _ = finish(follower)
    assert (code in CUT, out) == (True, b"begun\n")
    status, body = curl(token, f"{user.url}/v1/jobs")
    assert (status, "expired at" in json.loads(body)["detail"]) == (401, True)
    user.client.stop(job.id)


def test_first_token(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """``admin.token`` works after every start, is for its owner alone, and is made anew once all tokens are revoked."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    file = scheduler.state / "admin.token"
    first = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "admin.token" in scheduler.log.read_text()
    scheduler.crash()
    assert file.read_text() == first
    with admin_client(scheduler) as client:
        (token,) = client.tokens()
        assert (token.name, token.scope, token.created_by) == ("admin", "admin", "scheduler")
        client.revoke_token(token.id)
        with pytest.raises(ApiProblem) as caught:
            client.tokens()
        assert caught.value.status == 401
    scheduler.kill()
    scheduler.start()
    assert file.read_text() != first
    with admin_client(scheduler) as client:
        assert [each.name for each in client.tokens()] == ["admin"]


def test_in_memory(daemons: Callable[..., Daemon]) -> None:
    """A scheduler that keeps nothing writes another token at each start."""
    scheduler = daemons("scheduler", f'{SCHEDULER}[store]\nurl = "memory:"\n').start()
    first = (scheduler.state / "admin.token").read_text()
    scheduler.crash()
    assert (scheduler.state / "admin.token").read_text() != first
    with admin_client(scheduler) as client:
        assert len(client.tokens()) == 1


def test_unwritable(daemons: Callable[..., Daemon]) -> None:
    """A start that could not write the first token is refused, and the line names the file."""
    scheduler = daemons("scheduler", SCHEDULER)
    (scheduler.state / "admin.token" / "x").mkdir(parents=True)
    scheduler.state.chmod(0o700)
    with pytest.raises(pytest.fail.Exception):
        scheduler.start()
    assert scheduler.process is not None
    assert scheduler.process.wait(60) == 1
    assert f"{scheduler.state}/admin.token must be a file" in scheduler.log.read_text()
