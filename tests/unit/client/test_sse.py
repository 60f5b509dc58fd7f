"""Server-sent events are parsed from bytes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.client import sse
from scheduler.client.errors import ClientError
from scheduler.client.sse import Parser, ServerEvent

BODY = (
    b"\xef\xbb\xbf: a comment\n\nevent: job\nid: 0,0\ndata: {}\n\n:\n\n"
    b"event: stdout\r\nid: 3,0\r\ndata: h\xc3\xa9\r\ndata:\r\ndata:  b\r\n\r\nid\ndata: x\r\rdata: unfinished\n"
)
EVENTS = [ServerEvent("job", "{}", "0,0"), ServerEvent("stdout", "hé\n\n b", "3,0"), ServerEvent("message", "x", "")]


class ParserTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """Comments, each kind of line end, several lines of data, and an incomplete event."""
        self.assertEqual(Parser().feed(BODY), EVENTS)

    @given(st.lists(st.integers(0, len(BODY)), max_size=12))
    def test_any_cut(self, cuts: list[int]) -> None:
        """The events are the same wherever the bytes are split."""
        places = [0, *sorted(cuts), len(BODY)]
        parser, events = Parser(), []
        for start, end in itertools.pairwise(places):
            events += parser.feed(BODY[start:end])
        self.assertEqual(events, EVENTS)

    @given(st.lists(st.sampled_from([b"data: a", b"event: e", b"id: 1", b":", b"", b"\r", b"\n", b"\xff"])), st.data())
    def test_any_bytes(self, lines: list[bytes], data: st.DataObject) -> None:
        """This holds for any lines, also malformed ones."""
        body = b"".join(line + data.draw(st.sampled_from([b"\n", b"\r\n", b"\r", b""])) for line in lines) + b"\n"
        parser = Parser()
        one_by_one = [event for byte in body for event in parser.feed(bytes([byte]))]
        self.assertEqual(one_by_one, Parser().feed(body))

    def test_endless_line(self) -> None:
        """A line that never ends is an error, and does not fill the memory."""
        self.patch(sse, "LINE_MAX_BYTES", 1000)
        parser = Parser()
        with self.assertRaises(ClientError):
            for _ in range(20):
                parser.feed(b"x" * 100)
