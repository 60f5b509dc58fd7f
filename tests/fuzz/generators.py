"""The generators: each makes the case of a number, sends it, and tells its outcome."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

import grpc
from attrs import frozen

from tests.fuzz import frames, messages, requests, values
from tests.fuzz.target import Target
from tests.integration.http2 import GOAWAY, HEADERS, RST_STREAM, received_frames

#: Seconds to wait for the answer to a case, and for more of it. An incomplete request gets none.
ANSWER_MAX_SECONDS, MORE_MAX_SECONDS = 0.15, 0.05

#: Bytes of an answer, after which no more of it is read.
ANSWER_MAX_BYTES = 5_000_000

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")

#: Statuses that a request can be refused with. Only 424 tells about a job that was started.
_REFUSED = frozenset({"400", "401", "403", "404", "405", "411", "413", "415", "416", "426", "431"})


@frozen
class Outcome:
    """The outcome of a case: ``kind`` is counted, and ``fault`` tells a broken promise."""

    kind: str
    fault: str = ""


class Generator(Protocol):
    """Makes and sends cases."""

    name: str

    def run(self, rng: Random) -> Outcome:
        """Make a case from ``rng``, send it, and return its outcome."""


class HttpRequests:
    """Requests of every route, and some that are none."""

    name = "http"

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address = target.address(target.cluster.scheduler, "http")

    def run(self, rng: Random) -> Outcome:
        ids = {"job_id": [self._target.job], "worker": ["w1", "nobody"], "name": ["internal", "busy"]}
        raw = requests.request(rng, ids)
        began = time.time()
        answer, is_closed = _sent(self._address, raw, ANSWER_MAX_SECONDS)
        statuses = [status.decode() for status in _STATUS.findall(answer)]
        kind = statuses[-1] if statuses else "other bytes" if answer else "closed" if is_closed else "silent"
        new = self._target.submitted(began)
        fault = ""
        if "500" in statuses or b"Traceback" in answer:
            fault = f"{kind} for {raw[:600]!r}: {answer[:600]!r}"
        elif new and (is_closed or statuses) and _REFUSED.issuperset(statuses):
            fault = f"{kind}, but a job was made: {new}, {raw[:2000]!r}"
        return Outcome(kind, fault)


class Calls:
    """Calls of one service with odd messages and metadata."""

    def __init__(
        self, name: str, target: Target, service: str, address: str, known: Mapping[str, Sequence[str]]
    ) -> None:
        self.name = name
        self._target = target
        methods = messages.METHODS[service]
        #: The methods that do most with the values they get are called more often than the others.
        self._methods = [*methods, *(each for each in methods if each[0].endswith(("StartJob", "Heartbeat")))] * 2
        self._known = known
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])

    def run(self, rng: Random) -> Outcome:
        path, kind = rng.choice(self._methods)
        raw = messages.message(rng, kind, self._known).SerializeToString()
        if rng.random() < 0.15:
            raw = values.mutated(rng, raw)
        call = self._channel.unary_stream if path.endswith("StreamJob") else self._channel.unary_unary
        try:
            answer = call(path)(raw, timeout=rng.choice((0.05, 0.5, 0.5)), metadata=messages.metadata(rng, self._known))
            if path.endswith("StreamJob"):
                for _ in answer:
                    pass
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            is_ours = code is grpc.StatusCode.INTERNAL and not details.startswith("Exception deserializing request")
            raised = code is grpc.StatusCode.UNKNOWN and details.startswith("Exception ")
            fault = f"{code.name} {details[:300]} for {path} {raw[:1500]!r}" if is_ours or raised else ""
            return Outcome(code.name, fault)
        except ValueError:
            return Outcome("not sent")  # grpc itself refuses the metadata
        if path.lower().endswith("registerworker"):
            self._target.enrol()  # another process may have its name now
        return Outcome("OK")


class Frames:
    """Connections of HTTP/2 with odd frames, to each gRPC server in turn."""

    name = "frames"

    def __init__(self, target: Target) -> None:
        self._addresses = [target.address(daemon, "grpc") for daemon in target.cluster.daemons]

    def run(self, rng: Random) -> Outcome:
        raw = frames.conversation(rng)
        answer, is_closed = _sent(rng.choice(self._addresses), raw, MORE_MAX_SECONDS)
        if not answer:
            return Outcome("closed" if is_closed else "silent")
        kinds = {kind for kind, *_ in received_frames(answer)[0]}
        named = {GOAWAY: "GOAWAY", RST_STREAM: "RST_STREAM", HEADERS: "HEADERS"}
        return Outcome(next((name for kind, name in named.items() if kind in kinds), "other frames"))


class HangUps:
    """Clients that leave in the middle of a request, a wait or a stream, some of them by a reset."""

    name = "hang-ups"

    def __init__(self, target: Target) -> None:
        self._job = target.job
        self._address = target.address(target.cluster.scheduler, "http")

    def run(self, rng: Random) -> Outcome:
        body = b'{"worker": "w1", "command": "sleep", "args": ["0.2"]}'
        kind, line, accept = rng.choice(
            (
                ("wait", "POST /v1/jobs?wait=300", ""),
                ("follow", "POST /v1/jobs?follow=1", ""),
                ("events", "POST /v1/jobs", "text/event-stream"),
                ("output", f"GET /v1/jobs/{self._job}/output?follow=1", ""),
                ("list", "GET /v1/jobs?limit=1000", ""),
            )
        )
        head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nAccept: {accept}\r\n\r\n"
        raw = (head.encode() + body) * rng.choice((1, 1, 5))
        if rng.random() < 0.3:
            kind, raw = "part", raw[: rng.randrange(len(raw))]
        with contextlib.suppress(ConnectionError), socket.create_connection(self._address, 10) as connection:
            connection.sendall(raw)
            if rng.random() < 0.5:
                kind += ", reset"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            time.sleep(rng.choice((0, 0.01, 0.05)))
        return Outcome(kind)


def _sent(address: tuple[str, int], raw: bytes, patience: float) -> tuple[bytes, bool]:
    """Send bytes on a new connection; the answer, and whether the server closed the connection.

    The answer is over if the server is silent: for ``patience`` seconds before it, for ``MORE_MAX_SECONDS`` within it.
    """
    answer = b""
    with socket.create_connection(address, 10) as connection:
        try:
            connection.settimeout(10)
            with contextlib.suppress(ConnectionError):
                connection.sendall(raw)
            connection.settimeout(patience)
            while len(answer) < ANSWER_MAX_BYTES:
                more = connection.recv(65536)
                if not more:
                    return answer, True
                answer += more
                connection.settimeout(MORE_MAX_SECONDS)
        except TimeoutError:
            return answer, False
        except ConnectionError:
            return answer, True
    return answer, False


def all_generators(target: Target) -> list[Generator]:
    """All generators, for that target."""
    scheduler, _, worker = target.cluster.daemons
    jobs = {
        "jobID": [target.job, "fuzz-1", "fuzz-2", "fuzz-3"],
        "running": ["fuzz-1"],
        "signal": ["SIGTERM", "SIGINT"],
        "to": ["main", "tree", ""],
        "stopSignal": ["SIGTERM", "SIGINT", ""],
        "stopMode": ["tree", "main", ""],
        "cwd": ["", "/"],
        "requestFingerprint": ["", "ab"],
    }
    ids = ["fuzz"] * 5 + ["fuzz-a"]
    known = {**jobs, "workerID": [target.enrolled], "folderID": ids, "nonce": ids, "bootID": ids, "name": ids}
    known["address"] = ["127.0.0.1:1", worker.endpoints["grpc"], scheduler.endpoints["http"]]
    return [
        HttpRequests(target),
        Calls("calls to scheduler", target, "Scheduler", scheduler.endpoints["grpc"], known),
        Calls("calls to worker", target, "Worker", worker.endpoints["grpc"], jobs),
        Frames(target),
        HangUps(target),
    ]
