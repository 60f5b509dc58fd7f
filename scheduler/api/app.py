"""The routes, and how what a handler answers or raises becomes a response.

A handler takes the request and what its path names, decodes, makes one call to the
scheduler, and returns an ``Answer`` or a stream; whatever it raises becomes a problem
document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map

from scheduler.api.answers import Answer, prepare, problem_answer
from scheduler.api.bodies import PIECE_BYTES, in_pieces
from scheduler.api.context import Context, Reply
from scheduler.api.core import CoreRoutes
from scheduler.api.errors import SUBMISSIONS, problem_of, submission_problem
from scheduler.api.jobs import JobRoutes
from scheduler.api.outcomes import Outcomes
from scheduler.api.output import OutputRoutes
from scheduler.api.process import ProcessRoutes
from scheduler.api.streams import UnderWay
from scheduler.api.submissions import SubmissionRoutes
from scheduler.api.workers import WorkerRoutes
from scheduler.interfaces import IScheduler

Handler = Callable[..., Awaitable[Reply]]


class NoneOf(BaseConverter):
    """A name in a path that is none of these words: another route has them in its place."""

    def __init__(self, map: Map, *words: str) -> None:  # noqa: A002
        super().__init__(map)
        self.regex = rf"(?!(?:{'|'.join(words)})\Z)[^/]+"


def make_app(scheduler: IScheduler, clock: IReactorTime, wall_time: Callable[[], float], under_way: UnderWay) -> Klein:
    """A fresh app; ``wall_time`` gives POSIX times, ``clock`` runs timers."""
    app = Klein()
    app.url_map.merge_slashes = False
    app.url_map.converters["none_of"] = NoneOf
    table = routes(Context(scheduler, clock, wall_time, under_way))
    paths = [path for _, path, _ in table]

    def route(method: str, path: str, handler: Handler) -> None:
        problem = submission_problem if (method, path) in SUBMISSIONS else problem_of

        async def answered(request: Request, **names: str) -> Any:
            try:
                reply = await handler(request, **names)
            except CancelledError:
                raise  # the client is gone
            except Exception:
                reply = problem_answer(problem(Failure()))
            if isinstance(reply, Answer):
                return prepare(request, reply) if len(reply.body) <= PIECE_BYTES else in_pieces(reply, under_way.held)
            return reply

        endpoint = f"{method} {path}"
        app.route(_pattern(path, paths), methods=[method], endpoint=endpoint)(
            lambda request, **names: ensureDeferred(answered(request, **names))
        )

    def unrouted(request: Any, failure: Failure) -> bytes:
        return prepare(request, problem_answer(problem_of(failure)))

    app.handle_errors(HTTPException)(unrouted)
    for method, path, handler in table:
        route(method, path, handler)
    return app


def _pattern(path: str, paths: Iterable[str]) -> str:
    """The path for the router: where it ends in a name, that is no word with which another one ends in its place.

    So ``GET /v1/jobs/stop`` is no job, but a method that ``/v1/jobs/stop`` does not have.
    """
    above, _, last = path.rpartition("/")
    siblings = (other.rpartition("/") for other in paths)
    words = {word for folder, _, word in siblings if folder == above and not word.startswith("<")}
    return f"{above}/<none_of({','.join(sorted(words))}):{last[1:]}" if words and last.startswith("<") else path


def routes(context: Context) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path, handler. HEAD goes with GET."""
    outcomes = Outcomes(context)
    core, jobs, outputs = CoreRoutes(context), JobRoutes(context, outcomes), OutputRoutes(context, outcomes)
    submissions = SubmissionRoutes(context, outputs, outcomes)
    workers, process = WorkerRoutes(context), ProcessRoutes(context)
    return (
        ("POST", "/start", core.start),
        ("POST", "/stop", core.stop),
        ("POST", "/query", core.query),
        ("POST", "/v1/jobs", submissions.submit),
        ("GET", "/v1/jobs", jobs.jobs),
        ("POST", "/v1/jobs/stop", jobs.stop_matching),
        ("GET", "/v1/jobs/<job_id>", jobs.job),
        ("DELETE", "/v1/jobs/<job_id>", jobs.remove),
        ("POST", "/v1/jobs/<job_id>/stop", jobs.stop_job),
        ("POST", "/v1/jobs/<job_id>/signal", jobs.signal),
        ("GET", "/v1/jobs/<job_id>/output", outputs.output),
        ("GET", "/v1/workers", workers.workers),
        ("GET", "/v1/workers/<worker>", workers.worker),
        ("DELETE", "/v1/workers/<worker>", workers.forget),
        ("POST", "/v1/workers/<worker>/drain", workers.drain),
        ("POST", "/v1/workers/<worker>/resume", workers.resume),
        ("GET", "/healthz", process.healthz),
        ("GET", "/readyz", process.readyz),
        ("GET", "/v1/version", process.version),
        ("GET", "/problems/<name>", process.problem),
    )
