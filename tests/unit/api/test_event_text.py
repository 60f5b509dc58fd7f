"""Output as server-sent events."""

import base64
import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api import event_text
from scheduler.api.event_text import Pieces, event, read_offsets
from scheduler.errors import Invalid
from scheduler.model import Stream


def bytes_of(data: dict[str, Any]) -> bytes:
    """The bytes of an event's data."""
    return data["text"].encode() if "text" in data else base64.b64decode(data["base64"], validate=True)


def put_together(output: bytes, cuts: list[int], offset: int = 0) -> list[dict[str, Any]]:
    """All events of an output that comes in these chunks."""
    pieces = Pieces(offset)
    found: list[dict[str, Any]] = []
    edges = [0, *sorted(cut % (len(output) + 1) for cut in cuts), len(output)]
    for start, end in pairwise(edges):
        for data in pieces.feed(output[start:end]):
            found.append(data)
            assert pieces.sent == data["offset"] + len(bytes_of(data))
    return [*found, *pieces.flush()]


OUTPUTS = (
    st.binary(max_size=300)
    | st.text(max_size=100).map(str.encode)
    | st.lists(st.text(max_size=3).map(str.encode) | st.binary(max_size=3), max_size=40).map(b"".join)
)


class PiecesTests(SynchronousTestCase):
    """The data of events, and the bytes they carry."""

    @given(OUTPUTS, st.lists(st.integers(0, 10_000), max_size=20), st.integers(0, 10**12))
    def test_nothing_lost(self, output: bytes, cuts: list[int], offset: int) -> None:
        """The events of an output, joined in order, are the output, in whatever chunks it came; each has its offset."""
        found = put_together(output, cuts, offset)
        self.assertEqual(b"".join(bytes_of(data) for data in found), output)
        for data in found:
            self.assertEqual(data["offset"], offset)
            offset += len(bytes_of(data))

    @given(st.text(max_size=100), st.lists(st.integers(0, 10_000), max_size=20))
    def test_text_stays_text(self, text: str, cuts: list[int]) -> None:
        """UTF-8 is never sent as base64, in whatever chunks it came."""
        found = put_together(text.encode(), cuts)
        self.assertEqual("".join(data["text"] for data in found), text)

    def test_held_back(self) -> None:
        """A character that is cut by a chunk is sent whole, and counts as sent only then."""
        pieces = Pieces(0)
        self.assertEqual(list(pieces.feed(b"a\xf0\x9f\x98")), [{"offset": 0, "text": "a"}])
        self.assertEqual(pieces.sent, 1)
        self.assertEqual(list(pieces.feed(b"\x80")), [{"offset": 1, "text": "\U0001f600"}])
        self.assertEqual(pieces.sent, 5)

    def test_flushed(self) -> None:
        """A beginning of a character that was never completed is sent at the end."""
        pieces = Pieces(7)
        self.assertEqual(list(pieces.feed(b"\xe2\x82")), [])
        self.assertEqual(list(pieces.flush()), [{"offset": 7, "base64": "4oI="}])
        self.assertEqual(list(pieces.flush()), [])

    def test_recovers(self) -> None:
        """Bytes that are not UTF-8 do not make base64 of the text after them."""
        found = put_together(b"\xff\xc3\xa4", [2])
        self.assertEqual(found, [{"offset": 0, "base64": "/w=="}, {"offset": 1, "text": "ä"}])

    def test_not_too_long(self) -> None:
        """A large chunk becomes several events."""
        found = put_together(("ä" * event_text.EVENT_MAX_BYTES).encode(), [])
        self.assertEqual({len(bytes_of(data)) <= event_text.EVENT_MAX_BYTES for data in found}, {True})
        self.assertEqual(len(found), 2)


class EventTests(SynchronousTestCase):
    @given(st.text(max_size=50))
    def test_one_line(self, text: str) -> None:
        """Output can't forge a field or an event, because the data is one line."""
        lines = event("stdout", {"text": text}, "1,2").decode().split("\n")
        self.assertEqual([lines[0], lines[1], *lines[3:]], ["event: stdout", "id: 1,2", "", ""])
        self.assertNotIn("\r", lines[2])
        self.assertEqual(json.loads(lines[2].removeprefix("data: ")), {"text": text})

    def test_offsets(self) -> None:
        """An id is read back; one number is stdout's; anything else is Invalid."""
        self.assertEqual(read_offsets("offset", "5,7"), {Stream.STDOUT: 5, Stream.STDERR: 7})
        self.assertEqual(read_offsets("offset", "5"), {Stream.STDOUT: 5, Stream.STDERR: 0})
        for wrong in ("", ",", "5,", ",5", "-1,0", "1,2,3", "a,b", "1 ,2", "9" * 19):
            self.assertEqual(self.assertRaises(Invalid, read_offsets, "Last-Event-ID", wrong).field, "Last-Event-ID")
