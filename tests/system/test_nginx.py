"""Debian's nginx in front of the scheduler, with a proxy's defaults, and with the settings of docs/operations.md.

By default it uses HTTP/1.0 to us, where the end of a body can't be distinguished from a cut. With
``NGINX_SILENCE_SECONDS=180`` a job is silent for three minutes behind the default ``proxy_read_timeout`` of 60 s;
otherwise the times are shorter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.client import Client, Ended, Output
from tests.system.conftest import ROOT, Daemon, take_port, wait_until
from tests.system.test_answers import Cluster, Curl, sh

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here"),
    pytest.mark.skipif(PROGRAM is None, reason="nginx is not here"),
]

EVENTS = ("-N", "-H", "Accept: text/event-stream")

#: Seconds for which a job is silent, and the ``proxy_read_timeout``, which is longer than the interval of comments.
SILENCE = float(os.environ.get("NGINX_SILENCE_SECONDS", "22"))
READ_TIMEOUT = 60.0 if SILENCE > 60 else SILENCE - 4

#: A limit for a restart of the scheduler, and for its worker to be back; half a minute with other tests beside.
RESTART_MAX_SECONDS = 300

#: Debian's configuration, without the parts that need root or are outside of ``folder``.
CONFIG = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    sendfile on;
    tcp_nopush on;
    gzip on;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {more}
        {location}
    }}
}}
"""

DEFAULT = """
location / {
    proxy_pass http://127.0.0.1:3000;
}
"""


def documented() -> str:
    """The ``location`` that the documentation recommends."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


class Nginx(Curl):
    """An nginx in front of a scheduler."""

    def __init__(self, folder: Path, scheduler: Daemon, location: str, more: str = "") -> None:
        """``more`` is added to its ``server``."""
        self._port = take_port()
        folder.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        facts = {"user": user, "folder": folder, "port": self._port.getsockname()[1], "more": more}
        location = location.replace("127.0.0.1:3000", scheduler.endpoints["http"])
        # through a proxy everybody needs a token; the clients here would all send this one
        token = (scheduler.state / "admin.token").read_text().strip()
        location = location.replace("proxy_pass ", f'proxy_set_header Authorization "Bearer {token}";\nproxy_pass ')
        (folder / "nginx.conf").write_text(CONFIG.format(location=location, **facts))
        self.address = f"127.0.0.1:{facts['port']}"
        self.is_default = "proxy_http_version" not in location
        self._process = subprocess.Popen([str(PROGRAM), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"])
        self.api = f"http://{self.address}"
        wait_until(lambda: '"online"' in self.run("-s", "/v1/workers").stdout, "the worker is online behind nginx")

    def stop(self) -> None:
        """Shut down fast."""
        self._process.terminate()
        self._process.wait(30)
        self._port.close()


Start = Callable[..., Nginx]


@pytest.fixture
def nginx(cluster: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Starts nginx servers, by location."""
    running: list[Nginx] = []

    def start(location: str, more: str = "") -> Nginx:
        running.append(Nginx(tmp_path / f"nginx-{len(running)}", cluster[0], location, more))
        return running[-1]

    yield start
    for each in running:
        each.stop()


both = pytest.mark.parametrize("location", [DEFAULT, documented()], ids=["default", "documented"])


class Follower:
    """curl, and its output so far."""

    def __init__(self, front: Nginx, path: str, *options: str, job: Any = None) -> None:
        data = [] if job is None else ["-d", json.dumps({"worker": "w1", **job})]
        command = ["curl", "-sS", "--max-time", "300", *options, *data, front.api + path]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.read = b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read1(65536):  # type: ignore[union-attr]
            self.read += data

    def has(self, text: bytes) -> None:
        """Wait until the output contains ``text``."""
        wait_until(lambda: text in self.read, f"{text!r} is read")

    def end(self) -> tuple[int, bytes]:
        """Wait for the end: the exit code, and all output."""
        self._reading.join()
        return self._process.wait(60), self.read


def gated(gate: Path, *lines: str) -> str:
    """A line of shell that prints the first line at once, and each further one when there is another gate."""
    waits = [f"while [ ! -e {gate}{number} ]; do sleep 0.05; done; echo {line}" for number, line in enumerate(lines)]
    return "; ".join([waits[0].partition("done; ")[2], *waits[1:]])


@both
def test_prompt_lines(nginx: Start, location: str, tmp_path: Path) -> None:
    """A line arrives while the job waits, by events and, with HTTP/1.1, raw; and so until the end."""
    front, gate = nginx(location), tmp_path / "gate"
    followers = [Follower(front, "/v1/jobs", *EVENTS, job=sh(gated(gate, "one", "two", "three")))]
    followers[0].has(b"event: job")
    found = json.loads(front.run("/v1/jobs").stdout)["jobs"][0]["id"]
    followers.append(Follower(front, f"/v1/jobs/{found}/output", *EVENTS))
    if not front.is_default:
        followers.append(Follower(front, f"/v1/jobs/{found}/output?follow=1", "-N"))
    for number, line in enumerate((b"one\n", b"two\n", b"three\n")):
        if number:
            Path(f"{gate}{number}").touch()
        for each in followers:
            each.has(json.dumps(line.decode()).encode() if each in followers[:2] else line)
    ends = [each.end() for each in followers]
    assert [code for code, _ in ends] == [0] * len(ends)
    assert all(b"\nevent: end\n" in read for _, read in ends[:2])
    assert [read for _, read in ends[2:]] == [b"one\ntwo\nthree\n"] * len(ends[2:])


