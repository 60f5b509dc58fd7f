"""The routes, and how what a handler answers or raises becomes a response.

A handler takes the request and what its path names, decodes, makes one call to the
scheduler, and returns an ``Answer`` or a stream; whatever it raises becomes a problem
document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from scheduler.api.answers import Answer, prepare, problem_answer
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


def make_app(scheduler: IScheduler, clock: IReactorTime, wall_time: Callable[[], float], under_way: UnderWay) -> Klein:
    """A fresh app; ``wall_time`` gives POSIX times, ``clock`` runs timers."""
    app = Klein()
    app.url_map.merge_slashes = False

    def route(method: str, path: str, handler: Handler) -> None:
        problem = submission_problem if (method, path) in SUBMISSIONS else problem_of

        async def answered(request: Request, **names: str) -> Any:
            try:
                reply = await handler(request, **names)
            except CancelledError:
                raise  # the client is gone
            except Exception:
                reply = problem_answer(problem(Failure()))
            return prepare(request, reply) if isinstance(reply, Answer) else reply

        endpoint = f"{method} {path}"
        app.route(path, methods=[method], endpoint=endpoint)(
            lambda request, **names: ensureDeferred(answered(request, **names))
        )

    def unrouted(request: Any, failure: Failure) -> bytes:
        return prepare(request, problem_answer(problem_of(failure)))

    app.handle_errors(HTTPException)(unrouted)
    for method, path, handler in routes(Context(scheduler, clock, wall_time, under_way)):
        route(method, path, handler)
    return app


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
