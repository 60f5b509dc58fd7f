"""Starts on workers that have just registered or come back; real daemons, and stand-ins for workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.system.api import Api, pause
from tests.system.conftest import SCHEDULER, Daemon, worker_config

STAND_INS = Path(__file__).parent / "stand_ins"

#: Workers that are idle when their scheduler is killed.
FLEET = 100

#: Seconds within which all of them have a job again after ``/readyz``. The aim is 1; a busy machine takes longer.
BACK_SECONDS = 20.0

Make = Callable[..., Daemon]


@pytest.fixture
def scheduler(daemons: Make) -> Daemon:
    """A scheduler, which keeps its ports when it is restarted.

    Its workers' regular heartbeats are further apart than a start waits.
    """
    made = daemons("scheduler", SCHEDULER.replace('lease = "6s"', 'lease = "30s"'))
    made.keep_ports()
    made.start()
    return made


def stand_in(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A process whose lines can be read; ``daemons`` ends it."""
    command = [sys.executable, str(STAND_INS / program), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return str(await deferToThread(process.stdout.readline)).strip()


def start(api: Api, **target: Any) -> Deferred[tuple[int, Any]]:
    """Start a job; the status and document."""
    return ensureDeferred(api.call("POST", "/v1/jobs", {"command": "true", **target}))


@pytest_twisted.ensureDeferred
async def test_right_after_a_registration(scheduler: Daemon) -> None:
    """A worker that has just registered gets a job, by its name or by selector, though it answers late."""
    api = Api(scheduler)
    name = await line(stand_in("fleet.py", scheduler.endpoints["grpc"], "1", "1.0"))
    answers = await gatherResults([start(api, worker=name), start(api, selector={}, queue_timeout=0)])
    assert [(status, job["state"], job["worker_name"]) for status, job in answers] == [(201, "running", name)] * 2


async def first_starts(scheduler: Daemon, api: Api, names: list[str]) -> float:
    """The seconds from ``/readyz``, after the scheduler was killed, in which a job starts on each worker."""
    scheduler.crash()
    while (await api.call("GET", "/readyz"))[0] != 200:
        await pause(0.01)
    began = time.monotonic()
    answers = await gatherResults([start(api, worker=name) for name in names])
    seconds = time.monotonic() - began
    assert [(status, job.get("state")) for status, job in answers] == [(201, "running")] * FLEET
    assert seconds < BACK_SECONDS
    return seconds


@pytest_twisted.ensureDeferred
async def test_after_a_restart(scheduler: Daemon) -> None:
    """After the scheduler was killed and restarted, the first start on each of many idle workers is no 503."""
    api = Api(scheduler)
    fleet = stand_in("fleet.py", scheduler.endpoints["grpc"], str(FLEET), "0.0")
    names = [await line(fleet) for _ in range(FLEET)]
    await api.online(*names)
    seconds = await first_starts(scheduler, api, names)
    print(f"the first starts on {FLEET} idle workers took {seconds:.2f} s from /readyz")  # noqa: T201 - a figure


@pytest_twisted.ensureDeferred
async def test_among_mute_ones(scheduler: Daemon, daemons: Make) -> None:
    """The same holds if as many others send heartbeats but answer no call; a killed worker is back meanwhile, too."""
    api = Api(scheduler)
    fleet = stand_in("fleet.py", scheduler.endpoints["grpc"], str(FLEET), "0.0", str(FLEET))
    names = [name for name in [await line(fleet) for _ in range(2 * FLEET)] if name.startswith("idle")]
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], "killed")).start()
    await api.online(*names, "killed")
    seconds = await first_starts(scheduler, api, names)
    print(f"the first starts on {FLEET} idle workers among as many mute ones took {seconds:.2f} s")  # noqa: T201
    await api.online("killed")
    worker.crash()
    began = time.monotonic()
    _, job = await start(api, worker="killed", queue_timeout="20s")
    await api.ended(job["id"])
    seconds = time.monotonic() - began
    print(f"a worker that was killed among them has ended a job after {seconds:.2f} s")  # noqa: T201 - a figure
    assert seconds < BACK_SECONDS
    tasks = len(list(Path(f"/proc/{scheduler.pid}/task").iterdir()))
    print(f"the scheduler has {tasks} threads")  # noqa: T201 - a figure


@pytest_twisted.ensureDeferred
async def test_no_worker(scheduler: Daemon) -> None:
    """A program that is no worker gets no job: each job goes to the real worker, and the list gives the reason."""
    api = Api(scheduler)
    name = await line(stand_in("fleet.py", scheduler.endpoints["grpc"], "1", "0.0"))
    stranger = stand_in("stranger.py", scheduler.endpoints["grpc"])
    stranger_id = await line(stranger)
    await api.online(name, stranger_id)
    answers = await gatherResults([start(api, selector={}, queue_timeout=0) for _ in range(20)])
    assert [(status, job["worker_name"]) for status, job in answers] == [(201, name)] * 20
    why = "calls to it fail: it answers StartJob with UNIMPLEMENTED: it is no worker"
    worker = await api.get(f"/v1/workers/{stranger_id}")
    assert (worker["state"], worker["reason"]) == ("unreachable", why)
    status, problem = await start(api, worker=stranger_id)
    assert (status, problem["type"]) == (503, "/problems/worker-unreachable")
    assert problem["detail"].endswith(why)
    asked = 0
    while asked < 1:  # its health service still answers meanwhile
        asked += await line(stranger) == "QueryJob"
    assert (await api.get(f"/v1/workers/{stranger_id}"))["state"] == "unreachable"
