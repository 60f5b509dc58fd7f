"""What every problem document must be."""

from __future__ import annotations

from typing import Any

from scheduler.api.errors import SUBMISSIONS
from scheduler.api.problems import TYPES

#: In every one; ``type`` says which others there may be.
ALWAYS = {"type", "title", "status", "detail", "error"}


def check_problem(document: dict[str, Any], status: int, method: str = "", path: str = "") -> None:
    """``AssertionError`` unless it is one of a documented type, and says ``started`` where it answers a submission."""
    home, _, name = document["type"].rpartition("/")
    assert home == "/problems", document
    assert name in TYPES, f"{name} is no type"
    assert document["status"] == status, document
    assert status in TYPES[name].statuses, f"{name} does not come with {status}"
    assert document["error"] == document["detail"] != "", document
    allowed = {*ALWAYS, *TYPES[name].members, *({"started", "job_id"} if "started" in document else ())}
    assert set(document) <= allowed, f"{name} has {set(document) - allowed}"
    if method:
        submitted = (method, path.partition("?")[0]) in SUBMISSIONS
        assert ("started" in document) == submitted, document
    if document.get("started") is True:
        assert document["job_id"], document
