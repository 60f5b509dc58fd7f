"""The routes. Each handler decodes, makes one call to the scheduler, and encodes.

A handler takes the request and what its path names, and returns an ``Answer``
or a stream; whatever it raises becomes a problem document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, BinaryIO, TypeVar, cast

from attrs import evolve
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from scheduler import wire
from scheduler.api.answers import Answer, json_answer, prepare, problem_answer
from scheduler.api.errors import Problem, ProblemError, problem_of
from scheduler.api.events import read_offsets
from scheduler.api.following import FromTheStart, Readers, open_all
from scheduler.api.guard import values_of
from scheduler.api.idempotency import REPLAYED, key_of
from scheduler.api.output import offset_of_tail, read_range, size_of
from scheduler.api.query import FILTERS, MOST_JOBS, Pairs, Query, pairs_of, read_pairs
from scheduler.api.streams import CHUNK, EventStream, RawStream, SpanReader, StreamResource, UnderWay
from scheduler.errors import Invalid, NotFound, SchedulerError, ShuttingDown, Unsupported
from scheduler.fields import Object, shown
from scheduler.interfaces import IOutputReader, IScheduler, RequestKey
from scheduler.model import Job, JobState, Stream, is_id

#: Of a request's body, in bytes.
LARGEST_BODY = 1024 * 1024

_JSON_TYPES = ("application/json", "application/x-www-form-urlencoded")

_RAW = {"Content-Type": "text/plain; charset=utf-8"}

Reply = Answer | StreamResource

T = TypeVar("T")


def make_app(scheduler: IScheduler, clock: IReactorTime, wall_time: Callable[[], float], under_way: UnderWay) -> Klein:
    """A fresh app; ``wall_time`` gives POSIX times, ``clock`` runs timers."""
    app = Klein()
    app.url_map.merge_slashes = False
    routes = _Routes(scheduler, clock, wall_time, under_way)

    def route(method: str, path: str, handler: Callable[..., Awaitable[Reply]]) -> None:
        async def answered(request: Request, **names: str) -> Any:
            try:
                reply = await handler(request, **names)
            except CancelledError:
                raise  # the client is gone
            except Exception:
                reply = problem_answer(problem_of(Failure()))
            return prepare(request, reply) if isinstance(reply, Answer) else reply

        endpoint = f"{method} {path}"
        app.route(path, methods=[method], endpoint=endpoint)(
            lambda request, **names: ensureDeferred(answered(request, **names))
        )

    def unrouted(request: Any, failure: Failure) -> bytes:
        return prepare(request, problem_answer(problem_of(failure)))

    app.handle_errors(HTTPException)(unrouted)
    for method, path, handler in routes.table():
        route(method, path, handler)
    return app


def query_of(request: Request, allowed: Iterable[str] = ()) -> Query:
    """The request's parameters."""
    return Query(pairs_in(request), allowed)


def pairs_in(request: Request) -> Pairs:
    """The request's query string, apart."""
    return read_pairs(request.uri.partition(b"?")[2])


def body_of(request: Request) -> Object:
    """The request's JSON; ``Invalid``, or 413 or 415."""
    if values_of(request.requestHeaders, "content-encoding"):
        raise ProblemError(415, "the body must not be encoded (Content-Encoding)")
    for header in values_of(request.requestHeaders, "content-type"):
        kind, _, parameters = header.lower().partition(";")
        charset = parameters.replace(" ", "").replace('"', "")
        if kind.strip() not in _JSON_TYPES or charset not in ("", "charset=utf-8"):
            raise ProblemError(415, f"the body must be application/json in UTF-8, not {shown(header)}")
    body = cast(BinaryIO, request.content).read(LARGEST_BODY + 1)
    if len(body) > LARGEST_BODY:
        raise ProblemError(413, f"a body is at most {LARGEST_BODY} bytes")
    return wire.load(body)


def wants_events(request: Request) -> bool:
    """Whether ``Accept`` asks for server-sent events."""
    ranges = ",".join(values_of(request.requestHeaders, "accept")).lower().split(",")
    return any(kind.partition(";")[0].strip() == "text/event-stream" for kind in ranges)


