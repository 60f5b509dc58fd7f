"""The real daemons, and control of their processes.

Each is a ``twistd`` of the installed package in a session of its own, with configuration, state and log in a folder of
its own. This process is the subreaper of all of them, so orphans become its children and none of them outlives the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from scheduler.security.authority import issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role
from tests.faults.client import Api
from tests.processes import alive, children

BIN = Path(sys.executable).parent

LOOPBACK = "127.0.0.1"

#: Seconds for things that take almost no time, on a busy machine.
WAIT_MAX_SECONDS = 60.0


class Broken(Exception):
    """The harness can't continue: a daemon does not start, or an awaited condition does not come true."""


def wait_until(ready: Callable[[], object], what: str, seconds: float = WAIT_MAX_SECONDS, pause: float = 0.02) -> float:
    """Wait until ``ready`` is true, and return the seconds that took; ``Broken`` if it is too late."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > seconds:
            raise Broken(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return time.monotonic() - began


class Daemon:
    """A ``twistd scheduler`` or ``twistd worker``."""

    def __init__(self, program: str, name: str, folder: Path, config: str, prefix: Sequence[str] = ()) -> None:
        """``config`` is TOML; ``prefix`` is put before the command (``ip netns exec ...``)."""
        folder.mkdir(parents=True)
        self.program = program
        self.name = name
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / f"{program}.toml"
        self.file.write_text(f'state_dir = "state"\n{config}')
        self.log = folder / "log"
        #: Added to the environment at each start.
        self.environment: dict[str, str] = {}
        #: Further arguments of the program at each start, after its file.
        self.arguments: Sequence[str] = ()
        #: For a worker whose folder is a copy: the original's jobs in it.
        self.copied: frozenset[str] = frozenset()
        self._prefix = tuple(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *options: str) -> list[str]:
        """The command line; ``options`` are twistd's."""
        return [*self._prefix, str(BIN / "twistd"), *options, self.program, "-c", str(self.file), *self.arguments]

    def start(self, environment: Mapping[str, str] | None = None, wait: bool = True) -> float:
        """Start the daemon, and return the seconds until it listens."""
        (self.state / "endpoints.json").unlink(missing_ok=True)  # left by a killed process
        (self.folder / "twistd.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command("-n"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self.environment | (environment or {}),
                start_new_session=True,
            )
        return wait_until(self.listens, f"{self.name} listens") if wait else 0.0

    def listens(self) -> bool:
        """Whether it listens; ``Broken`` if it has ended instead."""
        if not self.alive():
            raise Broken(f"{self.name} ended; the end of {self.log}:\n{self.log_tail()}")
        return (self.state / "endpoints.json").exists()

    @property
    def endpoints(self) -> dict[str, str]:
        """The addresses at which each server really listens."""
        found: dict[str, str] = json.loads((self.state / "endpoints.json").read_text())
        return found

    def keep_ports(self) -> None:
        """Listen at the same ports after a restart."""
        text = self.file.read_text()
        for server, address in self.endpoints.items():
            text = re.sub(rf'(\[{server}_server\]\naddr = ".*:)0"', rf'\g<1>{address.rpartition(":")[2]}"', text)
        self.file.write_text(text)

    @property
    def pid(self) -> int:
        """The id of the serving process."""
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        """Whether it has not ended. A process that has ended is reaped."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        """Send a signal to the process alone, not to its children."""
        os.kill(self.pid, number)

    def kill(self, number: int = signal.SIGKILL, seconds: float = WAIT_MAX_SECONDS) -> float:
        """Send a signal and wait for the end; the seconds that took."""
        began = time.monotonic()
        if self.alive():
            self.send(number)
            self.wait(seconds)
        return time.monotonic() - began

    def wait(self, seconds: float = WAIT_MAX_SECONDS) -> int:
        """Its exit status once it has ended; ``Broken``."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.name} does not end within {seconds:g} s") from None

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])


def _server(name: str, host: str, tls: str = "") -> str:
    """A server's table of the configuration; ``tls`` are the keys of its certificates."""
    open_ = "" if host == LOOPBACK or tls else "allow_insecure = true\n"
    return f'[{name}_server]\naddr = "{host}:0"\n{tls}{open_}'


