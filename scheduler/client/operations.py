"""The operations of the client as scripts, from which both clients are made."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from scheduler.client import streams
from scheduler.client.errors import ClientError, JobFailed, OutputLost, WaitTimedOut
from scheduler.client.exchange import Deliver, Pause, Request, Script, Source
from scheduler.client.repeating import Repeater
from scheduler.client.submission import JobFields, body_of
from scheduler.client.values import Ended, Event, Job, Output, Readiness, Result, Version, Worker

#: Seconds for which one request waits for the end of a job. A dead connection is noticed after that long.
WAIT_REQUEST_SECONDS = 30.0

#: Seconds that the answer to a stop may take beyond the client's ``timeout``, because the scheduler waits for the end.
STOP_ANSWER_SECONDS = 75.0

#: Jobs in one page of a list.
JOBS_PER_PAGE = 200

Filter = str | int | bool | datetime | Sequence[str] | Mapping[str, str] | None


class Operations:
    """The scripts of one client."""

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

    def submit(self, command: str | Sequence[str] | None, key: str | None, fields: JobFields) -> Script[Job]:
        """Start a job exactly once."""
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
        job = yield from self.submit(command, key, fields)
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
        """Collect one attempt, from its first byte to its end."""
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        with contextlib.closing(self.follow(job_id, 0, 0)) as source:
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

    def job(self, job_id: str, wait: float | None) -> Script[Job]:
        """The job; with ``wait``, at its end or after so many seconds."""
        query = () if wait is None else (("wait", f"{wait:g}"),)
        silence = None if wait is None else self._timeout + wait
        answer = yield from self.repeater.answer(Request("GET", _job_path(job_id), query, silence=silence))
        return Job.from_json(answer.json())

    def wait(self, job_id: str, timeout: float | None) -> Script[Job]:
        """The job once it has ended; ``WaitTimedOut``."""
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

    def jobs(self, limit: int | None, filters: Mapping[str, Filter]) -> Source[Job]:
        """Matching jobs, newest first."""
        left, cursor = limit, None
        while left is None or left > 0:
            query = [*_pairs(filters), ("limit", str(JOBS_PER_PAGE if left is None else min(left, JOBS_PER_PAGE)))]
            if cursor is not None:
                query.append(("cursor", cursor))
            answer = yield from self.repeater.answer(Request("GET", "/v1/jobs", tuple(query)))
            page = _object(answer.json())
            for data in page.get("jobs") or ():
                yield Deliver(Job.from_json(data))
                left = None if left is None else left - 1
            cursor = page.get("next")
            if not isinstance(cursor, str):
                return

    def stop(self, job_id: str) -> Script[Job]:
        """Stop a job."""
        request = Request("POST", f"{_job_path(job_id)}/stop", silence=self._timeout + STOP_ANSWER_SECONDS)
        return Job.from_json((yield from self.repeater.answer(request)).json())

    def stop_matching(self, filters: Mapping[str, Filter]) -> Script[list[Job]]:
        """Stop all matching jobs. Not repeated, because others may match by then."""
        silence = self._timeout + STOP_ANSWER_SECONDS
        request = Request("POST", "/v1/jobs/stop", tuple(_pairs(filters)), repeatable=False, silence=silence)
        page = _object((yield from self.repeater.answer(request)).json())
        return [Job.from_json(data) for data in page.get("jobs") or ()]

    def signal(self, job_id: str, signal: str, to: str) -> Script[Job]:
        """Send a signal once. Not repeated, because it would arrive twice."""
        body = {"signal": signal, "to": to}
        request = Request("POST", f"{_job_path(job_id)}/signal", body=body, repeatable=False)
        return Job.from_json((yield from self.repeater.answer(request)).json())

    def remove(self, job_id: str) -> Script[bool]:
        """Remove a job; whether it is removed already."""
        answer = yield from self.repeater.answer(Request("DELETE", _job_path(job_id)))
        return answer.status != 202

    # -- output

    def follow(self, job_id: str, stdout: int, stderr: int) -> Source[Event]:
        """Both streams, and the changes of the job."""
        return streams.follow(self.repeater, f"{_job_path(job_id)}/output", job_id, stdout, stderr)

    def output(self, job_id: str, stream: str, offset: int, tail: int | None, follow: bool) -> Source[bytes]:
        """The bytes of one stream."""
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

    def set_draining(self, name: str, draining: bool) -> Script[Worker]:
        """Drain or resume a worker."""
        request = Request("POST", f"{_worker_path(name)}/{'drain' if draining else 'resume'}")
        return Worker.from_json((yield from self.repeater.answer(request)).json())

    def forget(self, name: str) -> Script[None]:
        """Forget a worker."""
        yield from self.repeater.answer(Request("DELETE", _worker_path(name)))

    # -- the scheduler

    def version(self) -> Script[Version]:
        """The scheduler's version."""
        data = _object((yield from self.repeater.answer(Request("GET", "/v1/version"))).json())
        return Version(str(data.get("version")), str(data.get("api")))

    def ready(self) -> Script[Readiness]:
        """Whether the scheduler takes work."""
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
    """Filters as in a query string. ``None`` is left out."""
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
