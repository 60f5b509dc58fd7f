"""Targets, paths and queries of any form: an answer is never a fault of the server, and no route has a second path."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from scheduler.api.routes import ROUTES
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import read_response

ODD = st.sampled_from(
    (
        *(
            "/",
            "//",
            ".",
            "..",
            "%",
            "%2f",
            "%2F",
            "%2e",
            "%00",
            "%0a",
            "%ff",
            "%c3%bc",
            "%zz",
            "?",
            "#",
            ";a=b",
            "\\",
            "a",
            "A",
        ),
        *(
            "v1",
            "jobs",
            "workers",
            "healthz",
            "stop",
            "output",
            "é",
            "\0",
            "\x7f",
            "@",
            ":",
            "*",
            "http://",
            "+",
            "&",
            "=",
        ),
    )
)
PATHS = st.lists(ODD | st.text(max_size=3), max_size=8).map("".join)
ROUTE_PATHS = st.sampled_from(sorted({route.path.replace("<job_id>", "job-1") for route in ROUTES}))
#: The forms of all paths that some route has.
FORMS = [re.compile(re.sub("<.*?>", "[^/]+", route.path)) for route in ROUTES]


class TargetTests(ServerTestCase):
    """The first line of a request."""

    def status(self, target: bytes, method: bytes = b"GET") -> int:
        """The status of the answer; it is one complete answer, with nothing behind it."""
        client = self.server.connect()
        client.send(method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = read_response(client.socket.received, method == b"HEAD")
        self.assertIsNotNone(found, target)
        self.assertEqual(found.rest, b"", target)
        self.assertNotIn(b"Traceback", client.socket.received)
        self.assertEqual(self.flushLoggedErrors(), [])
        client.socket.loseConnection()
        return found.status

    @given(st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n")) | PATHS.map(str.encode))
    def test_any_bytes(self, target: bytes) -> None:
        """Any bytes in place of a target are answered, and no answer is a fault of the server."""
        self.assertLess(self.status(target), 500, target)

    @given(PATHS, st.sampled_from((b"GET", b"HEAD", b"POST", b"DELETE", b"PUT", b"get", b"OPTIONS")))
    def test_any_path(self, path: str, method: bytes) -> None:
        """Any path, escaped or not, is answered without a fault of the server."""
        for target in (f"/{path}", f"/{quote(path)}", f"/{quote(path, safe='')}"):
            self.assertLess(self.status(target.encode(), method), 500, target)

    @given(ROUTE_PATHS, st.integers(0, 40), st.integers(0, 3), ODD)
    def test_second_path(self, path: str, at: int, size: int, odd: str) -> None:
        """A path that is almost that of a route is found only if it is, unescaped once, that of a route."""
        target = (path[:at] + odd + path[at + size :]).encode()
        if self.status(target) not in (400, 404):
            decoded = unquote_to_bytes(target.partition(b"?")[0]).decode()
            self.assertTrue(any(form.fullmatch(decoded) for form in FORMS), target)
            self.assertNotIn(b"%2f", target.lower())

    @given(st.sampled_from(sorted({route.path for route in ROUTES if "<" in route.path})), PATHS)
    def test_any_name(self, path: str, name: str) -> None:
        """Any text in place of an id or name stands for no job, worker or problem, and is never part of a path."""
        escaped = quote(name, safe="")
        status = self.status(re.sub("<.*?>", lambda _: escaped, path).encode())
        self.assertIn(status, (400, 404, 405), name)

    @given(st.sampled_from(("/v1/jobs", "/v1/workers", "/healthz", "/v1/jobs/job-1/output")), PATHS, st.booleans())
    def test_any_query(self, path: str, query: str, escaped: bool) -> None:
        """Any query is answered without a fault of the server."""
        text = quote(query, safe="=&") if escaped else query
        for name in ("", "limit=", "cursor=", "label=", "created_after="):
            self.assertLess(self.status(f"{path}?{name}{text}".encode()), 500, text)
