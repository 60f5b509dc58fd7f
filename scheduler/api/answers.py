"""A complete response as a value, and how it is sent as the response to a Twisted request."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from attrs import field, frozen
from twisted.web.server import Request

from scheduler import wire
from scheduler.api.errors import Problem
from scheduler.reading import Object

JSON = "application/json"

PROBLEM = "application/problem+json"


@frozen
class Answer:
    """A response whose body is known: ``body``, or the document of ``problem``.

    ``Content-Length`` is the length of the body, unless ``headers`` contain it (HEAD).
    """

    body: bytes = b""
    status: int = 200
    content_type: str | None = None
    headers: Mapping[str, str] = field(factory=dict)
    #: Whether to send ``Content-Length``: the answer to a HEAD for a stream has none.
    sized: bool = True
    problem: Problem | None = None


def json_answer(value: Object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a JSON document."""
    return Answer(wire.dump(value), status, JSON, headers or {})


def problem_answer(problem: Problem) -> Answer:
    """An answer with a problem document."""
    return Answer(status=problem.status, content_type=PROBLEM, headers=problem.headers, problem=problem)


def prepare(request: Request, answer: Answer) -> bytes:
    """Set the status and headers of a response, and return its body."""
    body = answer.body if answer.problem is None else answer.problem.document(request.path)
    # Twisted has no phrase for some statuses, such as 422.
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode("ascii"))
    if answer.content_type is not None:
        request.setHeader("Content-Type", answer.content_type)
    if answer.sized and answer.status != 204:
        request.setHeader("Content-Length", str(len(body)))
    for name, value in answer.headers.items():
        request.setHeader(name, value)
    return body


def send(request: Request, answer: Answer) -> None:
    """Send the whole response."""
    request.write(prepare(request, answer))
    request.finish()
