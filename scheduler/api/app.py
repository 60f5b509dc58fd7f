"""The Klein app of the route table, and the way from a handler's result or exception to a response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import NotFound

from scheduler.api.answers import Answer, prepare, problem_answer
from scheduler.api.bodies import PIECE_BYTES, in_pieces
from scheduler.api.call import Call, read_document
from scheduler.api.context import Context, Reply
from scheduler.api.errors import Problem, no_such_route, problem_of, submission_problem
from scheduler.api.parameters import Query, read_pairs
from scheduler.api.recording import record_refusal
from scheduler.api.routes import ROUTES, SUBMISSIONS, Route
from scheduler.errors import BeyondReach, Refused, SchedulerError
from scheduler.security.principals import Scope
from scheduler.security.trail import result_of


def make_app(context: Context, routes: Sequence[Route] = ROUTES) -> Klein:
    """Make a Klein app. Each path is one rule of the router, for all methods, so a longer match never hides a 405.

    Raises ``ValueError`` if a route has no scope.
    """
    app = Klein()
    app.url_map.merge_slashes = False
    for route in routes:
        if not isinstance(route.scope, Scope):
            raise ValueError(f"the route {route.name} has no scope")
    for path in dict.fromkeys(route.path for route in routes):
        _add(app, context, path, routes)

    def not_found(request: Request, _: Failure) -> bytes:
        return prepare(request, problem_answer(_unless_admitted(context, request, no_such_route())))

    app.handle_errors(NotFound)(cast(Any, not_found))
    return app


def _add(app: Klein, context: Context, path: str, routes: Sequence[Route]) -> None:
    methods = {method: route for route in routes if route.path == path for method in route.methods}
    allowed = ", ".join(sorted(methods))
    not_allowed = Problem(405, f"this route is for {allowed}", {"Allow": allowed}, type="method-not-allowed")

    @app.route(path, endpoint=path)
    def answer(request: Request, **names: str) -> Deferred[Any] | bytes:
        route = methods.get(request.method.decode("latin-1"))
        if route is None:
            return prepare(request, problem_answer(_unless_admitted(context, request, not_allowed)))
        return ensureDeferred(_answer(context, route, request, names))


def _unless_admitted(context: Context, request: Request, problem: Problem) -> Problem:
    """The answer to a request that no route takes: ``problem``, or what refuses a request without a principal."""
    try:
        context.door.admit(request, Scope.READ)
    except SchedulerError:
        return problem_of(Failure())
    return problem


async def _answer(context: Context, route: Route, request: Request, names: dict[str, str]) -> Any:
    try:
        reply = await _reply(context, route, request, names)
    except CancelledError:
        raise  # the client is gone
    except Exception:
        problem = submission_problem if (route.method, route.path) in SUBMISSIONS else problem_of
        reply = problem_answer(problem(Failure()))
    if isinstance(reply, Answer):
        return prepare(request, reply) if len(reply.body) <= PIECE_BYTES else in_pieces(reply, context.under_way.held)
    return reply


async def _reply(context: Context, route: Route, request: Request, names: dict[str, str]) -> Reply:
    principal = context.door.admit(request, route.scope)
    if principal is not None:
        context = context.of(principal)
    query = Query(read_pairs(request.uri.partition(b"?")[2]), route.query)
    document = {} if route.body is None else read_document(request)
    body = None if route.body is None else route.body(document)
    try:
        return await route.handler(Call(context, request, principal, route.name, query, document, body), **names)
    except (Refused, BeyondReach) as error:
        if route.scope is Scope.READ or route.method == "GET":  # acts record it themselves
            record_refusal(context.audit, request, str(principal), result_of(error))
        raise
