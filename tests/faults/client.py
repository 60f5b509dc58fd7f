"""A client of the HTTP API for many threads, with one connection for each request, which may fail at any point.

It deliberately does not use ``scheduler.client``, which repeats and resumes requests. The load must know which request
failed, when and how, and where a body was cut. The history records each of these events, and the checker judges the
scheduler's promises by them, not the client's repairs.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from attrs import frozen

Document = Any


class NotJson(Exception):
    """A complete answer that is no JSON."""


#: Failures of a request: refused, reset, cut, late, the scheduler's address is not known, or an answer that is no JSON.
CUT = (OSError, http.client.HTTPException, ValueError, NotJson)


@frozen
class Bytes:
    """Some output and its offset, as the server said or as it follows from the request."""

    offset: int
    data: bytes
    stream: str = "stdout"


@frozen
class Opened:
    """The stream was answered, so the job is followed from now on."""


@frozen
class Changed:
    """An event with the job's new state."""

    job: Document


@frozen
class End:
    """The server said that the output is complete; events also have the job."""

    job: Document | None = None


@frozen
class Gone:
    """The output, or the job (404), is no longer kept, or the offset is beyond the end (416)."""

    status: int
    problem: str | None = None


Item = Opened | Bytes | Changed | End | Gone


def problem_of(document: Document) -> str | None:
    """The name of a problem's type."""
    kind = document.get("type", "") if isinstance(document, dict) else ""
    return str(kind).removeprefix("/problems/") or None


def _ignore(what: str, error: str) -> None:
    """Do nothing."""


@frozen
class Api:
    """The API of the scheduler at ``address()``, ``host:port``.

    ``odd`` is called for each answer that no client should ever get, 500 or no JSON, with the request and the answer.
    """

    address: Callable[[], str]
    odd: Callable[[str, str], None] = _ignore

    def call(
        self,
        method: str,
        path: str,
        body: Document = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> tuple[int, Document]:
        """Status and document; one of ``CUT`` if there was no complete answer."""
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, self.document(answer, f"{method} {path}")
        finally:
            connection.close()

    def document(self, answer: http.client.HTTPResponse, what: str) -> Document:
        """The body of an answer; one of ``CUT`` if it is incomplete or no JSON."""
        text = answer.read()
        if answer.status == 500:
            self.odd(what, f"500: {text[:200]!r}")
        if not text:
            return None
        if "json" not in answer.headers.get("Content-Type", "") and "/output" in what:
            raise NotJson
        return self._loaded(text, what)

    def _loaded(self, text: bytes | str, what: str) -> Document:
        try:
            return json.loads(text)
        except ValueError:
            self._garbled(text, what)

    def _garbled(self, text: bytes | str, what: str) -> NoReturn:
        self.odd(what, f"no JSON: {text[:200]!r}")
        raise NotJson

    def get(self, path: str, timeout: float = 30.0) -> Document:
        """A document; ``None`` without an answer, or with another status than 200."""
        try:
            status, document = self.call("GET", path, timeout=timeout)
        except CUT:
            return None
        return document if status == 200 else None

    def worker_states(self) -> dict[str, str]:
        """``online`` or ``unreachable``, by name; empty if the scheduler does not answer."""
        document = self.get("/v1/workers", timeout=5)
        return {worker["name"]: worker["state"] for worker in document["workers"]} if document else {}

    def jobs(self) -> dict[str, Document] | None:
        """All jobs by id; ``None`` if the scheduler does not answer."""
        found: dict[str, Document] = {}
        cursor = ""
        while True:
            page = self.get(f"/v1/jobs?limit=1000{cursor}")
            if page is None:
                return None
            found |= {job["id"]: job for job in page["jobs"]}
            if not page["next"]:
                return found
            cursor = f"&cursor={page['next']}"

    def run(self, body: Document, headers: Mapping[str, str], timeout: float) -> tuple[int, Document, Iterator[Item]]:
        """Submit a job and read its stdout in one request: status, document (only ``id``, if it runs), stdout.

        One of ``CUT`` if there was no answer. The stdout raises it, too, if it is cut.
        """
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        try:
            connection.request("POST", "/v1/jobs?follow=1", json.dumps(body), dict(headers))
            answer = connection.getresponse()
            if answer.status == 201:
                return 201, {"id": answer.headers["X-Job-Id"]}, _raw(connection, answer, 0)
            document = self.document(answer, "POST /v1/jobs?follow=1")
        except CUT:
            connection.close()
            raise
        connection.close()
        return answer.status, document, iter(())

    def follow(self, job: str, offset: int, timeout: float = 60.0, stream: str = "stdout") -> Iterator[Item]:
        """A job's output from an offset on as a raw body. If it was cut there is no ``End``, or one of ``CUT``."""
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        path = f"/v1/jobs/{job}/output?follow=1&offset={offset}&stream={stream}"
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status == 200:
                yield from _raw(connection, answer, offset, stream)
            else:
                yield from self._gone(answer, path)
        finally:
            connection.close()

    def _gone(self, answer: http.client.HTTPResponse, path: str) -> Iterator[Gone]:
        """Finds out whether an answer without output means that there will never be any."""
        problem = problem_of(self.document(answer, f"GET {path}"))
        if answer.status in (410, 416) or (answer.status == 404 and problem == "job-unknown"):
            yield Gone(answer.status, problem)

    def events(self, job: str, offset: int, timeout: float = 60.0, error_offset: int = 0) -> Iterator[Item]:
        """The same as events of both streams, which contain their offsets."""
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        path = f"/v1/jobs/{job}/output"
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": f"{offset},{error_offset}"}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                yield from self._gone(answer, path)
                return
            yield Opened()
            fields: dict[str, str] = {}
            while line := answer.readline().decode():
                if line != "\n":
                    name, _, value = line.rstrip("\n").partition(":")
                    fields[name] = value.removeprefix(" ")
                    continue
                kind, data = fields.get("event"), fields.get("data")
                fields = {}
                if kind in ("stdout", "stderr") and data is not None:
                    event = self._loaded(data, f"events of {path}")
                    text = event["text"].encode() if "text" in event else base64.b64decode(event["base64"])
                    yield Bytes(event["offset"], text, kind)
                elif kind == "job" and data is not None:
                    yield Changed(self._loaded(data, f"events of {path}"))
                elif kind == "end" and data is not None:
                    yield End(self._loaded(data, f"events of {path}"))
                    return
                elif kind == "resume":
                    return
        finally:
            connection.close()


def _raw(
    connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, offset: int, stream: str = "stdout"
) -> Iterator[Item]:
    """A raw body of output from an offset on. The connection is closed after it."""
    try:
        yield Opened()
        while data := answer.read1(65536):
            yield Bytes(offset, data, stream)
            offset += len(data)
        yield End()
    finally:
        connection.close()
