"""What the scenarios of all routes share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from tests.doubles.overridden import Overridden
from tests.fleet import Fleet
from tests.house import House
from tests.unit.api.documents import check_problem

NOW = 1_700_000_000.0

ROUTES = {
    "/start": {"POST"},
    "/stop": {"POST"},
    "/query": {"POST"},
    "/v1/jobs": {"GET", "HEAD", "POST"},
    "/v1/jobs/stop": {"POST"},
    "/v1/jobs/job-1": {"GET", "HEAD", "DELETE"},
    "/v1/jobs/job-1/stop": {"POST"},
    "/v1/jobs/job-1/signal": {"POST"},
    "/v1/jobs/job-1/output": {"GET", "HEAD"},
    "/v1/workers": {"GET", "HEAD"},
    "/v1/workers/w1": {"GET", "HEAD", "DELETE"},
    "/v1/workers/w1/drain": {"POST"},
    "/v1/workers/w1/resume": {"POST"},
    "/healthz": {"GET", "HEAD"},
    "/readyz": {"GET", "HEAD"},
    "/v1/version": {"GET", "HEAD"},
    "/problems/busy": {"GET", "HEAD"},
}


@frozen
class Reply:
    """A response as its client sees it."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes
    #: What it answers.
    method: str
    path: str

    def json(self) -> Any:
        """The body's document."""
        return json.loads(self.body)


def scenario(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Any]:
    """A test written as a coroutine."""

    @functools.wraps(test)
    def played(self: Any) -> Any:
        return self.play(Deferred.fromCoroutine(test(self)))

    return played


class Scenarios:
    """Over a scheduler with the worker ``w1``."""

    scheduler: Overridden
    fleet: Fleet
    house: House
    call: Callable[..., Deferred[Reply]]
    play: Callable[[Deferred[None]], Any]
    assertEqual: Callable[..., None]  # noqa: N815
    assertIn: Callable[..., None]  # noqa: N815

    def post(self, path: str, document: object, **headers: str) -> Deferred[Reply]:
        return self.call("POST", path, json.dumps(document).encode(), **headers)

    async def assert_problem(self, reply: Deferred[Reply], status: int, text: str = "") -> Reply:
        found = await reply
        self.assertEqual(found.status, status, found.body)
        self.assertEqual(found.headers["content-type"], "application/problem+json")
        self.assertEqual((found.json()["status"], found.json()["title"]), (status, found.phrase))
        self.assertIn(text, found.json()["detail"])
        check_problem(found.json(), status, found.method, found.path)
        return found
