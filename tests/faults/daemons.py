"""The real daemons, and what can be done to their processes.

Each is a ``twistd`` of the installed package in a session of its own, with its
configuration, state and log in a folder of its own. This process is the
subreaper of all of them, so that what is orphaned comes back here and none of it
outlives the run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.faults.client import Api

BIN = Path(sys.executable).parent

LOOPBACK = "127.0.0.1"

#: Seconds: of all that should take no time at all, on a machine that is busy with other things.
WAIT_MAX_SECONDS = 60.0

_PR_SET_CHILD_SUBREAPER = 36


class Broken(Exception):
    """The harness can't go on: a daemon does not start, or something does not come about."""


def wait_until(ready: Callable[[], object], what: str, seconds: float = WAIT_MAX_SECONDS, pause: float = 0.02) -> float:
    """Seconds until that came true; ``Broken`` if it does not in time."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > seconds:
            raise Broken(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return time.monotonic() - began


class Daemon:
    """One ``twistd scheduler`` or ``twistd worker``."""

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
        #: Given to the program, behind its file, at each start.
        self.arguments: Sequence[str] = ()
        #: Of a worker whose folder is a copy, the jobs of the original that are in it.
        self.copied: frozenset[str] = frozenset()
        self._prefix = tuple(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *options: str) -> list[str]:
        """What is run; ``options`` are twistd's."""
        return [*self._prefix, str(BIN / "twistd"), *options, self.program, "-c", str(self.file), *self.arguments]

    def start(self, environment: Mapping[str, str] | None = None, wait: bool = True) -> float:
        """Start it; seconds until it listens."""
        (self.state / "endpoints.json").unlink(missing_ok=True)  # what a killed one left would seem to listen
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
        """``Broken`` if it has ended instead."""
        if not self.alive():
            raise Broken(f"{self.name} ended; the end of {self.log}:\n{self.log_tail()}")
        return (self.state / "endpoints.json").exists()

    @property
    def endpoints(self) -> dict[str, str]:
        """Where each server really listens."""
        found: dict[str, str] = json.loads((self.state / "endpoints.json").read_text())
        return found

    def keep_ports(self) -> None:
        """Listen at the same ports when started again."""
        text = self.file.read_text()
        for server, address in self.endpoints.items():
            text = re.sub(rf'(\[{server}_server\]\naddr = ".*:)0"', rf'\g<1>{address.rpartition(":")[2]}"', text)
        self.file.write_text(text)

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        """Whether it has not ended; one that has is reaped."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        """To it alone, not to its children."""
        os.kill(self.pid, number)

    def kill(self, number: int = signal.SIGKILL, seconds: float = WAIT_MAX_SECONDS) -> float:
        """Send a signal and wait for the end; how long that took."""
        began = time.monotonic()
        if self.alive():
            self.send(number)
            self.wait(seconds)
        return time.monotonic() - began

    def wait(self, seconds: float = WAIT_MAX_SECONDS) -> int:
        """Its exit status, once it has ended; ``Broken``."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.name} does not end within {seconds:g} s") from None

    def log_tail(self) -> str:
        """What it said last."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])


def _server(name: str, host: str) -> str:
    """A table of the configuration."""
    open_ = "" if host == LOOPBACK else "allow_insecure = true\n"
    return f'[{name}_server]\naddr = "{host}:0"\n{open_}'


class Cluster:
    """A scheduler and its workers, ``w1`` and so on."""

    def __init__(self, folder: Path, lease: float = 3.0, host: str = LOOPBACK, more: str = "") -> None:
        """``lease`` in seconds; ``host`` is where the scheduler listens; ``more`` is added to its TOML."""
        self.folder = folder
        self.lease = lease
        config = f'{_server("grpc", host)}{_server("http", host)}[cluster]\nlease = "{lease:g}s"\n{more}'
        self.scheduler = Daemon("scheduler", "scheduler", folder / "scheduler", config)
        self.workers: list[Daemon] = []
        self.api = Api(lambda: self.scheduler.endpoints["http"])

    def start(self, workers: int) -> None:
        """Start the scheduler and so many workers; returns when all are online."""
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
        """One more, not started, that listens at ``host``; ``more`` is added to its table ``worker``."""
        name = f"w{len(self.workers) + 1}"
        self.workers.append(Daemon("worker", name, self.folder / name, self.worker_config(name, host) + more, prefix))
        return self.workers[-1]

    def worker_config(self, name: str, host: str = LOOPBACK) -> str:
        """TOML of a worker with that name; its last table is ``worker``."""
        return (
            f'{_server("grpc", host)}[scheduler]\naddr = "{self.scheduler.endpoints["grpc"]}"\n'
            f'[worker]\nname = "{name}"\nslots = 200\n'
        )

    def wait_online(self, seconds: float = WAIT_MAX_SECONDS) -> float:
        """Until every worker is online; how long it took."""
        return wait_until(self.online, "all workers are online", seconds)

    def online(self) -> bool:
        """Whether every worker is."""
        names = {worker.name for worker in self.workers}
        return {name for name, state in self.api.worker_states().items() if state == "online"} >= names

    def serving(self) -> bool:
        """Whether the scheduler answers."""
        return self.api.get("/v1/jobs?limit=1") is not None

    @property
    def daemons(self) -> list[Daemon]:
        return [self.scheduler, *self.workers]

    def end(self) -> None:
        """End them, by force; their jobs go with ``end_children``."""
        for daemon in reversed(self.daemons):
            with contextlib.suppress(ProcessLookupError, AssertionError):
                daemon.send(signal.SIGCONT)
            with contextlib.suppress(AssertionError):
                daemon.kill()


# -- processes


def become_subreaper() -> None:
    """What is orphaned below becomes a child of this process."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(parent: int) -> Iterator[int]:
    """Processes whose parent that is now, zombies among them."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in status.read_text():
                yield int(status.parent.name)


def tree(root: int) -> set[int]:
    """All that descend from that process."""
    found: set[int] = set()
    for child in children(root):
        found |= {child} | tree(child)
    return found


def alive(pid: int) -> bool:
    """There, and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def zygote_of(worker: Daemon) -> int | None:
    """The process that forks its shims."""
    for pid in children(worker.pid):
        with contextlib.suppress(OSError):
            if b"zygote" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def parent_of(pid: int) -> int | None:
    """Its parent's id."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(words[1])


def descriptors(pid: int) -> int:
    """How many files it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def memory(pid: int) -> float:
    """What it has resident, MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def cpu(pid: int) -> float:
    """Seconds of processor time it has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def reap_orphans(keep: Sequence[Daemon]) -> None:
    """Collect orphans that have ended; the daemons are left to their own ``wait``."""
    mine = {daemon.pid for daemon in keep if daemon.alive()}
    for pid in children(os.getpid()):
        if pid not in mine and not alive(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def end_children(seconds: float = WAIT_MAX_SECONDS) -> None:
    """Kill and reap whatever is left of this process's children, and theirs as they come here; ``Broken``."""
    deadline = time.monotonic() + seconds
    while left := set(children(os.getpid())):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise Broken(f"can't end {left}")
        time.sleep(0.01)
