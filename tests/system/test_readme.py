"""What the README tells a new user to type works as it stands there."""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import ROOT, Daemon, take_port, wait_until

README = (ROOT / "README.md").read_text()

#: What each curl line of the README prints, in order.
ANSWERS = (
    r'"name": *"w1"',
    r'"job_id": *"',
    r"^line 1\nline 2\n",
    r'"done": *false',
    r'"success": *true',
    r"load average",
    r"(?s)event: stdout.*hi.*event: end.*\"exit_code\": *3",
    r'(?s)"state": *"stopped".*"exit_code": *(null|[0-9]+)',
    r'"jobs": *\[',
    r'"jobs": *\[',
)

#: Where the demo's daemons listen: the sample files' ports, and those of its workers.
DEMO_PORTS = (3000, 50000, 30001, 30002)


def curl_lines() -> list[str]:
    """Every curl line in a block of code."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


def command_lines() -> Iterator[str]:
    """Of every process."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def sample(name: str, **replaced: str) -> str:
    """A file of etc/ with other ports, and the scripts where they are."""
    text = (ROOT / "etc" / name).read_text()
    for old, new in {'scripts_dir = "scripts"': f'scripts_dir = "{ROOT}/etc/scripts"', **replaced}.items():
        text = text.replace(old, new)
    return text


def test_curl_lines(daemons: Callable[..., Daemon]) -> None:
    """Each curl line, in order, with the ids filled in, prints what it is there for."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    scheduler = daemons("scheduler", sample("scheduler.toml", **{":50000": ":0", ":3000": ":0"}))
    scheduler.start()
    grpc, http = scheduler.endpoints["grpc"], scheduler.endpoints["http"]
    ports = {":30000": ":0", "127.0.0.1:50000": grpc, '# name = "w1"': 'name = "w1"'}
    daemons("worker", sample("worker.toml", **ports)).start()

    def curl(line: str) -> list[str]:
        words = shlex.split(line.replace("localhost:3000", http).replace("WORKER", "w1").replace("JOB", job))
        return [*words, "--fail-with-body", "--max-time", "60"]

    def run(line: str) -> str:
        return subprocess.run(curl(line), capture_output=True, text=True, timeout=90, check=True).stdout

    job, following = "none", None
    lines = curl_lines()
    wait_until(lambda: '"online"' in run(lines[0]), "the worker is online")
    assert len(lines) == len(ANSWERS)
    for line, answer in zip(lines, ANSWERS, strict=True):
        if "output?follow=1" in line:  # ends when a later line has stopped the job
            following = subprocess.Popen(curl(line), stdout=subprocess.PIPE, text=True)
            assert following.stdout is not None
            printed = following.stdout.readline() + following.stdout.readline()
        else:
            printed = run(line)
        assert re.search(answer, printed), f"{line}\n{printed}"
        if "/start" in line:
            job = json.loads(printed)["job_id"]
    assert following is not None
    assert following.wait(30) == 0


@pytest.fixture
def demo_ports() -> Iterator[None]:
    """The demo's ports are free: a connection of another test that got one as its own holds it for a minute."""
    with contextlib.ExitStack() as taken:

        def free(port: int) -> bool:
            with contextlib.suppress(OSError):
                taken.enter_context(take_port(port))
                return True
            return False

        for port in DEMO_PORTS:
            wait_until(lambda port=port: free(port), f"port {port} is free", 90)
        yield


def test_demo(demo_ports: None) -> None:
    """``make demo ONCE=1``: the sample job's output is shown, and no process is left."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/demo.py", "--once"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.strip() for line in done.stdout.splitlines()[1:6]] == [f"line {number}" for number in range(1, 6)]
    assert [line for line in command_lines() if f"{ROOT}/var/" in line] == []
