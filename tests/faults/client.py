"""A client of the HTTP API for many threads: one connection for each request, which may fail at any point.

``scheduler.client`` is not used on purpose. It repeats and resumes whatever it can, so the load would not know which
request failed, when, and with what, nor where a body was cut; the history has each of these as it was, and the checker
judges the scheduler's promises by them, not the client's repairs.
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
    """A whole answer that is no JSON."""


#: How a request may fail without an answer: refused, reset, cut, too late, or the scheduler's address is not known;
#: and with one that is no JSON.
CUT = (OSError, http.client.HTTPException, ValueError, NotJson)


@frozen
class Bytes:
    """Some output, where it began, as the server said or as follows from what was asked."""

    offset: int
    data: bytes
    stream: str = "stdout"


@frozen
class Opened:
    """The stream was answered; the job is followed from now on."""


@frozen
class Changed:
    """An event said how the job is."""

    job: Document


@frozen
class End:
    """The server said that this is all; of events, with the job."""

    job: Document | None = None


@frozen
class Gone:
    """The output, or the job (404), is no longer kept, or there is none at that offset (416)."""

    status: int
    problem: str | None = None


Item = Opened | Bytes | Changed | End | Gone


def problem_of(document: Document) -> str | None:
    """The name of a problem's type."""
    kind = document.get("type", "") if isinstance(document, dict) else ""
    return str(kind).removeprefix("/problems/") or None


def _ignore(what: str, error: str) -> None:
    """Nobody wants to know."""


@frozen
class Api:
    """Of the scheduler that listens at ``address()``, ``host:port``.

    ``odd`` is told what was asked, and what came, of each answer that nobody should ever get: 500, or no JSON.
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
        """Status and document; one of ``CUT`` when there was no whole answer."""
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, self.document(answer, f"{method} {path}")
        finally:
            connection.close()

    def document(self, answer: http.client.HTTPResponse, what: str) -> Document:
        """The body of an answer; one of ``CUT`` for one that is not whole, or no JSON."""
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
        """A document; ``None`` when there is no answer, or another than 200."""
        try:
            status, document = self.call("GET", path, timeout=timeout)
        except CUT:
            return None
        return document if status == 200 else None

    def worker_states(self) -> dict[str, str]:
        """``online`` or ``unreachable``, by name; of a scheduler that does not answer, nothing."""
        document = self.get("/v1/workers", timeout=5)
        return {worker["name"]: worker["state"] for worker in document["workers"]} if document else {}

    def jobs(self) -> dict[str, Document] | None:
        """All jobs by id; ``None``: the scheduler does not answer."""
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
        """Submit a job and read its stdout, all by one request: status, document (``id`` alone, if it runs), stdout.

        One of ``CUT`` when there was no answer; so too by the stdout, when that is cut.
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
        """A job's output from there on as a raw body; without ``End`` it was cut, or is one of ``CUT``."""
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
        """Whether an answer that is no output says that there never will be any."""
        problem = problem_of(self.document(answer, f"GET {path}"))
        if answer.status in (410, 416) or (answer.status == 404 and problem == "job-unknown"):
            yield Gone(answer.status, problem)

    def events(self, job: str, offset: int, timeout: float = 60.0, error_offset: int = 0) -> Iterator[Item]:
        """The same as events, of both streams, which say themselves where they are."""
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
    """A raw body of output from there on; the connection is closed behind it."""
    try:
        yield Opened()
        while data := answer.read1(65536):
            yield Bytes(offset, data, stream)
            offset += len(data)
        yield End()
    finally:
        connection.close()
