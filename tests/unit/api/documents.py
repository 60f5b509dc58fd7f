"""Checks of answers: each is one that the route table has, and each problem document is of a documented type."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from scheduler.api.errors import CORE_PATHS
from scheduler.api.problems import TYPES
from scheduler.api.routes import ANYWHERE, ROUTES, SUBMISSIONS, Route

#: Members of every problem document; its type says which others it may have.
ALWAYS = {"type", "title", "status", "detail"}

#: Examples for the names in paths.
NAMES = {"job_id": "job-1", "worker": "w1", "name": "busy", "token_id": "abcd2345ef"}


def example(route: Route) -> str:
    """The path of a route, with names filled in."""
    return re.sub("<(.*?)>", lambda found: NAMES[found[1]], route.path)


#: The routes of each path of the table, with names filled in.
ROUTES_OF: Mapping[str, tuple[Route, ...]] = {
    example(each): tuple(route for route in ROUTES if route.path == each.path) for each in ROUTES
}

#: The methods that are answered at each of these paths.
PATHS: Mapping[str, set[str]] = {
    path: {method for route in routes for method in route.methods} for path, routes in ROUTES_OF.items()
}


def routes_of(path: str) -> tuple[Route, ...]:
    """The routes of a path, as the router finds them: words in the table go before names."""
    if path.startswith("//") or "%2f" in path.lower():
        return ()
    found = [route for route in ROUTES if re.fullmatch(re.sub("<.*?>", "[^/]+", route.path), path)]
    fewest = min((route.path.count("<") for route in found), default=0)
    return tuple(route for route in found if route.path.count("<") == fewest)


def check_answer(method: str, target: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """``AssertionError`` unless the table has this answer for the route of the request."""
    path = target.partition("?")[0]
    routes = routes_of(path)
    route = next((route for route in routes if method in route.methods), None)
    if status < 400:
        assert route is not None, f"{method} {path} is answered and is no route"
        assert status in route.statuses, f"{status} is no status of {route.name}"
    elif headers.get("content-type") == "application/problem+json" and body:
        document = json.loads(body)
        check_problem(document, status, method, path)
        problems = {*ANYWHERE, "unauthenticated"} if route is None else route.all_problems
        others = () if route else ("method-not-allowed",) if routes else ("route-unknown",)
        name = document["type"].rpartition("/")[2]
        door = () if route else ("unauthenticated",)
        assert name in {*problems, *others, *door}, f"{name} is no problem of {method} {path}: {document['detail']}"


def check_problem(document: dict[str, Any], status: int, method: str = "", path: str = "") -> None:
    """``AssertionError`` unless the document is of a documented type.

    With the ``method`` and ``path`` of its request, also check that it has ``error`` only on core routes, and
    ``started`` only in answers to submissions.
    """
    home, _, name = document["type"].rpartition("/")
    assert home == "/problems", document
    assert name in TYPES, f"{name} is no type"
    assert document["status"] == status, document
    assert status in TYPES[name].statuses, f"{name} does not come with {status}"
    assert document.get("error", document["detail"]) == document["detail"] != "", document
    allowed = {*ALWAYS, "error", *TYPES[name].members, *({"started", "job_id"} if "started" in document else ())}
    assert set(document) <= allowed, f"{name} has {set(document) - allowed}"
    if method:
        assert ("error" in document) == (path.partition("?")[0].encode() in CORE_PATHS), document
        submitted = (method, path.partition("?")[0]) in SUBMISSIONS
        assert ("started" in document) == submitted, document
    if document.get("started") is True:
        assert document["job_id"], document
