"""Programs in another language that speak only the core protocol, and answer each call in every possible way.

They are Node programs with ``@grpc/grpc-js``, which npm fetches when the tests run. Without Node or npm they are
skipped, unless ``REQUIRE_NODE`` is set, as in ``.ci/run``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from scheduler.errors import AnswerUnreadable, DeadlineExceeded, SchedulerError, Unreachable, Unsupported, WorkerFault
from scheduler.messages import Heartbeat, Registration
from scheduler.net import Address
from scheduler.rpc.scheduler_client import SchedulerClient
from tests.system.api import Api, pause
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config

HERE = Path(__file__).parent
PROTO = HERE / "interop" / "core.proto"
INSTALL = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
INSTALL_DEADLINE_SECONDS = 120

#: The codes of gRPC other than success.
CODES = range(1, 17)
CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, UNIMPLEMENTED, UNAVAILABLE = 1, 4, 5, 12, 14


def _unavailable(why: str) -> None:
    if os.environ.get("REQUIRE_NODE"):
        pytest.fail(f"REQUIRE_NODE is set, and {why}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs and their packages, shared by all processes of the run."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            _unavailable(f"there is no {program}")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "node"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.copytree(HERE / "node", folder, dirs_exist_ok=True)
            try:
                subprocess.run(INSTALL, cwd=folder, check=True, timeout=INSTALL_DEADLINE_SECONDS, capture_output=True)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or b""
                _unavailable(f"npm can't install what they need: {error} {said.decode(errors='replace')[:500]}")
            (folder / "installed").touch()
    return folder


class Program:
    """A running program: ``line`` reads its output, ``tell`` writes to it."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.process = subprocess.Popen(
            ["node", *command], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.line()


Start = Callable[..., Program]


@pytest.fixture
def node(installed: Path, daemons: object) -> Iterator[Start]:
    """Starts one of the programs; ``daemons`` ends it if it is left."""
    started: list[Program] = []

    def start(*command: str) -> Program:
        started.append(Program(installed, *command))
        return started[-1]

    yield start
    for program in started:
        program.process.stdin.close()
        program.process.stdout.close()


class Cluster:
    """Our scheduler and their worker."""

    def __init__(self, scheduler: Daemon, worker: Program, worker_id: str) -> None:
        self.scheduler, self.worker, self.worker_id = scheduler, worker, worker_id
        self.api = Api(scheduler)

    async def start(self, path: str) -> tuple[int, Any]:
        return await self.api.call("POST", "/start", {"worker_id": self.worker_id, "command": "x", "path": path})

    async def begun(self, path: str) -> str:
        """The id of a running job.

        A program that answers a query with UNIMPLEMENTED counts as no worker until it gives another answer.
        """
        for _ in range(300):
            status, answer = await self.start(path)
            if status != 503:
                break
            await pause(0.1)
        assert status == 201, answer
        return answer["job_id"]

    async def about(self, route: str, job_id: str) -> tuple[int, Any]:
        return await self.api.call("POST", route, {"worker_id": self.worker_id, "job_id": job_id})

    def starts(self) -> dict[str, int]:
        """The number of starts of each path."""
        return json.loads(self.worker.ask("starts"))


@pytest.fixture
def cluster(daemons: Callable[..., Daemon], node: Start) -> Cluster:
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = node("worker.js", str(PROTO), scheduler.endpoints["grpc"])
    return Cluster(scheduler, worker, worker.line())


def together(*coroutines: Any) -> Deferred[list[Any]]:
    return gatherResults([ensureDeferred(each) for each in coroutines], consumeErrors=True)


