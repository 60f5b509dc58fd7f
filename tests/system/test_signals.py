"""Signals to the daemons: repeated stops, a closed terminal, log rotation; restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.client import Client
from tests.system.conftest import BIN, SCHEDULER, Daemon, wait_until, worker_config

Make = Callable[..., Daemon]

#: An address without a server.
NOBODY = "127.0.0.1:1"

CONFIGURATIONS = {"scheduler": SCHEDULER, "worker": worker_config(NOBODY)}


def end_of(daemon: Daemon) -> int:
    """The exit code of a foreground process once it has ended, negative for a signal."""
    assert daemon.process is not None
    code = daemon.process.wait(60)
    daemon.process = None
    return code


def ask(scheduler: Daemon) -> None:
    """Make a request, which causes a line in the log."""
    with Client(f"http://{scheduler.endpoints['http']}") as client:
        client.workers()


@pytest.mark.parametrize("program", ["scheduler", "worker"])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_asked_twice(daemons: Make, program: str, first: signal.Signals) -> None:
    """A process that is asked to stop again while it stops continues to stop, without a traceback."""
    daemon = daemons(program, CONFIGURATIONS[program]).start()
    others = {signal.SIGTERM, signal.SIGINT} - {first}
    os.kill(daemon.pid, signal.SIGSTOP)
    for number in (first, *others):  # so that both are pending at once
        os.kill(daemon.pid, number)
    os.kill(daemon.pid, signal.SIGCONT)
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon.pid, first)
    assert end_of(daemon) in (-signal.SIGTERM, -signal.SIGINT)
    assert not (daemon.state / "endpoints.json").exists()
    assert "Traceback" not in daemon.log.read_text()
    assert "already stopping" in daemon.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restart_under_connections(daemons: Make, number: signal.Signals) -> None:
    """Lingering connections that the ended process closed first do not block the ports of the next one."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    endpoints = scheduler.endpoints
    tables = (f'[{server}_server]\naddr = "{address}"\n' for server, address in endpoints.items())
    scheduler.file.write_text('state_dir = "state"\n' + "".join(tables))
    daemons("worker", worker_config(endpoints["grpc"])).start()
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for address in endpoints.values():
                host, _, port = address.rpartition(":")
                for _ in range(3):
                    client = stack.enter_context(socket.create_connection((host, int(port))))
                    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    client.recv(10)
            os.kill(scheduler.pid, number)
            end_of(scheduler)
        scheduler.start()
    assert scheduler.endpoints == endpoints


@pytest.mark.parametrize("program", ["scheduler", "worker"])
def test_asked_while_it_starts(daemons: Make, program: str) -> None:
    """A process that is asked to stop while it starts ends, without a traceback, and can be started again."""
    daemon = daemons(program, CONFIGURATIONS[program])
    command = [str(BIN / "twistd"), "-n", program, "-c", str(daemon.file)]
    began = time.monotonic()
    daemon.start()
    took = time.monotonic() - began
    daemon.kill()
    for tenths in range(3, 13):
        with daemon.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=daemon.folder)
        time.sleep(took * tenths / 10)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM, tenths
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()


@pytest.mark.parametrize("program", ["scheduler", "worker"])
def test_closed_terminal(daemons: Make, program: str) -> None:
    """In the foreground SIGHUP acts like SIGTERM: the process stops properly."""
    daemon = daemons(program, CONFIGURATIONS[program]).start()
    os.kill(daemon.pid, signal.SIGHUP)
    assert end_of(daemon) == -signal.SIGTERM
    assert not (daemon.state / "endpoints.json").exists()
    assert f"{program} has stopped" in daemon.log.read_text()
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("program", ["scheduler", "worker"])
def test_nohup(daemons: Make, program: str) -> None:
    """A SIGHUP that was ignored at the start stays ignored."""
    daemon = daemons(program, CONFIGURATIONS[program])
    daemon.inside = ("nohup",)
    daemon.start()
    os.kill(daemon.pid, signal.SIGHUP)
    with socket.create_connection(("127.0.0.1", int(daemon.endpoints["grpc"].rpartition(":")[2]))):
        os.kill(daemon.pid, signal.SIGTERM)
    assert end_of(daemon) == -signal.SIGTERM
    assert "stopping: SIGHUP" not in daemon.log.read_text()


@pytest.mark.parametrize("inside", [(), ("nohup",)])
def test_log_moved_away(daemons: Make, inside: tuple[str, ...]) -> None:
    """A daemon continues in a new log file after SIGHUP, without losing a line, and keeps serving."""
    scheduler = daemons("scheduler", SCHEDULER)
    scheduler.inside = inside
    scheduler.start(foreground=False)
    moved = Path(f"{scheduler.log}.moved")
    scheduler.log.rename(moved)
    ask(scheduler)
    assert moved.read_text().count("GET /v1/workers") == 1
    os.kill(scheduler.pid, signal.SIGHUP)
    wait_until(scheduler.log.exists, "the log is there again")
    ask(scheduler)
    assert moved.read_text().count("GET /v1/workers") == 1
    assert scheduler.log.read_text().count("GET /v1/workers") == 1
    scheduler.kill()


def test_worker_log_moved_away(daemons: Make) -> None:
    """A worker does so, too."""
    worker = daemons("worker", CONFIGURATIONS["worker"])
    worker.start(foreground=False)
    worker.log.rename(f"{worker.log}.moved")
    os.kill(worker.pid, signal.SIGHUP)
    wait_until(worker.log.exists, "the log is there again")
    worker.kill()
    assert "worker has stopped" in worker.log.read_text()


def test_log_truncated(daemons: Make) -> None:
    """A log that is truncated under a daemon, as by logrotate's ``copytruncate``, continues at its beginning."""
    scheduler = daemons("scheduler", SCHEDULER)
    scheduler.start(foreground=False)
    os.truncate(scheduler.log, 0)
    ask(scheduler)
    (line,) = scheduler.log.read_text().splitlines()
    assert line.startswith("20")
    scheduler.kill()


def test_log_rotated_often(daemons: Make) -> None:
    """A limited number of rotated logs is kept."""
    scheduler = daemons("scheduler", SCHEDULER)
    scheduler.start(foreground=False)
    for _ in range(13):
        before = scheduler.log.stat().st_ino
        ask(scheduler)
        os.kill(scheduler.pid, signal.SIGUSR1)
        wait_until(lambda before=before: scheduler.log.exists() and scheduler.log.stat().st_ino != before, "a new log")
    assert len(list(scheduler.folder.glob("log.*"))) == 10
    assert "GET /v1/workers" in Path(f"{scheduler.log}.1").read_text()
    scheduler.kill()


def test_no_noise(daemons: Make) -> None:
    """The log contains the process's actions, from start to end, and nothing of the libraries beneath."""
    for program in ("scheduler", "worker"):
        daemon = daemons(program, CONFIGURATIONS[program]).start()
        daemon.kill()
        text = daemon.log.read_text()
        assert "object at 0x" not in text
        assert "twisted." not in text.replace("twisted=", "")
        lines = text.splitlines()
        assert f"{program} 0." in lines[0], lines[0]
        assert str(daemon.file) in lines[0]
        assert lines[-1].endswith(f"{program} has stopped")
        assert any(line.endswith("stopping: SIGTERM") for line in lines)
