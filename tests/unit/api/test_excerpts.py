"""The last bytes of a job's output in an answer: their offset, whether they are cut, and the cost of reading them."""

from __future__ import annotations

import base64
from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import excerpts
from scheduler.api.excerpts import Excerpt
from scheduler.errors import Busy, Unreachable
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream
from scheduler.views import JobFilter
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import Connection


def text_of(members: dict[str, Any]) -> bytes:
    """The bytes of a stream's members."""
    if "s" in members:
        return str(members["s"]).encode()
    return base64.b64decode(members["s_base64"])


class ExcerptTests(SynchronousTestCase):
    @given(st.text(max_size=12), st.integers(0, 40), st.integers(0, 40), st.booleans())
    def test_text(self, text: str, written: int, limit: int, ended: bool) -> None:
        """The excerpt of text cut at any byte is text, without the parts of cut characters."""
        whole = text.encode()
        data = whole if ended else whole[:written]
        members = Excerpt(data, 0, ended).last(limit).members("s")
        self.assertIn("s", members)
        found, offset = text_of(members), members["s_offset"]
        self.assertEqual(found, data[offset : offset + len(found)])
        self.assertLessEqual(len(found), limit)
        self.assertLess(min(len(data), limit) - len(found), 7 if not ended else 4)
        self.assertEqual(members["s_cut"], offset > 0)
        if ended:
            self.assertEqual(offset + len(found), len(data))

    @given(st.binary(max_size=12), st.integers(0, 14), st.booleans())
    def test_bytes(self, data: bytes, limit: int, ended: bool) -> None:
        """The excerpt of other bytes is base64 with as many as were asked for, and has their offset."""
        members = Excerpt(data, 0, ended).last(limit).members("s")
        found, offset = text_of(members), members["s_offset"]
        self.assertEqual(found, data[offset : offset + len(found)])
        if "s_base64" in members:
            self.assertEqual(found, data[max(0, len(data) - limit) :])

    def test_cut_character_at_the_end(self) -> None:
        """A cut character at the end is held back while its rest may come, and is bytes otherwise."""
        self.assertEqual(Excerpt(b"a\xe2\x82", 0, False).members("s"), {"s": "a", "s_offset": 0, "s_cut": False})
        self.assertEqual(
            Excerpt(b"a\xe2\x82", 0, True).members("s"), {"s_base64": "YeKC", "s_offset": 0, "s_cut": False}
        )

    def test_cut_character_at_the_start(self) -> None:
        """A cut character at the start is left out only if the excerpt does not begin at the first byte."""
        self.assertEqual(Excerpt(b"\x82\xaca", 7, True).members("s"), {"s": "a", "s_offset": 9, "s_cut": True})
        self.assertEqual(
            Excerpt(b"\x82\xaca", 0, True).members("s"), {"s_base64": "gqxh", "s_offset": 0, "s_cut": False}
        )

    def test_bytes_that_begin_like_the_rest_of_a_character(self) -> None:
        """Nothing is left out of an excerpt that is not text."""
        self.assertEqual(Excerpt(b"\x82\xff", 7, True).members("s"), {"s_base64": "gv8=", "s_offset": 7, "s_cut": True})


