"""The program behind ``make demo``: a scheduler and two workers on this machine, and a job on one of them.

Everything is in ``var/``: state, logs, configuration. ``--once`` ends after the sample job; otherwise the demo runs
until Ctrl-C. If a usual port is in use, any free one is taken. However the demo ends, it stops its jobs and daemons and
leaves no process behind. It is the subreaper of all of them, so it can wait even for a process whose parent has ended.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scheduler.cli.contexts import DEFAULT_URL, config_file
from scheduler.client import Client, ClientError

ROOT = Path(__file__).resolve().parents[1]
VAR = ROOT / "var"
BIN = Path(sys.executable).parent

HTTP_PORT, GRPC_PORT = 3000, 50000
WORKER_PORTS = {"w1": 30001, "w2": 30002}

PR_SET_CHILD_SUBREAPER = 36

SAMPLE = ("schedctl", "run", "--on", "w1", "--script", "etc/scripts/count.sh", "--", "5")

NEXT = """
The scheduler is at {url}, with workers w1 and w2. To go on, in another terminal:

{exports}
  schedctl run --on w2 -- uptime
  schedctl run -s 'echo hi; exit 3'; echo $?
  schedctl run --on w1 --detach -- sleep 600
  schedctl ps
  schedctl workers
  schedctl --help

The same with curl:

  curl -s '{url}/v1/jobs?wait=60&output=64KiB' -d '{{"worker":"w2","command":"uptime"}}'
  curl -sN '{url}/v1/jobs?follow=1' -d '{{"selector":{{}},"shell":"echo hi; exit 3"}}'
  curl -s '{url}/v1/jobs?state=running'
  curl -s {url}/v1/workers

