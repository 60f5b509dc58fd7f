"""A hostile client leaves others served and memory bounded; daemons and jobs have the right number of descriptors."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from scheduler.client import Client
from scheduler.limits import MAX_SPARE_CONNECTIONS_PER_ADDRESS, ClientLimits
from tests.other_user import NOBODY, SKIP
from tests.system.api import online_api
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config

Make = Callable[..., Daemon]

#: The address of the hostile client. The whole of 127.0.0.0/8 is this machine.
HOSTILE = "127.0.0.2"

#: Bytes by which the scheduler may grow, and seconds that a probe may take on a busy machine.
GROWTH_MAX_BYTES, PROBE_MAX_SECONDS = 200_000_000, 5.0

#: Connections that the hostile client opens and keeps, of each kind, and all that it opens: it closes those beyond.
EACH, ATTEMPTS = ClientLimits().connections_per_address // 4, 10_000

ENDLESS = 'import os\nwhile True: os.write(1, b"x" * 65536)'


def memory(daemon: Daemon) -> int:
    """The bytes that a daemon holds."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def count_open(scheduler: Daemon) -> int:
    """The connections of the hostile client that the scheduler has."""
    port = int(scheduler.endpoints["http"].rpartition(":")[2])
    here, there = f"0100007F:{port:04X}", "0200007F"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(1 for row in rows if row[1] == here and row[2].startswith(there) and row[3] == "01" and row[9] != "0")


def probe(address: str, worker: str) -> float:
    """Ask for the health, and start a job; the longest time that an answer took, in seconds."""
    longest = 0.0
    body = json.dumps({"worker_id": worker, "command": "true", "path": ""})
    for method, path, sent, status in (("GET", "/healthz", None, 200), ("POST", "/start", body, 201)):
        began = time.monotonic()
        connection = http.client.HTTPConnection(address, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, sent)
            answer = connection.getresponse()
            assert answer.status == status, answer.read()
            answer.read()
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.fixture
def hostile() -> Iterator[Callable[[Daemon, bytes], socket.socket]]:
    """Opens connections of the hostile client, and sends on them as much as goes without waiting."""
    opened: list[socket.socket] = []

    def connect(scheduler: Daemon, sent: bytes) -> socket.socket:
        host, _, port = scheduler.endpoints["http"].rpartition(":")
        os.seteuid(NOBODY)  # each user of the machine has a share of the connections
        try:
            connection = socket.create_connection((host, int(port)), 20, source_address=(HOSTILE, 0))
        finally:
            os.seteuid(0)
        opened.append(connection)
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            while sent:
                sent = sent[connection.send(sent) :]
        return connection

    yield connect
    for each in opened:
        each.close()


@pytest.mark.skipif(SKIP is not None, reason=str(SKIP))
def test_hostile_client(daemons: Make, hostile: Callable[[Daemon, bytes], socket.socket]) -> None:
    """Slow headers, slow bodies, unread streams, and more connections than one address may have, all at once."""
    config = SCHEDULER.replace("[http_server]\n", f'[http_server]\nlocal_users = {{{NOBODY} = "run"}}\n')
    scheduler = daemons("scheduler", config).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"])).start()
    address = scheduler.endpoints["http"]
    with Client(f"http://{address}") as client:
        wait_until(lambda: [each.state for each in client.workers()] == ["online"], "the worker is online")
        (w1,) = client.workers()
        job = client.submit(["python3", "-c", ENDLESS], worker="w1", output_limit=200_000_000)
        probe(address, w1.id)
        before = memory(scheduler)
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        slow_headers = head + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(14))
        slow_body = head + b"Content-Length: 1000000\r\n\r\n" + b" " * 500_000
        stream = f"GET /v1/jobs/{job.id}/output?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        longest = 0.0
        kinds = (slow_headers, slow_body, stream, b"", b"", b"\x16\x03\x01")
        for sent in kinds:
            for _ in range(EACH):
                with contextlib.suppress(OSError):  # too many
                    hostile(scheduler, sent)
            longest = max(longest, probe(address, w1.id))
        for number in range(len(kinds) * EACH, ATTEMPTS):
            with contextlib.suppress(OSError):
                hostile(scheduler, kinds[number % len(kinds)]).close()
            if number % 1000 == 0:
                longest = max(longest, probe(address, w1.id))
        grown = memory(scheduler) - before
        assert grown < GROWTH_MAX_BYTES, f"{grown / 1e6:.0f} MB"
        assert longest < PROBE_MAX_SECONDS, f"{longest:.1f} s"
        client.stop(job.id)
    assert count_open(scheduler) <= ClientLimits().connections_per_address + MAX_SPARE_CONNECTIONS_PER_ADDRESS
    assert "Traceback" not in scheduler.log.read_text()
    worker.kill()


@pytest_twisted.ensureDeferred
async def test_descriptors(daemons: Make) -> None:
    """Both daemons use their hard limit on descriptors. Jobs have the soft limit of the start, at most 1,024."""
    for soft, hard, of_jobs in ((512, 4096, 512), (3000, 4096, 1024)):
        scheduler = daemons("scheduler", SCHEDULER, f"scheduler-{soft}")
        scheduler.inside = ("prlimit", f"--nofile={soft}:{hard}")
        await deferToThread(scheduler.start)
        worker = daemons("worker", worker_config(scheduler.endpoints["grpc"]), f"worker-{soft}")
        worker.inside = scheduler.inside
        await deferToThread(worker.start)
        for daemon in (scheduler, worker):
            limits = Path(f"/proc/{daemon.pid}/limits").read_text()
            assert limits.split("Max open files")[1].split()[:2] == [str(hard), str(hard)]
        api = await online_api(scheduler)
        job = await api.submit(command="sh", args=["-c", "ulimit -Sn; ulimit -Hn"])
        assert await api.follow(job) == f"{of_jobs}\n{hard}\n".encode()
