"""``schedctl run`` that is interrupted, and jobs that other clients stop."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from scheduler.cli.interrupts import SAME_INTERRUPT_SECONDS
from tests.system.conftest import Daemon, wait_until
from tests.system.schedctl import PATIENT, STUBBORN, Terminal, User, command_line, finish, job_of

Cluster = tuple[Daemon, Daemon]


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> User:
    """A user of a scheduler with one worker, ``w1``."""
    return User(cluster[0], tmp_path).online()


def test_interrupted_once(user: User, tmp_path: Path) -> None:
    """Ctrl-C in a terminal stops the job; its last output is shown, and schedctl exits with its code."""
    shown = user.terminal("run", "sh", "-c", PATIENT.format(gate=tmp_path / "gate"))
    shown.until(b"begun")
    shown.type(b"\x03")
    code, text = shown.end()
    assert code == 9
    assert b"stopping job" in text
    assert b"bye\r\n" in text
    assert user.jobs() == ["stopped"]


def test_interrupted_twice(user: User, tmp_path: Path) -> None:
    """A second Ctrl-C leaves a job that does not end running, and says how to find it."""
    gate = tmp_path / "gate"
    shown = user.terminal("run", "--stop-grace", "50s", "sh", "-c", STUBBORN.format(gate=gate))
    shown.until(b"begun")
    shown.type(b"\x03")
    job_id = job_of(shown.until(b"press Ctrl-C again"))
    wait_until(lambda: user.client.job(job_id).stop_requested_at, "it is asked to stop")
    not_the_same_interrupt()
    shown.type(b"\x03")
    code, text = shown.end()
    assert code == 121
    assert f"schedctl logs -f {job_id}".encode() in text
    assert user.jobs() == ["running"]
    gate.touch()
    assert user.run("wait", job_id)[0] == 143


def test_interrupted_early(user: User, cluster: Cluster) -> None:
    """Ctrl-C before the scheduler has answered stops the job once it is known; a second does not wait for an answer."""
    scheduler, _ = cluster
    os.kill(scheduler.pid, signal.SIGSTOP)
    try:
        patient, hasty = (user.start("run", "sh", "-c", "exec sleep 60") for _ in range(2))
        for process in (patient, hasty):
            connected(process)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert b"once it is known whether it began" in process.stderr.readline()
        not_the_same_interrupt()
        hasty.send_signal(signal.SIGINT)
        code, _, err = finish(hasty)
        assert code == 121
        assert b"before the scheduler answered, the job may have been started" in err
    finally:
        os.kill(scheduler.pid, signal.SIGCONT)
    assert finish(patient)[0] == 143
    assert user.jobs().count("stopped") == 1


def not_the_same_interrupt() -> None:
    """Wait until the next signal counts as a new interrupt."""
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > SAME_INTERRUPT_SECONDS, "it is another interrupt")


def test_interrupted_under_timeout(user: User) -> None:
    """A Ctrl-C that comes twice, from the terminal and from timeout(1), is one interrupt: the job is stopped."""
    shown = Terminal(["timeout", "60", *command_line("run", "sh", "-c", "echo begun; exec sleep 60")], user.environ)
    shown.until(b"begun")
    shown.type(b"\x03")
    code, text = shown.end()
    assert (code, b"is left as it is" in text) == (143, False)
    assert user.jobs() == ["stopped"]


def test_terminal_is_closed(user: User) -> None:
    """A terminal that goes away, and its shell's own SIGHUP after it, stop the job."""
    shown = Terminal(["bash", "--norc", "-i"], user.environ)
    shown.type(shlex.join(command_line("run", "sh", "-c", "echo be''gun; exec sleep 60")).encode() + b"\n")
    shown.until(b"begun")
    shown.close()
    wait_until(lambda: user.jobs() == ["stopped"], "the job is stopped")


def connected(process: subprocess.Popen[bytes]) -> None:
    """Wait until it has a connection, and so its signal handlers."""

    def has_socket() -> bool:
        folder = Path(f"/proc/{process.pid}/fd")
        with contextlib.suppress(OSError):  # the descriptor was closed meanwhile
            return any(os.readlink(each).startswith("socket:") for each in folder.iterdir())
        return False

    wait_until(has_socket, "it is connected")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals(user: User, number: int) -> None:
    """SIGTERM and SIGHUP act like Ctrl-C; a job that ends by the signal of its stop gives 143."""
    process = user.start("run", "sh", "-c", "echo begun; sleep 60")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun\n"
    process.send_signal(number)
    assert finish(process)[:2] == (143, b"")
    assert user.jobs() == ["stopped"]


def test_stopped_by_another(user: User) -> None:
    """A job that another client stops gives 143."""
    process = user.start("run", "sh", "-c", "echo begun; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun\n"
    (job,) = user.client.jobs()
    assert user.run("stop", job.id[:36]) == (0, f"{job.id}\n".encode(), b"")
    assert finish(process) == (143, b"", b"")
