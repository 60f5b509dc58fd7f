"""A scheduler and two workers on this machine, and a job on one of them: what ``make demo`` runs.

Everything is in ``var/``: state, logs, the workers' configuration. ``--once``
ends after the sample job; otherwise it stays until Ctrl-C. However it ends, it
stops the jobs and the daemons it started, and no process is left behind: this
process is the subreaper of all of them, so even one whose parent is gone comes
back here to be waited for.
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VAR = ROOT / "var"
TWISTD = Path(sys.executable).parent / "twistd"
API = "http://127.0.0.1:3000"
WORKERS = {"w1": "127.0.0.1:30001", "w2": "127.0.0.1:30002"}

PR_SET_CHILD_SUBREAPER = 36

NEXT = """
Scheduler is at {api}, with workers w1 and w2. In another terminal:

  curl -s {api}/v1/workers
  curl -sN '{api}/v1/jobs?follow=1' -d '{{"worker":"w1","command":"uptime"}}'
  curl -sN {api}/v1/jobs -H 'Accept: text/event-stream' \\
       -d '{{"selector":{{}},"command":"sh","args":["-c","echo hi; exit 3"]}}'
  curl -s {api}/start -d '{{"worker_id":"{worker}","command":"bash","path":"count.sh"}}'
  curl -sN '{api}/v1/jobs/JOB/output?follow=1'
  curl -s {api}/query -d '{{"worker_id":"{worker}","job_id":"JOB"}}'
  curl -s {api}/stop -d '{{"worker_id":"{worker}","job_id":"JOB"}}'

Ctrl-C ends it all."""


class DemoFailed(Exception):
    """Says what went wrong, and where."""


class Daemon:
    """One ``twistd -n``, in a session of its own: Ctrl-C is for the demo, which ends it in order."""

    def __init__(self, name: str, program: str, config: Path) -> None:
        self.name = name
        self.state = VAR / name
        self.log = VAR / f"{name}.log"
        (self.state / "endpoints.json").unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [TWISTD, "-n", program, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"STATE_DIRECTORY": str(self.state)},
                start_new_session=True,
            )

    def check(self) -> None:
        """``DemoFailed``, with the end of its log, if it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-20:]
            raise DemoFailed("\n".join([f"{self.name} ended; the end of {self.log.relative_to(ROOT)}:", *tail]))

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def call(method: str, path: str, body: object = None) -> dict:
    """One request, its JSON answer; ``DemoFailed``."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with open_url(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise DemoFailed(f"{method} {path}: {error.code} {error.read().decode(errors='replace').strip()}") from None
    except OSError as error:
        raise DemoFailed(f"{method} {path}: {error}") from None


def open_url(request: urllib.request.Request):
    """Without a proxy: this is about this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)


def wait_until(what: str, ready: Callable[[], object], daemons: list[Daemon], seconds: float = 30) -> None:
    """``DemoFailed`` if that does not come true in time, or a daemon ends."""
    deadline = time.monotonic() + seconds
    while True:
        for daemon in daemons:
            daemon.check()
        with contextlib.suppress(DemoFailed):
            if ready():
                return
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:g} s; see {VAR.relative_to(ROOT)}/*.log")
        time.sleep(0.1)


def online() -> bool:
    """Whether every worker can take a job."""
    states = {worker["name"]: worker["state"] for worker in call("GET", "/v1/workers")["workers"]}
    return all(states.get(name) == "online" for name in WORKERS)


def start(daemons: list[Daemon]) -> None:
    """Start them all and wait until they work together; what has started is in ``daemons`` whatever happens."""
    VAR.mkdir(exist_ok=True)
    daemons.append(Daemon("scheduler", "scheduler", ROOT / "etc/scheduler.toml"))
    wait_until("the scheduler listens", (VAR / "scheduler/endpoints.json").exists, daemons)
    for name, address in WORKERS.items():
        config = VAR / f"{name}.toml"
        config.write_text(
            f'[grpc_server]\naddr = "{address}"\n\n[worker]\nname = "{name}"\nscripts_dir = "../etc/scripts"\n'
        )
        daemons.append(Daemon(name, "worker", config))
    wait_until("both workers are online", online, daemons)


def sample() -> None:
    """Run count.sh on w1 and show its output as it comes; ``DemoFailed`` unless it succeeds."""
    job = call("POST", "/v1/jobs", {"worker": "w1", "command": "bash", "path": "count.sh", "args": ["5"]})
    print(f"job {job['id']} on w1: bash count.sh 5", flush=True)
    with open_url(urllib.request.Request(f"{API}/v1/jobs/{job['id']}/output?follow=1")) as output:
        for line in output:
            print(f"  {line.decode(errors='replace').rstrip()}", flush=True)
    ended = call("GET", f"/v1/jobs/{job['id']}?wait=10")
    print(f"job {job['id']}: {ended['state']}, exit code {ended['exit_code']}", flush=True)
    if ended["state"] != "succeeded":
        raise DemoFailed(f"the sample job should have succeeded: {ended}")


def stop(daemons: list[Daemon]) -> None:
    """Stop every job, then the workers, then the scheduler, then whatever else is left."""
    if all(daemon.process.poll() is None for daemon in daemons) and len(daemons) > 1:
        with contextlib.suppress(DemoFailed):
            for name in WORKERS:
                call("POST", f"/v1/jobs/stop?worker={name}&state=queued,starting,running,unknown")
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
    """Whether a process is left that is ours, by birth or because its parent ended; those that ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def children() -> Iterator[int]:
    """Their ids."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{os.getpid()}\n" in status.read_text():
                yield int(status.parent.name)


def interrupt(_signal: int, _frame: object) -> None:
    """SIGTERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Exit status: 0, or 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end after the sample job")
    once = parser.parse_args().once

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, interrupt)
    daemons: list[Daemon] = []
    try:
        start(daemons)
        sample()
        if not once:
            workers = call("GET", "/v1/workers")["workers"]
            print(NEXT.format(api="localhost:3000", worker=workers[0]["id"]), flush=True)
            while True:
                for daemon in daemons:
                    daemon.check()
                time.sleep(1)
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
        return 0
    finally:
        # A second Ctrl-C must not leave half of it running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop(daemons)
    return 0


if __name__ == "__main__":
    sys.exit(main())
