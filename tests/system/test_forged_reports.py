"""A worker that forges reports, beside a real one, over the real wire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import pytest_twisted

from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2
from tests.system.api import Api
from tests.system.conftest import SCHEDULER, Cluster, Daemon, worker_config

FORGED = 5_000
END_OF_TIME = 253402300799.0


def status(job_id: str, **facts: Any) -> worker_pb2.JobStatus:
    facts = {"outcome": worker_pb2.SUCCEEDED, "exitCode": 0, "startedAt": 1000.0, "finishedAt": END_OF_TIME} | facts
    return worker_pb2.JobStatus(jobID=job_id, **facts)


class Forger:
    """Speaks the whole protocol, under the name ``forger``."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self._stub = scheduler_pb2_grpc.SchedulerStub(self.channel)
        self._id = self.register(name="forger").workerID

    def register(self, **facts: Any) -> scheduler_pb2.RegisterRes:
        request = scheduler_pb2.RegisterReq(address="127.0.0.1:9", **({"bootID": "boot"} | facts))
        return self._stub.RegisterWorker(request, timeout=20)

    def tell(self, *ended: worker_pb2.JobStatus) -> scheduler_pb2.HeartbeatRes:
        reports = [scheduler_pb2.JobReport(status=each) for each in ended]
        return self._beat(ended=reports)

    def describe(self, *ended: worker_pb2.JobStatus) -> scheduler_pb2.HeartbeatRes:
        start = worker_pb2.StartJobReq(command="forged", createdAt=END_OF_TIME)
        return self._beat(described=[scheduler_pb2.JobReport(status=each, start=start) for each in ended])

    def _beat(self, **facts: Any) -> scheduler_pb2.HeartbeatRes:
        request = scheduler_pb2.HeartbeatReq(workerID=self._id, bootID="boot", **facts)
        return self._stub.Heartbeat(request, timeout=20)


@pytest.fixture
def pair(daemons: Any) -> Cluster:
    """A scheduler and its worker ``w1``, which no other test uses."""
    scheduler: Daemon = daemons("scheduler", SCHEDULER)
    scheduler.start()
    worker: Daemon = daemons("worker", worker_config(scheduler.endpoints["grpc"]))
    worker.start()
    return scheduler, worker


@pytest.fixture
def forger(pair: Cluster) -> Iterator[Forger]:
    forger = Forger(pair[0].endpoints["grpc"])
    yield forger
    forger.channel.close()


@pytest_twisted.ensureDeferred
async def test_forged_reports(pair: Cluster, forger: Forger) -> None:
    """However much a worker forges, it gets a few jobs of its own, with possible times, and changes no other job."""
    api = Api(pair[0])
    await api.online("w1")
    running = await api.submit(worker="w1", command="sleep", args=["600"])
    ended = await api.ended(await api.submit(worker="w1", command="true"))

    forged = [f"forged-{number}" for number in range(FORGED)]
    answer = forger.describe(*map(status, forged))
    assert (len(answer.describe), list(answer.acknowledged)) == (64, [])
    answer = forger.describe(*map(status, forged))
    assert len(answer.acknowledged) == 64
    jobs = (await api.get("/v1/jobs?worker=forger&limit=1000"))["jobs"]
    assert len(jobs) == 64
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    assert all(job[name] <= now for job in jobs for name in ("created_at", "finished_at"))

    assert not forger.tell(status(running)).acknowledged
    assert (await api.job(running))["state"] == "running"
    assert await api.job(ended["id"]) == ended
    bad = [status("contradicting", exitCode=7), status("later", outcome=99), status("damaged", finishedAt=1e300)]
    answer = forger.tell(*bad, status(jobs[0]["id"]))
    assert list(answer.acknowledged) == [jobs[0]["id"]]
    assert not {each.jobID for each in bad} & set(answer.describe)


@pytest_twisted.ensureDeferred
async def test_forged_registrations(pair: Cluster, forger: Forger) -> None:
    """A registration with another's id, with impossible texts, or with a chosen id is refused."""
    api = Api(pair[0])
    await api.online("w1")
    worker = await api.get("/v1/workers/w1")
    before = await api.get("/v1/workers")
    for code, facts in (
        (grpc.StatusCode.FAILED_PRECONDITION, {"name": worker["id"]}),
        (grpc.StatusCode.INVALID_ARGUMENT, {"version": "x" * 65}),
        (grpc.StatusCode.INVALID_ARGUMENT, {"bootID": "x" * 65}),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            forger.register(**facts)
        assert refused.value.code() is code
    after = await api.get("/v1/workers")
    assert [each["id"] for each in after["workers"]] == [each["id"] for each in before["workers"]]
    assert forger.register(workerID="w1", name="other").workerID != "w1"
    assert (await api.get("/v1/workers/w1"))["id"] == worker["id"]