class ReadingTests(ServerTestCase):
    """``GET /v1/jobs/{id}?output=``."""

    def ask(self, job: Job, output: str = "4") -> Any:
        return self.server.ask("GET", f"/v1/jobs/{job.id}?output={output}").response().json()

    def test_complete_at_the_end(self) -> None:
        """The excerpt of a job that is over reaches to the end of the stream, in however many reads."""
        self.house.workers.piece = 3
        job = self.fleet.add_job(b"0123456789", state=JobState.SUCCEEDED)
        found = self.ask(job, "8")
        self.assertEqual((found["stdout"], found["stdout_offset"], found["stdout_cut"]), ("23456789", 2, True))
        self.assertEqual((found["stderr"], found["stderr_offset"], found["stderr_cut"]), ("", 0, False))
        self.assertIsNone(found["output_unavailable"])

    def test_written_meanwhile(self) -> None:
        """Bytes written while the output is read make no gap, and are not added."""
        job = self.fleet.add_job(b"0123")
        size = self.scheduler.held["read_output"] = Deferred()
        client = self.server.ask("GET", f"/v1/jobs/{job.id}?output=4")
        del self.scheduler.held["read_output"]
        size.callback(None)
        self.assertEqual(client.response().json()["stdout"], "0123")

    def test_nothing(self) -> None:
        """``output=0`` answers with the length of the output."""
        found = self.ask(self.fleet.add_job(b"0123"), "0")
        self.assertEqual((found["stdout"], found["stdout_offset"], found["stdout_cut"]), ("", 4, True))

    def test_unavailable(self) -> None:
        """Output that can't be read is null, with the reason; the rest of the job is answered as usual."""
        job = self.fleet.add_job(b"x", state=JobState.FAILED)
        pruned = self.fleet.add_job(b"x", state=JobState.FAILED)
        self.fleet.prune(pruned.id)
        lost = self.fleet.add_job(b"x")
        self.assertIn("no longer kept", self.ask(pruned)["output_unavailable"])
        for happens, which, why in (
            (self.fleet.lose, job, "can't be reached"),
            (self.fleet.forget, lost, "is lost (forgotten)"),
        ):
            happens()
            found = self.ask(which)
            self.assertEqual((found["id"], found["stdout"], found["stdout_offset"]), (which.id, None, None))
            self.assertIs(found["stdout_cut"], True)
            self.assertIn(why, found["output_unavailable"])

    def test_one_stream_unavailable(self) -> None:
        """If one stream can't be read, the answer has the other."""
        job = self.fleet.add_job(b"out", b"err", state=JobState.SUCCEEDED)
        read = self.scheduler.read_output

        def half(job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
            if stream is Stream.STDERR:
                self.scheduler.fail["read_output"] = Unreachable("w1")
            return read(job_id, stream, offset, size)

        self.patch(self.scheduler, "read_output", half)
        found = self.ask(job)
        self.assertEqual((found["stdout"], found["stderr"]), ("out", None))
        self.assertIn("can't be reached", found["output_unavailable"])

    def test_busy(self) -> None:
        """While all places for reads are in use, the answer waits for a place, up to a limit."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        self.scheduler.fail["read_output"] = Busy("reads", 4)
        served, late = (self.server.ask("GET", f"/v1/jobs/{job.id}?output=4") for _ in range(2))
        self.clock.advance(excerpts.BUSY_RETRY_SECONDS)
        self.assertFalse(served.answered)
        del self.scheduler.fail["read_output"]
        self.clock.advance(excerpts.BUSY_RETRY_SECONDS)
        self.assertEqual(served.response().json()["stdout"], "x")
        self.assertTrue(late.answered)
        self.scheduler.fail["read_output"] = Busy("reads", 4)
        late = self.server.ask("GET", f"/v1/jobs/{job.id}?output=4")
        self.clock.pump([excerpts.BUSY_RETRY_SECONDS] * 49)
        self.assertFalse(late.answered)
        self.clock.pump([excerpts.BUSY_RETRY_SECONDS] * 2)
        self.assertIn("no answer within 10 s", late.response().json()["output_unavailable"])
        late.hang_up()

    def hold_reads(self) -> deque[Deferred[None]]:
        """Have all reads wait, each for the Deferred that it adds."""
        waiting: deque[Deferred[None]] = deque()
        read = self.scheduler.read_output

        def held(*args: Any) -> Deferred[Chunk]:
            waiting.append(Deferred())
            return waiting[-1].addCallback(lambda _: read(*args))

        self.patch(self.scheduler, "read_output", held)
        return waiting

    def test_many_clients(self) -> None:
        """Many clients are all answered, even if waiting reads complete at once when their turn comes."""
        job = self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        waiting = self.hold_reads()
        clients = [self.server.ask("GET", f"/v1/jobs/{job.id}?output=4") for _ in range(150)]
        while waiting:
            waiting.popleft().callback(None)
        self.assertEqual({client.response().json()["stdout"] for client in clients}, {"x"})

    def test_deadline(self) -> None:
        """A worker that does not answer delays an answer by 10 s at most, and does not delay others."""
        self.fleet.add_worker("w2")
        stuck = [self.fleet.add_job(b"x", state=JobState.SUCCEEDED) for _ in range(9)]
        other = self.fleet.add_job(b"y", on="w2")
        reads: list[Deferred[Chunk]] = []
        read = self.scheduler.read_output

        def hang(job_id: str, *rest: Any) -> Deferred[Chunk]:
            if job_id == other.id:
                return read(job_id, *rest)
            reads.append(Deferred())
            return reads[-1]

        self.patch(self.scheduler, "read_output", hang)
        clients = [self.server.ask("GET", f"/v1/jobs/{job.id}?output=4") for job in stuck]
        self.assertEqual(len(reads), excerpts.READS_PER_WORKER)
        self.assertEqual(self.ask(other)["stdout"], "y")
        self.clock.advance(excerpts.READ_DEADLINE_SECONDS)
        for client in clients:
            self.assertIn("no answer within 10 s", client.response().json()["output_unavailable"])

    def test_hang_up(self) -> None:
        """A client that leaves frees its place for the reads behind it."""
        jobs = [self.fleet.add_job(b"x", state=JobState.SUCCEEDED) for _ in range(6)]
        waiting = self.hold_reads()
        clients = [self.server.ask("GET", f"/v1/jobs/{job.id}?output=4") for job in jobs]
        self.assertEqual(len(waiting), 4)
        clients[0].hang_up()
        clients[5].hang_up()
        self.assertEqual(len(waiting), 5)
        for each in list(waiting)[1:]:
            each.callback(None)
        for client in clients[1:5]:
            self.assertEqual(client.response().json()["stdout"], "x")
        self.assertEqual(len(waiting), 5)
        for channel in list(self.server.site.channels):
            channel.loseConnection()
        self.assertEqual(self.house.timers(), 0)


class PageTests(ServerTestCase):
    """``GET /v1/jobs?output=``."""

    def ask(self, query: str) -> Connection:
        return self.server.ask("GET", f"/v1/jobs?{query}")

    def ids(self) -> list[str]:
        return [job.id for job in self.scheduler.jobs(JobFilter(), 1000, None).jobs]

    def test_page(self) -> None:
        """Each job of the page has its output, and the cursor is that of the page."""
        for index in range(3):
            self.fleet.add_job(b"output %d" % index, state=JobState.SUCCEEDED)
        response = self.ask("limit=2&output=3").response()
        page = response.json()
        self.assertEqual((response.status, response.headers["content-type"]), (200, "application/json"))
        self.assertEqual([job["stdout"] for job in page["jobs"]], ["t 2", "t 1"])
        rest = self.ask(f"limit=2&output=3&cursor={page['next']}").response().json()
        self.assertEqual(([job["stdout"] for job in rest["jobs"]], rest["next"]), (["t 0"], None))
        self.assertEqual(self.ask("state=queued&output=3").response().json(), {"jobs": [], "next": None})

    def test_bounded(self) -> None:
        """A page is less than 8 MiB. It ends early, the next page continues, and no job is left out or repeated."""
        for index in range(30):
            self.fleet.add_job(b"%d" % (index % 10) * 600_000, b"\x00" * 50_000, state=JobState.SUCCEEDED)
        found: list[str] = []
        pages, cursor = 0, ""
        while cursor is not None:
            body = self.ask(f"output=1MiB{cursor and '&cursor='}{cursor}").response()
            self.assertLess(len(body.body), excerpts.PAGE_MAX_BYTES)
            page = body.json()
            for job in page["jobs"]:
                self.assertEqual((len(job["stdout"]), job["stdout_cut"]), (600_000, False))
            found += [job["id"] for job in page["jobs"]]
            pages, cursor = pages + 1, page["next"]
        self.assertEqual(found, self.ids())
        self.assertEqual(pages, 4)

    def test_one_too_large(self) -> None:
        """A job that does not fit on a page has less of its output, which is marked as cut."""
        self.fleet.add_job(b"\x00" * 1024 * 1024, b"\x00" * 1024 * 1024, state=JobState.SUCCEEDED)
        response = self.ask("output=1MiB").response()
        self.assertLess(len(response.body), excerpts.PAGE_MAX_BYTES)
        (job,) = response.json()["jobs"]
        self.assertEqual((len(job["stdout"]), job["stdout_offset"], job["stdout_cut"]), (512 * 1024, 512 * 1024, True))

    def test_few_at_once(self) -> None:
        """Few jobs of a page are read at a time, on however many workers, and the page stays in order."""
        for limit, workers in ((excerpts.READS_PER_WORKER, 1), (excerpts.READS_PER_PAGE, 20)):
            self.setUp()
            for index in range(40):
                name = f"v{index % workers}"
                if index < workers:
                    self.fleet.add_worker(name)
                self.fleet.add_job(b"x", state=JobState.SUCCEEDED, on=name)
            self.check_few_at_once(limit)

    def check_few_at_once(self, limit: int) -> None:
        reads: deque[Deferred[None]] = deque()
        read = self.scheduler.read_output
        most = 0

        def held(*args: Any) -> Deferred[Chunk]:
            reads.append(Deferred())
            return reads[-1].addCallback(lambda _: read(*args))

        self.patch(self.scheduler, "read_output", held)
        client = self.ask("output=1")
        while reads:
            most = max(most, len(reads))
            reads.pop().callback(None)  # the last first
        self.assertEqual(most, limit)
        self.assertEqual([job["id"] for job in client.response().json()["jobs"]], self.ids())

    def test_slow(self) -> None:
        """A page that takes too long ends early."""
        for _ in range(40):
            self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        self.patch(self.scheduler, "read_output", lambda *args: Deferred())
        client = self.ask("output=1")
        self.clock.advance(excerpts.READ_DEADLINE_SECONDS)
        page = client.response().json()
        (job,) = page["jobs"]
        self.assertIn("no answer within 10 s", job["output_unavailable"])
        self.assertEqual(page["next"], self.scheduler.cursor_after(self.scheduler.job(job["id"])))

    def test_hang_up(self) -> None:
        """A client that leaves ends all reads of its page, and makes room for another page."""
        for _ in range(10):
            self.fleet.add_job(b"x", state=JobState.SUCCEEDED)
        reads: list[Deferred[Any]] = []

        def held(*args: Any) -> Deferred[Chunk]:
            reads.append(Deferred())
            return reads[-1]

        with_hold = self.scheduler.read_output
        self.patch(self.scheduler, "read_output", held)
        clients = [self.ask("output=1") for _ in range(excerpts.MAX_PAGES_READ)]
        self.patch(self.scheduler, "read_output", with_hold)
        last = self.ask("output=1")
        self.assertFalse(last.answered)
        for client in clients:
            client.hang_up()
        self.assertTrue(all(read.called for read in reads))
        self.assertEqual(len(last.response().json()["jobs"]), 10)
        last.hang_up()
        self.assertEqual(self.house.timers(), 0)