class _Routes:
    """The handlers, over what they share."""

    def __init__(
        self, scheduler: IScheduler, clock: IReactorTime, wall_time: Callable[[], float], under_way: UnderWay
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._wall_time = wall_time
        self._under_way = under_way

    def table(self) -> tuple[tuple[str, str, Callable[..., Awaitable[Reply]]], ...]:
        """Method, path, handler. HEAD goes with GET."""
        return (
            ("POST", "/start", self.start),
            ("POST", "/stop", self.stop),
            ("POST", "/query", self.query),
            ("POST", "/v1/jobs", self.submit),
            ("GET", "/v1/jobs", self.jobs),
            ("POST", "/v1/jobs/stop", self.stop_matching),
            ("GET", "/v1/jobs/<job_id>", self.job),
            ("POST", "/v1/jobs/<job_id>/stop", self.stop_job),
            ("GET", "/v1/jobs/<job_id>/output", self.output),
            ("GET", "/v1/workers", self.workers),
            ("GET", "/v1/workers/<worker>", self.worker),
            ("DELETE", "/v1/workers/<worker>", self.forget),
            ("POST", "/v1/workers/<worker>/drain", self.drain),
            ("POST", "/v1/workers/<worker>/resume", self.resume),
            ("GET", "/healthz", self.healthz),
            ("GET", "/readyz", self.readyz),
        )

    # -- the classic three

    async def start(self, request: Request) -> Reply:
        query_of(request)
        body = body_of(request)
        spec, target = wire.read_start(body)
        key, _ = self._key(request, "POST /start", body)
        job = await self._scheduler.submit(spec, target, key=key)
        return json_answer({"job_id": job.id}, 201, {"Location": f"/v1/jobs/{job.id}"})

    async def stop(self, request: Request) -> Reply:
        query_of(request)
        worker, job_id = wire.read_worker_and_job(body_of(request))
        await self._stopped(self._scheduler.stop(_checked(job_id), worker), job_id)
        last = self._scheduler.last_attempt(job_id)
        return json_answer(wire.stop_json(last), 200 if last.over else 202)

    async def query(self, request: Request) -> Reply:
        query_of(request)
        worker, job_id = wire.read_worker_and_job(body_of(request))
        return json_answer(wire.query_json(await self._scheduler.query(worker, _checked(job_id))))

    def _key(self, request: Request, route: str, body: Object) -> tuple[RequestKey | None, bool]:
        """The request's key, and whether it was answered before: then its answer says so."""
        key = key_of(request.requestHeaders, route, body)
        again = key is not None and self._scheduler.replays(key)
        if again:
            request.setHeader(REPLAYED, b"true")
        return key, again

    # -- jobs

    async def submit(self, request: Request) -> Reply:
        query = query_of(request, ("wait", "follow"))
        wait, follow, as_events = query.wait(), query.flag("follow"), wants_events(request)
        if wait is not None and (follow or as_events):
            raise Invalid("wait", "does not go with a stream, which ends when the job does")
        body = body_of(request)
        spec, target, terms = wire.read_submit(body)
        key, again = self._key(request, "POST /v1/jobs", body)
        if (follow or as_events) and target.worker is not None and not again:
            worker = self._scheduler.worker(target.worker).worker
            if worker.classic:
                raise Unsupported(worker.name, "output")
        streams = tuple(Stream) if as_events else (Stream.STDOUT,) if follow else ()
        with FromTheStart(self._scheduler, streams) as output:
            job = await self._scheduler.submit(spec, target, terms, key, output.starting if streams else None)
        headers = {"Location": f"/v1/jobs/{job.id}", "X-Job-Id": job.id}
        named = {"job_id": job.id}  # in a problem that its output has: it runs all the same
        try:
            if as_events:
                return self._events(job, output.readers(job), headers, started=True)
            if follow:
                (reader,) = output.readers(job).values()
                return self._follow(job, reader, headers, 201, at_once=job.state is JobState.QUEUED, members=named)
        except SchedulerError:
            problem = problem_of(Failure())
            members = {**problem.members, **named}
            return problem_answer(evolve(problem, headers={**problem.headers, **headers}, members=members))
        if wait is not None:
            job = await self._final(self._scheduler.wait_for_attempts, self._scheduler.last_attempt, job.id, wait)
        return json_answer(wire.job_json(job), 201, headers)

    async def jobs(self, request: Request) -> Reply:
        query = query_of(request, (*FILTERS, "limit", "cursor"))
        limit = query.number("limit", 1, MOST_JOBS) or 100
        page = self._scheduler.jobs(query.filter(self._wall_time()), limit, query.text("cursor"))
        return json_answer(wire.page_json(page))

    async def job(self, request: Request, job_id: str) -> Reply:
        wait = query_of(request, ("wait",)).wait()
        job = self._scheduler.job(_checked(job_id))
        if wait is not None and not job.state.final and request.method != b"HEAD":
            job = await self._final(self._scheduler.wait, self._scheduler.job, job_id, wait)
        return json_answer(wire.job_json(job))

    async def stop_job(self, request: Request, job_id: str) -> Reply:
        query_of(request)
        wire.read_nothing(body_of(request))
        job = await self._stopped(self._scheduler.stop(_checked(job_id)), job_id)
        return json_answer(wire.job_json(job), 200 if self._scheduler.last_attempt(job_id).over else 202)

    async def stop_matching(self, request: Request) -> Reply:
        pairs = pairs_in(request) + pairs_of(body_of(request))
        which = Query(pairs, FILTERS).filter(self._wall_time())
        if not pairs:
            raise Invalid("filter", f"at least one is needed to stop jobs: {', '.join(FILTERS)}")
        stopped = await self._unless_shut_down(self._scheduler.stop_matching(which))
        return json_answer({"jobs": [wire.job_json(job) for job in stopped]})

    async def _final(
        self, wait: Callable[[str, float], Deferred[Job]], now: Callable[[str], Job], job_id: str, seconds: float
    ) -> Job:
        """The job at its end, or as it is after ``seconds``, or as it is ``now`` when this process is to end."""
        try:
            return await self._unless_shut_down(wait(job_id, seconds))
        except ShuttingDown:
            return now(job_id)

    async def _stopped(self, stopping: Deferred[Job], job_id: str) -> Job:
        """What comes of a stop; when this process is to end, the job as it is, if the stop was recorded for later."""
        try:
            return await self._unless_shut_down(stopping)
        except ShuttingDown:
            last = self._scheduler.last_attempt(job_id)
            if last.over or last.stop_requested_at is None:  # over: what it left is being looked at
                raise
            return self._scheduler.job(job_id)

    async def _unless_shut_down(self, waiting: Deferred[T]) -> T:
        """What is waited for; ``ShuttingDown`` when this process is to end before it comes."""
        ending = False

        def end() -> None:
            nonlocal ending
            ending = True
            waiting.cancel()

        self._under_way.add(end)
        try:
            return await waiting
        except CancelledError:
            if ending:
                raise ShuttingDown() from None
            raise
        finally:
            self._under_way.discard(end)

    # -- output

    async def output(self, request: Request, job_id: str) -> Reply:
        query = query_of(request, ("stream", "offset", "tail", "follow"))
        as_events, follow, tail = wants_events(request), query.flag("follow"), query.number("tail", 0, 10**9)
        if tail is not None and query.given("offset"):
            raise Invalid("tail", "does not go with offset")
        job = self._scheduler.job(_checked(job_id))
        if as_events:
            return await self._resumed_events(request, job, query, tail)
        stream, offset = query.stream(), query.number("offset", 0, 10**18 - 1)
        ranged = request.requestHeaders.hasHeader("range")
        if ranged and (follow or offset is not None or tail is not None):
            raise Invalid("Range", "does not go with follow, offset or tail")
        if follow:
            if tail is not None:
                offset, _ = await offset_of_tail(self._scheduler, job.id, stream, tail)
            if request.method == b"HEAD":
                return Answer(headers=_RAW)
            return self._follow(job, self._scheduler.open_output(job.id, stream, offset or 0), {}, 200)
        return await self._snapshot(request, job, stream, offset or 0, tail)

    async def _snapshot(self, request: Request, job: Job, stream: Stream, offset: int, tail: int | None) -> Reply:
        """What is there now, or a part of it, with its length."""
        headers, status, end = {**_RAW, "Accept-Ranges": "bytes"}, 200, None
        wanted = None
        if not request.requestHeaders.hasHeader("if-range"):  # nothing it could hold is known here
            wanted = read_range(",".join(values_of(request.requestHeaders, "range")))
        if tail is not None:
            offset, end = await offset_of_tail(self._scheduler, job.id, stream, tail)
        elif wanted is not None:
            size = await size_of(self._scheduler, job.id, stream)
            if size or wanted.suffix is None:
                offset, end = wanted.within(size)
                headers["Content-Range"], status = f"bytes {offset}-{end - 1}/{size}", 206
        size = 0 if request.method == b"HEAD" else CHUNK if end is None else min(CHUNK, end - offset)
        first = await self._scheduler.read_output(job.id, stream, offset, size)
        end = max(first.size, offset) if end is None else end
        headers |= {"Content-Length": str(end - offset), "X-Output-Offset": str(offset)}
        if request.method == b"HEAD":
            return Answer(status=status, headers=headers)
        reader = SpanReader(self._scheduler, job.id, stream, first, end)
        return RawStream(self._clock, self._under_way, job.id, reader, headers, status)

    def _follow(
        self,
        job: Job,
        reader: IOutputReader,
        headers: dict[str, str],
        status: int,
        at_once: bool = False,
        members: dict[str, str] | None = None,
    ) -> Reply:
        headers = {**_RAW, **headers, "X-Output-Offset": str(reader.offset), "X-Accel-Buffering": "no"}
        return RawStream(self._clock, self._under_way, job.id, reader, headers, status, at_once, members)

    async def _resumed_events(self, request: Request, job: Job, query: Query, tail: int | None) -> Reply:
        if query.given("stream"):
            raise Invalid("stream", "does not go with events, which are of both")
        if request.requestHeaders.hasHeader("range"):
            raise Invalid("Range", "does not go with events")
        # A browser that reconnects repeats its URL, so the header is the later word.
        last, given = "".join(values_of(request.requestHeaders, "last-event-id")), query.text("offset")
        if last:
            offsets = read_offsets("Last-Event-ID", last)
        elif given is not None:
            offsets = read_offsets("offset", given)
        else:
            offsets = dict.fromkeys(Stream, 0)
            for stream in Stream if tail is not None else ():
                offsets[stream], _ = await offset_of_tail(self._scheduler, job.id, stream, tail or 0)
        if request.method == b"HEAD":
            return Answer(content_type="text/event-stream")
        return self._events(job, open_all(self._scheduler, job, offsets), {})

    def _events(self, job: Job, readers: Readers, headers: dict[str, str], started: bool = False) -> Reply:
        return EventStream(self._clock, self._under_way, self._scheduler, job, readers, headers, started)

    # -- workers

    async def workers(self, request: Request) -> Reply:
        query_of(request)
        return json_answer(wire.workers_json(self._scheduler.workers()))

    async def worker(self, request: Request, worker: str) -> Reply:
        query_of(request)
        return json_answer(wire.worker_json(self._scheduler.worker(worker)))

    async def drain(self, request: Request, worker: str) -> Reply:
        query_of(request)
        wire.read_nothing(body_of(request))
        return json_answer(wire.worker_json(await self._scheduler.drain(worker)))

    async def resume(self, request: Request, worker: str) -> Reply:
        query_of(request)
        wire.read_nothing(body_of(request))
        return json_answer(wire.worker_json(await self._scheduler.resume(worker)))

    async def forget(self, request: Request, worker: str) -> Reply:
        query_of(request)
        await self._scheduler.forget(worker)
        return Answer(status=204)

    # -- the process

    async def healthz(self, request: Request) -> Reply:
        query_of(request)
        return json_answer({"alive": True})

    async def readyz(self, request: Request) -> Reply:
        query_of(request)
        readiness = self._scheduler.readiness()
        if readiness.ready:
            return json_answer({"ready": True, "workers_online": readiness.workers_online})
        members = {"ready": False, "workers_online": readiness.workers_online, "reasons": list(readiness.reasons)}
        return problem_answer(Problem(503, "; ".join(readiness.reasons), {"Retry-After": "5"}, members))


def _checked(job_id: str) -> str:
    if not is_id(job_id):
        raise NotFound("job", job_id)
    return job_id
