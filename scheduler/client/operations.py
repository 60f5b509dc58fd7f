"""The operations of the client as scripts, from which the methods of both clients are made."""

from __future__ import annotations

import contextlib
import inspect
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import update_wrapper
from typing import Any, TypeVar, Unpack
from urllib.parse import quote

from scheduler.client import streams
from scheduler.client.errors import ClientError, JobFailed, OutputLost, WaitTimedOut
from scheduler.client.exchange import Deliver, Pause, Request, Script, Source
from scheduler.client.repeating import Repeater
from scheduler.client.submission import JobFields, body_of
from scheduler.client.values import Ended, Event, Job, Output, Readiness, Result, Token, Version, Worker

#: Seconds for which one request waits for the end of a job. A dead connection is noticed after that long.
WAIT_REQUEST_SECONDS = 30.0

#: Seconds that the answer to a stop may take beyond the client's ``timeout``, as the scheduler waits for the job's end.
STOP_ANSWER_SECONDS = 75.0

#: Jobs in one page of a list, or entries of the audit.
OBJECTS_PER_PAGE = 200

M = TypeVar("M", bound=Callable[..., Any])

Filter = str | int | bool | datetime | Sequence[str] | Mapping[str, str] | None


def presented(method: M, operation: Callable[..., Any]) -> M:
    """Give ``method`` of a client the name, arguments and docstring of its operation; the result is not a script."""
    update_wrapper(method, operation)
    signature = inspect.signature(operation).replace(return_annotation=inspect.Signature.empty)
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


