"""Another worker has a worker's address: nothing runs there, and its answers are not believed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest_twisted

from tests.system.api import Api
from tests.system.conftest import SCHEDULER, Daemon, take_port, worker_config

WAITING = 'while [ ! -e "$1" ]; do sleep 0.05; done; exit 7'


def jobs_of(worker: Daemon) -> list[Path]:
    """The folders of all jobs that the worker ever had."""
    return list((worker.state / "jobs").glob("*"))


@pytest_twisted.ensureDeferred
async def test_another_worker_at_the_address(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """A worker of another scheduler takes a killed worker's port: no start runs there, no job is lost."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    first = daemons("worker", worker_config(scheduler.endpoints["grpc"]), "first")
    first.keep_ports()
    first.start()
    api = Api(scheduler)
    (worker,) = await api.online("w1")
    gate = tmp_path / "gate"
    job = await api.submit(worker="w1", command="sh", args=["-c", WAITING, "sh", str(gate)])
    address = first.endpoints["grpc"]
    first.kill(signal.SIGKILL)
    with take_port() as nobody:
        elsewhere = f"127.0.0.1:{nobody.getsockname()[1]}"
        config = worker_config(elsewhere, "w2").replace('"127.0.0.1:0"', f'"{address}"')
        second = daemons("worker", config, "second").start()
        assert second.endpoints["grpc"] == address
        for name in ("w1", worker["id"]):
            status, problem = await api.call("POST", "/v1/jobs", {"worker": name, "command": "true"})
            assert (status, problem["type"]) == (503, "/problems/worker-unreachable"), problem
            assert problem["started"] is False
        waiting = await api.submit(command="true", queue_timeout=300)
        assert (await api.job(waiting))["state"] == "queued"
        await api.until(f"/v1/jobs/{job}", lambda seen: seen["state"] == "unknown")
        status, problem = await api.call("GET", f"/v1/jobs/{job}/output")
        assert status == 503, problem
        assert (await api.call("POST", f"/v1/jobs/{job}/signal", {"signal": "SIGUSR1"}))[0] == 503
        assert jobs_of(second) == []
        second.kill()
    first.start()
    assert (await api.ended(waiting))["state"] == "succeeded"
    await api.until(f"/v1/jobs/{job}", lambda seen: seen["state"] == "running")
    gate.touch()
    ended = await api.ended(job)
    assert (ended["state"], ended["exit_code"]) == ("failed", 7)
    assert len(jobs_of(first)) == 2
