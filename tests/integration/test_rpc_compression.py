"""Compressed messages: none is sent, none is taken, and a small one that would be large in memory stays small."""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from pathlib import Path

import grpc
from twisted.internet.threads import deferToThread

from scheduler.errors import SchedulerError
from scheduler.net import Address
from scheduler.pb import scheduler_pb2, scheduler_pb2_grpc, worker_pb2, worker_pb2_grpc
from scheduler.rpc.server import GrpcServer
from tests.contract.test_scheduler_client import FACTS, AsMembership
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.integration.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    ended,
    frame,
    headers,
    literal,
)
from tests.integration.rpc import ServerCase, a_job, a_worker

#: Bytes of the message in memory, and those by which memory may grow at most.
BOMB_BYTES, GROWTH_MAX_BYTES = 60 << 20, 30 << 20

GZIP = (("grpc-encoding", "gzip"),)


def bomb() -> bytes:
    """A compressed message, with its prefix. It is small enough for the first window of HTTP/2."""
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = made.compress(bytes(BOMB_BYTES)) + made.flush()
    message = struct.pack(">BI", 1, len(packed)) + packed
    assert len(message) < 65535
    return message


def data(message: bytes, stream: int, last: int) -> bytes:
    """The message as frames."""
    pieces = [message[start : start + 16384] for start in range(0, len(message), 16384)]
    return b"".join(frame(DATA, last if piece is pieces[-1] else 0, stream, piece) for piece in pieces)


class CompressionTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.worker = self.worker_server(FakeJobRunner())
        self.membership = FakeSchedulerClient()
        self.scheduler = self.scheduler_server(AsMembership(self.membership))

    def grown(self) -> int:
        """The bytes by which this process was larger than at the call before."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak, now = (int(status[name].split()[0]) << 10 for name in ("VmHWM", "VmRSS"))
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size again
        before, self.size = getattr(self, "size", now), now
        return peak - before

    async def test_refused(self) -> None:
        """Both servers refuse a compressed message as UNIMPLEMENTED, and answer those that are not compressed."""
        for server, stub, method, request in (
            (self.worker, worker_pb2_grpc.WorkerStub, "QueryJob", worker_pb2.QueryJobReq(jobID="x" * 1000)),
            (
                self.scheduler,
                scheduler_pb2_grpc.SchedulerStub,
                "RegisterWorker",
                scheduler_pb2.RegisterReq(address="127.0.0.1:1", name="x" * 1000),
            ),
        ):
            with grpc.insecure_channel(str(server.bound), compression=grpc.Compression.Gzip) as channel:
                code = await self.code(getattr(stub(channel), method), request)
            self.assertIs(code, grpc.StatusCode.UNIMPLEMENTED)
            self.assertIn("'gzip' is disabled", self.details)
        self.assertEqual(self.membership.calls, [])
        client = self.scheduler_client(self.scheduler.bound)
        self.assertTrue(await client.register(FACTS))

    async def test_bomb(self) -> None:
        """A message that would be 60 MiB in memory is refused before it is unpacked."""
        message = bomb()
        for server, path in (
            (self.worker, "/jobscheduler.Worker/StartJob"),
            (self.scheduler, "/jobscheduler.Scheduler/RegisterWorker"),
        ):
            self.grown()
            await deferToThread(self.send_thd, server, path, message)
            self.assertLess(self.grown(), GROWTH_MAX_BYTES)

    def send_thd(self, server: GrpcServer, path: str, message: bytes) -> None:
        assert server.bound is not None
        with socket.create_connection((server.bound.host, server.bound.port)) as connection:
            call = frame(HEADERS, END_HEADERS, 1, headers(path, GZIP)) + data(message, 1, END_STREAM)
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + call)
            ended(connection, 1)

    async def test_answers(self) -> None:
        """An answer that would be 60 MiB in memory is an error of the call, and is not unpacked either."""
        listening = socket.create_server(("127.0.0.1", 0))
        serving = threading.Thread(target=self.serve_thd, args=(listening, bomb()))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(listening.shutdown, socket.SHUT_RDWR)
        client = self.worker_client()
        self.grown()
        worker = a_worker(Address(*listening.getsockname()))
        await self.assertFailure(client.query_job(worker, a_job().id), SchedulerError)
        self.assertLess(self.grown(), GROWTH_MAX_BYTES)

    def serve_thd(self, listening: socket.socket, message: bytes) -> None:
        """Answer each call on each connection with that message."""
        with listening:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
                    self.answer_thd(connection, message)

    @staticmethod
    def answer_thd(connection: socket.socket, message: bytes) -> None:
        received = connection.recv(len(PREFACE), socket.MSG_WAITALL)
        assert received == PREFACE
        received = b""
        # An indexed field: `:status: 200`.
        begin = b"\x88" + b"".join(literal(*field) for field in (("content-type", "application/grpc"), *GZIP))
        while piece := connection.recv(65536):
            received += piece
            while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3])):
                stream = int.from_bytes(received[5:9])
                if received[3] == HEADERS:
                    answer = frame(HEADERS, END_HEADERS, stream, begin) + data(message, stream, 0)
                    end = frame(HEADERS, END_HEADERS | END_STREAM, stream, literal("grpc-status", "0"))
                    connection.sendall(answer + end)
                received = received[9 + size :]
