"""Measures durability: starts with each kind of store, and a restart with many records."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks.daemons import Running, call, restart, running
from benchmarks.rows import Row, together
from scheduler.model import Job, JobSpec, JobState, Worker
from scheduler.store.databases import prepare
from scheduler.store.writer import Writer
from scheduler.terms import Target
from tests import postgres

_FINISHED, _RUNNING = 10_000, 1_000

#: Rounds for each store, in turns: the speed of a shared machine changes from minute to minute.
_ROUNDS = 7


def durable_starts(quick: bool, secure: bool) -> Iterator[Row]:
    """``POST /start`` of ``true`` with each store, in turns with the store that keeps nothing."""
    rounds = 1 if quick else _ROUNDS
    with ExitStack() as stack:
        server = stack.enter_context(_server())
        stores = {"memory": "memory:", "SQLite": "sqlite:///scheduler.db"}
        if server is None:
            yield Row("`/start`, PostgreSQL", "skipped", "", postgres.why_not())
        else:
            stores["PostgreSQL"] = server.url()
        daemons = {name: stack.enter_context(running(url, secure)) for name, url in stores.items()}
        for clients in (1, 16, 64):
            n = 20 * (3 + clients // 4)
            rates: dict[str, list[float]] = {name: [] for name in daemons}
            for _ in range(rounds):
                for name, pair in daemons.items():
                    rates[name].append(start_rate(pair, clients, n))
            in_memory = median(rates["memory"])
            for name, of_rounds in rates.items():
                rate = median(of_rounds)
                yield Row(
                    f"`/start` of `true`, {name}, {clients} clients",
                    f"{rate:.0f} /s",
                    f"{rounds} x {n}",
                    f"{rate / in_memory:.2f} of memory, {min(of_rounds):.0f} to {max(of_rounds):.0f} /s",
                )


def start_rate(daemons: Running, clients: int, n: int) -> float:
    """The number of starts answered in a second."""
    left = iter(range(n))

    def client() -> None:
        connection = daemons.connect()
        for _ in left:
            call(connection, "POST", "/start", {"worker_id": "w1", "command": "true"})

    began = time.perf_counter()
    together([client] * clients)
    return n / (time.perf_counter() - began)


def restarts(quick: bool) -> Iterator[Row]:
    """Time from the start of the process to an answer, with many records."""
    n = 1 if quick else 5
    folder = tempfile.mkdtemp()
    with _server() as server:
        for name, url in (("SQLite", f"sqlite:///{folder}/full.db"), ("PostgreSQL", server.url() if server else "")):
            what = f"restart with {_FINISHED} finished and {_RUNNING} running jobs, {name}"
            if not url:
                yield Row(what, "skipped", "", postgres.why_not())
                continue
            _fill(url)
            seconds = sorted(restart(url) for _ in range(n))
            yield Row(what, f"{seconds[n // 2]:.2f} s", str(n), f"longest {seconds[-1]:.2f} s")


@contextmanager
def _server() -> Iterator[postgres.Server | None]:
    """A PostgreSQL server whose commits reach the disk."""
    if postgres.why_not():
        yield None
        return
    server = postgres.Server(fsync="on")
    try:
        yield server
    finally:
        server.remove()


def _fill(url: str) -> None:
    database = prepare(url)
    assert database is not None
    writer = Writer(database)
    spec = JobSpec(command="/usr/bin/make", args=("-C", "/srv/build", "all"), env={"CI": "1"}, labels={"team": "blue"})
    writer.write_thd([Worker("w-1", "w1", "127.0.0.1:1", boot_id="boot")], False)
    for first in range(0, _FINISHED + _RUNNING, 1000):
        writer.write_thd([_job(number, spec) for number in range(first, first + 1000)], False)
    writer.close_thd()
    database.release()


def _job(number: int, spec: JobSpec) -> Job:
    ended = number < _FINISHED
    at = time.time() - 86_400 + number
    return Job(
        id=f"job-{number:08}",
        spec=spec,
        state=JobState.SUCCEEDED if ended else JobState.RUNNING,
        created_at=at,
        started_at=at,
        finished_at=at + 1 if ended else None,
        exit_code=0 if ended else None,
        worker_id="w-1",
        worker_name="w1",
        target=Target("w1"),
    )
