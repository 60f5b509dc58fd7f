"""Programs that speak only the core protocol, in both directions, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.system.api import Api
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config

STAND_INS = Path(__file__).parent / "interop"

#: (program, arguments) -> a process whose lines can be read. The folder of the stubs precedes the arguments.
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def stand_in(tmp_path: Path, daemons: object) -> Start:
    """Starts a stand-in; ``daemons`` ends it if it is left."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    generate = [sys.executable, "-m", "grpc_tools.protoc", f"-I{STAND_INS}", f"--python_out={stubs}"]
    subprocess.run([*generate, f"--grpc_python_out={stubs}", "core.proto"], check=True, timeout=60)

    def start(program: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(STAND_INS / program), str(stubs), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest_twisted.ensureDeferred
async def test_their_worker(daemons: Callable[..., Daemon], stand_in: Start) -> None:
    """A core worker registers and is driven; its output is 501, and ends of its jobs are noticed without a query."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    api = Api(scheduler)
    worker_id = line(stand_in("worker.py", scheduler.endpoints["grpc"]))
    (worker,) = await api.online(worker_id)
    assert (worker["slots"], worker["version"]) == (None, None)
    for command, state, code in (("false", "failed", 1), ("true", "succeeded", 0)):
        ended = await api.ended(await api.submit(worker=worker_id, command=command))
        assert (ended["state"], ended["exit_code"]) == (state, code)
    where = {"worker_id": worker_id}
    _, started = await api.call("POST", "/start", {**where, "command": "sleep", "path": "600"})
    job = {**where, "job_id": started["job_id"]}
    assert not started["job_id"].startswith("theirs")
    assert (await api.call("POST", "/query", job))[1] == {"done": False, "error": False, "error_text": ""}
    assert (await api.call("GET", f"/v1/jobs/{started['job_id']}/output"))[0] == 501
    assert (await api.call("POST", "/v1/jobs", {"worker": worker_id, "command": "sh", "args": ["-c", "x"]}))[0] == 501
    assert await api.call("POST", "/stop", job) == (200, {"success": True})
    _, answer = await api.call("POST", "/query", job)
    assert answer == {"done": True, "error": True, "error_text": "signal: terminated"}
    assert (await api.job(started["job_id"]))["state"] == "stopped"


def test_their_scheduler(daemons: Callable[..., Daemon], stand_in: Start) -> None:
    """Our worker under a core scheduler that leaves ``success`` unset, from registration to departure.

    It registers once, is driven, keeps no ended job for longer than ``keep_spool`` though none is acknowledged, leaves,
    and comes back.
    """
    theirs = stand_in("scheduler.py")
    worker = daemons("worker", worker_config(line(theirs), more='keep_spool = "7s"\n')).start()
    said = [line(theirs) for _ in range(4)]
    assert said == ["registration 1", "True exit status 1", "False", "True signal: terminated"]
    jobs = worker.state / "jobs"
    assert list(jobs.iterdir())
    wait_until(lambda: not list(jobs.iterdir()), "the ended jobs are removed")  # later than a further registration
    worker.kill()
    assert line(theirs) == "deregistered host.example:5, given by them"
    worker.start()
    assert line(theirs) == "registration 2"
    worker.kill()
    assert line(theirs) == "deregistered host.example:5, given by them"
