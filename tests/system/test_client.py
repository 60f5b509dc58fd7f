"""The Python clients against the real daemons: through broken connections, and with a scheduler that is killed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from scheduler.client import ApiProblem, Client, Ended, Job, JobFailed, Output, Result
from tests.clients import Blocking, Twisted
from tests.proxy import CuttingProxy
from tests.system.conftest import ROOT, Daemon, wait_until

Cluster = tuple[Daemon, Daemon]

#: Writes random bytes to both streams in pieces of random sizes, now and then pausing, and exits with 7.
WRITER = """
import os, random, sys, time
source = random.Random({seed})
left = {{1: {out}, 2: {err}}}
while any(left.values()):
    stream = source.choice([each for each in left if left[each]])
    data = source.randbytes(min(left[stream], source.choice([1, 100, 4096, 65536])))
    left[stream] -= len(data)
    while data:
        data = data[os.write(stream, data):]
    if source.random() < 0.2:
        time.sleep(0.01)
sys.exit(7)
"""


BOTH = pytest.mark.parametrize("kind", [Blocking, Twisted])


@pytest.fixture
def url(cluster: Cluster) -> str:
    """The URL of a scheduler whose worker is online."""
    scheduler, _ = cluster
    client = Client(f"http://{scheduler.endpoints['http']}")
    wait_until(lambda: any(worker.state == "online" for worker in client.workers()), "the worker is online")
    client.close()
    return f"http://{scheduler.endpoints['http']}"


@BOTH
@pytest_twisted.ensureDeferred
async def test_run(url: str, kind: Callable[..., Any]) -> None:
    """A single call gives the exit code and every byte of both streams."""
    client = kind(url)
    every_byte = bytes(range(256)) * 10
    code = "import os; data = open(0, 'rb').read(); os.write(1, data); os.write(2, data[::-1]); os._exit(3)"
    result: Result = await client.run([sys.executable, "-c", code], worker="w1", stdin=every_byte)
    assert (result.exit_code, result.stdout, result.stderr) == (3, every_byte, every_byte[::-1])
    assert result.job.state == "failed"
    killed: Result = await client.run(["sh", "-c", "kill -9 $$"], selector={})
    assert (killed.exit_code, killed.job.signal) == (None, "SIGKILL")
    with pytest.raises(JobFailed) as failed:
        await client.run(["sh", "-c", "echo why >&2; exit 4"], worker="w1", check=True)
    assert (failed.value.exit_code, failed.value.stderr, failed.value.started) == (4, b"why\n", True)
    await client.close()


@BOTH
@pytest_twisted.ensureDeferred
async def test_retried(url: str, kind: Callable[..., Any]) -> None:
    """The result of a retried job is that of its last attempt."""
    client = kind(url)
    line = 'n=$(cat "$0" 2>/dev/null | wc -l); echo x >> "$0"; echo "attempt $n"; test "$n" -ge 2'
    mark = f"/tmp/client-test-{os.getpid()}-{time.monotonic_ns()}"
    first: list[Job] = []
    try:
        result: Result = await client.run(
            ["sh", "-c", line, mark], worker="w1", retry={"attempts": 5}, check=True, on_start=first.append
        )
    finally:
        os.unlink(mark)
    assert result.stdout == b"attempt 2\n"
    assert result.job.group_id == first[0].id != result.job.id
    await client.close()


@BOTH
@pytest_twisted.ensureDeferred
async def test_signal_and_remove(url: str, kind: Callable[..., Any]) -> None:
    """A job gets a signal, and is removed with its output once it has ended."""
    client = kind(url)
    line = "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    job: Job = await client.submit(["sh", "-c", line], worker="w1")
    ready: Deferred[None] = Deferred()

    def seen(data: bytes) -> None:
        if not ready.called:
            ready.callback(None)

    following = client.items("output", job.id, follow=True, each=seen)
    await ready
    with pytest.raises(ApiProblem) as running:
        await client.remove(job.id)
    assert running.value.type == "job-not-ended"
    await client.signal(job.id, "SIGUSR1")
    assert b"".join(await following) == b"ready\ngot it\n"
    assert (await client.wait(job.id, 30)).exit_code == 5
    assert await client.remove(job.id) is True
    with pytest.raises(ApiProblem) as gone:
        await client.job(job.id)
    assert gone.value.type == "job-unknown"
    await client.close()


@BOTH
@pytest_twisted.ensureDeferred
async def test_cuts(url: str, kind: Callable[..., Any]) -> None:
    """Through connections that break at random bytes every job starts once, and no byte is lost or repeated."""
    seed = time.time_ns()
    print("seed", seed)  # noqa: T201 - shown when it fails
    source = random.Random(seed)
    host, _, port = url.removeprefix("http://").rpartition(":")
    limits = [0, 100, 500, 2_000, 20_000, 100_000, 300_000, 1_000_000]
    with CuttingProxy(lambda: (host, int(port)), lambda: source.choice(limits)) as proxy:
        client = kind(proxy.url, patience=60.0)
        results = []
        while proxy.cuts < 40:
            out, err = source.choice([1, 30_000, 300_000]), source.choice([0, 30_000, 300_000])
            code = WRITER.format(seed=len(results), out=out, err=err)
            result: Result = await client.run([sys.executable, "-c", code], worker="w1", labels={"test": kind.__name__})
            spool = await _spooled(url, result.job)
            assert (result.exit_code, len(result.stdout), len(result.stderr)) == (7, out, err)
            assert (result.stdout, result.stderr) == spool
            followed = b"".join(await client.items("output", result.job.id, "stderr", follow=True))
            snapshot = b"".join(await client.items("output", result.job.id, offset=out // 2))
            assert (followed, snapshot) == (spool[1], spool[0][out // 2 :])
            results.append(result)
        listed = await client.items("jobs", label={"test": kind.__name__})
        assert [job.id for job in listed] == [result.job.id for result in reversed(results)]
        await client.close()


async def _spooled(url: str, job: Job) -> tuple[bytes, bytes]:
    """Both streams of a job that has ended, over connections without faults."""
    client = Blocking(url)
    streams = [b"".join(await client.items("output", job.id, stream)) for stream in ("stdout", "stderr")]
    await client.close()
    return streams[0], streams[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@BOTH
@pytest_twisted.ensureDeferred
async def test_restart(cluster: Cluster, url: str, kind: Callable[..., Any], number: signal.Signals) -> None:
    """A follower outlives a scheduler that is killed, or asked to end, and started again, byte by byte."""
    scheduler, _ = cluster
    client = kind(url)
    job: Job = await client.submit(["sh", "-c", "for i in $(seq 200); do echo $i; sleep 0.02; done"], worker="w1")
    printed: Deferred[None] = Deferred()

    def seen(event: object) -> None:
        if isinstance(event, Output) and not printed.called:
            printed.callback(None)

    following = client.items("follow", job.id, each=seen)
    await printed

    def restart() -> None:
        scheduler.kill(number)
        scheduler.start()

    await deferToThread(restart)
    events = await following
    text = "".join(f"{number}\n" for number in range(1, 201))
    assert b"".join(event.data for event in events if isinstance(event, Output)).decode() == text
    assert isinstance(events[-1], Ended)
    assert events[-1].job.succeeded
    await client.close()


#: The output of each program in docs/client.md, in order.
PRINTED = (
    r"3 b'hello\\n' b'oops\\n'\njob .* failed: exit status 1\n",
    r"(?s)stdout 0 b'line 1.*ended with 0\nb'line 3\\n'\n[-0-9a-f]+ succeeded 20",
    r"(?s)b'0\\n'.*b'1\\n'.*b'2\\n'.*b'Linux\\n'",
)


def test_docs(url: str) -> None:
    """Each program of docs/client.md runs unchanged, and prints the documented output."""
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE | re.DOTALL)
    for program, printed in zip(programs, PRINTED, strict=True):
        command = [sys.executable, "-c", program.replace("http://127.0.0.1:3000", url)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert re.search(printed, done.stdout), done.stdout
