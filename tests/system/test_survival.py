"""Processes are killed by kill -9, and the others must survive: real daemons, real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest_twisted
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.processes import alive, children, tree
from tests.system.api import Api, online_api, pause
from tests.system.conftest import Daemon, wait_until

Cluster = tuple[Daemon, Daemon]

#: Prints a numbered line twenty times a second, waits until a file exists, and exits with the given code.
COUNT = """
import os, sys, time
for n in range({lines}):
    print(n)
    time.sleep(0.05)
while not os.path.exists({gate!r}):
    time.sleep(0.05)
sys.exit({code})
"""

#: A process that ignores TERM, and a grandchild that does so too, in a session of its own.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
os.write(1, b"%d\\n" % os.getpid())
while True:
    time.sleep(1)
"""


def count(lines: int, code: int = 0, gate: Path = Path("/")) -> dict[str, object]:
    """A job that ends only after ``gate`` exists."""
    return {"command": sys.executable, "args": ["-c", COUNT.format(lines=lines, code=code, gate=str(gate))]}


def counted(lines: int) -> bytes:
    return "".join(f"{n}\n" for n in range(lines)).encode()


def zygote_of(worker: Daemon) -> int:
    (zygote,) = (pid for pid in children(worker.pid) if b"zygote" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return zygote


async def exists(file: Path) -> None:
    """Wait until the file exists."""
    await deferToThread(wait_until, file.exists, f"{file} appears")


async def output_pids(api: Api, job_id: str, number: int) -> list[int]:
    """The process ids that a job has printed, once there are so many."""
    for _ in range(400):
        download = await api.open(f"/v1/jobs/{job_id}/output")
        await download.ended
        pids = [int(word) for word in download.body.split()]
        if len(pids) == number:
            return pids
        await pause(0.05)
    raise AssertionError(f"{job_id} printed only {pids}")


@pytest_twisted.ensureDeferred
async def test_kill_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    """Jobs outlive their worker's kill -9: output without a gap, the true exit codes, taken back when it returns."""
    scheduler, worker = cluster
    api = Api(scheduler)
    (before,) = await api.online()
    gate = tmp_path / "gate"
    jobs = [await api.submit(**count(lines=40, code=number % 4, gate=gate)) for number in range(12)]
    following = gatherResults([ensureDeferred(api.follow(job)) for job in jobs])
    short = await api.submit(**count(lines=4, code=7))
    worker.kill(signal.SIGKILL)
    await exists(worker.state / "jobs" / short / "exit.json")  # the short job ends meanwhile
    worker.start()
    returned = time.monotonic()
    await api.until("/v1/workers/w1", lambda w: w["state"] == "online" and w["id"] == before["id"])
    for job in jobs:
        await api.until(f"/v1/jobs/{job}", lambda j: j["state"] == "running")
    assert time.monotonic() - returned < 10
    gate.touch()
    assert (await api.ended(short))["exit_code"] == 7
    assert set(await following) == {counted(40)}
    for number, job in enumerate(jobs):
        ended = await api.ended(job)
        assert (ended["exit_code"], ended["state"]) == (number % 4, "failed" if number % 4 else "succeeded")


@pytest_twisted.ensureDeferred
async def test_kill_the_scheduler(cluster: Cluster, tmp_path: Path) -> None:
    """A killed scheduler comes back with its workers and jobs, and takes the running ones back."""
    scheduler, _ = cluster
    api = Api(scheduler)
    (before,) = await api.online()
    gate = tmp_path / "gate"
    job = await api.submit(**count(lines=40, code=5, gate=gate), labels={"team": "blue"})
    scheduler.crash()
    (after,) = await api.online()
    assert after["id"] == before["id"]
    known = await api.until(f"/v1/jobs/{job}", lambda j: j["state"] == "running")
    assert (known["command"], known["labels"]) == (sys.executable, {"team": "blue"})
    gate.touch()
    assert await api.follow(job) == counted(40)
    assert (await api.ended(job))["exit_code"] == 5


@pytest_twisted.ensureDeferred
async def test_large_arguments(cluster: Cluster) -> None:
    """Large arguments of an ended job, which only the database has, are in each answer, also after a restart."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    args, env = ["x" * 100_000, "y" * 100_000], {"LARGE": "z" * 100_000}
    job = await api.submit(command="true", args=args, env=env)
    for restarted in (False, True):
        if restarted:
            scheduler.kill(signal.SIGTERM)
            scheduler.start()
        (listed,) = (await api.get("/v1/jobs?state=succeeded"))["jobs"] if restarted else [await api.ended(job)]
        for shown in (listed, await api.get(f"/v1/jobs/{job}")):
            assert (shown["state"], shown["args"], shown["env"]) == ("succeeded", args, env)


@pytest_twisted.ensureDeferred
async def test_kill_the_zygote(cluster: Cluster) -> None:
    """Without the process that forks shims the running jobs continue, and the next start works."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(**count(lines=40, code=3))
    os.kill(zygote_of(worker), signal.SIGKILL)
    assert (await api.ended(await api.submit(command="sh", args=["-c", "exit 4"])))["exit_code"] == 4
    assert (await api.ended(job))["exit_code"] == 3
    assert await api.follow(job) == counted(40)


@pytest_twisted.ensureDeferred
async def test_kill_a_shim(cluster: Cluster) -> None:
    """A job whose shim was killed is lost: no code is invented, and none of its processes is left."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(command=sys.executable, args=["-c", STUBBORN])
    pids = await output_pids(api, job, 2)
    (shim,) = (pid for pid in children(zygote_of(worker)) if set(pids) <= tree(pid))
    os.kill(shim, signal.SIGKILL)
    ended = await api.ended(job)
    assert (ended["state"], ended["exit_code"], ended["signal"]) == ("lost", None, None)
    assert [pid for pid in pids if alive(pid)] == []


@pytest_twisted.ensureDeferred
async def test_stop_a_stubborn_tree(cluster: Cluster) -> None:
    """A stop empties a tree that ignores TERM, double-forks and calls setsid within its grace and two seconds."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    job = await api.submit(command=sys.executable, args=["-c", STUBBORN], stop_grace=1)
    pids = await output_pids(api, job, 2)
    asked = time.monotonic()
    status, stopped = await api.call("POST", f"/v1/jobs/{job}/stop")
    took = time.monotonic() - asked
    assert (status, stopped["state"], stopped["signal"]) == (200, "stopped", "SIGKILL")
    assert [pid for pid in pids if alive(pid)] == []
    assert 1 <= took < 3


@pytest_twisted.ensureDeferred
async def test_timeout(cluster: Cluster) -> None:
    """A job past its timeout is stopped as timed out, whether its worker lives or not."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="sleep", args=["600"], timeout=2, stop_grace=1)
    worker.kill(signal.SIGKILL)
    await exists(worker.state / "jobs" / job / "exit.json")
    worker.start()
    ended = await api.until(f"/v1/jobs/{job}", lambda j: j["state"] == "timed_out")
    assert ended["finished_at"] is not None
    assert ended["reason"] == "timed out after 2 s"


@pytest_twisted.ensureDeferred
async def test_stop_a_worker_with_a_job(cluster: Cluster, tmp_path: Path) -> None:
    """After SIGTERM a worker with a running job stays listed as away; the job continues. An idle one deregisters."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    gate = tmp_path / "gate"
    job = await api.submit(**count(lines=40, code=9, gate=gate))
    worker.kill()
    (left,) = (await api.get("/v1/workers"))["workers"]  # at once: its lease has hardly begun
    assert (left["name"], left["state"]) == ("w1", "unreachable")
    away = await api.job(job)
    assert (away["state"], away["reason"]) == ("unknown", "worker 'w1' was stopped, and left it running")
    worker.start()
    await api.online()
    await api.until(f"/v1/jobs/{job}", lambda j: j["state"] == "running")
    gate.touch()
    assert (await api.ended(job))["exit_code"] == 9
    assert await api.follow(job) == counted(40)
    worker.kill()
    assert [each["state"] for each in (await api.get("/v1/workers"))["workers"]] == ["offline"]


@pytest_twisted.ensureDeferred
async def test_worker_first(cluster: Cluster) -> None:
    """A worker that starts before its scheduler keeps trying, and registers when it can."""
    scheduler, worker = cluster
    worker.kill()
    scheduler.kill()
    worker.start()
    await deferToThread(wait_until, lambda: "no contact with the scheduler" in worker.log.read_text(), "it has tried")
    assert alive(worker.pid)
    scheduler.start()
    await Api(scheduler).online()


@pytest_twisted.ensureDeferred
async def test_stop_later(cluster: Cluster) -> None:
    """A stop that can't be delivered is accepted, and carried out when the worker is back."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="sh", args=["-c", "echo $$; exec sleep 600"])
    (pid,) = await output_pids(api, job, 1)
    worker.kill(signal.SIGKILL)
    status, accepted = await api.call("POST", f"/v1/jobs/{job}/stop")
    assert (status, accepted["finished_at"]) == (202, None)
    assert accepted["stop_requested_at"] is not None
    status, core = await api.call("POST", "/stop", {"worker_id": "w1", "job_id": job})
    assert (status, core) == (202, {"success": False, "stop_requested_at": accepted["stop_requested_at"]})
    assert alive(pid)
    worker.start()
    stopped = await api.until(f"/v1/jobs/{job}", lambda j: j["state"] == "stopped")
    assert (stopped["signal"], stopped["stop_requested_at"]) == ("SIGTERM", accepted["stop_requested_at"])
    assert not alive(pid)


@pytest_twisted.ensureDeferred
async def test_orphan(cluster: Cluster) -> None:
    """A job of a forgotten worker stays lost, but when the worker is back it can be shown, followed and stopped."""
    scheduler, worker = cluster
    api = Api(scheduler)
    (before,) = await api.online()
    job = await api.submit(command="sh", args=["-c", "echo $$; exec sleep 600"])
    (pid,) = await output_pids(api, job, 1)
    worker.kill(signal.SIGKILL)
    await api.until("/v1/workers/w1", lambda w: w["state"] == "unreachable")
    assert (await api.call("DELETE", "/v1/workers/w1"))[0] == 204
    lost = await api.job(job)
    assert (lost["state"], lost["reason"], lost["orphan"]) == ("lost", "forgotten", False)
    worker.start()
    orphan = await api.until(f"/v1/jobs/{job}", lambda j: j["orphan"])
    assert orphan == {**lost, "orphan": True}
    (after,) = await api.online()
    assert (after["id"], after["running_jobs"]) == (before["id"], 1)
    assert [j["id"] for j in (await api.get("/v1/jobs?orphan=1"))["jobs"]] == [job]
    following = ensureDeferred(api.follow(job))
    status, stopped = await api.call("POST", f"/v1/jobs/{job}/stop")
    assert (status, stopped["state"], stopped["orphan"]) == (200, "lost", False)
    assert not alive(pid)
    assert await following == f"{pid}\n".encode()
    assert (await api.get("/v1/workers/w1"))["running_jobs"] == 0
