"""The route table: the method and path of each route, its scope, what it reads, what it answers, and its handler.

Everything that depends on the routes walks this table: the Klein app, the 405 answers with their ``Allow``, the tests,
and the check of docs/api.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen

from scheduler import wire
from scheduler.api import audit, core, jobs, output, process, submissions, tokens, workers
from scheduler.api.context import Reply
from scheduler.api.outcomes import WANTED
from scheduler.api.parameters import FILTERS, pairs_of
from scheduler.api.token_json import read_new_token
from scheduler.reading import BodyReader
from scheduler.security.principals import Scope

#: A function of a ``Call`` and of the variable parts of the path.
Handler = Callable[..., Awaitable[Reply]]

#: Types of problems that any route may answer with, and those that all routes but the open ones may answer with.
ANYWHERE = (
    *("invalid-request", "host-not-allowed", "cross-site", "body-too-large"),
    *("too-many-requests", "busy", "shutting-down", "internal"),
)
CLOSED = ("unauthenticated", "scope-needed")


@frozen
class Route:
    """A row of the table.

    ``path`` has ``<name>`` for a part that the handler takes by that name. A route for GET answers HEAD, too.
    ``statuses`` are the statuses of success, ``problems`` the types of problem documents beside those of ``ANYWHERE``.
    """

    method: str
    path: str
    scope: Scope
    handler: Handler
    statuses: tuple[int, ...]
    problems: tuple[str, ...] = ()
    #: The parameters that the query string may have.
    query: tuple[str, ...] = ()
    #: Reads the body; ``None``: a body is ignored.
    body: BodyReader[Any] | None = None

    @property
    def name(self) -> str:
        """The method and path of the route."""
        return f"{self.method} {self.path}"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of requests that the route answers."""
        return (self.method, "HEAD") if self.method == "GET" else (self.method,)

    @property
    def all_problems(self) -> frozenset[str]:
        """The types of all problem documents that the route may answer with, also those that many routes share."""
        of_body = ("unsupported-media-type",) if self.body else ()
        return frozenset((*ANYWHERE, *self.problems, *of_body, *(CLOSED if self.scope is not Scope.OPEN else ())))


#: Problems of a call to a worker.
_CALL = ("worker-unreachable", "worker-fault", "unavailable", "timeout", "unsupported")

#: Problems of a submission, to a core route and to ``POST /v1/jobs``.
_START = (
    *(
        "refused",
        "job-unknown",
        "worker-unknown",
        "worker-draining",
        "no-match",
        "no-free-slot",
        "queue-full",
        "start-unanswered",
    ),
    *("key-in-use", "key-reused", "key-unsettled", "job-removed", "conflict", "store-failing", *_CALL),
)
_SUBMIT = (*_START, "job-failed", "job-not-ended", "output-unavailable", "http-version")

#: Problems of reading output.
_OUTPUT = (
    *("job-unknown", "output-unknown", "output-pruned", "output-cut", "output-gone"),
    *("offset-beyond-end", "http-version", *_CALL),
)

_STOP = ("job-unknown", "left-running", "store-failing", *_CALL)
_CORE_STOP = ("refused", "worker-unknown", *_STOP)
_QUERY = ("refused", "worker-unknown", "job-unknown", *_CALL)
_SIGNAL = ("job-unknown", "job-not-running", "conflict", *_CALL)
_LOOK = ("job-unknown", "job-failed", "job-not-ended", "store-failing")
_REMOVE = ("job-unknown", "job-not-ended", "store-failing", "worker-fault")
_NAMED = ("refused", "worker-unknown")
_DRAIN = (*_NAMED, "store-failing")
_FORGET = ("worker-online", "conflict", *_DRAIN)
_NEW_TOKEN = ("name-taken", "conflict", "refused", "store-failing")
_REVOKE = ("token-unknown", "store-failing")

READ, RUN, ADMIN = Scope.READ, Scope.RUN, Scope.ADMIN

ROUTES = (
    Route("POST", "/start", RUN, core.start, (201,), _START, (), wire.read_start),
    Route("POST", "/stop", RUN, core.stop, (200, 202), _CORE_STOP, (), wire.read_worker_and_job),
    Route("POST", "/query", READ, core.query, (200,), _QUERY, (), wire.read_worker_and_job),
    Route("POST", "/v1/jobs", RUN, submissions.submit, (201, 202), _SUBMIT, submissions.QUERY, wire.read_submit),
    Route("GET", "/v1/jobs", READ, jobs.page, (200,), _NAMED, jobs.PAGE_QUERY),
    Route("POST", "/v1/jobs/stop", RUN, jobs.stop_matching, (200,), _NAMED, FILTERS, pairs_of),
    Route("GET", "/v1/jobs/<job_id>", READ, jobs.one, (200, 202), _LOOK, WANTED),
    Route("DELETE", "/v1/jobs/<job_id>", RUN, jobs.remove, (202, 204), _REMOVE),
    Route("POST", "/v1/jobs/<job_id>/stop", RUN, jobs.stop, (200, 202), _STOP, (), wire.read_nothing),
    Route("POST", "/v1/jobs/<job_id>/signal", RUN, jobs.signal, (200,), _SIGNAL, (), wire.read_signal),
    Route("GET", "/v1/jobs/<job_id>/output", READ, output.output, (200, 204, 206), _OUTPUT, output.QUERY),
    Route("GET", "/v1/workers", READ, workers.every, (200,)),
    Route("GET", "/v1/workers/<worker>", READ, workers.one, (200,), _NAMED),
    Route("DELETE", "/v1/workers/<worker>", ADMIN, workers.forget, (204,), _FORGET),
    Route("POST", "/v1/workers/<worker>/drain", ADMIN, workers.drain, (200,), _DRAIN, (), wire.read_nothing),
    Route("POST", "/v1/workers/<worker>/resume", ADMIN, workers.resume, (200,), _DRAIN, (), wire.read_nothing),
    Route("POST", "/v1/tokens", ADMIN, tokens.create, (201,), _NEW_TOKEN, (), read_new_token),
    Route("GET", "/v1/tokens", ADMIN, tokens.every, (200,)),
    Route("GET", "/v1/tokens/<token_id>", ADMIN, tokens.one, (200,), ("token-unknown",)),
    Route("DELETE", "/v1/tokens/<token_id>", ADMIN, tokens.revoke, (204,), _REVOKE),
    Route("GET", "/v1/audit", ADMIN, audit.page, (200,), ("refused", "store-failing"), audit.QUERY),
    Route("GET", "/healthz", Scope.OPEN, process.healthz, (200,)),
    Route("GET", "/readyz", Scope.OPEN, process.readyz, (200,), ("not-ready",)),
    Route("GET", "/v1/version", READ, process.version, (200,)),
    Route("GET", "/problems/<name>", READ, process.problem, (200,), ("route-unknown",)),
)

#: Requests that submit a job: method and path.
SUBMISSIONS = frozenset((route.method, route.path) for route in ROUTES if "start-unanswered" in route.problems)