Ctrl-C ends it all."""


class DemoFailed(Exception):
    """The demo failed; the text says why and where."""


class Daemon:
    """A ``twistd -n`` process in a session of its own, so that Ctrl-C reaches only the demo, which ends it properly."""

    def __init__(self, name: str, program: str, config: Path) -> None:
        self.name = name
        self.state = VAR / name
        self.log = VAR / f"{name}.log"
        (self.state / "endpoints.json").unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "twistd", "-n", program, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"STATE_DIRECTORY": str(self.state)},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise ``DemoFailed`` with the end of the daemon's log if it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-20:]
            raise DemoFailed("\n".join([f"{self.name} ended; the end of {self.log.relative_to(ROOT)}:", *tail]))

    @property
    def endpoints(self) -> dict[str, str] | None:
        """The addresses of its servers; ``None`` until they listen."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.state / "endpoints.json").read_text())
        return None

    def stop(self) -> None:
        """Ask it to end, then kill it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def address(port: int) -> str:
    """An address to listen on: that port of loopback or, if it is in use, any free one."""
    with socket.socket() as probe:
        # Like the servers, ignore lingering connections of an earlier server on this port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{port}"


def wait_until(what: str, ready: Callable[[], object], daemons: list[Daemon], seconds: float = 30) -> None:
    """Wait until ``ready`` is true. ``DemoFailed`` if it is not in time, or if a daemon ends."""
    deadline = time.monotonic() + seconds
    while True:
        for daemon in daemons:
            daemon.check()
        if ready():
            return
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:g} s; see {VAR.relative_to(ROOT)}/*.log")
        time.sleep(0.1)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lock ``var/``; ``DemoFailed`` if another demo uses it."""
    VAR.mkdir(exist_ok=True)
    with (VAR / "demo.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed("another demo runs from this folder; end that one first") from None
        yield


def configured(name: str, text: str) -> Path:
    """Write a configuration file with that text."""
    file = VAR / f"{name}.toml"
    file.write_text(text)
    return file


def start(daemons: list[Daemon]) -> str:
    """Start all daemons, wait until they work together, and return the URL of the API.

    Daemons that have started are in ``daemons`` even if this fails.
    """
    config = configured(
        "scheduler",
        f'[grpc_server]\naddr = "{address(GRPC_PORT)}"\n\n[http_server]\naddr = "{address(HTTP_PORT)}"\n',
    )
    scheduler = Daemon("scheduler", "scheduler", config)
    daemons.append(scheduler)
    wait_until("the scheduler listens", lambda: scheduler.endpoints, daemons)
    endpoints = scheduler.endpoints
    assert endpoints is not None
    for name, port in WORKER_PORTS.items():
        config = configured(
            name,
            f'[grpc_server]\naddr = "{address(port)}"\n\n[scheduler]\naddr = "{endpoints["grpc"]}"\n\n'
            f'[worker]\nname = "{name}"\nscripts_dir = "../etc/scripts"\n',
        )
        daemons.append(Daemon(name, "worker", config))
    url = f"http://{endpoints['http']}"
    with Client(url) as client:

        def online() -> bool:
            return {worker.name for worker in client.workers() if worker.state == "online"} >= WORKER_PORTS.keys()

        wait_until("both workers are online", online, daemons)
    return url


def sample(url: str) -> None:
    """Run count.sh on w1 by ``schedctl``, which shows its output live; ``DemoFailed`` unless it succeeds."""
    print(f"$ {shlex.join(SAMPLE)}", flush=True)
    environ = os.environ | {"SCHEDULER_URL": url}
    code = subprocess.call([BIN / SAMPLE[0], *SAMPLE[1:]], stdin=subprocess.DEVNULL, cwd=ROOT, env=environ)
    print(f"exit code {code}", flush=True)
    if code != 0:
        raise DemoFailed(f"the sample job should have succeeded; see {VAR.relative_to(ROOT)}/*.log")


def next_steps(url: str) -> str:
    """Commands for the user to try next, which work in another terminal as printed."""
    exports = [f"export PATH={shlex.quote(str(BIN))}:$PATH"]
    if url != DEFAULT_URL or os.environ.get("SCHEDULER_URL") or config_file(os.environ).exists():
        exports.append(f"export SCHEDULER_URL={url}")
    return NEXT.format(url=url, exports="\n".join(f"  {line}" for line in exports))


def stop(daemons: list[Daemon], url: str | None) -> None:
    """Stop every job, then the workers, then the scheduler, then all remaining processes.

    Without ``url`` no job exists yet.
    """
    if url is not None and all(daemon.process.poll() is None for daemon in daemons):
        with contextlib.suppress(ClientError), Client(url) as client:
            for name in WORKER_PORTS:
                client.stop_matching(worker=name, state=["queued", "starting", "running", "unknown"])
    for daemon in reversed(daemons):
        daemon.stop()
    deadline = time.monotonic() + 15
    while has_children():
        if time.monotonic() > deadline:
            for pid in children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def has_children() -> bool:
    """Reap ended children, and tell whether any are left: our own, and those whose parent ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def children() -> Iterator[int]:
    """The ids of all children."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{os.getpid()}\n" in status.read_text():
                yield int(status.parent.name)


def interrupt(_signal: int, _frame: object) -> None:
    """End the demo on SIGTERM as on Ctrl-C."""
    raise KeyboardInterrupt


def demonstrate(once: bool) -> None:
    """Run the demo, until Ctrl-C unless ``once``; ``DemoFailed``, ``ClientError``."""
    daemons: list[Daemon] = []
    url = None
    try:
        url = start(daemons)
        sample(url)
        if not once:
            print(next_steps(url), flush=True)
        while not once:
            for daemon in daemons:
                daemon.check()
            time.sleep(1)
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        # A second Ctrl-C must not leave half of the processes running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop(daemons, url)


def main() -> int:
    """Run the demo; the exit status is 0, or 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end after the sample job")
    once = parser.parse_args().once

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with alone():
            demonstrate(once)
    except (DemoFailed, ClientError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
