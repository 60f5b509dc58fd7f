"""A real scheduler and a real worker on loopback for a measurement, on request with HTTPS, a token and mutual TLS.

Measured requests use ``http.client`` and ``wrk``, so a figure is about the API and not about ``scheduler.client``.
Requests that are not measured, such as preparations, use ``scheduler.client``.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

from scheduler.client import Client
from scheduler.security.authority import issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role

_CLUSTER = "bench"


class _Connection(http.client.HTTPSConnection):
    """A connection with TLS, whose requests have a token."""

    def __init__(self, address: str, ca_file: str, token: str) -> None:
        super().__init__(address, timeout=120, context=ssl.create_default_context(cafile=ca_file))
        self._token = token

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        super().putrequest(*args, **kwargs)
        self.putheader("Authorization", f"Bearer {self._token}")


@frozen
class Api:
    """The HTTP API: its address and, if it is ``secure``, a token and the certificate of its authority."""

    address: str
    token: str = ""
    ca_file: str = ""

    @property
    def secure(self) -> bool:
        return bool(self.token)

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.address}"

    def connect(self) -> http.client.HTTPConnection:
        """A new connection, for measured requests."""
        if self.secure:
            return _Connection(self.address, self.ca_file, self.token)
        return http.client.HTTPConnection(self.address, timeout=120)

    def client(self) -> Client:
        """A client for preparations and cleanup."""
        return Client(self.url, self.token or None, ca_file=self.ca_file or None)


@frozen
class Running:
    """Both daemons: the API and the two process ids."""

    api: Api
    scheduler_pid: int
    worker_pid: int

    def connect(self) -> http.client.HTTPConnection:
        """A new connection, for measured requests."""
        return self.api.connect()

    def client(self) -> Client:
        """A client for preparations and cleanup."""
        return self.api.client()

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


_GRPC, _HTTP = '[grpc_server]\naddr = "127.0.0.1:0"\n', '[http_server]\naddr = "127.0.0.1:0"\n'


@contextmanager
def running(store: str = "sqlite:///scheduler.db", secure: bool = False) -> Iterator[Running]:
    """Start both and wait until the worker is online. At the end, stop both and everything they started.

    ``secure``: with HTTPS, a token and mutual TLS. The audit is always on.
    """
    folder = tempfile.mkdtemp()
    of_scheduler = of_worker = of_http = ""
    if secure:
        of_scheduler, of_worker = _certificates(Path(folder))
        of_http = "".join(line + "\n" for line in of_scheduler.splitlines() if not line.startswith("ca_file"))
    with _processes() as processes:
        config = f'{_GRPC}{of_scheduler}{_HTTP}{of_http}[store]\nurl = "{store}"\n'
        processes.append(_start("scheduler", folder, config))
        endpoints = _endpoints(folder, "scheduler")
        more = f'[scheduler]\naddr = "{endpoints["grpc"]}"\n[worker]\nname = "w1"\nslots = 1000\n'
        processes.append(_start("worker", folder, _GRPC + of_worker + more))
        _endpoints(folder, "worker")
        api = Api(endpoints["http"])
        if secure:
            token = Path(folder, "scheduler", "admin.token").read_text().strip()
            api = Api(endpoints["http"], token, str(Path(folder, "ca", "ca.pem")))
        _wait_until_online(api)
        yield Running(api, *(process.pid for process in processes))


def _certificates(folder: Path) -> tuple[str, str]:
    """Make an authority and two pairs in ``folder``. Returns the lines of ``[grpc_server]`` of scheduler and worker."""
    ca, now = folder / "ca", datetime.now(UTC)
    make_authority(ca, _CLUSTER, now)

    def lines(role: Role, name: str) -> str:
        made = issue(open_authority(ca), Identity(_CLUSTER, role, name), ["127.0.0.1"], now)
        crt_file, key_file = write_pair(folder, name or role.value, *made)
        files = {"crt_file": crt_file, "key_file": key_file, "ca_file": ca / "ca.pem"}
        return "use_tls = true\n" + "".join(f'{key} = "{path}"\n' for key, path in files.items())

    return lines(Role.SCHEDULER, ""), lines(Role.WORKER, "w1")


def restart(store: str) -> float:
    """Seconds from the start of a scheduler with that store until it is ready and has listed jobs."""
    folder = tempfile.mkdtemp()
    with _processes() as processes:
        began = time.perf_counter()
        processes.append(_start("scheduler", folder, f'{_GRPC}{_HTTP}[store]\nurl = "{store}"\n'))
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


def _wait_until_online(api: Api) -> None:
    with api.client() as client:
        for _ in range(1500):
            workers = client.workers()
            if workers and workers[0].state == "online":
                return
            time.sleep(0.02)
    raise TimeoutError("the worker does not come online")
