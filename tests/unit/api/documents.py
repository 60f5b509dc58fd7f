"""What every problem document must be."""

from __future__ import annotations

from typing import Any

from scheduler.api.errors import CORE_PATHS
from scheduler.api.problems import TYPES
from scheduler.api.routes import SUBMISSIONS

#: In every one; ``type`` says which others there may be.
ALWAYS = {"type", "title", "status", "detail"}


def check_problem(document: dict[str, Any], status: int, method: str = "", path: str = "") -> None:
    """``AssertionError`` unless it is one of a documented type.

    With ``method`` and ``path`` of its request: it has ``error`` on a core route alone, and says ``started`` where it
    answers a submission.
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
