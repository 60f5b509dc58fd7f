"""Every byte of a stream arrives in order, however it is read."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

import pytest_twisted
from twisted.internet.defer import ensureDeferred, gatherResults

from tests.system.api import Api, Download, online_api, pause, sha256
from tests.system.conftest import SCHEDULER, Daemon, worker_config

Cluster = tuple[Daemon, Daemon]

#: Writes random bytes to both streams in pieces of random sizes, with pauses; the seed decides everything.
WRITER = """
import os, random, sys, time
source = random.Random({seed})
sizes = {{1: {out}, 2: {err}}}
while sizes:
    stream = source.choice(list(sizes))
    size = min(sizes[stream], source.choice([1, 100, 4096, 65536, 1000003]))
    data = source.randbytes(size)
    while data:
        data = data[os.write(stream, data):]
    sizes[stream] -= size
    if not sizes[stream]:
        del sizes[stream]
    if source.random() < 0.1:
        time.sleep(0.02)
"""


async def read_in_pieces(api: Api, job: str, stream: str, source: random.Random, nap: float) -> bytes:
    """Assemble a stream from connections that are cut at random places, by offset."""
    body = bytearray()
    while True:
        limit = source.choice([1, 1000, 100_000, 3_000_000, None, None])
        download: Download = await api.open(
            f"/v1/jobs/{job}/output?follow=1&stream={stream}&offset={len(body)}", limit, nap
        )
        whole = await download.ended
        body += download.body
        if whole:
            return bytes(body)


@pytest_twisted.ensureDeferred
async def test_followed_is_spooled(cluster: Cluster) -> None:
    """The data that slow and fast followers assembled over random disconnects has the sha256 of the spool."""
    scheduler, worker = cluster
    api = await online_api(scheduler)
    seed = time.time_ns()
    print("seed", seed)  # noqa: T201 - shown when it fails
    source = random.Random(seed)
    for _ in range(4):
        sizes = {stream: source.choice([0, 1, 70_000, 2_000_000, 9_000_000]) for stream in ("stdout", "stderr")}
        code = WRITER.format(seed=source.randrange(1 << 30), out=sizes["stdout"], err=sizes["stderr"])
        code = code.replace("sizes = {", "sizes = {k: v for k, v in {").replace("}\nwhile", "}.items() if v}\nwhile", 1)
        job = await api.submit(command=sys.executable, args=["-c", code])
        readers = [
            (stream, ensureDeferred(read_in_pieces(api, job, stream, source, nap)))
            for stream in sizes
            for nap in (0.0, 0.0, 0.005)
        ]
        bodies = await gatherResults([reader for _, reader in readers])
        assert (await api.ended(job))["exit_code"] == 0
        for (stream, _), body in zip(readers, bodies, strict=True):
            spooled = (worker.state / "jobs" / job / stream).read_bytes()
            assert len(spooled) == sizes[stream]
            assert sha256(body) == sha256(spooled)


@pytest_twisted.ensureDeferred
async def test_pruned(daemons: Callable[..., Daemon]) -> None:
    """Output whose time is over is gone, for new readers and for those in the middle; the job is not."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], more='keep_spool = "2s"')).start()
    api = await online_api(scheduler)
    job = await api.submit(command="head", args=["-c", "200MB", "/dev/zero"])
    await api.ended(job)
    slow = await api.open(f"/v1/jobs/{job}/output?follow=1", nap=0.2)
    for _ in range(300):
        if not (worker.state / "jobs" / job).exists():
            break
        await pause(0.1)
    slow.hurry()
    assert not await slow.ended
    assert len(slow.body) < 200_000_000
    assert not any(slow.body)
    events = {"Accept": "text/event-stream"}
    for query, headers in (("", {}), ("?follow=1", {}), ("?tail=1", {}), ("", {"Range": "bytes=0-1"}), ("", events)):
        status, document = await api.call("GET", f"/v1/jobs/{job}/output{query}", **headers)
        assert (status, document["status"]) == (410, 410)
        assert "no longer kept" in document["detail"]
    assert (await api.job(job))["stdout_bytes"] == 200_000_000


@pytest_twisted.ensureDeferred
async def test_ranges(cluster: Cluster) -> None:
    """A part of an ended job's output can be read by Range, offset or tail."""
    scheduler, _ = cluster
    api = await online_api(scheduler)
    job = await api.submit(command="printf", args=["one\\ntwo\\nthree\\n"])
    await api.ended(job)
    for query, body in {"": "one\ntwo\nthree\n", "?offset=4": "two\nthree\n", "?tail=1": "three\n"}.items():
        download = await api.open(f"/v1/jobs/{job}/output{query}")
        assert await download.ended
        assert download.body.decode() == body
    assert (await api.call("GET", f"/v1/jobs/{job}/output", Range="bytes=99-"))[0] == 416
