"""Output is resumed without a lost or repeated byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.client.errors import ApiProblem, ClientError, ConnectionFailed, OutputLost
from scheduler.client.exchange import Deliver, Head, NoAnswer, Open, Read, Request
from scheduler.client.repeating import FORGOTTEN_MAX_SECONDS, LASTING_AFTER_SECONDS
from scheduler.client.streams import EVENT_SILENCE_SECONDS, RAW_SILENCE_SECONDS
from scheduler.client.values import Changed, Ended, Output
from tests.unit.client.world import CUT, PATIENCE, REFUSED, Reply, World, answer, job, problem

EVENTS = Head(200, {"content-type": "text/event-stream"})


def event(name: str, data: Any) -> bytes:
    """An event as the scheduler sends it."""
    return f"event: {name}\nid: 0,0\ndata: {json.dumps(data)}\n\n".encode()


def text(stream: str, offset: int, data: str) -> bytes:
    """An event with some output."""
    return event(stream, {"offset": offset, "text": data})


HEARD = b":\n\n"

END = event("end", job(state="succeeded", exit_code=0))


def events(*pieces: bytes, end: bytes | NoAnswer = b"") -> Reply:
    """An event stream."""
    return Reply(EVENTS, pieces, end)


class FollowTests(SynchronousTestCase):
    def test_to_the_end(self) -> None:
        """Output of both streams, text and bytes, changes of the job, and its end."""
        other = {"offset": 0, "base64": base64.b64encode(b"\xff\0").decode()}
        world = World(events(event("job", job(state="queued")), text("stdout", 0, "é"), event("stderr", other), END))
        found = world.items(world.operations.follow("j1", 0, 0))
        self.assertEqual(found[1:3], [Output("stdout", 0, "é".encode()), Output("stderr", 0, b"\xff\0")])
        self.assertEqual([type(each) for each in found], [Changed, Output, Output, Ended])
        self.assertEqual((found[0].job.state, found[3].job.exit_code), ("queued", 0))
        self.assertEqual(world.requests[0].headers["Last-Event-ID"], "0,0")

    def test_resumes(self) -> None:
        """After a cut, a restart, a ``resume`` and an early end, the stream continues at the same place."""
        world = World(
            events(text("stdout", 5, "abc"), text("stderr", 7, "x")[:-1], end=CUT),
            REFUSED,
            problem(503, "worker-unreachable"),
            events(text("stderr", 7, "xy"), event("resume", {})),
            events(),
            events(b":\n\n", END),
        )
        found = world.items(world.operations.follow("j1", 5, 7))
        self.assertEqual(found[:2], [Output("stdout", 5, b"abc"), Output("stderr", 7, b"xy")])
        asked = [request.headers["Last-Event-ID"] for request in world.requests]
        self.assertEqual(asked, ["5,7", "8,7", "8,7", "8,7", "8,9", "8,9"])
        self.assertEqual({request.silence for request in world.requests}, {EVENT_SILENCE_SECONDS})

    def test_repeated(self) -> None:
        """Repeated bytes and states are skipped."""
        world = World(
            events(event("job", job()), text("stdout", 0, "abcd"), end=CUT),
            events(event("job", job()), text("stdout", 2, "cdef"), text("stdout", 0, "ab")),
            events(event("job", job(reason="r")), END),
        )
        found = world.items(world.operations.follow("j1", 0, 0))
        self.assertEqual([each.data for each in found if isinstance(each, Output)], [b"abcd", b"ef"])
        self.assertEqual([each.job.reason for each in found if isinstance(each, Changed)], [None, "r"])

    def test_gap(self) -> None:
        """Missing bytes are an error, and nothing after them is delivered."""
        world = World(events(text("stdout", 0, "ab"), text("stdout", 3, "d"), END))
        error = self.assertRaises(OutputLost, world.items, world.operations.follow("j1", 0, 0))
        self.assertEqual((world.delivered, error.job_id), ([Output("stdout", 0, b"ab")], "j1"))

    def test_unknown_events(self) -> None:
        world = World(events(event("weather", {"offset": 9}), b"event: other\ndata: not JSON\n\n", END))
        self.assertEqual(len(world.items(world.operations.follow("j1", 0, 0))), 1)

    def test_malformed(self) -> None:
        """An answer that is no event stream, or of another program, is an error at once."""
        for reply in (
            events(b"event: stdout\ndata: {\n\n"),
            events(event("stdout", {"offset": 0})),
            events(event("stdout", {"offset": 0, "base64": "*"})),
            events(event("stdout", [])),
            events(event("end", {})),
            Reply(Head(200, {"content-type": "text/html"}), [b"<html>"]),
        ):
            world = World(reply)
            self.assertRaises(ClientError, world.items, world.operations.follow("j1", 0, 0))
            self.assertEqual(len(world.requests), 1)

    def test_gone(self) -> None:
        """Output that is no longer kept, and an unknown job, are errors at once."""
        world = World(events(text("stdout", 0, "ab"), end=CUT), problem(410, "output-pruned"))
        error = self.assertRaises(OutputLost, world.items, world.operations.follow("j1", 0, 0))
        self.assertEqual((str(error), error.job_id), ("detail of 410", "j1"))
        world = World(problem(404, "output-unknown"))
        self.assertRaises(OutputLost, world.items, world.operations.follow("j1", 0, 0))
        world = World(problem(404, "job-unknown"))
        self.assertRaises(ApiProblem, world.items, world.operations.follow("j1", 0, 0))

    def test_patience(self) -> None:
        """A scheduler that does not come back is given up; one that is heard from now and then is not."""
        world = World(events(text("stdout", 0, "ab"), end=CUT), REFUSED)
        self.assertRaises(ConnectionFailed, world.items, world.operations.follow("j1", 0, 0))
        self.assertAlmostEqual(sum(world.pauses), PATIENCE)
        self.follow_heard(LASTING_AFTER_SECONDS)
        self.assertGreater(sum(self.world.pauses), 2 * PATIENCE)

    def test_lost(self) -> None:
        """The output of a lost job is not waited for; that of a job whose worker may return is."""
        gone = problem(503, "unavailable", retry_after="1")
        world = World(events(text("stdout", 0, "ab"), end=CUT), gone, answer(job(state="lost")))
        self.assertRaises(OutputLost, world.items, world.operations.follow("j1", 0, 0))
        world = World(events(text("stdout", 0, "ab"), end=CUT), gone, answer(job(state="unknown")), events(END))
        self.assertIsInstance(world.items(world.operations.follow("j1", 0, 0))[-1], Ended)

    def test_forgotten(self) -> None:
        """A scheduler that restarted without its memory learns of its jobs from workers. The client waits for it."""
        unknown = problem(404, "job-unknown")
        for first in (events(text("stdout", 0, "ab"), end=CUT), CUT):
            world = World(first, REFUSED, unknown, unknown, events(END))
            self.assertIsInstance(world.items(world.operations.follow("j1", 0, 0))[-1], Ended)
            world = World(first, unknown)
            self.assertRaises(ApiProblem, world.items, world.operations.follow("j1", 0, 0))
            self.assertTrue(FORGOTTEN_MAX_SECONDS <= sum(world.pauses) < PATIENCE / 2, world.pauses)
        head = Head(200, {"x-output-offset": "0"})
        world = World(Reply(head, [b"ab"], CUT), unknown, Reply(Head(200, {"x-output-offset": "2"}), [b"c"]), unknown)
        self.assertEqual(world.items(world.operations.output("j1", "stdout", 0, None, True)), [b"ab", b"c"])
        world = World(CUT, unknown, answer(job(state="failed")))
        self.assertEqual(world.run(world.operations.wait("j1", None)).state, "failed")

    def test_no_progress(self) -> None:
        """Streams that always break at once, without anything new, are given up."""
        self.assertRaises(ConnectionFailed, self.follow_heard, 0.0)
        self.assertAlmostEqual(sum(self.world.pauses), PATIENCE)

    def follow_heard(self, seconds: float) -> None:
        """Follow over connections that each report a running job after so many seconds, and break."""
        self.world = World(*[events(HEARD, event("job", job()), end=CUT)] * 100, events(END))
        self.world.seconds = seconds
        self.world.items(self.world.operations.follow("j1", 0, 0))

    def test_never_reached(self) -> None:
        """A first connection that is refused is reported at once."""
        world = World(REFUSED)
        self.assertRaises(ConnectionFailed, world.items, world.operations.follow("j1", 0, 0))
        self.assertEqual(world.pauses, [])


@frozen
class Sending:
    """A connection of a server: the repeated bytes, the size of its pieces, and the place where it breaks."""

    back: int
    piece: int
    breaks: int


sendings = st.lists(st.builds(Sending, st.integers(0, 5), st.integers(1, 9), st.integers(0, 300)), max_size=12)
outputs = st.binary(max_size=60)


class Server:
    """A server with all output of an ended job. It answers as in ``sendings``, and then without a fault."""

    def __init__(self, stdout: bytes, stderr: bytes, plan: list[Sending]) -> None:
        self._output = {"stdout": stdout, "stderr": stderr}
        self._plan = list(plan)
        self._body: list[bytes | NoAnswer] = []
        self.requests: list[Request] = []

    def deliver(self, source: Any, answered: Callable[[Request, Sending], tuple[Head, list[bytes]]]) -> list[Any]:
        """All items of a source that asks this server."""
        found: list[Any] = []
        result: Any = None
        try:
            while True:
                step = source.send(result)
                result = None
                if isinstance(step, Deliver):
                    found.append(step.item)
                elif isinstance(step, Read):
                    result = self._body.pop(0)
                elif isinstance(step, Open):
                    self.requests.append(step.request)
                    sending = self._plan.pop(0) if self._plan else Sending(0, 1000, 10**6)
                    result, pieces = answered(step.request, sending)
                    self._body = self._broken(pieces, sending)
        except StopIteration:
            return found

    def _broken(self, pieces: list[bytes], sending: Sending) -> list[bytes | NoAnswer]:
        body = b"".join(pieces)
        sent = body[: sending.breaks]
        cut = [sent[at : at + sending.piece] for at in range(0, len(sent), sending.piece)]
        return [*cut, b"" if len(sent) == len(body) else CUT]

    def events(self, request: Request, sending: Sending) -> tuple[Head, list[bytes]]:
        """An event stream that begins a little before the requested position."""
        offsets = dict(zip(("stdout", "stderr"), map(int, request.headers["Last-Event-ID"].split(",")), strict=True))
        pieces = [b":\n\n", event("job", job())]
        for stream, offset in offsets.items():
            for at in range(max(0, offset - sending.back), len(self._output[stream]), sending.piece):
                data = base64.b64encode(self._output[stream][at : at + sending.piece]).decode()
                pieces.append(event(stream, {"offset": at, "base64": data}))
        return EVENTS, [*pieces, END]

    def raw(self, request: Request, sending: Sending) -> tuple[Head, list[bytes]]:
        """A raw stream, from an offset or as a range."""
        query = dict(request.query)
        if request.path == "/v1/jobs/j1":
            sizes = {f"{stream}_bytes": len(data) for stream, data in self._output.items()}
            return Head(200), [json.dumps(job(state="failed", **sizes)).encode()]
        whole = self._output[query["stream"]]
        if "Range" in request.headers:
            first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
            start, data = int(first), whole[int(first) : int(last) + 1]
        elif "tail" in query:
            start = max(0, len(whole) - int(query["tail"]))  # each line has one byte
            data = whole[start:]
        else:
            start = int(query["offset"])
            data = whole[start:]
        headers = {"x-output-offset": str(start)}
        if "follow" not in query:
            headers["content-length"] = str(len(data))
        self._output[query["stream"]] += b"" if "follow" in query else b"later"
        return Head(200, headers), [data]


class PropertyTests(SynchronousTestCase):
    """Properties for any faults of the connections."""

    @given(outputs, outputs, sendings, st.integers(0, 60))
    def test_follow(self, stdout: bytes, stderr: bytes, plan: list[Sending], begin: int) -> None:
        """The events together are the streams, each byte once, in order."""
        begin = min(begin, len(stdout))
        server = Server(stdout, stderr, plan)
        found = server.deliver(World().operations.follow("j1", begin, 0), server.events)
        reached = {"stdout": begin, "stderr": 0}
        joined = {"stdout": b"", "stderr": b""}
        for each in found:
            if isinstance(each, Output):
                self.assertEqual(each.offset, reached[each.stream])
                reached[each.stream] += len(each.data)
                joined[each.stream] += each.data
        self.assertEqual(joined, {"stdout": stdout[begin:], "stderr": stderr})
        self.assertEqual([type(each) for each in found if not isinstance(each, Output)], [Changed, Ended])

    @given(outputs, sendings, st.booleans(), st.integers(0, 60), st.booleans())
    def test_output(self, whole: bytes, plan: list[Sending], follow: bool, begin: int, tail: bool) -> None:
        """The pieces together are the stream; without ``follow``, as it was at the first request."""
        begin = min(begin, len(whole))
        server = Server(b"", whole, plan)
        given_ = (0, len(whole) - begin) if tail else (begin, None)
        found = server.deliver(World().operations.output("j1", "stderr", *given_, follow), server.raw)
        self.assertEqual(b"".join(found), whole[begin:])


class OutputTests(SynchronousTestCase):
    """``output``: one stream as raw bytes."""

    def test_requests(self) -> None:
        """The requests, at first and after a cut."""
        head = Head(200, {"x-output-offset": "4", "content-length": "6"})
        world = World(Reply(head, [b"abc"], CUT), Reply(Head(206, {"x-output-offset": "7"}), [b"def"]))
        self.assertEqual(world.items(world.operations.output("j1", "stderr", 4, None, False)), [b"abc", b"def"])
        self.assertEqual(world.requests[0].query, (("stream", "stderr"), ("offset", "4")))
        self.assertEqual(world.requests[1].query, (("stream", "stderr"),))
        self.assertEqual(world.requests[1].headers, {"Range": "bytes=7-9"})
        follow = Reply(Head(200, {"x-output-offset": "9"}), [b"x"], CUT)
        ended = answer(job(state="failed", stdout_bytes=11))
        world = World(follow, Reply(Head(200, {"x-output-offset": "10"}), [b"y"]), ended)
        self.assertEqual(world.items(world.operations.output("j1", "stdout", 0, 3, True)), [b"x", b"y"])
        self.assertEqual(world.requests.pop().path, "/v1/jobs/j1")
        self.assertEqual(world.requests[0].query, (("stream", "stdout"), ("tail", "3"), ("follow", "1")))
        self.assertEqual(world.requests[1].query, (("stream", "stdout"), ("offset", "10"), ("follow", "1")))
        self.assertEqual({request.silence for request in world.requests}, {RAW_SILENCE_SECONDS})

    def test_cut_output(self) -> None:
        """Output that was cut when it was written is an error after all existing bytes."""
        world = World(Reply(Head(200, {"x-output-offset": "0"}), [b"abc"], CUT), problem(410, "output-cut"))
        self.assertRaises(OutputLost, world.items, world.operations.output("j1", "stdout", 0, None, True))
        self.assertEqual(world.delivered, [b"abc"])

    def test_wrong_place(self) -> None:
        """A body with another offset than requested is an error."""
        world = World(Reply(Head(200, {"x-output-offset": "1"}), [b"bc"]))
        self.assertRaises(OutputLost, world.items, world.operations.output("j1", "stdout", 0, None, True))
        self.assertEqual(world.delivered, [])

    def test_not_output(self) -> None:
        """The answer of another program is not taken for output."""
        for head in (Head(200), Head(204), Head(200, {"x-output-offset": "-1"})):
            for tail, follow in ((None, False), (None, True), (3, False)):
                world = World(Reply(head, [b"Welcome to this network"]))
                self.assertRaises(ClientError, world.items, world.operations.output("j1", "stdout", 0, tail, follow))
                self.assertEqual(world.delivered, [])

    def test_ended_too_early(self) -> None:
        """A body that ends properly before the job or its output was cut by a proxy."""
        for state, size in (("running", None), ("failed", 6)):
            first = Reply(Head(200, {"x-output-offset": "0"}), [b"abc"])
            rest = Reply(Head(200, {"x-output-offset": "3"}), [b"def"])
            world = World(first, answer(job(state=state, stdout_bytes=size)), rest, problem(404, "job-unknown"))
            found = world.items(world.operations.output("j1", "stdout", 0, None, True))
            self.assertEqual(found, [b"abc", b"def"])
            self.assertEqual(world.requests[2].query, (("stream", "stdout"), ("offset", "3"), ("follow", "1")))

    def test_beyond(self) -> None:
        """An offset beyond the end is the caller's mistake; output that became shorter is lost."""
        world = World(problem(416, "offset-beyond-end"))
        self.assertRaises(ApiProblem, world.items, world.operations.output("j1", "stdout", 9, None, False))
        head = Head(200, {"x-output-offset": "0", "content-length": "9"})
        world = World(Reply(head, [b"abc"], CUT), problem(416, "offset-beyond-end"))
        self.assertRaises(OutputLost, world.items, world.operations.output("j1", "stdout", 0, None, False))

    def test_refused_arguments(self) -> None:
        """``tail`` and ``offset`` exclude each other; an id can't be a path."""
        operations = World(answer()).operations
        self.assertRaises(ValueError, operations.output, "j1", "stdout", 4, 3, False)
        self.assertRaises(ValueError, operations.output, "..", "stdout", 0, None, False)
        world = World(answer(job("a/b")))
        world.run(world.operations.job("a/../b?c", None))
        self.assertEqual(world.requests[0].path, "/v1/jobs/a%2F..%2Fb%3Fc")
