"""The client of the fault harness reports answers that it must never get."""

from __future__ import annotations

import http.client
import io
import socket
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.client import Api, NotJson


class _Socket:
    """A connection with this received data."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def answer(status: int, body: bytes, kind: str = "application/json", missing: int = 0) -> http.client.HTTPResponse:
    """An answer whose last ``missing`` bytes never came."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body) + missing}\r\n\r\n"
    response = http.client.HTTPResponse(cast("socket.socket", _Socket(head.encode() + body)))
    response.begin()
    return response


class OddAnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.odd: list[tuple[str, str]] = []
        self.api = Api(lambda: "", lambda what, error: self.odd.append((what, error)))

    def test_right(self) -> None:
        """JSON is read, with any status; an empty body is no document."""
        self.assertEqual(self.api.document(answer(503, b'{"a": 1}', "application/problem+json"), "GET /"), {"a": 1})
        self.assertIsNone(self.api.document(answer(204, b""), "DELETE /v1/jobs/j"))
        self.assertEqual(self.odd, [])

    def test_500(self) -> None:
        self.api.document(answer(500, b"{}"), "GET /")
        self.assertEqual(self.odd, [("GET /", "500: b'{}'")])

    def test_garbled(self) -> None:
        """A complete answer that is no JSON is reported, and does not count as cut."""
        self.assertRaises(NotJson, self.api.document, answer(200, b"{"), "GET /")
        self.assertRaises(NotJson, self.api.document, answer(200, b"well", "text/plain"), "GET /")
        self.assertEqual([error for _, error in self.odd], ["no JSON: b'{'", "no JSON: b'well'"])

    def test_cut(self) -> None:
        """An answer without its end counts as none, and is no violation."""
        self.assertRaises(http.client.IncompleteRead, self.api.document, answer(200, b"{", missing=1), "GET /")
        self.assertEqual(self.odd, [])

    def test_output(self) -> None:
        """Output need not be JSON."""
        raw = answer(200, b"abc", "application/octet-stream")
        self.assertRaises(NotJson, self.api.document, raw, "GET /v1/jobs/j/output")
        self.assertEqual(self.odd, [])
