"""``make demo`` works with any ports in use, its suggested commands work, and no process is left."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import BIN, ROOT, take_port
from tests.system.documents import Shell

DEMO = ROOT / "examples/demo.py"

pytestmark = pytest.mark.skipif(not (BIN / "schedctl").exists(), reason="schedctl is not installed")

#: Its output about the sample job.
SAMPLE = [
    "$ schedctl run --on w1 --script etc/scripts/count.sh -- 5",
    *(f"line {n}" for n in range(1, 6)),
    "exit code 0",
]

#: The output of each suggested command, in order.
ANSWERS = (
    r"^$",
    r"^$",
    r"load average",
    r"^hi\n3\n$",
    r"^[0-9a-f-]{36}\n$",
    r"(?m)^[0-9a-f]{8} +w1 +running .*sleep 600$",
    r"(?m)^w1 +online ",
    r"(?m)^  run ",
    r'(?s)"state": *"succeeded".*load average',
    r"^hi\n$",
    r'(?s)"jobs":.*"sleep"',
    r'(?s)"workers":.*"name": *"w2"',
)


def left_behind() -> list[str]:
    """The command lines of a demo's processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if f"{ROOT}/var/" in line]


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No other process of this run has a demo meanwhile, because a checkout can have only one."""
    with (tmp_path_factory.getbasetemp().parent / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def usual_ports_taken() -> Iterator[None]:
    """All usual ports are in use, by this process or another."""
    with contextlib.ExitStack() as taken:
        for port in (3000, 50000, 30001, 30002):
            with contextlib.suppress(OSError):
                taken.enter_context(take_port(port)).listen()
        yield


def test_once(alone: None) -> None:
    """``make demo ONCE=1`` shows the sample job, ends by itself, and no process is left."""
    done = subprocess.run([sys.executable, DEMO, "--once"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines() == SAMPLE
    assert left_behind() == []


def test_what_to_type_next(alone: None, usual_ports_taken: None, tmp_path: Path) -> None:
    """With all usual ports in use, the suggested commands work; Ctrl-C ends everything, including a running job."""
    environ = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "120", "XDG_CONFIG_HOME": ""}
    with subprocess.Popen([sys.executable, DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        try:
            printed = []
            for line in demo.stdout:
                printed.append(line.rstrip("\n"))
                if "Ctrl-C" in line:
                    break
            assert printed[: len(SAMPLE)] == SAMPLE, printed
            commands = [line.strip() for line in printed if line.startswith("  ")]
            assert len(commands) == len(ANSWERS)
            with contextlib.closing(Shell(tmp_path, environ)) as shell:
                for command, answer in zip(commands, ANSWERS, strict=True):
                    answered = shell.run(command)
                    assert re.search(answer, answered), f"{command}\n{answered}"
            again = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, timeout=60, check=False)
            assert (again.returncode, again.stdout) == (1, "")
            assert "another demo" in again.stderr
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    assert left_behind() == []


def test_address() -> None:
    """A usual port is used if it is free."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    demo = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(demo)
    with take_port() as taken:
        port = taken.getsockname()[1]
        taken.listen()
        assert demo.address(port) == "127.0.0.1:0"
    assert demo.address(port) == f"127.0.0.1:{port}"
