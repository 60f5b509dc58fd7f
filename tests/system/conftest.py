"""The installed package and the real ``twistd``, started and stopped like by a user.

Processes are tested from outside, so every process of a test, daemonized or not, must be gone after it. This process
becomes the subreaper of all of them, and ``daemons`` kills and reaps the rest.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.client import Client, ClientError
from tests.processes import become_subreaper, children, end_children

# A process that was started in the background, or by nohup, passes on that these signals are ignored. No program here
# would notice Ctrl-C, or a closed terminal.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)

#: The checkout, or unpacked sdist, that contains the tests.
ROOT = Path(__file__).resolve().parents[2]

#: The folder with the programs of the environment under test.
BIN = Path(sys.executable).parent


def wait_until(ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until ``ready`` is true; fail the test if it is too late. A busy machine may take many times as long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def take_port(port: int = 0) -> socket.socket:
    """Reserve that port of 127.0.0.1, or a free one, for a server that is started later; ``OSError``.

    The socket is only bound. The kernel gives its port to no process that asks for any port, and a server may still use
    the address.
    """
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", port))
    except OSError:
        taken.close()
        raise
    return taken


class Daemon:
    """A ``twistd scheduler`` or ``twistd worker``, with all its files in a folder of its own."""

    def __init__(self, program: str, folder: Path, config: str) -> None:
        """``config`` is TOML. ``state_dir`` is added."""
        folder.mkdir()
        self.program = program
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / f"{program}.toml"
        self.file.write_text(f'state_dir = "state"\n{config}')
        self.log = folder / "log"
        #: A command that ends by executing its arguments, for a start in a namespace, for example.
        self.inside: tuple[str, ...] = ()
        #: The process, while it runs in the foreground.
        self.process: subprocess.Popen[bytes] | None = None
        self._ports: list[socket.socket] = []

    def start(
        self, *, foreground: bool = True, arguments: tuple[str, ...] = (), options: tuple[str, ...] = ()
    ) -> Daemon:
        """Run ``twistd -n``, or daemonize; returns itself when it listens. ``options`` are those of the program."""
        (self.state / "endpoints.json").unlink(missing_ok=True)  # left by a killed process
        mode = ["-n"] if foreground else ["-l", str(self.log)]
        command = [*self.inside, str(BIN / "twistd"), *mode, *arguments, self.program, "-c", str(self.file), *options]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        if foreground:
            self.process = process
        elif process.wait(60) != 0:
            pytest.fail(f"{self.program} did not start:\n{self.log_tail()}")
        wait_until(self._listens, f"{self.program} listens")
        return self

    def crash(self) -> None:
        """Kill it, and start it again."""
        self.kill(signal.SIGKILL)
        self.start()

    def _listens(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            pytest.fail(f"{self.program} ended:\n{self.log_tail()}")
        return (self.state / "endpoints.json").exists()

    @property
    def endpoints(self) -> dict[str, str]:
        """The addresses at which each server really listens."""
        return json.loads((self.state / "endpoints.json").read_text())

    @property
    def pid(self) -> int:
        """The id of the serving process."""
        if self.process is not None:
            return self.process.pid
        return int((self.state / f"{self.program}.pid").read_text())

    def keep_ports(self) -> None:
        """Listen at the same ports after every start. The ports stay reserved while it is down."""

        def chosen(_: re.Match[str]) -> str:
            self._ports.append(port := take_port())
            return f'addr = "127.0.0.1:{port.getsockname()[1]}"'

        self.file.write_text(re.sub(r'addr = "127\.0\.0\.1:0"', chosen, self.file.read_text()))

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def give_up_ports(self) -> None:
        """Release its ports."""
        for port in self._ports:
            port.close()

    def kill(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        pid = self.pid
        os.kill(pid, number)
        if self.process is not None:
            self.process.wait(60)
            self.process = None
        else:
            wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, f"{self.program} ends")


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons, from program, TOML and folder. None of a test's processes outlives it."""
    become_subreaper()
    before = set(children(os.getpid()))
    made: list[Daemon] = []

    def make(program: str, config: str = "", name: str = "") -> Daemon:
        made.append(Daemon(program, tmp_path / (name or program), config))
        return made[-1]

    yield make
    end_children(before)
    for daemon in made:
        daemon.give_up_ports()


SCHEDULER = '[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"\n[cluster]\nlease = "6s"\n'


def worker_config(scheduler: str, name: str = "w1", more: str = "") -> str:
    """The TOML of a worker for the scheduler with this gRPC address."""
    return (
        f'[grpc_server]\naddr = "127.0.0.1:0"\n[scheduler]\naddr = "{scheduler}"\n'
        f'[worker]\nname = "{name}"\nscripts_dir = "{ROOT}/etc/scripts"\nslots = 50\n{more}'
    )


Cluster = tuple[Daemon, Daemon]


@pytest.fixture(scope="session")
def spare() -> Iterator[list[Cluster]]:
    """Keeps the unchanged scheduler and worker of a test for the next test of this process."""
    left: list[Cluster] = []
    yield left
    for pair in left:
        end_children(set(children(os.getpid())) - {daemon.pid for daemon in pair})


@pytest.fixture
def cluster(
    spare: list[Cluster], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """A scheduler, which keeps its ports when it is restarted, and its worker ``w1``, in the foreground.

    They have no jobs and nothing in their logs. Starting them takes a second, so a test that passed and neither killed
    nor restarted them leaves them to the next one. Two traces of earlier tests are visible: used idempotency keys, and
    more threads than after a start.
    """
    become_subreaper()
    others = set(children(os.getpid())) - {daemon.pid for pair in spare for daemon in pair}
    failed, kept = request.session.testsfailed, set[int]()
    try:
        pair = spare.pop() if spare else _new_cluster(tmp_path_factory.mktemp("cluster"))
        for daemon in pair:
            os.truncate(daemon.log, 0)
        processes = [daemon.process for daemon in pair]
        yield pair
        same = [daemon.process for daemon in pair] == processes
        if same and request.session.testsfailed == failed and _without_jobs(pair[0]):
            kept = {daemon.pid for daemon in pair}
            spare.append(pair)
        else:
            pair[0].give_up_ports()
    finally:
        end_children(others | kept)


def _new_cluster(folder: Path) -> Cluster:
    scheduler = Daemon("scheduler", folder / "scheduler", SCHEDULER)
    scheduler.keep_ports()
    scheduler.start()
    worker = Daemon("worker", folder / "worker", worker_config(scheduler.endpoints["grpc"]))
    worker.start()
    return scheduler, worker


def _without_jobs(scheduler: Daemon) -> bool:
    """Stop and remove all jobs, and undo a drain; whether the state equals that of a new scheduler and worker."""
    with Client(f"http://{scheduler.endpoints['http']}", patience=0) as client:
        try:
            client.resume("w1")
            for job in list(client.jobs()):
                if not job.final:
                    client.stop(job.id)
            for job in list(client.jobs()):
                client.remove(job.id)
            return not any(client.jobs()) and [each.state for each in client.workers()] == ["online"]
        except ClientError:
            return False
