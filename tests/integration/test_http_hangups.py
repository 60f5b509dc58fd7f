"""Clients that hang up, over a real socket."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from scheduler.errors import NotFound
from tests.integration.hostile import SUBMISSION, HostileCase


class HangUpTests(HostileCase):
    """Clients that go away."""

    async def test_at_each_stage(self) -> None:
        """A client may leave at any byte of its request."""
        body = json.dumps(SUBMISSION).encode()
        raw = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for length in range(0, len(raw), 7):
            wire = await self.connect()
            wire.transport.write(raw[:length])
            wire.transport.loseConnection()
            await wire.end()
        self.assertEqual(self.scheduler.calls, [])

    async def test_while_starting(self) -> None:
        """A client that leaves during a start undoes nothing."""
        held: Deferred[Any] = Deferred()
        cancelled: list[bool] = []
        self.scheduler.held["submit"] = Deferred(lambda _: cancelled.append(True))
        for query in ("", "?wait=30", "?follow=1"):
            self.scheduler.held["submit"] = Deferred(lambda _: cancelled.append(True))
            wire = await self.connect()
            body = json.dumps(SUBMISSION).encode()
            raw = b"POST /v1/jobs%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (
                query.encode(),
                len(body),
            )
            before = len(self.scheduler.calls)
            wire.transport.write(raw + body)
            await self.eventually(lambda before=before: len(self.scheduler.calls) > before, "asked")  # type: ignore[misc]
            wire.transport.abortConnection()
            await self.eventually(lambda: not self.site.channels, "noticed")
        self.assertEqual(len(cancelled), 3)
        self.assertFalse(held.called)

    async def test_while_waiting(self) -> None:
        """A client that leaves while it waits for a job's end frees its place."""
        for path in (
            "/v1/jobs/job-1?wait=300",
            "/v1/jobs/job-1/output?follow=1",
            "/v1/jobs/job-1/output?offset=10&follow=1",
        ):
            wire = await self.connect()
            wire.transport.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await self.eventually(lambda: bool(self.scheduler.waits or self.scheduler.readers()), "waits")
            wire.transport.abortConnection()
            await self.eventually(lambda: not (self.scheduler.waits or self.scheduler.readers()), "freed")

    async def test_forgotten_meanwhile(self) -> None:
        """A stream of a job that is removed meanwhile is cut, not left open."""
        for error in (NotFound("job", "job-1"), RuntimeError("a bug")):
            self.scheduler.fail["wait"] = error
            job = self.scheduler.add_job(output=b"out")
            wire = await self.connect()
            wire.transport.write(
                f"GET /v1/jobs/{job.id}/output HTTP/1.1\r\nHost: localhost\r\n"
                "Accept: text/event-stream\r\n\r\n".encode()
            )
            await wire.problem()
            self.scheduler.finish(job.id)
            await wire.end()
            self.assertIn(b'"text":"out"', wire.received)
            self.assertNotIn(b"event: end", wire.received)
            self.assertFalse(wire.received.endswith(b"0\r\n\r\n"))
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), isinstance(error, RuntimeError))

    async def test_while_streaming(self) -> None:
        """A client that leaves in the middle of a stream that it does not read frees its readers."""
        job = self.scheduler.add_job(output=b"x" * 20_000_000, errors=b"y" * 20_000_000)
        for path, head in (
            (f"/v1/jobs/{job.id}/output", ""),
            (f"/v1/jobs/{job.id}/output?follow=1", ""),
            (f"/v1/jobs/{job.id}/output", "Accept: text/event-stream\r\n"),
        ):
            wire = await self.connect()
            wire.transport.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
            await wire.holds(1000)
            wire.transport.pauseProducing()
            wire.transport.abortConnection()
            await self.eventually(lambda: not self.site.channels, "noticed")
            self.assertEqual(self.scheduler.readers(), [])
