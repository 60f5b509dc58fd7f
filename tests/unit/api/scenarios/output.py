"""Scenarios of output."""

from __future__ import annotations

from scheduler.model import JobState
from tests.unit.api.scenarios.base import Scenarios, scenario


class OutputScenarios(Scenarios):
    """``GET /v1/jobs/{id}/output``."""

    @scenario
    async def test_output(self) -> None:
        """The present output is answered with its length: all of it, from an offset, or its last lines."""
        job = self.fleet.add_job(b"one\ntwo\n", b"err")
        for query, body, offset in (
            ("", b"one\ntwo\n", 0),
            ("?offset=4", b"two\n", 4),
            ("?offset=8", b"", 8),
            ("?tail=1", b"two\n", 4),
            ("?tail=0", b"", 8),
            ("?stream=stderr", b"err", 0),
            ("?follow=0", b"one\ntwo\n", 0),
        ):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output{query}")
            self.assertEqual((reply.status, reply.body), (200, body))
            self.assertEqual(reply.headers["content-length"], str(len(body)))
            self.assertEqual(reply.headers["x-output-offset"], str(offset))
            self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(reply.headers["accept-ranges"], "bytes")

    @scenario
    async def test_large_output(self) -> None:
        """Output that takes many reads is complete, without bytes written meanwhile."""
        self.house.workers.piece = 1000
        job = self.fleet.add_job(bytes(range(256)) * 300)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output")
        self.assertEqual(reply.body, bytes(range(256)) * 300)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=500-60000")
        self.assertEqual(reply.body, (bytes(range(256)) * 300)[500:60001])

    @scenario
    async def test_ranges(self) -> None:
        """A single range is answered; other ranges are ignored."""
        job = self.fleet.add_job(b"0123456789")
        for header, body, content_range in (
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=5-", b"56789", "bytes 5-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=8-99", b"89", "bytes 8-9/10"),
        ):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range=header)
            self.assertEqual((reply.status, reply.body), (206, body))
            self.assertEqual(reply.headers["content-range"], content_range)
            self.assertEqual(reply.headers["content-length"], str(len(body)))
        for header in (
            *("bytes=0-1,4-5", "bytes=x", "bytes=5-4", "lines=1-2", "%00", "-", "bytes", "bytes=", "bytes=-"),
            *("bytes=1", "bytes=--1", "bytes 0-1", "bytes=0-1;", "bytes=0x0-0x1", "bytes=+0-1", "bytes=1-2-3"),
            "bytes=" + "0-1," * 1000,
        ):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range=header)
            self.assertEqual((reply.status, reply.body), (200, b"0123456789"), header)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=0-0", if_range='"x"')
        self.assertEqual(reply.status, 200)
        for header in ("bytes=10-", "bytes=99-100", "bytes=" + "9" * 30 + "-"):
            reply = await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output", range=header), 416)
            self.assertEqual(reply.headers["content-range"], "bytes */10")
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output?offset=11"), 416)
        for query in ("follow=1", "offset=0", "tail=1"):
            path = f"/v1/jobs/{job.id}/output?{query}"
            await self.assert_problem(self.call("GET", path, range="bytes=0-1"), 400, "Range")
        path, events = f"/v1/jobs/{job.id}/output", "text/event-stream"
        await self.assert_problem(self.call("GET", path, range="bytes=0-1", accept=events), 400, "Range")

    @scenario
    async def test_range_of_nothing(self) -> None:
        """A range of an empty output is 416, except its last bytes, which are empty."""
        job = self.fleet.add_job(b"")
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=0-"), 416)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=-5")
        self.assertEqual((reply.status, reply.body), (200, b""))

    @scenario
    async def test_output_mistakes(self) -> None:
        """A mistake is 400, an unknown job 404, and a worker without output 501."""
        job = self.fleet.add_job(b"x")
        for query in ("stream=out", "offset=-1", "offset=x", "tail=-1", "tail=1&offset=1", "follow=2", "wait=1"):
            await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output?{query}"), 400)
        await self.assert_problem(self.call("GET", "/v1/jobs/nope/output"), 404)
        self.fleet.add_worker("old", core=True)
        old = (await self.post("/start", {"worker_id": "old", "command": "a"})).json()["job_id"]
        for query in ("", "?follow=1", "?tail=1"):
            await self.assert_problem(self.call("GET", f"/v1/jobs/{old}/output{query}"), 501)
        await self.assert_problem(self.call("GET", f"/v1/jobs/{old}/output", accept="text/event-stream"), 501)

    @scenario
    async def test_follow(self) -> None:
        """A follow of an ended job has all of its output."""
        job = self.fleet.add_job(b"all of it", b"no", JobState.SUCCEEDED)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output?follow=1")
        self.assertEqual((reply.status, reply.body), (200, b"all of it"))
        self.assertEqual("content-length" in reply.headers, False)

    @scenario
    async def test_events(self) -> None:
        """The events of an ended job are both streams and the end."""
        job = self.fleet.add_job(b"out", b"err", JobState.SUCCEEDED)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", accept="text/event-stream")
        self.assertEqual(reply.headers["content-type"], "text/event-stream")
        self.assertEqual(reply.body.count(b"\n\n"), 4)
        self.assertIn(b'event: stdout\nid: 3,0\ndata: {"offset":0,"text":"out"}\n\n', reply.body)

    @scenario
    async def test_pruned(self) -> None:
        """Output that is no longer kept is 410 in every form; the job itself remains."""
        job = self.fleet.add_job(b"out", b"", JobState.SUCCEEDED)
        self.fleet.prune(job.id)
        path = f"/v1/jobs/{job.id}/output"
        for query in ("", "?follow=1", "?tail=1", "?offset=1", "?offset=1&follow=1"):
            await self.assert_problem(self.call("GET", path + query), 410, "no longer kept")
        for span in ("bytes=0-1", "bytes=-1", "bytes=2-"):
            await self.assert_problem(self.call("GET", path, range=span), 410)
        await self.assert_problem(self.call("GET", path, accept="text/event-stream"), 410)
        self.assertEqual((await self.call("HEAD", path)).status, 410)
        self.assertEqual((await self.call("GET", f"{path}?stream=stderr")).body, b"")
        self.assertEqual((await self.call("GET", f"/v1/jobs/{job.id}")).json()["stdout_bytes"], 3)
        second = self.fleet.add_job(b"", b"err", JobState.SUCCEEDED)
        self.fleet.prune(second.id)
        events = self.call("GET", f"/v1/jobs/{second.id}/output", accept="text/event-stream")
        await self.assert_problem(events, 410)
