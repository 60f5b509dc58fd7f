"""Users of one machine and real daemons: those who may do everything, something, or nothing."""

from __future__ import annotations

import json
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.other_user import NOBODY, SKIP
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config

Make = Callable[..., Daemon]

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here"),
    pytest.mark.skipif(SKIP is not None, reason=str(SKIP)),
]

#: A user who is neither root nor ``nobody``.
OTHER = pwd.getpwnam("daemon").pw_uid


def curl(uid: int, *arguments: str) -> tuple[int, dict]:
    """Run curl as that user; the status and the JSON of the answer."""
    done = subprocess.run(
        ["curl", "-s", "--noproxy", "*", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[],
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text)


def with_users(users: str, more: str = "") -> str:
    return SCHEDULER.replace("[http_server]\n", f"[http_server]\nlocal_users = {users}\n{more}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that every user can enter."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_stranger(daemons: Make) -> None:
    """A plain curl of another user is 401, which says how to go on, and so does the log; root's is answered."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    url = f"http://{scheduler.endpoints['http']}"
    assert curl(NOBODY, f"{url}/healthz")[0] == 200
    assert "refuses" not in scheduler.log.read_text()
    start = ("-d", '{"command": "true", "selector": {}}', f"{url}/v1/jobs")
    for _ in range(3):
        status, problem = curl(NOBODY, *start)
        assert status == 401
        for word in (str(NOBODY), "sudo", "Authorization: Bearer", "local_users"):
            assert word in problem["detail"], problem
    assert curl(0, f"{url}/v1/jobs")[0] == 200
    assert curl(0, "-H", "X-Forwarded-For: 192.0.2.1", f"{url}/v1/jobs")[0] == 401
    refusals = [line for line in scheduler.log.read_text().splitlines() if "refuses the user" in line]
    assert len(refusals) == 1, scheduler.log_tail()
    for word in ("nobody", str(NOBODY), "[http_server] local_users"):
        assert word in refusals[0]


def test_scopes(daemons: Make, folder: Path) -> None:
    """A user with the scope ``run`` starts jobs, and drains no worker; by the port, and by the Unix socket."""
    socket = folder / "http.sock"
    more = f'unix = "{socket}"\nallowed_hosts = ["127.0.0.1"]\n'
    scheduler = daemons("scheduler", with_users(f'{{{NOBODY} = "run", daemon = "read"}}', more)).start()
    daemons("worker", worker_config(scheduler.endpoints["grpc"])).start()
    assert scheduler.endpoints["unix"] == str(socket)
    by_port = (f"http://{scheduler.endpoints['http']}",)
    by_socket = ("--unix-socket", str(socket), "http://localhost")
    job = '{"command": "true", "worker": "w1"}'
    wait_until(lambda: "online" in str(curl(0, f"{by_port[0]}/v1/workers")[1]), "the worker is online")
    for *options, url in (by_port, by_socket):
        status, started = curl(NOBODY, *options, "-d", job, f"{url}/v1/jobs?wait=60")
        assert (status, started["state"]) == (201, "succeeded"), started
        status, problem = curl(NOBODY, *options, "-X", "POST", f"{url}/v1/workers/w1/drain")
        assert (status, problem["needed_scope"]) == (403, "admin")
        status, problem = curl(OTHER, *options, "-d", job, f"{url}/v1/jobs")
        assert (status, problem["needed_scope"]) == (403, "run")
        assert curl(OTHER, *options, f"{url}/v1/jobs")[0] == 200
        assert curl(0, *options, "-X", "POST", f"{url}/v1/workers/w1/drain")[0] == 200
        assert curl(0, *options, "-X", "POST", f"{url}/v1/workers/w1/resume")[0] == 200
        assert curl(1234, *options, f"{url}/v1/jobs")[0] == 401
    scheduler.kill()
    assert not socket.exists()


def test_killed(daemons: Make, folder: Path) -> None:
    """The socket of a scheduler that was killed is replaced; that of one that runs is not."""
    more = f'unix = "{folder}/http.sock"\n'
    scheduler = daemons("scheduler", with_users("{}", more)).start()
    scheduler.crash()
    assert curl(0, "--unix-socket", f"{folder}/http.sock", "http://localhost/v1/jobs")[0] == 200
    other = daemons("scheduler", with_users("{}", more), "other")
    with pytest.raises(pytest.fail.Exception, match=r"\[http_server\] unix = .*is taken"):
        other.start()
    assert curl(0, "--unix-socket", f"{folder}/http.sock", "http://localhost/v1/jobs")[0] == 200


def test_allow_insecure(daemons: Make) -> None:
    """With ``allow_insecure`` everybody is an administrator, and the log warns of it at each start."""
    config = SCHEDULER.replace("[http_server]\n", "[http_server]\nallow_insecure = true\n")
    scheduler = daemons("scheduler", config).start()
    assert curl(NOBODY, f"http://{scheduler.endpoints['http']}/v1/jobs")[0] == 200
    scheduler.kill()
    scheduler.start()
    assert scheduler.log.read_text().count("[http_server] allow_insecure = true: everyone who can reach") == 2


@pytest.fixture
def open_daemons(daemons: Make, folder: Path) -> Make:
    """Makes daemons in a folder that every user can enter; ``daemons`` ends them."""
    assert daemons is not None
    return lambda program, config, name="": Daemon(program, folder / (name or program), config)


def test_two_users(open_daemons: Make, request: pytest.FixtureRequest) -> None:
    """A worker of another user is refused, with a reason in both logs, until the scheduler lets this user in."""
    scheduler = open_daemons("scheduler", SCHEDULER)
    scheduler.keep_ports()
    request.addfinalizer(scheduler.give_up_ports)
    scheduler.start()
    worker = open_daemons("worker", worker_config(scheduler.endpoints["grpc"]))
    worker.start(arguments=("--uid", str(NOBODY), "--gid", str(NOBODY)))
    wait_until(lambda: "the scheduler refuses this worker" in worker.log.read_text(), "the worker is refused")
    assert f"user {NOBODY} is not in local_users of [grpc_server]" in worker.log.read_text()
    assert "gRPC refuses the user nobody (uid 65534)" in scheduler.log.read_text()
    url = f"http://{scheduler.endpoints['http']}/v1/workers"
    assert curl(0, url)[1]["workers"] == []
    scheduler.kill()
    text = scheduler.file.read_text()
    scheduler.file.write_text(text.replace("[grpc_server]\n", '[grpc_server]\nlocal_users = ["nobody"]\n'))
    scheduler.start()
    # the scheduler is root, whom the worker lets call in any case
    wait_until(lambda: "online" in str(curl(0, url)[1]), "the worker is online")


def test_scheduler_of_another_user(open_daemons: Make) -> None:
    """A worker that does not let the scheduler's user call is unreachable for this reason."""
    scheduler = open_daemons("scheduler", SCHEDULER.replace("[grpc_server]\n", "[grpc_server]\nlocal_users = [0]\n"))
    scheduler.start(arguments=("--uid", str(OTHER), "--gid", str(OTHER)))
    refusing = open_daemons("worker", worker_config(scheduler.endpoints["grpc"]), "refusing").start()
    named = worker_config(scheduler.endpoints["grpc"], "w2").replace(
        "[grpc_server]\n", '[grpc_server]\nlocal_users = ["daemon"]\n', 1
    )
    open_daemons("worker", named, "named").start()
    url = f"http://{scheduler.endpoints['http']}/v1/workers"

    def states() -> dict[str, tuple[str, str]]:
        workers = curl(OTHER, url)[1]["workers"]
        return {each["name"]: (each["state"], each["reason"] or "") for each in workers}

    wait_until(lambda: len(states()) == 2 and states()["w2"][0] == "online", "the second worker is online")
    wait_until(lambda: "local_users" in states()["w1"][1], "the reason is known")
    assert states()["w1"][0] == "unreachable", states()
    assert "gRPC refuses the user daemon" in refusing.log.read_text()
