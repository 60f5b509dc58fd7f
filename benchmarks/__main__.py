"""Measures and prints a table: ``python -m benchmarks [--quick] [--secure]``."""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from benchmarks.cluster import cluster
from benchmarks.commands import schedctl_help
from benchmarks.daemons import Running, call, running
from benchmarks.rows import Row, together
from benchmarks.stores import durable_starts, restarts

#: The job and the reader share a clock: CLOCK_MONOTONIC is the same for all processes of a machine.
_TICKER = """
import time
for _ in range({n}):
    time.sleep(0.02)
    print(time.monotonic_ns(), flush=True)
"""


def _latency(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(len(ordered) * 0.99) - 1]
    return f"p50 {statistics.median(ordered) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


def _timed(times: int, once: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        once()
        taken.append(time.perf_counter() - began)
    return taken


def submit(daemons: Running, quick: bool) -> list[Row]:
    """Time from the POST to the end of ``echo``, and to its first byte."""
    connection, n = daemons.connect(), 30 if quick else 300
    job = {"worker": "w1", "command": "echo", "args": ["hi"]}

    def to_end() -> None:
        assert call(connection, "POST", "/v1/jobs?wait=30", job)["exit_code"] == 0

    firsts: list[float] = []

    def to_first_byte() -> None:
        began = time.perf_counter()
        connection.request("POST", "/v1/jobs?follow=1", body=json.dumps(job))
        answer = connection.getresponse()
        assert answer.read(1) == b"h"
        firsts.append(time.perf_counter() - began)
        answer.read()

    _timed(10, to_end)
    ends = _timed(n, to_end)
    _timed(n, to_first_byte)
    return [
        Row("submit to end of `echo`, one after another", _latency(ends), str(n)),
        Row("submit to first output byte", _latency(firsts), str(n)),
    ]


def live(daemons: Running, quick: bool) -> list[Row]:
    """Time from writing a line in the job to reading it by a follower."""
    connection, n = daemons.connect(), 50 if quick else 300
    job = {"worker": "w1", "command": sys.executable, "args": ["-c", _TICKER.format(n=n)]}
    connection.request("POST", "/v1/jobs?follow=1", body=json.dumps(job))
    answer = connection.getresponse()
    delays = [(time.monotonic_ns() - int(line)) / 1e9 for line in answer]
    assert len(delays) == n
    return [Row("byte written to byte read", _latency(delays), str(n))]


def queries(daemons: Running, quick: bool) -> list[Row]:
    """``/query`` of unfinished jobs, which asks their worker, beside a route that does nothing."""
    if shutil.which("wrk") is None:
        return [Row("`/query` proxied", "skipped", "", "wrk is not here")]
    seconds = 2 if quick else 5
    with daemons.client() as client:
        jobs = [client.submit(["sleep", "600"], worker="w1").id for _ in range(64)]
    # Simultaneous requests for the same job share a call to the worker; those for several jobs do not.
    asked = {"64 jobs in turn": jobs, "one job": jobs[:1]}
    rows = []
    for connections in (1, 16, 64):
        nothing = _wrk(daemons, connections, seconds, "/healthz")
        for whose, of in asked.items():
            with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
                bodies = ", ".join(f"'{json.dumps({'worker_id': 'w1', 'job_id': job})}'" for job in of)
                script.write(f"bodies = {{{bodies}}}\nn = 0\nfunction request()\n n = n % #bodies + 1\n")
                script.write(' return wrk.format("POST", "/query", nil, bodies[n])\nend\n')
                script.flush()
                proxied = _wrk(daemons, connections, seconds, "/query", "-s", script.name)
            rows.append(
                Row(
                    f"`/query` of {whose}, {connections} connections",
                    f"{proxied:.0f} /s",
                    f"{proxied * seconds:.0f}",
                    f"{proxied / nothing:.2f} of `/healthz` ({nothing:.0f} /s)",
                )
            )
    with daemons.client() as client:
        client.stop_matching(state="running")
    return rows


def _wrk(daemons: Running, connections: int, seconds: int, path: str, *more: str) -> float:
    token = ("-H", f"Authorization: Bearer {daemons.api.token}") if daemons.api.secure else ()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *token, *more, daemons.api.url + path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in printed, printed
    found = re.search(r"Requests/sec: *([0-9.]+)", printed)
    assert found is not None, printed
    return float(found[1])


def throughput(daemons: Running, quick: bool) -> list[Row]:
    """A large output, followed while it is written and read once it exists, and the memory for that."""
    size = 100_000_000 if quick else 1_000_000_000
    job = ["head", "-c", str(size), "/dev/zero"]
    rows = []
    for followers in (1, 10):
        daemons.reset_peak()
        began = time.perf_counter()
        with daemons.client() as client:
            job_id = client.submit(job, worker="w1").id
        path = f"/v1/jobs/{job_id}/output?follow=1"
        together([lambda path=path: _download(daemons.connect(), path, size)] * followers)
        rows.append(_throughput_row(daemons, f"followed live by {followers}", size * followers, began))
    daemons.reset_peak()
    began = time.perf_counter()
    _download(daemons.connect(), f"/v1/jobs/{job_id}/output", size)
    rows.append(_throughput_row(daemons, "read by one when it has ended", size, began))
    return rows


def _download(connection: http.client.HTTPConnection, path: str, size: int) -> None:
    connection.request("GET", path)
    answer = connection.getresponse()
    buffer, got = bytearray(1 << 20), 0
    while read := answer.readinto(buffer):
        got += read
    assert got == size, (got, size)


def _throughput_row(daemons: Running, what: str, size: int, began: float) -> Row:
    rate = size / (time.perf_counter() - began) / 1e6
    scheduler, worker = daemons.peak_rss()
    return Row(
        f"output {what}",
        f"{rate:.0f} MB/s in all",
        f"{size / 1e9:g} GB",
        f"peak RSS scheduler {scheduler:.0f} MiB, worker {worker:.0f} MiB",
    )


#: Submissions are not first, because an installation's recent disk writes would slow them down.
MEASUREMENTS = (live, queries, submit, throughput)
#: These measurements start their own daemons.
ALONE = (cluster, durable_starts, restarts, schedctl_help)


def main() -> None:
    """Run all measurements, or the named ones."""
    names = [measure.__name__ for measure in (*MEASUREMENTS, *ALONE)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all unless named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--secure", action="store_true", help="with HTTPS, a token and mutual TLS between the daemons")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: must be of {', '.join(names)}")
    # All folders are kept until the end: on ext4, creating a file takes ten times as long after many were deleted.
    with tempfile.TemporaryDirectory(prefix="scheduler-bench-") as tempfile.tempdir:
        _measure(options.names or names, options.quick, options.secure)


def _measure(wanted: Sequence[str], quick: bool, secure: bool) -> None:
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | figure | n | |\n| --- | --- | --- | --- |")
    for measure in MEASUREMENTS:
        if measure.__name__ in wanted:
            os.sync()  # so that earlier writes do not slow this measurement down
            with running(secure=secure) as daemons:  # new daemons for each, so that none is slowed down by another
                _print(measure(daemons, quick))
    for measure_alone in ALONE:
        if measure_alone.__name__ in wanted:
            _print(durable_starts(quick, secure) if measure_alone is durable_starts else measure_alone(quick))


def _print(rows: Iterable[Row]) -> None:
    for row in rows:
        print(f"| {row.what} | {row.figure} | {row.n} | {row.note} |", flush=True)


if __name__ == "__main__":
    main()
