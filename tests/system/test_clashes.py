"""Workers that claim the name or address of another worker, or of the scheduler, with real daemons."""

from __future__ import annotations

import grpc
import pytest_twisted
from twisted.internet.threads import deferToThread

from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from tests.system.api import Api
from tests.system.conftest import Daemon, wait_until, worker_config

Cluster = tuple[Daemon, Daemon]


async def logged(daemon: Daemon, text: str) -> None:
    """Wait until the log of that process contains the text."""
    await deferToThread(wait_until, lambda: text in daemon.log.read_text(errors="replace"), f"it logs {text}")


async def refused(cluster: Cluster, name: str, more: str, why: str) -> Daemon:
    """A second worker, once both logs say why it is refused."""
    scheduler, worker = cluster
    second = Daemon("worker", worker.folder.with_name("second"), worker_config(scheduler.endpoints["grpc"], name, more))
    second.start()
    for daemon in (second, scheduler):
        await logged(daemon, why)
    return second


@pytest_twisted.ensureDeferred
async def test_name(cluster: Cluster) -> None:
    """A name belongs to the worker that answers, whoever registers. Another gets it when that one is gone."""
    api = Api(cluster[0])
    (first,) = await api.online("w1")
    second = await refused(cluster, "w1", "", f"name 'w1' is taken by worker {first['id']}, which answers at")
    assert [each["id"] for each in (await api.get("/v1/workers"))["workers"]] == [first["id"]]
    job = await api.submit(worker="w1", command="true")
    assert (await api.ended(job))["worker_id"] == first["id"]
    cluster[1].kill()
    taken = await api.until("/v1/workers/w1", lambda each: each["id"] != first["id"] and each["state"] == "online")
    assert (await api.get(f"/v1/workers/{first['id']}"))["name"] == first["id"]
    job = await api.submit(worker="w1", command="true")
    assert (await api.ended(job))["worker_id"] == taken["id"]
    second.kill()


@pytest_twisted.ensureDeferred
async def test_address(cluster: Cluster) -> None:
    """If two workers claim one address, the one that answers there stays."""
    api = Api(cluster[0])
    (first,) = await api.online("w1")
    address = first["address"]
    more = f'advertise_addr = "{address}"\n'
    second = await refused(cluster, "w2", more, f"address {address} is that of worker 'w1' ({first['id']})")
    assert [each["name"] for each in (await api.get("/v1/workers"))["workers"]] == ["w1"]
    second.kill()


@pytest_twisted.ensureDeferred
async def test_own_address(cluster: Cluster) -> None:
    """No worker may claim the scheduler's own addresses."""
    scheduler, worker = cluster
    api = Api(scheduler)
    await api.online("w1")
    for number, address in enumerate(scheduler.endpoints.values()):
        more = f'advertise_addr = "{address}"\n'
        config = worker_config(scheduler.endpoints["grpc"], f"own-{number}", more)
        second = Daemon("worker", worker.folder.with_name(f"own-{number}"), config)
        second.start()
        await logged(second, f"address '{address}' is the scheduler's own")
        second.kill()
    assert [each["name"] for each in (await api.get("/v1/workers"))["workers"]] == ["w1"]


@pytest_twisted.ensureDeferred
async def test_core_worker_again(cluster: Cluster) -> None:
    """A core worker that registers again at its address keeps its id."""
    scheduler, _ = cluster
    with grpc.insecure_channel(scheduler.endpoints["grpc"]) as channel:
        stub = scheduler_pb2_grpc.SchedulerStub(channel)
        ids = [
            stub.RegisterWorker(scheduler_pb2.RegisterReq(address=address), timeout=20).workerID
            for address in ("127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:10")
        ]
    assert ids[0] == ids[1] != ids[2]
