"""A job and its result in one call, with curl and a shell against real daemons."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import ROOT, Daemon, wait_until

Cluster = tuple[Daemon, Daemon]

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")


class Curl:
    """curl for one scheduler, whose worker ``w1`` is online."""

    def __init__(self, scheduler: Daemon) -> None:
        self.api = f"http://{scheduler.endpoints['http']}"
        wait_until(lambda: '"online"' in self.run("-s", "/v1/workers").stdout, "the worker is online")

    def run(self, *arguments: str, job: Any = None) -> subprocess.CompletedProcess[str]:
        """Its output and its exit code; the last argument is a path."""
        *options, path = arguments
        data = [] if job is None else ["-d", json.dumps({"worker": "w1", **job})]
        command = ["curl", "-sS", "--max-time", "60", *options, *data, self.api + path]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    def start(self, shell: str, **more: Any) -> str:
        """Start a job; its id."""
        return str(json.loads(self.run("/v1/jobs", job=sh(shell, **more)).stdout)["id"])


def sh(line: str, **more: Any) -> dict[str, Any]:
    """A job that runs a line of shell."""
    return {"command": "sh", "args": ["-c", line], **more}


def snippets(head: str) -> list[str]:
    """The bash blocks under a heading of the documentation."""
    section = (ROOT / "docs/api.md").read_text().split(f"\n### {head}\n")[1].split("\n### ")[0]
    return re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def test_one_call(cluster: Cluster) -> None:
    """A single call gives code, stdout and stderr, and curl's exit code says whether the job succeeded."""
    curl = Curl(cluster[0])
    asked = "/v1/jobs?wait=60&output=64KiB&check=1"
    done = curl.run("--fail-with-body", asked, job=sh("echo out; printf '\\377' >&2"))
    found = json.loads(done.stdout)
    assert (done.returncode, found["exit_code"], found["stdout"], found["stderr_base64"]) == (0, 0, "out\n", "/w==")
    done = curl.run("--fail-with-body", asked, job=sh("seq 100000; exit 3"))
    found = json.loads(done.stdout)
    assert (done.returncode, found["type"], found["job"]["exit_code"]) == (22, "/problems/job-failed", 3)
    assert found["job"]["stdout_cut"]
    whole = "".join(f"{number}\n" for number in range(1, 100001))
    assert found["job"]["stdout"] == whole[found["job"]["stdout_offset"] :]
    assert len(found["job"]["stdout"]) == 65536
    listed = json.loads(curl.run("/v1/jobs?output=4").stdout)
    assert [job["stdout"] for job in listed["jobs"]] == ["000\n", "out\n"]


def test_output_is_complete_at_the_end(cluster: Cluster) -> None:
    """The end of a job is never answered before its last byte can be read."""
    curl = Curl(cluster[0])
    for number in range(20):
        done = curl.run("/v1/jobs?wait=60&output=8", job=sh(f"seq 2000; echo last {number}"))
        assert json.loads(done.stdout)["stdout"].endswith(f"t {number}\n")


def test_loop(cluster: Cluster) -> None:
    """The documented loop waits for a job for longer than one request does, and ends like the job."""
    curl = Curl(cluster[0])
    (loop,) = snippets("One call, one answer")
    assert "wait=60" in loop
    loop = loop.replace("http://127.0.0.1:3000", curl.api).replace("wait=60", "wait=1")
    for line, code in (("sleep 3", 0), ("sleep 3; exit 1", 22)):
        began = time.monotonic()
        script = f"ID={curl.start(line)}\n{loop}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (code, "")
        assert time.monotonic() - began > 2.5


def test_trailers(cluster: Cluster) -> None:
    """curl shows state and exit code after the body."""
    curl = Curl(cluster[0])
    done = curl.run("-N", "-D", "-", "/v1/jobs?follow=1", job=sh("echo hi; exit 3"))
    head, _, rest = done.stdout.replace("\r\n", "\n").partition("\n\n")
    assert "X-Job-Id: " in head
    assert rest.splitlines() == ["hi", "X-Job-State: failed", "X-Exit-Code: 3"]
    done = curl.run("-0", "/v1/jobs?follow=1", job=sh("echo hi"))
    assert json.loads(done.stdout)["status"] == 426


