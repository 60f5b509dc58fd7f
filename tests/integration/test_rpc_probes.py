"""Probes of workers, many of which are mute: calls to them are neither refused nor answered."""

from __future__ import annotations

import threading
import time
from typing import Any

from grpc_health.v1 import health_pb2
from twisted.internet.defer import Deferred, gatherResults

from scheduler.errors import Misdirected, Unreachable
from scheduler.model import Worker
from scheduler.rpc import probes
from scheduler.rpc.worker_client import WorkerClient
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import RpcCase, a_worker, an_identity, later

#: The number of mute workers. Probes of 100 in 16 threads for 5 s each would take half a minute.
MUTE = 100

#: The most seconds that a probe of an answering worker takes meanwhile.
SOON = 5.0


class MuteCase(RpcCase):
    def mute(self, client: WorkerClient) -> tuple[list[Worker], list[Deferred]]:
        """The mute workers, and a probe of each."""
        address = self.silent_address()
        workers = [a_worker(address, f"mute-{number}") for number in range(MUTE)]
        return workers, [self.probe(client, worker) for worker in workers]

    def probe(self, client: WorkerClient, worker: Worker) -> Deferred:
        """The reason why a probe failed; ``None`` if it succeeded."""
        return client.probe(worker).addErrback(lambda reason: reason.trap(Unreachable) and reason.value.reason)

    def healthy(self) -> Worker:
        return a_worker(self.worker_server(FakeJobRunner()).bound, "healthy")

    async def end(self, client: WorkerClient, workers: list[Worker], probes: list[Deferred]) -> None:
        """End the calls in flight."""
        for worker in workers:
            client.forget(worker.id)
        await gatherResults(probes)


class MuteTests(MuteCase):
    async def test_first(self) -> None:
        """A worker that answers is reached soon, though many mute ones are probed for the first time."""
        client, healthy = self.worker_client(), self.healthy()
        workers, under_way = self.mute(client)
        began = time.monotonic()
        await client.probe(healthy)
        self.assertLess(time.monotonic() - began, SOON)
        await self.end(client, workers, under_way)

    async def test_again(self) -> None:
        """Mute workers that are probed again do not delay the first probe of another."""
        client, healthy = self.worker_client(), self.healthy()
        workers, under_way = self.mute(client)
        lines = [client.stubs[worker.id] for worker in workers]
        while not all(stubs.silent for stubs in lines):
            await later(0.05)
        under_way += [self.probe(client, worker) for worker in workers for _ in range(2)]
        began = time.monotonic()
        await client.probe(healthy)
        self.assertLess(time.monotonic() - began, SOON)
        await self.end(client, workers, under_way)

    async def test_question(self) -> None:
        """The question which process answers is settled at once meanwhile: a restarted worker registers."""
        client, dead = self.worker_client(), self.dead_address()
        workers, under_way = self.mute(client)
        began = time.monotonic()
        self.assertIsNone(await client.answers(a_worker(dead)))
        self.assertTrue(await client.answers(self.healthy()))
        self.assertLess(time.monotonic() - began, SOON)
        await self.end(client, workers, under_way)

    async def test_nobody_or_another(self) -> None:
        """Silence differs from another process."""
        client = self.worker_client()
        self.assertIsNone(await client.answers(a_worker(self.silent_address())))
        server = self.worker_server(FakeJobRunner(), identity=an_identity("another", "another"))
        self.assertIs(await client.answers(a_worker(server.bound)), False)


class AttemptTests(MuteCase):
    def slow(self, seconds: float) -> Worker:
        """A worker that takes ``self.seconds`` to answer a check; ``self.checks`` counts them."""
        self.seconds, self.checks = seconds, 0
        over = threading.Event()
        self.addCleanup(over.set)

        def check(request: Any, context: Any) -> health_pb2.HealthCheckResponse:
            self.checks += 1
            over.wait(self.seconds)
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

        return self.stand_in(Check=check)

    async def test_slow(self) -> None:
        """A worker that answers late, but within the time of a check, is reached, also the next time."""
        self.patch(probes, "SHORT_ATTEMPT_SECONDS", 0.2)
        client, worker = self.worker_client(), self.slow(1.0)
        for count in (2, 4):
            self.assertIsNone(await self.probe(client, worker))
            self.assertEqual(self.checks, count)

    async def test_back(self) -> None:
        """A mute worker that is back is reached by a short attempt, and a slow one by one of several."""
        self.patch(probes, "LONG_PROBE_EVERY", 3)
        self.patch(probes, "SHORT_ATTEMPT_SECONDS", 0.2)
        client, worker = self.worker_client(deadline=3.0), self.slow(60.0)
        reason = "no answer within 3 s"
        seconds = []
        for _ in range(4):
            began = time.monotonic()
            self.assertEqual(await self.probe(client, worker), reason)
            seconds.append(time.monotonic() - began)
        self.assertEqual([each > 2.0 for each in seconds], [True, False, False, True], seconds)
        self.seconds = 0.5
        self.assertEqual([await self.probe(client, worker) for _ in range(3)], [reason, reason, None])
        self.seconds = 0.0
        self.assertEqual([await self.probe(client, worker) for _ in range(3)], [None] * 3)

    async def test_elsewhere(self) -> None:
        """A worker's silence is forgotten with its connection."""
        client = self.worker_client(deadline=1.0)
        address = self.silent_address()
        await self.probe(client, a_worker(address, "healthy"))
        self.assertTrue(client.stubs["healthy"].silent)
        self.assertIsNone(await self.probe(client, self.healthy()))
        self.assertFalse(client.stubs["healthy"].silent)

    async def test_answered(self) -> None:
        """Any answer ends its silence, also one of another process."""
        client = self.worker_client()
        worker = a_worker(self.worker_server(FakeJobRunner(), identity=an_identity("another", "another")).bound)
        await self.assertFailure(client.probe(worker), Misdirected)
        client.stubs[worker.id].silent = True
        await self.assertFailure(client.probe(worker), Misdirected)
        self.assertFalse(client.stubs[worker.id].silent)