class Operations:
    """The scripts (``exchange``) of one client. Their docstrings are those of ``Client``, which returns the results."""

    def __init__(
        self,
        clock: Callable[[], float],
        timeout: float,
        patience: float,
        jitter: Callable[[], float] = random.random,
        new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """``clock`` gives monotonic seconds; ``timeout`` and ``patience`` are in seconds."""
        self._clock = clock
        self._timeout = timeout
        self._new_key = new_key
        self.repeater = Repeater(clock, patience, jitter)

    # -- jobs

    def submit(
        self, command: str | Sequence[str] | None = None, *, key: str | None = None, **fields: Unpack[JobFields]
    ) -> Script[Job]:
        """Start a job, and return it once it runs or is queued. Arguments are those of ``run``."""
        if key is None:
            key = self._new_key()
        elif not (key and key.isascii() and key.isprintable()):
            raise ValueError(f"key {key!r} must be printable ASCII, and not empty")
        headers = {"Idempotency-Key": key}
        answer = yield from self.repeater.answer(
            Request("POST", "/v1/jobs", body=body_of(command, fields), headers=headers, submits=True)
        )
        try:
            return Job.from_json(answer.json())
        except ClientError as error:
            error.started = "unknown"
            raise

    def run(
        self,
        command: str | Sequence[str] | None,
        check: bool,
        on_start: Callable[[Job], object] | None,
        key: str | None,
        fields: JobFields,
    ) -> Script[Result]:
        """Start a job, and collect all of its output until the end of its last attempt."""
        job = yield from self.submit(command, key=key, **fields)
        if on_start is not None:
            on_start(job)
        job_id: str | None = job.id
        try:
            while job_id is not None:
                result = yield from self._collect(job_id)
                job_id = result.job.retried_by
        except ClientError as error:
            error.started, error.job_id = True, error.job_id or job_id
            raise
        if check and not result.succeeded:
            raise JobFailed(result)
        if check and result.output_error:
            message = f"job {job.id} succeeded, and not all of its output was kept: {result.output_error}"
            raise OutputLost(message, started=True, job_id=job.id, result=result)
        return result

    def _collect(self, job_id: str) -> Script[Result]:
        """Collect the output of one attempt, from its first byte to its end."""
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        with contextlib.closing(self.follow(job_id)) as source:
            step = next(source)
            while True:
                if not isinstance(step, Deliver):
                    step = source.send((yield step))
                    continue
                if isinstance(step.item, Output):
                    pieces[step.item.stream].append(step.item.data)
                elif isinstance(step.item, Ended):
                    return Result(step.item.job, b"".join(pieces["stdout"]), b"".join(pieces["stderr"]))
                step = next(source)

    def job(self, job_id: str, wait: float | None = None) -> Script[Job]:
        """The job; with ``wait``, once it has ended, or as it is after so many seconds (at most 300)."""
        query = () if wait is None else (("wait", f"{wait:g}"),)
        silence = None if wait is None else self._timeout + wait
        answer = yield from self.repeater.answer(Request("GET", _job_path(job_id), query, silence=silence))
        return Job.from_json(answer.json())

    def wait(self, job_id: str, timeout: float | None = None) -> Script[Job]:
        """Wait for a job's end. Raises ``WaitTimedOut`` (a ``TimeoutError``) after ``timeout`` seconds without it.

        Waits for this attempt only; a job that was retried has ``retried_by``.
        """
        began = self._clock()
        while True:
            left = WAIT_REQUEST_SECONDS if timeout is None else max(0.0, began + timeout - self._clock())
            asked = self._clock()
            job = yield from self.job(job_id, round(min(left, WAIT_REQUEST_SECONDS), 3))
            if job.final:
                return job
            if timeout is not None and self._clock() - began >= timeout:
                raise WaitTimedOut(job, timeout)
            if self._clock() - asked < 1.0:  # the scheduler is about to end, and answers early
                yield Pause(0.2)

    def jobs(self, /, *, limit: int | None = None, **filters: Filter) -> Source[Job]:
        """Matching jobs, newest first, ``limit`` at most. Pages are fetched as needed.

        ``filters`` are those of ``GET /v1/jobs``, such as ``state=["failed", "lost"]``, ``label={"team": "web"}``,
        ``created_after="24h"`` or a datetime.
        """
        return self._pages("/v1/jobs", "jobs", filters, limit, Job.from_json)

    def _pages(
        self,
        path: str,
        member: str,
        filters: Mapping[str, Filter],
        limit: int | None,
        read: Callable[[Any], Any] = lambda data: data,
    ) -> Source[Any]:
        """The objects in ``member`` of all pages, ``limit`` at most."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = OBJECTS_PER_PAGE if left is None else min(left, OBJECTS_PER_PAGE)
            query = [*_pairs(filters), ("limit", str(size))]
            if cursor is not None:
                query.append(("cursor", cursor))
            answer = yield from self.repeater.answer(Request("GET", path, tuple(query)))
            page = _object(answer.json())
            for data in page.get(member) or ():
                yield Deliver(read(data))
                left = None if left is None else left - 1
            cursor = page.get("next")
            if not isinstance(cursor, str):
                return

    def stop(self, job_id: str) -> Script[Job]:
        """Stop a job and wait for its end.

        If the job is not ``final`` then, it will be stopped when its worker can be reached. Raises ``ApiProblem`` of
        type ``left-running`` if processes could not be ended.
        """
        request = Request("POST", f"{_job_path(job_id)}/stop", silence=self._timeout + STOP_ANSWER_SECONDS)
        return Job.from_json((yield from self.repeater.answer(request)).json())

    def stop_matching(self, /, **filters: Filter) -> Script[list[Job]]:
        """Stop all matching jobs, and return them in their new state. At least one filter is required.

        The request is not repeated if its answer is lost, because other jobs could match by then.
        """
        silence = self._timeout + STOP_ANSWER_SECONDS
        request = Request("POST", "/v1/jobs/stop", tuple(_pairs(filters)), repeatable=False, silence=silence)
        page = _object((yield from self.repeater.answer(request)).json())
        return [Job.from_json(data) for data in page.get("jobs") or ()]

    def signal(self, job_id: str, signal: str, to: str = "main") -> Script[Job]:
        """Send a signal, such as ``"SIGUSR1"``, to the ``main`` process of a running job, or to its whole ``tree``.

        The request is not repeated if its answer is lost, because the signal could arrive twice.
        """
        body = {"signal": signal, "to": to}
        request = Request("POST", f"{_job_path(job_id)}/signal", body=body, repeatable=False)
        return Job.from_json((yield from self.repeater.answer(request)).json())

    def remove(self, job_id: str) -> Script[bool]:
        """Remove an ended job with its output. ``False``: that will be done when its worker can be reached."""
        answer = yield from self.repeater.answer(Request("DELETE", _job_path(job_id)))
        return answer.status != 202

    # -- output

    def follow(self, job_id: str, stdout: int = 0, stderr: int = 0) -> Source[Event]:
        """Both streams as they are written, from these offsets on, and the changes of the job.

        Gives ``Output`` for bytes, ``Changed`` when the job's state or reason changes, and at last ``Ended``. Resumes
        by itself after a cut connection or a restart of the scheduler, without a lost or repeated byte.
        """
        return streams.follow(self.repeater, f"{_job_path(job_id)}/output", job_id, stdout, stderr)

    def output(
        self, job_id: str, stream: str = "stdout", offset: int = 0, tail: int | None = None, follow: bool = False
    ) -> Source[bytes]:
        """The bytes of one stream, in pieces, from ``offset`` on, or its last ``tail`` lines.

        Returns the present output or, with ``follow``, all of it until the job has ended. A broken connection is
        resumed at the same offset, so the pieces together are the stream. Raises ``OutputLost`` if the rest is gone.
        """
        if tail is not None and offset:
            raise ValueError("tail does not go with offset")
        return streams.output(self.repeater, f"{_job_path(job_id)}/output", job_id, stream, offset, tail, follow)

    # -- workers

    def workers(self) -> Script[list[Worker]]:
        """All workers."""
        answer = yield from self.repeater.answer(Request("GET", "/v1/workers"))
        return [Worker.from_json(data) for data in _object(answer.json()).get("workers") or ()]

    def worker(self, name: str) -> Script[Worker]:
        """The worker with this id or name."""
        return Worker.from_json((yield from self.repeater.answer(Request("GET", _worker_path(name)))).json())

    def drain(self, name: str) -> Script[Worker]:
        """Place no further jobs on a worker."""
        request = Request("POST", f"{_worker_path(name)}/drain")
        return Worker.from_json((yield from self.repeater.answer(request)).json())

    def resume(self, name: str) -> Script[Worker]:
        """Undo ``drain``."""
        request = Request("POST", f"{_worker_path(name)}/resume")
        return Worker.from_json((yield from self.repeater.answer(request)).json())

    def forget(self, name: str) -> Script[None]:
        """Forget a worker that is not online; its unfinished jobs are lost."""
        yield from self.repeater.answer(Request("DELETE", _worker_path(name)))

    # -- tokens

    def create_token(
        self,
        name: str,
        scope: str,
        *,
        workers: Mapping[str, str] | None = None,
        expires: float | str | datetime | None = None,
    ) -> Script[Token]:
        """Make a token; ``token`` of the result is the only copy of it.

        ``scope`` is ``read``, ``run`` or ``admin``. ``expires``: seconds, a duration like ``"90d"``, or a time;
        ``None``: never. The request is not repeated if its answer is lost, because the token would be lost, too.
        """
        when = expires.astimezone().isoformat() if isinstance(expires, datetime) else expires
        body = {"name": name, "scope": scope, "workers": dict(workers or {}), "expires": when}
        request = Request("POST", "/v1/tokens", body=body, repeatable=False)
        return Token.from_json((yield from self.repeater.answer(request)).json())

    def tokens(self) -> Script[list[Token]]:
        """All tokens that are within the caller's reach, by name."""
        answer = yield from self.repeater.answer(Request("GET", "/v1/tokens"))
        return [Token.from_json(data) for data in _object(answer.json()).get("tokens") or ()]

    def revoke_token(self, token_id: str) -> Script[None]:
        """Revoke the token with this id: further requests with it fail, and its queued jobs are stopped."""
        yield from self.repeater.answer(Request("DELETE", f"/v1/tokens/{_segment(token_id)}"))

    # -- the scheduler

    def audit(self, /, *, limit: int | None = None, **filters: Filter) -> Source[Mapping[str, Any]]:
        """Entries of the audit, newest first, ``limit`` at most, as JSON objects. Pages are fetched as needed.

        ``filters`` are those of ``GET /v1/audit``: ``who``, ``action``, ``since`` and ``until``.
        """
        return self._pages("/v1/audit", "entries", filters, limit)

    def version(self) -> Script[Version]:
        """The scheduler's version."""
        data = _object((yield from self.repeater.answer(Request("GET", "/v1/version"))).json())
        return Version(str(data.get("version")), str(data.get("api")))

    def ready(self) -> Script[Readiness]:
        """Whether the scheduler can take work or, if not, why."""
        answer = yield from self.repeater.answer(Request("GET", "/readyz", expected=frozenset({503})))
        data = _object(answer.json())
        reasons = tuple(map(str, data.get("reasons") or ()))
        return Readiness(answer.status < 300, int(data.get("workers_online") or 0), reasons)


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{_segment(job_id)}"


def _worker_path(name: str) -> str:
    return f"/v1/workers/{_segment(name)}"


def _segment(name: str) -> str:
    if not name or name in (".", ".."):
        raise ValueError(f"{name!r} is no id")
    return quote(name, safe="")


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ClientError(f"the answer is not an object: {str(value)[:80]}")
    return value


def _pairs(filters: Mapping[str, Filter]) -> list[tuple[str, str]]:
    """Filters as the pairs of a query string. ``None`` is left out."""
    pairs = []
    for name, value in filters.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            pairs += [(name, f"{key}={each}") for key, each in value.items()]
        elif isinstance(value, bool):
            pairs.append((name, "1" if value else "0"))
        elif isinstance(value, datetime):
            pairs.append((name, value.astimezone().isoformat()))
        elif isinstance(value, (str, int)):
            pairs.append((name, str(value)))
        elif name == "label":
            pairs += [(name, each) for each in value]
        else:
            pairs.append((name, ",".join(value)))
    return pairs
