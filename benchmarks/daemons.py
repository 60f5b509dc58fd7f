"""A real scheduler and a real worker on loopback for a measurement.

Measured requests use ``http.client`` and ``wrk``, so a figure is about the API and not about ``scheduler.client``.
Requests that are not measured, such as preparations, use ``scheduler.client``.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from scheduler.client import Client


@frozen
class Running:
    """Both daemons: the HTTP address, the worker's id and the two process ids."""

    http: str
    worker_id: str
    scheduler_pid: int
    worker_pid: int

    def connect(self) -> http.client.HTTPConnection:
        """A new connection, for measured requests."""
        return http.client.HTTPConnection(self.http, timeout=120)

    def client(self) -> Client:
        """A client for preparations and cleanup."""
        return Client(f"http://{self.http}")

    def peak_rss(self) -> tuple[float, float]:
        """The peak memory of scheduler and worker, in MiB."""
        return _peak(self.scheduler_pid), _peak(self.worker_pid)

    def reset_peak(self) -> None:
        """Measure the peak from now on."""
        for pid in (self.scheduler_pid, self.worker_pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def call(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    """The document in the answer to a request, which must succeed."""
    connection.request(method, path, body=None if body is None else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 400:
        raise RuntimeError(text.decode())
    return json.loads(text)


_GRPC = '[grpc_server]\naddr = "127.0.0.1:0"\n'
_SCHEDULER = _GRPC + '[http_server]\naddr = "127.0.0.1:0"\n'


@contextmanager
def running(store: str = "sqlite:///scheduler.db") -> Iterator[Running]:
    """Start both and wait until the worker is online. At the end, stop both and everything they started."""
    folder = tempfile.mkdtemp()
    with _processes() as processes:
        processes.append(_start("scheduler", folder, f'{_SCHEDULER}[store]\nurl = "{store}"\n'))
        endpoints = _endpoints(folder, "scheduler")
        more = f'[scheduler]\naddr = "{endpoints["grpc"]}"\n[worker]\nname = "w1"\nslots = 1000\n'
        processes.append(_start("worker", folder, _GRPC + more))
        _endpoints(folder, "worker")
        yield _online(endpoints["http"], *(process.pid for process in processes))


def restart(store: str) -> float:
    """Seconds from the start of a scheduler with that store until it is ready and has listed jobs."""
    folder = tempfile.mkdtemp()
    with _processes() as processes:
        began = time.perf_counter()
        processes.append(_start("scheduler", folder, f'{_SCHEDULER}[store]\nurl = "{store}"\n'))
        connection = http.client.HTTPConnection(_endpoints(folder, "scheduler")["http"], timeout=30)
        call(connection, "GET", "/readyz")
        assert len(call(connection, "GET", "/v1/jobs?limit=100")["jobs"]) == 100
        return time.perf_counter() - began


@contextmanager
def _processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list of processes, which are ended in reverse order."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _start(program: str, folder: str, config: str) -> subprocess.Popen[bytes]:
    file = Path(folder, f"{program}.toml")
    file.write_text(f'state_dir = "{program}"\n{config}')
    twistd = Path(sys.executable).with_name("twistd")
    log = os.open(Path(folder, f"{program}.log"), os.O_CREAT | os.O_WRONLY)
    try:
        return subprocess.Popen([twistd, "-n", program, "-c", file], stdout=log, stderr=log, cwd=folder)
    finally:
        os.close(log)


def _endpoints(folder: str, program: str) -> dict[str, str]:
    file = Path(folder, program, "endpoints.json")
    deadline = time.monotonic() + 30
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(Path(folder, f"{program}.log").read_text())
        time.sleep(0.02)
    found: dict[str, str] = json.loads(file.read_text())
    return found


def _online(http_address: str, scheduler_pid: int, worker_pid: int) -> Running:
    with Client(f"http://{http_address}") as client:
        for _ in range(1500):
            workers = client.workers()
            if workers and workers[0].state == "online":
                return Running(http_address, workers[0].id, scheduler_pid, worker_pid)
            time.sleep(0.02)
    raise TimeoutError("the worker does not come online")