@pytest_twisted.ensureDeferred
async def test_starts(cluster: Cluster) -> None:
    """A start becomes a job that runs, has failed with the worker's words, or is unknown; and is made once."""
    api = cluster.api
    await api.online(cluster.worker_id)

    async def code(number: int) -> None:
        status, answer = await cluster.start(f"start=code:{number}")
        if number in (CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE):
            assert (status, answer["type"]) == (504, "/problems/start-unanswered"), (number, answer)
            assert (await api.job(answer["job_id"]))["state"] in ("unknown", "lost")
            return
        assert status == 201, (number, answer)
        job = await api.job(answer["job_id"])
        assert job["state"] == "failed", (number, job)
        assert job["reason"].endswith(f"answered with a fault: code {number}, says node"), job

    async def long(number: int) -> None:
        job_id = await api.submit(worker=cluster.worker_id, command="x", path=f"start=long:{number}", queue_timeout=60)
        job = await api.job(job_id)
        assert job["state"] == "failed", job
        assert f"code {number}, says node!!!" in job["reason"]
        assert len(job["reason"]) < 5000

    async def large() -> None:
        status, answer = await cluster.start("start=large")
        assert (status, answer["type"]) == (504, "/problems/start-unanswered"), answer
        assert "larger than max" in answer["detail"]
        assert (await api.job(answer["job_id"]))["state"] in ("unknown", "lost")

    async def never() -> None:
        status, answer = await cluster.start("start=never")
        assert status == 504
        await pause(3.0)
        assert (await api.job(answer["job_id"]))["state"] == "unknown"
        status, answer = await cluster.about("/stop", answer["job_id"])
        assert (status, answer["success"]) == (202, False), answer

    async def late() -> None:
        status, answer = await cluster.start("start=late:12,for=1")
        assert status == 504
        job = await api.ended(answer["job_id"])
        assert (job["state"], job["exit_code"]) == ("succeeded", 0), job

    for number in CODES:
        if number != UNIMPLEMENTED:
            await code(number)
    for number in (2, 8, 13):
        await long(number)
    await large()
    await together(never(), late())
    status, answer = await cluster.start(f"start=code:{UNIMPLEMENTED}")
    assert (status, answer["type"], answer["started"]) == (503, "/problems/worker-unreachable", False), answer
    await api.online(cluster.worker_id)
    assert set(cluster.starts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_queries(cluster: Cluster) -> None:
    """A job about which its worker does not answer, in whatever way, hides the end of no other."""
    api = cluster.api
    await api.online(cluster.worker_id)
    bad = {number: await cluster.begun(f"query=code:{number}") for number in CODES}
    behaviours = ("long:13", "large", "late:20", "never")
    others = {behaviour: await cluster.begun(f"query={behaviour}") for behaviour in behaviours}
    good = [await cluster.begun(f"for={number}") for number in range(3)]
    for job in await together(*map(api.ended, good)):
        assert (job["state"], job["exit_code"]) == ("succeeded", 0), job

    async def queried(job_id: str, *expected: int) -> None:
        # A program that answers a query with UNIMPLEMENTED counts as no worker until it gives another answer.
        for _ in range(100):
            status, answer = await cluster.about("/query", job_id)
            if status in expected:
                return
            assert status == 503, answer
            await pause(0.1)
        raise AssertionError(answer)

    lost = await api.job(bad.pop(NOT_FOUND))
    assert (lost["state"], lost["reason"]) == ("lost", "no record")
    for number, job_id in bad.items():
        assert (await api.job(job_id))["state"] in ("running", "unknown"), number
        if number in (CANCELLED, UNIMPLEMENTED, UNAVAILABLE):
            await queried(job_id, 503)
        else:
            await queried(job_id, 504 if number == DEADLINE_EXCEEDED else 502)
    await queried(others["long:13"], 502)
    await queried(others["large"], 502)
    await together(queried(others["late:20"], 504), queried(others["never"], 504))


@pytest_twisted.ensureDeferred
async def test_stops(cluster: Cluster) -> None:
    """A stop is 200 once the job has ended, 202 if its arrival is unknown, else the worker's fault."""
    api = cluster.api
    await api.online(cluster.worker_id)

    async def stop(path: str, expected: int, state: str) -> Any:
        job_id = await cluster.begun(path)
        status, answer = await cluster.about("/stop", job_id)
        assert status == expected, (path, answer)
        job = await api.job(job_id)
        assert job["state"] == state, (path, job)
        return job

    assert (await stop("", 200, "stopped"))["signal"] == "SIGTERM"
    caught = await stop("catches", 200, "stopped")
    assert (caught["exit_code"], caught["reason"]) == (0, "stopped")
    expected = {CANCELLED: 202, DEADLINE_EXCEEDED: 202, UNAVAILABLE: 202, UNIMPLEMENTED: 501}
    for number in CODES:
        if number == NOT_FOUND:
            await stop(f"stop=code:{number}", 200, "lost")
        else:
            await stop(f"stop=code:{number}", expected.get(number, 502), "running")
    await stop("stop=long:13", 502, "running")
    large = await cluster.begun("stop=large")  # this stop is carried out
    assert (await cluster.about("/stop", large))[0] == 502
    assert (await api.ended(large))["state"] == "stopped"
    await together(stop("stop=late:2", 200, "stopped"), stop("stop=never", 202, "running"))


@pytest_twisted.ensureDeferred
async def test_deregistered(cluster: Cluster) -> None:
    """A worker is listed with its job after it has left, takes it back when it returns, and can be forgotten."""
    api = cluster.api
    await api.online(cluster.worker_id)
    job_id = await cluster.begun("")
    for left in range(2):
        assert cluster.worker.ask("deregister") == "deregistered"
        (worker,) = (await api.get("/v1/workers"))["workers"]
        assert (worker["id"], worker["state"], worker["running_jobs"]) == (cluster.worker_id, "offline", 1)
        assert (await api.job(job_id))["state"] == "unknown"
        if not left:
            assert cluster.worker.ask("register") == cluster.worker_id
            await api.online(cluster.worker_id)
            await api.until(f"/v1/jobs/{job_id}", lambda job: job["state"] == "running")
    assert (await api.call("DELETE", f"/v1/workers/{cluster.worker_id}"))[0] == 204
    assert (await api.get("/v1/workers"))["workers"] == []
    job = await api.job(job_id)
    assert (job["state"], job["reason"]) == ("lost", "forgotten")
    assert cluster.worker.ask("register") == cluster.worker_id
    assert cluster.worker.ask("deregister") == "deregistered"
    assert (await api.get("/v1/workers"))["workers"] == []


def _expected(behaviour: str) -> type[SchedulerError] | None:
    """Our worker's error for an answer to a registration; ``None``: it succeeds."""
    kind, _, value = behaviour.partition(":")
    if kind in ("late", "never"):
        return DeadlineExceeded
    if kind == "large":
        return AnswerUnreadable
    if kind == "code" and int(value) in (CANCELLED, UNAVAILABLE):
        return Unreachable
    if kind == "code" and int(value) in (DEADLINE_EXCEEDED, UNIMPLEMENTED):
        return DeadlineExceeded if int(value) == DEADLINE_EXCEEDED else Unsupported
    return None if kind == "ok" else WorkerFault


@pytest_twisted.ensureDeferred
async def test_their_scheduler_answers(node: Start) -> None:
    """Our worker reads each answer of a scheduler correctly, and can make each call again after it."""
    theirs = node("scheduler.js", str(PROTO))
    client = SchedulerClient(reactor, Address(*_parts(theirs.line())), None, deadline=2.0)
    client.startService()
    behaviours = [*(f"code:{number}" for number in CODES), "long:13", "long:8", "large", "late:4", "never", "ok"]
    try:
        for name, call in (
            ("RegisterWorker", lambda: client.register(Registration("127.0.0.1:9"))),
            ("DeregisterWorker", lambda: client.deregister("w", "")),
        ):
            assert theirs.ask(" ".join((name, *behaviours))) == "planned"
            for behaviour in behaviours:
                error: SchedulerError | None = None
                try:
                    answer = await call()
                except SchedulerError as failed:
                    error = failed
                expected = _expected(behaviour)
                assert (None if error is None else type(error)) is expected, (name, behaviour, error)
                assert theirs.line() == f"{name} {behaviour}"
                assert len(str(error)) < 5000
            assert name != "RegisterWorker" or answer.worker_id == "node's worker: 1"
        with pytest.raises(Unsupported):
            await client.heartbeat(Heartbeat("w", "boot", ()))
    finally:
        await client.stopService()


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def test_their_scheduler(daemons: Callable[..., Daemon], node: Start) -> None:
    """Our worker tries until it is registered, is driven, and ends in time whatever the answer when it leaves."""
    theirs = node("scheduler.js", str(PROTO))
    worker = daemons("worker", worker_config(theirs.line()))
    tried = ["code:5", "code:8", "code:12", "long:13", "large"]
    assert theirs.ask(" ".join(("RegisterWorker", *tried))) == "planned"
    worker.start()
    for behaviour in (*tried, "ok"):
        assert theirs.line() == f"RegisterWorker {behaviour}"
    theirs.tell("drive")
    assert [theirs.line(), theirs.line()] == ["true exit status 1", "true signal: terminated"]
    for behaviour in ("long:13", "large", "never"):
        assert theirs.ask(f"DeregisterWorker {behaviour}") == "planned"
        worker.kill()
        assert theirs.line() == f"DeregisterWorker {behaviour}"
        worker.start()
        assert theirs.line() == "RegisterWorker ok"
    log = worker.log.read_text()
    assert "Traceback" not in log
    assert max(map(len, log.splitlines())) < 6000
    wait_until(lambda: "knows no heartbeats" in worker.log.read_text(), "the scheduler is found to know no heartbeats")
