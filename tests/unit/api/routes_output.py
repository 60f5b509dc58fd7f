"""What the routes of output answer."""

from __future__ import annotations

from scheduler.model import JobState
from tests.unit.api.scenarios import Scenarios, scenario


class OutputScenarios(Scenarios):
    """Output, as it is and as it comes."""

    @scenario
    async def test_output(self) -> None:
        """What is there, with its length; from an offset; the last lines; of either stream."""
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
        """Output that takes many reads comes whole, and what is written meanwhile is not added."""
        self.house.workers.piece = 1000
        job = self.fleet.add_job(bytes(range(256)) * 300)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output")
        self.assertEqual(reply.body, bytes(range(256)) * 300)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=500-60000")
        self.assertEqual(reply.body, (bytes(range(256)) * 300)[500:60001])

    @scenario
    async def test_ranges(self) -> None:
        """One range is answered, others are as if there were none."""
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
        for header in ("bytes=0-1,4-5", "bytes=x", "bytes=5-4", "lines=1-2", "%00", "-"):
            reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range=header)
            self.assertEqual((reply.status, reply.body), (200, b"0123456789"), header)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=0-0", if_range='"x"')
        self.assertEqual(reply.status, 200)
        for header in ("bytes=10-", "bytes=99-100", "bytes=-0"):
            reply = await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output", range=header), 416)
            self.assertEqual(reply.headers["content-range"], "bytes */10")
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output?offset=11"), 416)
        for query in ("follow=1", "offset=0", "tail=1"):
            path = f"/v1/jobs/{job.id}/output?{query}"
            await self.assert_problem(self.call("GET", path, range="bytes=0-1"), 400, "Range")

    @scenario
    async def test_range_of_nothing(self) -> None:
        """Of an empty output no byte can be had, but its last ones are all there are."""
        job = self.fleet.add_job(b"")
        await self.assert_problem(self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=0-"), 416)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", range="bytes=-5")
        self.assertEqual((reply.status, reply.body), (200, b""))

    @scenario
    async def test_output_mistakes(self) -> None:
        """Mistakes are named; what is not there is not found; what can't be had is 501."""
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
        """Of an ended job, following is reading to the end."""
        job = self.fleet.add_job(b"all of it", b"no", JobState.SUCCEEDED)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output?follow=1")
        self.assertEqual((reply.status, reply.body), (200, b"all of it"))
        self.assertEqual("content-length" in reply.headers, False)

    @scenario
    async def test_events(self) -> None:
        """Of an ended job, the events are both streams and the end."""
        job = self.fleet.add_job(b"out", b"err", JobState.SUCCEEDED)
        reply = await self.call("GET", f"/v1/jobs/{job.id}/output", accept="text/event-stream")
        self.assertEqual(reply.headers["content-type"], "text/event-stream")
        self.assertEqual(reply.body.count(b"\n\n"), 4)
        self.assertIn(b'event: stdout\nid: 3,0\ndata: {"offset":0,"text":"out"}\n\n', reply.body)

    @scenario
    async def test_pruned(self) -> None:
        """Output that is no longer kept is gone, however it is asked for; the job is not."""
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