def test_headers_at_once(cluster: Cluster) -> None:
    """The headers of a silent job come long before its first byte."""
    host, _, port = Curl(cluster[0]).api.removeprefix("http://").partition(":")
    body = json.dumps({"worker": "w1", **sh("sleep 60")}).encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        began = time.monotonic()
        head = f"POST /v1/jobs?follow=1&stall=3s HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        received = connection.recv(65536)
        assert b"\r\nX-Job-Id: " in received
        assert received.endswith(b"\r\n\r\n")
        assert time.monotonic() - began < 2.5
        assert connection.recv(65536) == b""  # cut by ``stall``
        assert time.monotonic() - began > 2.5


def test_told_of_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    """A follower by events is told that the worker of its job is gone, that it is back, and of the end."""
    scheduler, worker = cluster
    curl = Curl(scheduler)
    gate = tmp_path / "gate"
    path = f"/v1/jobs/{curl.start(f'while [ ! -e {gate} ]; do sleep 0.05; done; echo done')}/output?output"
    command = ["curl", "-sSN", "--max-time", "90", "-H", "Accept: text/event-stream", curl.api + path]
    states: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        for line in following.stdout:
            if not line.startswith("data: ") or '"state"' not in line:
                continue
            job = json.loads(line.removeprefix("data: "))
            states.append(job["state"])
            if states == ["running"]:
                worker.kill(signal.SIGKILL)
            elif states == ["running", "unknown"]:
                assert job["reason"]
                worker.start()
            elif states == ["running", "unknown", "running"]:
                gate.touch()
    assert (states, job["stdout"]) == (["running", "unknown", "running", "succeeded"], "done\n")


class Cutter:
    """A proxy that cuts its first connections, each after so many bytes of the answer, and no later one."""

    def __init__(self, target: str, cuts: list[int]) -> None:
        host, _, port = target.partition(":")
        self._target = host, int(port)
        self._cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client, self._cuts.pop(0) if self._cuts else None)).start()

    def _pass(self, client: socket.socket, left: int | None) -> None:
        with client, socket.create_connection(self._target) as server:
            threading.Thread(target=self._copy, args=(client, server)).start()
            while data := server.recv(65536):
                client.sendall(data[:left])
                left = None if left is None else left - len(data)
                if left is not None and left <= 0:
                    break
            for each in (server, client):
                each.shutdown(socket.SHUT_RDWR)  # closing would wait for the other thread

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass  # the connection was cut


def run_snippet(address: str, job: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the eight lines, with another address."""
    (script,) = snippets("From a shell")
    assert len(script.splitlines()) == 8
    script = script.replace("http://127.0.0.1:3000", f"http://{address}")
    command = ["bash", "-c", script, "run", json.dumps({"worker": "w1", **job})]
    environment = {"TMPDIR": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=False)


def test_from_a_shell(cluster: Cluster, tmp_path: Path) -> None:
    """The documented lines show all of the output, exit with the job's code, and leave no file behind."""
    address = Curl(cluster[0]).api.removeprefix("http://")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for line, code, output in (("echo hi", 0, "hi\n"), ("seq 3; exit 7", 7, "1\n2\n3\n"), ("kill -9 $$", 1, "")):
        done = run_snippet(address, sh(line), scratch)
        assert (done.returncode, done.stdout) == (code, output), done.stderr
    assert run_snippet(address, {"command": ""}, scratch).returncode == 125
    assert len(list(scratch.iterdir())) == 2  # of the submission that was refused


def test_from_a_shell_cut(cluster: Cluster, tmp_path: Path) -> None:
    """After a cut anywhere, in the answer to the start too, the lines continue at the same place, and start one job."""
    curl = Curl(cluster[0])
    proxy = Cutter(curl.api.removeprefix("http://"), [20, 0, 10_000, 3000, 200, 400, 50_000])
    try:
        done = run_snippet(proxy.address, sh("seq 1 9999; sleep 3; seq 10000 20000; exit 5"), tmp_path)
    finally:
        proxy.close()
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 20001)), done.stderr
    assert done.returncode == 5
    assert len(json.loads(curl.run("/v1/jobs").stdout)["jobs"]) == 1


def test_from_a_shell_restart(cluster: Cluster, tmp_path: Path) -> None:
    """The lines outlast a scheduler that is killed and started again."""
    scheduler, _ = cluster
    curl = Curl(scheduler)

    def restart() -> None:
        wait_until(lambda: '"running"' in curl.run("/v1/jobs").stdout, "the job runs")
        scheduler.crash()

    restarting = threading.Thread(target=restart)
    restarting.start()
    done = run_snippet(curl.api.removeprefix("http://"), sh("echo one; sleep 6; echo two; exit 4"), tmp_path)
    restarting.join()
    assert (done.returncode, done.stdout) == (4, "one\ntwo\n"), done.stderr
