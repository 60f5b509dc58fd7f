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
from typing import Any

from attrs import frozen

Document = Any

#: How a request may fail without an answer: refused, reset, cut, too late, or the scheduler's address is not known.
CUT = (OSError, http.client.HTTPException, ValueError)


@frozen
class Bytes:
    """Some output, where it began, as the server said or as follows from what was asked."""

    offset: int
    data: bytes


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
    """The output, or the job (404), is no longer kept."""

    status: int


Item = Opened | Bytes | Changed | End | Gone


def problem_of(document: Document) -> str | None:
    """The name of a problem's type."""
    kind = document.get("type", "") if isinstance(document, dict) else ""
    return str(kind).removeprefix("/problems/") or None


@frozen
class Api:
    """Of the scheduler that listens at ``address()``, ``host:port``."""

    address: Callable[[], str]

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
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

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
            document = json.loads(answer.read())
        except CUT:
            connection.close()
            raise
        connection.close()
        return answer.status, document, iter(())

    def follow(self, job: str, offset: int, timeout: float = 60.0) -> Iterator[Item]:
        """A job's stdout from there on as a raw body; without ``End`` it was cut, or is one of ``CUT``."""
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        try:
            connection.request("GET", f"/v1/jobs/{job}/output?follow=1&offset={offset}")
            answer = connection.getresponse()
            if answer.status == 410 or (
                answer.status == 404 and problem_of(json.loads(answer.read())) == "job-unknown"
            ):
                yield Gone(answer.status)
            if answer.status == 200:
                yield from _raw(connection, answer, offset)
        finally:
            connection.close()

    def events(self, job: str, offset: int, timeout: float = 60.0) -> Iterator[Item]:
        """The same as events, which say themselves where they are; stderr is left out."""
        connection = http.client.HTTPConnection(self.address(), timeout=timeout)
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": f"{offset},0"}
            connection.request("GET", f"/v1/jobs/{job}/output", headers=headers)
            answer = connection.getresponse()
            if answer.status == 410 or (
                answer.status == 404 and problem_of(json.loads(answer.read())) == "job-unknown"
            ):
                yield Gone(answer.status)
            if answer.status != 200:
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
                if kind == "stdout" and data is not None:
                    event = json.loads(data)
                    text = event["text"].encode() if "text" in event else base64.b64decode(event["base64"])
                    yield Bytes(event["offset"], text)
                elif kind == "job" and data is not None:
                    yield Changed(json.loads(data))
                elif kind == "end" and data is not None:
                    yield End(json.loads(data))
                    return
                elif kind == "resume":
                    return
        finally:
            connection.close()


def _raw(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, offset: int) -> Iterator[Item]:
    """A raw body of output from there on; the connection is closed behind it."""
    try:
        yield Opened()
        while data := answer.read1(65536):
            yield Bytes(offset, data)
            offset += len(data)
        yield End()
    finally:
        connection.close()
