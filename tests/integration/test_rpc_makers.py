"""Statuses that gRPC makes itself, from servers that really answer so, with the texts of the installed grpcio."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import grpc
from attrs import evolve

from scheduler.errors import (
    AnswerUnreadable,
    DeadlineExceeded,
    NotAWorker,
    NotFound,
    SchedulerError,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
)
from scheduler.messages import Heartbeat, Registration
from scheduler.model import Stream
from scheduler.net import Address
from scheduler.pb import worker_pb2
from scheduler.rpc.channel import MESSAGE_MAX_BYTES, METADATA_MAX_BYTES
from scheduler.rpc.status import OF_PROGRAMS_ALONE
from scheduler.texts import TEXT_MAX_BYTES
from tests.integration import http2_server
from tests.integration.http2 import DATA, END_STREAM, GOAWAY, RST_STREAM, frame
from tests.integration.http2_server import headers, message
from tests.integration.rpc import RpcCase, a_job, a_worker

OK = {"status": "200", "content_type": "application/grpc"}
ANSWER = message(worker_pb2.StartJobRes(jobID="x").SerializeToString())

code = grpc.StatusCode


def reset(number: int) -> Callable[[int], bytes]:
    return lambda stream: frame(RST_STREAM, 0, stream, struct.pack(">I", number))


def of_http(status: int) -> Callable[[int], bytes]:
    return lambda stream: (
        headers(stream, 0, status=str(status), content_type="text/html") + frame(DATA, END_STREAM, stream, b"<html>")
    )


def ended_well(data: bytes, **fields: str) -> Callable[[int], bytes]:
    return lambda stream: (
        headers(stream, 0, **OK, **fields) + frame(DATA, 0, stream, data) + headers(stream, END_STREAM, grpc_status="0")
    )


def close(stream: int) -> bytes:
    raise ConnectionError


#: Data in place of an answer, and gRPC's code for it.
IN_PLACE_OF_AN_ANSWER: dict[str, tuple[Callable[[int], bytes], grpc.StatusCode]] = {
    **{f"reset {number}": (reset(number), code.INTERNAL) for number in (0, 1, 2, 6, 9)},
    "reset 11": (reset(11), code.RESOURCE_EXHAUSTED),
    "reset 12": (reset(12), code.PERMISSION_DENIED),
    **{f"HTTP {status}": (of_http(status), code.UNKNOWN) for status in (200, 301, 413, 500)},
    "HTTP 400": (of_http(400), code.INTERNAL),
    "HTTP 401": (of_http(401), code.UNAUTHENTICATED),
    "HTTP 403": (of_http(403), code.PERMISSION_DENIED),
    "no status": (lambda stream: headers(stream, 0, **OK) + frame(DATA, END_STREAM, stream, ANSWER), code.UNKNOWN),
    "no status in trailers": (
        lambda stream: headers(stream, 0, **OK) + frame(DATA, 0, stream, ANSWER) + headers(stream, END_STREAM, x="y"),
        code.UNKNOWN,
    ),
    "no message": (lambda stream: headers(stream, END_STREAM, **OK, grpc_status="0"), code.OK),
    "half a message": (ended_well(ANSWER[:-1]), code.OK),
    "garbage": (ended_well(message(b"\xff\xff")), code.INTERNAL),
    "no gzip": (ended_well(message(b"x", compressed=True), grpc_encoding="gzip"), code.INTERNAL),
    "unknown compression": (ended_well(message(b"x", compressed=True), grpc_encoding="br"), code.INTERNAL),
}

#: Causes of a missing answer: the error for a start, and for any other call.
NO_ANSWER: dict[str, tuple[Callable[[int], bytes], type[SchedulerError], type[SchedulerError]]] = {
    "closed": (close, Unreachable, Unreachable),
    "reset 7": (reset(7), Unreachable, Unreachable),
    "reset 8": (reset(8), Unreachable, Unreachable),
    "going away": (lambda stream: frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)), Unreachable, Unreachable),
    "HTTP 503": (of_http(503), Unreachable, Unreachable),
    "HTTP 404": (of_http(404), NotAWorker, AnswerUnreadable),
}


class MakerCase(RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client(deadline=5.0)

    def serving(self, answer: Callable[[int], bytes]) -> Address:
        """The address of a server that answers each call so."""
        listening = socket.create_server(("127.0.0.1", 0))

        def connected_thd(connection: socket.socket) -> None:
            with connection:
                try:
                    http2_server.answer_thd(connection, answer)
                except OSError:
                    return

        def serve_thd() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=connected_thd, args=(connection,), daemon=True).start()

        threading.Thread(target=serve_thd, daemon=True).start()
        self.addCleanup(listening.close)
        self.addCleanup(listening.shutdown, socket.SHUT_RDWR)
        return Address(*listening.getsockname())

    def calls(self, worker):
        """A call of each kind."""
        return {
            "StartJob": self.client.start_job(worker, a_job()),
            "SignalJob": self.client.signal_job(worker, "j", "SIGHUP", "main"),
            "StopJob": self.client.stop_job(worker, "j"),
            "RemoveJob": self.client.remove_job(worker, "j"),
            "ReadOutput": self.client.read_output(worker, "j", Stream.STDOUT, 0, 3),
        }


class TableTests(MakerCase):
    def test_of_our_library(self) -> None:
        """The codes that our own library makes here are not those of programs alone."""
        for _, made in IN_PLACE_OF_AN_ANSWER.values():
            self.assertNotIn(made, OF_PROGRAMS_ALONE)


class UnreadableTests(MakerCase):
    """Data in place of an answer proves nothing about the worker."""

    async def test_each(self) -> None:
        """A start and a signal may have been carried out; any other call has failed."""
        for name, (answer, _) in IN_PLACE_OF_AN_ANSWER.items():
            worker = a_worker(self.serving(answer))
            for method, call in self.calls(worker).items():
                kind = DeadlineExceeded if method == "SignalJob" else AnswerUnreadable
                error = await self.assertFailure(call, SchedulerError)
                self.assertIs(type(error), kind, f"{name}: {method}: {error}")
            self.client.forget(worker.id)

    async def test_of_nobody(self) -> None:
        """The error does not mean another process either, because no process is named."""
        for name, (answer, made) in IN_PLACE_OF_AN_ANSWER.items():
            if made is not code.OK:
                worker = evolve(a_worker(self.serving(answer)), nonce="n")
                error = await self.assertFailure(self.client.stop_job(worker, "j"), SchedulerError)
                self.assertIs(type(error), AnswerUnreadable, f"{name}: {error}")
                self.client.forget(worker.id)

    async def test_no_answer(self) -> None:
        """A lost connection, and a proxy that does not know the worker, prove nothing either."""
        for name, (answer, of_start, of_any) in NO_ANSWER.items():
            worker = a_worker(self.serving(answer))
            calls = self.calls(worker)
            if of_start is Unreachable:
                await self.assertFailure(calls.pop("StartJob"), Unreachable)  # by the check before it
                await self.assertFailure(calls.pop("SignalJob"), Unreachable)
            else:
                await self.assertFailure(calls.pop("StartJob"), of_start)
                await self.assertFailure(calls.pop("SignalJob"), DeadlineExceeded)
            for method, call in calls.items():
                error = await self.assertFailure(call, SchedulerError)
                self.assertIs(type(error), of_any, f"{name}: {method}: {error}")
            self.client.forget(worker.id)


class TooLargeTests(MakerCase):
    """Long answers of a program."""

    async def start(self, StartJob) -> SchedulerError:
        worker = self.stand_in(StartJob=StartJob)
        error = await self.assertFailure(self.client.start_job(worker, a_job()), SchedulerError)
        self.client.forget(worker.id)
        return error

    def refusing(self, status: grpc.StatusCode, details: str):
        return lambda request, context: context.abort(status, details)

    async def test_long_details(self) -> None:
        """An error with a stack trace arrives with its code, and is cut for display."""
        for text in ("x" * 20_000, "\u00e9" * 100_000):
            for status in (code.INTERNAL, code.RESOURCE_EXHAUSTED):
                error = await self.start(self.refusing(status, text))
                self.assertIs(type(error), WorkerFault)
                self.assertEqual(error.detail, text.encode()[:TEXT_MAX_BYTES].decode())

    async def test_too_long(self) -> None:
        """An error that is too long to receive proves nothing, least of all that nothing was done."""
        for text in ("x" * 2 * METADATA_MAX_BYTES, "x" * 20_000_000):
            self.assertIs(type(await self.start(self.refusing(code.INTERNAL, text))), AnswerUnreadable)

    async def test_message_too_large(self) -> None:
        """The same holds for an answer that is too large."""
        for size in (MESSAGE_MAX_BYTES + 1, 20_000_000):
            error = await self.start(lambda request, context, size=size: worker_pb2.StartJobRes(jobID="x" * size))
            self.assertIs(type(error), AnswerUnreadable)

    async def test_no_room(self) -> None:
        """Only a grpcio server without a thread for the call has certainly done nothing."""
        for text, kind in (
            ("Concurrent RPC limit exceeded!", Unavailable),
            ("no room", WorkerFault),
            ("Received message larger than max (5 vs. 4)", WorkerFault),
        ):
            self.assertIs(type(await self.start(self.refusing(code.RESOURCE_EXHAUSTED, text))), kind)


class SchedulerTests(MakerCase):
    """The same for a scheduler that a worker calls."""

    async def test_each(self) -> None:
        """The scheduler is at fault, and not mistaken for one without heartbeats."""
        for name, (answer, _) in {**IN_PLACE_OF_AN_ANSWER, "HTTP 404": (of_http(404), code.UNIMPLEMENTED)}.items():
            client = self.scheduler_client(self.serving(answer))
            for call in (client.heartbeat(Heartbeat("w", "boot", ())), client.deregister("w", "n")):
                error = await self.assertFailure(call, SchedulerError)
                self.assertIs(type(error), AnswerUnreadable, f"{name}: {error}")

    async def test_no_heartbeats(self) -> None:
        """A scheduler that answers so lacks the method."""
        client = self.scheduler_client(self.serving(lambda stream: headers(stream, END_STREAM, **OK, grpc_status="12")))
        await self.assertFailure(client.heartbeat(Heartbeat("w", "boot", ())), Unsupported)

    async def test_not_found(self) -> None:
        """Another scheduler's NOT_FOUND also means that the worker is unknown; for a registration it is a fault."""
        client = self.scheduler_client(self.serving(lambda stream: headers(stream, END_STREAM, **OK, grpc_status="5")))
        told = await self.assertFailure(client.heartbeat(Heartbeat("w", "boot", ())), NotFound)
        self.assertEqual((told.kind, told.name), ("worker", "w"))
        await self.assertFailure(client.register(Registration("127.0.0.1:1")), WorkerFault)
