"""The identity of a worker by its state folder, kept, copied or broken, with real daemons."""

from __future__ import annotations

import shutil
import subprocess

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.system.api import Api
from tests.system.conftest import BIN, Daemon, wait_until, worker_config

Cluster = tuple[Daemon, Daemon]


def logs(daemon: Daemon, text: str) -> bool:
    return text in daemon.log.read_text(errors="replace")


def copy_of(worker: Daemon, scheduler: Daemon, name: str) -> Daemon:
    """A worker with that name and a copy of the other's folder, taken while that worker runs."""
    folder = worker.folder.with_name(f"copy-{name}")
    copy = Daemon("worker", folder, worker_config(scheduler.endpoints["grpc"], name))
    shutil.copytree(worker.state, copy.state, symlinks=True)
    return copy


@pytest_twisted.ensureDeferred
async def test_id_of_the_folder(cluster: Cluster) -> None:
    """A worker gets its id and its jobs back by its folder id, even if the assigned id is lost."""
    scheduler, worker = cluster
    api = Api(scheduler)
    (before,) = await api.online("w1")
    job = await api.submit(worker="w1", command="sh", args=["-c", "while [ ! -e told ]; do sleep 0.05; done; exit 3"])
    worker.kill()
    (worker.state / "worker_id").unlink()
    worker.start()
    (after,) = await api.online("w1")
    assert after["id"] == before["id"]
    (worker.state / "jobs" / job / "work" / "told").touch()
    assert (await api.ended(job))["exit_code"] == 3  # so the worker knows its id by now
    assert (worker.state / "worker_id").read_text() == f"{before['id']}\n"


@pytest_twisted.ensureDeferred
async def test_broken_folder_id(cluster: Cluster) -> None:
    """A worker whose folder id is broken does not start as another one: it names the file and the remedy."""
    _, worker = cluster
    worker.kill()
    file = worker.state / "folder_id"
    file.write_text("broken\n")
    command = [str(BIN / "twistd"), "-n", "worker", "-c", str(worker.file)]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=worker.folder)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"{file}: must hold the id of this state folder,"), refused.stderr
    assert "restore it from a backup" in refused.stderr
    assert file.read_text() == "broken\n"


@pytest_twisted.ensureDeferred
async def test_copy(cluster: Cluster) -> None:
    """A copy is refused while its original answers, and runs with ``--new-id``; the original's job continues."""
    scheduler, worker = cluster
    api = Api(scheduler)
    (original,) = await api.online("w1")
    job = await api.submit(worker="w1", command="sh", args=["-c", "while [ ! -e told ]; do sleep 0.05; done; exit 3"])
    copy = copy_of(worker, scheduler, "w2")

    copy.start()
    await deferToThread(wait_until, lambda: logs(copy, "start it once with --new-id"), "the copy is refused")
    assert logs(copy, f"worker 'w1' ({original['id']}) is registered by another process, which answers at")
    assert logs(copy, f"is a copy of the one that job {job} was begun from")
    assert [each["name"] for each in (await api.get("/v1/workers"))["workers"]] == ["w1"]
    copy.kill()

    copy.start(options=("--new-id",))
    _, own = await api.online("w1", "w2")
    assert own["id"] != original["id"]
    assert sorted(each.name for each in copy.state.glob("*-of-*")) == [
        f"jobs-of-{original['id']}",
        f"used-ids-of-{original['id']}",
    ]
    assert (await api.job(job))["state"] == "running"
    own_job = await api.submit(worker="w2", command="true")
    assert (await api.ended(own_job))["state"] == "succeeded"

    copy.kill()
    copy.start()
    _, again = await api.online("w1", "w2")
    assert again["id"] == own["id"]
    (worker.state / "jobs" / job / "work" / "told").touch()
    ended = await api.ended(job)
    assert (ended["worker_name"], ended["exit_code"]) == ("w1", 3)


@pytest_twisted.ensureDeferred
async def test_folder_in_use(cluster: Cluster) -> None:
    """A folder that a worker uses gets no other id."""
    _, worker = cluster
    before = (worker.state / "folder_id").read_bytes()
    command = [str(BIN / "twistd"), "-n", "worker", "-c", str(worker.file), "--new-id"]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=worker.folder)
    assert refused.returncode == 1
    assert "is in use by a running process; each worker needs a folder of its own" in refused.stderr
    assert (worker.state / "folder_id").read_bytes() == before


@pytest_twisted.ensureDeferred
async def test_secret(cluster: Cluster) -> None:
    """The folder id is in no log, no list, and no answer about the worker."""
    scheduler, worker = cluster
    api = Api(scheduler)
    await api.online("w1")
    secret = (worker.state / "folder_id").read_text().strip()
    command = [str(BIN / "schedctl"), "doctor", "--config", str(worker.file)]
    doctor = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=worker.folder)
    shown = [
        str(await api.get("/v1/workers")),
        doctor.stdout + doctor.stderr,
        scheduler.log.read_text(),
        worker.log.read_text(),
        (worker.state / "endpoints.json").read_text(),
        (worker.state / "worker_id").read_text(),
    ]
    assert [text for text in shown if secret in text] == []
    stored = [each for each in scheduler.state.iterdir() if each.is_file() and secret.encode() in each.read_bytes()]
    assert stored == []
