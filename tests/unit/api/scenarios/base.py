"""Scenarios: tests of routes that run in memory and over a real socket alike.

A subclass gives ``scheduler``, ``call`` and ``play``. A scenario is a coroutine that ``play`` runs to its end.
"""

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
from tests.unit.api.documents import check_answer

NOW = 1_700_000_000.0


@frozen
class Reply:
    """A response as its client sees it, with the method and path of its request."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes
    method: str
    path: str

    def __attrs_post_init__(self) -> None:
        check_answer(self.method, self.path, self.status, self.headers, self.body)

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
    """Scenarios over a scheduler with the worker ``w1``."""

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
        return found
