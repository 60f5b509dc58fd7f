"""The daemons under test, and the checks that every input must leave true."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc
from tests.faults.client import CUT
from tests.faults.daemons import Cluster, Daemon
from tests.processes import descriptors, memory, threads

#: Seconds within which a probe is answered, on a busy machine.
PROBE_MAX_SECONDS = 10.0

#: Seconds after the last input until a daemon is at rest.
REST_MAX_SECONDS = 90.0

#: Files and threads beyond those of a daemon that has served no hostile input, and MiB of memory.
MORE_FILES, MORE_THREADS, MORE_MEMORY_MIB = 40, 160, 200.0

#: Lines that a log has only after an error of the daemon.
_FAULTS = re.compile(r"Traceback|Unhandled|incident|CRITICAL|\bcritical\b|a gRPC call failed|Segmentation|Fatal Python")

#: Bytes that a log never has: values are escaped.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Target:
    """A scheduler with two workers: ``w1`` gets jobs by HTTP, and ``w2`` hostile calls of its own."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder, secure=False)  # the frames and calls of the fuzzer come without a certificate
        self._read: dict[str, int] = {}
        self._bounds: dict[str, tuple[int, int, float]] = {}
        #: The id of an ended job on ``w1``, and that of the worker ``fuzz``.
        self.job = self.enrolled = ""

    def start(self) -> None:
        """Start the daemons, have them run a job, and note the resources that they hold."""
        self.cluster.start(2)
        self.job = self.run_job()
        self.enrol()
        for daemon in self.cluster.daemons:
            files, running, used = _resources(daemon)
            self._bounds[daemon.name] = files + MORE_FILES, running + MORE_THREADS, used + MORE_MEMORY_MIB

    def enrol(self) -> None:
        """Register the worker ``fuzz``, in whose name cases call the scheduler. It always has the same id."""
        facts = {"folderID": "fuzz", "nonce": "fuzz", "bootID": "fuzz", "name": "fuzz", "address": "127.0.0.1:1"}
        with grpc.insecure_channel(self.cluster.scheduler.endpoints["grpc"]) as channel:
            register = scheduler_pb2_grpc.SchedulerStub(channel).RegisterWorker
            self.enrolled = register(scheduler_pb2.RegisterReq(**facts), timeout=PROBE_MAX_SECONDS).workerID

    def address(self, daemon: Daemon, server: str) -> tuple[str, int]:
        host, _, port = daemon.endpoints[server].rpartition(":")
        return host, int(port)

    def run_job(self) -> str:
        """Run a job to its end on ``w1``; its id. Raises ``AssertionError`` with the answer if it does not succeed."""
        body = {"worker": "w1", "command": "true"}
        status, document = self.cluster.api.call("POST", "/v1/jobs?wait=10", body, timeout=PROBE_MAX_SECONDS + 10)
        assert (status, document.get("state")) == (201, "succeeded"), f"a job on w1: {status} {document}"
        return str(document["id"])

    def submitted(self, since: float) -> list[str]:
        """The ids of jobs that a client has submitted since that POSIX time."""
        page = self.cluster.api.get("/v1/jobs?limit=3", timeout=PROBE_MAX_SECONDS) or {"jobs": []}
        return [
            job["id"]
            for job in page["jobs"]
            if job["worker_name"] in (None, "w1")
            and job["retry_of"] is None
            and datetime.fromisoformat(job["created_at"]).timestamp() >= since
        ]

    def tidy(self) -> None:
        """Undo what a case may do in order: end the jobs, forget workers that are none, resume ``w1``."""
        api = self.cluster.api
        try:
            for worker in ("w1", "w2"):
                api.call("POST", "/v1/jobs/stop", {"state": "queued,starting,running", "worker": worker}, timeout=30)
            for worker in (api.get("/v1/workers") or {"workers": []})["workers"]:
                if worker["name"] not in ("w1", "w2", "fuzz"):
                    api.call("DELETE", f"/v1/workers/{worker['id']}", timeout=10)
            api.call("POST", "/v1/workers/w1/resume", {}, timeout=10)
            self.enrol()
        except (*CUT, grpc.RpcError):
            pass  # the check finds out why

    def check(self) -> Iterator[str]:
        """The faults that can be seen now: of processes, logs, probes."""
        for daemon in self.cluster.daemons:
            if not daemon.alive():
                yield f"{daemon.name} has ended: {daemon.log_tail()[-500:]}"
                return
        yield from self.log_faults()
        for path in ("/healthz", "/v1/jobs?limit=1000", "/v1/workers"):
            yield from self._late(f"GET {path}", lambda path=path: self._get(path))  # type: ignore[misc]
        for daemon in self.cluster.daemons:
            yield from self._late(f"health check of {daemon.name}", lambda daemon=daemon: self._health(daemon))  # type: ignore[misc]

    def log_faults(self) -> Iterator[str]:
        """Errors in the logs since the last call."""
        for daemon in self.cluster.daemons:
            with daemon.log.open("rb") as log:
                log.seek(self._read.get(daemon.name, 0))
                new = log.read()
            new = new[: new.rfind(b"\n") + 1]
            self._read[daemon.name] = self._read.get(daemon.name, 0) + len(new)
            lines = new.decode(errors="backslashreplace").splitlines()
            for number, line in enumerate(lines):
                if (_FAULTS.search(line) and " 404 " not in line) or _CONTROL.search(line):
                    yield f"log of {daemon.name}: " + " | ".join(lines[max(0, number - 1) : number + 30])[:3000]
                    break

    def rest(self) -> Iterator[str]:
        """The resources that the daemons still hold ``REST_MAX_SECONDS`` after the last input."""
        deadline = time.monotonic() + REST_MAX_SECONDS
        for daemon in self.cluster.daemons:
            while over := self._over(daemon):
                if time.monotonic() > deadline:
                    yield f"{daemon.name} holds {over}"
                    break
                time.sleep(0.5)

    def usage(self) -> str:
        """The resources of each daemon, for people."""
        return "; ".join(
            "{}: {} files, {} threads, {:.0f} MiB".format(daemon.name, *_resources(daemon))
            for daemon in self.cluster.daemons
        )

    def _over(self, daemon: Daemon) -> str:
        found, allowed = _resources(daemon), self._bounds[daemon.name]
        names = ("files", "threads", "MiB")
        return ", ".join(
            f"{has:.0f} {name} of {most:.0f}"
            for has, most, name in zip(found, allowed, names, strict=True)
            if has > most
        )

    def _late(self, what: str, probe: Callable[[], None]) -> Iterator[str]:
        try:
            probe()
        except (*CUT, grpc.RpcError, AssertionError) as error:
            yield f"{what}: {error!r}"[:500]

    def _get(self, path: str) -> None:
        status, document = self.cluster.api.call("GET", path, timeout=PROBE_MAX_SECONDS)
        assert status == 200, f"{status} {document}"

    def _health(self, daemon: Daemon) -> None:
        with grpc.insecure_channel(daemon.endpoints["grpc"]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_MAX_SECONDS, wait_for_ready=True)


def _resources(daemon: Daemon) -> tuple[int, int, float]:
    return descriptors(daemon.pid), threads(daemon.pid), memory(daemon.pid)