class Certificates:
    """The authority of a cluster, in a folder, and the pairs of its daemons."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_authority(folder, "faults", datetime.now(UTC))

    def keys(self, role: Role, name: str = "") -> str:
        """The keys of ``[grpc_server]`` for a new pair."""
        made = issue(open_authority(self._folder), Identity("faults", role, name), (), datetime.now(UTC))
        certificate, key = write_pair(self._folder, name or role.value, *made, renew=True)
        files = {"crt_file": certificate, "key_file": key, "ca_file": self._folder / "ca.pem"}
        return "use_tls = true\n" + "".join(f'{field} = "{path}"\n' for field, path in files.items())


class Cluster:
    """A scheduler and its workers, named ``w1`` and so on. They call each other with certificates of an authority."""

    def __init__(
        self, folder: Path, lease: float = 3.0, host: str = LOOPBACK, more: str = "", secure: bool = True
    ) -> None:
        """``lease`` in seconds; ``host`` is the scheduler's; ``more`` is added to its TOML.

        ``secure``: whether calls between them use mutual TLS.
        """
        self.folder = folder
        self.lease = lease
        self._certificates = Certificates((folder / "ca").absolute()) if secure else None
        grpc = _server("grpc", host, self._tls(Role.SCHEDULER))
        config = f'{grpc}{_server("http", host)}[cluster]\nlease = "{lease:g}s"\n{more}'
        self.scheduler = Daemon("scheduler", "scheduler", folder / "scheduler", config)
        self.workers: list[Daemon] = []
        self.api = Api(lambda: self.scheduler.endpoints["http"])

    def start(self, workers: int) -> None:
        """Start the scheduler and ``workers`` workers. Returns when all are online."""
        self.scheduler.start()
        self.scheduler.keep_ports()
        joining = [self.add_worker() for _ in range(workers)]
        for worker in joining:
            worker.start(wait=False)
        for worker in joining:
            wait_until(worker.listens, f"{worker.name} listens")
            worker.keep_ports()
        self.wait_online()

    @staticmethod
    def join(worker: Daemon) -> None:
        """Start a worker for the first time."""
        worker.start()
        worker.keep_ports()

    def add_worker(self, host: str = LOOPBACK, prefix: Sequence[str] = (), more: str = "") -> Daemon:
        """A further worker, not started, that listens on ``host``; ``more`` is added to its table ``worker``."""
        name = f"w{len(self.workers) + 1}"
        self.workers.append(Daemon("worker", name, self.folder / name, self.worker_config(name, host) + more, prefix))
        return self.workers[-1]

    def worker_config(self, name: str, host: str = LOOPBACK) -> str:
        """The TOML of a worker with that name. Its last table is ``worker``."""
        grpc = _server("grpc", host, self._tls(Role.WORKER, name))
        return (
            f'{grpc}[scheduler]\naddr = "{self.scheduler.endpoints["grpc"]}"\n[worker]\nname = "{name}"\nslots = 200\n'
        )

    def _tls(self, role: Role, name: str = "") -> str:
        return "" if self._certificates is None else self._certificates.keys(role, name)

    def wait_online(self, seconds: float = WAIT_MAX_SECONDS) -> float:
        """Wait until every worker is online; the seconds that took."""
        return wait_until(self.online, "all workers are online", seconds)

    def online(self) -> bool:
        """Whether every worker is online."""
        names = {worker.name for worker in self.workers}
        return {name for name, state in self.api.worker_states().items() if state == "online"} >= names

    def serving(self) -> bool:
        """Whether the scheduler answers."""
        return self.api.get("/v1/jobs?limit=1") is not None

    @property
    def daemons(self) -> list[Daemon]:
        return [self.scheduler, *self.workers]

    def end(self) -> None:
        """Kill the daemons. Their jobs are ended by ``end_children``."""
        for daemon in reversed(self.daemons):
            with contextlib.suppress(ProcessLookupError, AssertionError):
                daemon.send(signal.SIGCONT)
            with contextlib.suppress(AssertionError):
                daemon.kill()


def zygote_of(worker: Daemon) -> int | None:
    """The process that forks its shims."""
    for pid in children(worker.pid):
        with contextlib.suppress(OSError):
            if b"zygote" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def reap_orphans(keep: Sequence[Daemon]) -> None:
    """Reap orphans that have ended. The daemons in ``keep`` are reaped by their own ``wait``."""
    mine = {daemon.pid for daemon in keep if daemon.alive()}
    for pid in children(os.getpid()):
        if pid not in mine and not alive(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