@both
def test_upload(nginx: Start, location: str, tmp_path: Path) -> None:
    """A large stdin and a large script arrive, also in chunks; and large output comes back unchanged."""
    front = nginx(location)
    body, sent = tmp_path / "body", os.urandom(300_000).hex()
    for job, said in (
        ({"command": "sha256sum", "stdin": sent}, hashlib.sha256(sent.encode()).hexdigest()),
        ({"script": f"#!/bin/sh\n: {sent}\necho ran"}, "ran"),
    ):
        body.write_text(json.dumps({"worker": "w1", **job}))
        for chunked in ((), ("-H", "Transfer-Encoding: chunked")):
            done = front.run(*chunked, "--data-binary", f"@{body}", "/v1/jobs?wait=60&output=1K&check=1")
            assert json.loads(done.stdout)["stdout"].split()[0] == said, done.stdout[:500]
    job_id = front.start("seq 1000000")
    front.run(f"/v1/jobs/{job_id}?wait=60")
    whole = "".join(f"{number}\n" for number in range(1, 1_000_001))
    assert front.run(f"/v1/jobs/{job_id}/output").stdout == whole
    assert front.run("-r", "100-109", f"/v1/jobs/{job_id}/output").stdout == whole[100:110]


@both
def test_old_version(nginx: Start, location: str) -> None:
    """With HTTP/1.0 a raw follow starts nothing, and its problem names nginx's missing setting; HTTP/1.1 works."""
    front = nginx(location)
    known = front.start("echo hi")
    front.run(f"/v1/jobs/{known}?wait=60")
    answers = [
        front.run("-w", "\n%{http_code}", "/v1/jobs?follow=1", job=sh("echo hi", labels={"of": "the follow"})),
        front.run("-w", "\n%{http_code}", f"/v1/jobs/{known}/output?follow=1"),
    ]
    for done in answers:
        text, _, status = done.stdout.rpartition("\n")
        if front.is_default:
            assert (done.returncode, status) == (0, "426")
            assert "proxy_http_version 1.1" in json.loads(text)["detail"]
        else:
            assert (done.returncode, text) == (0, "hi\n")
    started = json.loads(front.run("/v1/jobs?label=of=the%20follow").stdout)["jobs"]
    assert len(started) == (0 if front.is_default else 1)
    done = front.run("-D", "-", f"/v1/jobs/{known}/output")
    assert "Content-Length: 3" in done.stdout
    assert done.stdout.endswith("\n\nhi\n")


def test_silence(nginx: Start) -> None:
    """A silent job can be followed by events for longer than nginx waits for a byte, thanks to comments."""
    limit = f"proxy_read_timeout {READ_TIMEOUT:g}s;"
    without = re.sub(r"\n *proxy_read_timeout.*", "", documented())
    assert without != documented()
    fronts = [nginx(DEFAULT, limit), nginx(without, limit)]
    began = time.monotonic()
    job = sh(f"sleep {SILENCE:g}; echo late")
    ends = [each.end() for each in [Follower(front, "/v1/jobs", *EVENTS, job=job) for front in fronts]]
    assert time.monotonic() - began > SILENCE
    for code, read in ends:
        assert code == 0
        assert b'"late\\n"' in read
        assert b"\nevent: end\n" in read


@both
def test_cut(cluster: Cluster, nginx: Start, location: str, tmp_path: Path) -> None:
    """When the scheduler is killed the client notices the missing part, and gets all of it in the end.

    A raw follow is cut. nginx ends events over HTTP/1.0 properly, but they lack the event ``end``.
    """
    scheduler, _ = cluster
    front, gate = nginx(location), tmp_path / "gate"
    job_id = front.start(gated(gate, "one", "two"))
    followers = [Follower(front, f"/v1/jobs/{job_id}/output", *EVENTS)]
    if not front.is_default:
        followers.append(Follower(front, f"/v1/jobs/{job_id}/output?follow=1", "-N"))
    seen: list[bytes] = []
    ended: list[Ended] = []

    def follow() -> None:
        with Client(front.api, patience=RESTART_MAX_SECONDS) as client:
            for event in client.follow(job_id):
                if isinstance(event, Output):
                    seen.append(event.data)
                elif isinstance(event, Ended):
                    ended.append(event)

    client = threading.Thread(target=follow)
    client.start()
    wait_until(lambda: seen, "the client reads")
    for each in followers:
        each.has(b"one")
    scheduler.kill(signal.SIGKILL)
    events, *raw = [each.end() for each in followers]
    assert b"event: end" not in events[1]
    assert events[0] == (0 if front.is_default else 18)
    assert [code for code, _ in raw] == [18] * len(raw)  # a part of the body is missing
    assert [read for _, read in raw] == [b"one\n"] * len(raw)
    assert not ended
    scheduler.start()
    Path(f"{gate}1").touch()
    client.join(RESTART_MAX_SECONDS)
    assert not client.is_alive()
    assert b"".join(seen) == b"one\ntwo\n"
    assert [each.job.state for each in ended] == ["succeeded"]
