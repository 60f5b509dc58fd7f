"""The types of problem documents, each with its meaning and the remedy.

Every ``type`` is ``/problems/`` and one of these names. ``GET /problems/{name}`` answers with the entry here, and
docs/problems.md has the same entries.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import asdict, frozen

from scheduler.reading import Object


@frozen
class ProblemType:
    """A type of problem: its HTTP statuses, and the members of its documents beside the usual ones."""

    statuses: tuple[int, ...]
    #: Sentences for the reader of the document.
    meaning: str
    remedy: str
    members: tuple[str, ...] = ()


def _type(status: int | tuple[int, ...], meaning: str, remedy: str, *members: str) -> ProblemType:
    return ProblemType(status if isinstance(status, tuple) else (status,), meaning, remedy, members)


#: All types, by name.
TYPES: Mapping[str, ProblemType] = {
    "invalid-request": _type(
        400,
        "The request has a mistake, and nothing was done.",
        "Correct the field or header that `field` names, or what `detail` says of the request as a whole.",
        "field",
    ),
    "host-not-allowed": _type(
        403,
        "The `Host` header names a host that this server does not answer for.",
        "Use a name or address in `allowed_hosts` of `[http_server]`, or add the name there.",
    ),
    "cross-site": _type(
        403,
        "A browser sent the request for a page of another site (`Origin`, `Sec-Fetch-Site`).",
        "Send the request from a program, not from another site's page.",
    ),
    "unauthenticated": _type(
        401,
        "The request has no token, or one that is not valid: unknown, revoked or expired.",
        "Send `Authorization: Bearer TOKEN` with a valid token; `admin.token` in the scheduler's `state_dir` has one.",
    ),
    "scope-needed": _type(
        403,
        "The caller has a smaller scope than the route needs.",
        "Use a token with the scope that `needed_scope` names, or a greater one.",
        "needed_scope",
    ),
    "refused": _type(
        403,
        "The caller is not permitted to do this: its token is limited to workers with some labels.",
        "Use a token that reaches the worker; `GET /v1/workers` lists those that yours reaches.",
    ),
    "worker-unknown": _type(
        404,
        "No worker has that id or name; in a filter, no job either.",
        "`GET /v1/workers` lists them. A worker that was forgotten is known again once it registers.",
    ),
    "job-unknown": _type(
        404,
        "No job has that id; on `/stop` and `/query`, that worker has no job of that id.",
        "`GET /v1/jobs` lists them. An ended job is kept for `keep_jobs`.",
    ),
    "output-unknown": _type(
        404, "The job has ended, and its worker has no output of it.", "The output is lost. The job itself remains."
    ),
    "token-unknown": _type(
        404,
        "No token has that id, or it is beyond the caller's reach. A token that was revoked is gone.",
        "`GET /v1/tokens` lists them.",
    ),
    "route-unknown": _type(404, "There is no such route.", "Check the path; it ends without a slash."),
    "method-not-allowed": _type(
        405, "The route exists and does not take this method.", "Use a method that the header `Allow` lists."
    ),
    "conflict": _type(
        409, "The request contradicts the present state, and waiting does not change that.", "See `detail`."
    ),
    "worker-draining": _type(
        409,
        "The worker that the job names is drained and takes no new jobs.",
        "Choose another worker, or `POST /v1/workers/{w}/resume`.",
    ),
    "no-match": _type(
        409,
        "No worker, reachable or not, has the labels of the selector, or none of those that have them can do what the "
        "job asks for; or the worker that the job names no longer has the labels that limit the token. A worker that "
        "is drained or has no slots does not match.",
        "Correct the selector, or add a worker that matches.",
    ),
    "name-taken": _type(
        409,
        "Another worker that is online has that name, or another valid token.",
        "Give one of the two another name, or revoke the other token first.",
    ),
    "worker-online": _type(
        409, "A worker that is online can't be forgotten.", "Stop the worker, then repeat the request."
    ),
    "job-not-running": _type(
        409,
        "A signal can only be sent to a job that is running.",
        "Look at its `state`; a job that has not started can be sent the signal later.",
        "job_id",
    ),
    "job-not-ended": _type(
        (409, 424, 504),
        "409: only a job that has ended can be removed. With `check=1`: the job had not ended when `wait` was over "
        "(424 to a POST, 504 to a GET).",
        "To remove it, stop it first. To wait longer, repeat `GET /v1/jobs/{id}?wait=60&check=1`, never the POST.",
        "job_id",
        "job",
    ),
    "key-in-use": _type(
        409,
        "The first request with this `Idempotency-Key` has not been answered yet.",
        "Repeat the same request after `Retry-After` seconds.",
    ),
    "left-running": _type(
        409,
        "The job was stopped, and processes of it that can't be ended go on running: their ids are in `leftover`.",
        "End them on their machine, then stop the job again to have the worker look.",
        "success",
        "job_id",
        "leftover",
    ),
    "job-removed": _type(
        410,
        "The job of this `Idempotency-Key` was removed. It was started once, and is not started again.",
        "Use a new key to run the command again.",
        "job_id",
    ),
    "output-pruned": _type(
        410,
        "The worker no longer keeps the output of that job (`keep_spool`, `spool_max`).",
        "The output is lost. The job itself remains.",
        "job_id",
    ),
    "output-cut": _type(
        410,
        "All output that was kept was sent. The job wrote more, which was not kept: the disk was full, `output_limit` "
        "was reached, or the job is `lost`.",
        "What is missing is lost. The `output_error` of the job says why.",
        "job_id",
    ),
    "output-gone": _type(
        410,
        "The output of that job went with its worker, which was forgotten, or with the job, which is `lost` and of "
        "which its worker has no record.",
        "The output is lost, unless that worker registers again and still has it. The job itself remains.",
        "job_id",
    ),
    "body-too-large": _type(
        413, "The body is larger than 1 MiB.", "Make it smaller, for example by putting large input on the worker."
    ),
    "unsupported-media-type": _type(
        415,
        "The body is not JSON in UTF-8, by its `Content-Type`, or it is compressed.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "offset-beyond-end": _type(
        416,
        "The offset or range begins past the end of the output.",
        "`Content-Range: bytes */N` has the length. With `follow=1`, begin there at the latest.",
    ),
    "key-reused": _type(
        422,
        "This `Idempotency-Key` was used with another body or route.",
        "Use a new key for a new request. To repeat one, send the same body.",
    ),
    "job-failed": _type(
        424,
        "The job ended, and not as `succeeded` (only with `check=1`).",
        "`job` has its `state`, `exit_code`, `signal` and `reason`, and its output if that was asked for.",
        "job_id",
        "job",
    ),
    "output-unavailable": _type(
        424,
        "The job was submitted, and the answer was to be its output, which can't be followed now.",
        "Follow it with `GET /v1/jobs/{id}/output?follow=1`; never repeat the POST without an `Idempotency-Key`.",
        "job_id",
        "job",
    ),
    "http-version": _type(
        426,
        "A raw follow was asked for by HTTP/1.0, whose clients can't tell the end of the output from a cut connection.",
        "Use HTTP/1.1. For nginx in between, set `proxy_http_version 1.1`.",
    ),
    "queue-full": _type(
        429, "As many jobs are queued as may be (`queue_max`).", "Repeat the request after `Retry-After` seconds."
    ),
    "too-many-requests": _type(
        429,
        "One address or principal has as much as one may have at a time: connections, streams,"
        " or failed logins in a minute (`[limits]`).",
        "Repeat the request after `Retry-After` seconds, with a valid token; close connec"
        "tions and streams that are not needed.",
    ),
    "internal": _type(
        500,
        "A bug. The log of the scheduler has the traceback under the id in `incident`.",
        "Report it with that part of the log.",
        "incident",
    ),
    "unsupported": _type(
        501,
        "The worker lacks a feature that the request needs.",
        "Choose a worker whose `features` list it, upgrade the worker, or do without the feature.",
    ),
    "worker-fault": _type(
        502, "The worker answered with a fault of its own.", "See `detail`, and the log of that worker."
    ),
    "unavailable": _type(
        503,
        "It can't be done at present; a worker may lack what it takes to start a job (processes, memory, disk).",
        "Repeat the request after `Retry-After` seconds.",
    ),
    "worker-unreachable": _type(
        503,
        "The worker can't be reached at present.",
        "Repeat the request after `Retry-After` seconds, or choose another worker. The worker's `reason` says more.",
    ),
    "no-free-slot": _type(
        503,
        "Workers match, and none can take a job now: their slots are taken, or they can't be reached.",
        "Repeat the request after `Retry-After` seconds, or set `queue_timeout` to wait in the queue.",
    ),
    "key-unsettled": _type(
        503,
        "The database was set back, and workers have yet to tell whether a request with this `Idempotency-Key` was "
        "carried out.",
        "Repeat the same request after `Retry-After` seconds.",
    ),
    "busy": _type(
        503,
        "A limit on connections, calls or streams under way is reached.",
        "Repeat the request after `Retry-After` seconds.",
    ),
    "store-failing": _type(
        503,
        "The database can't take changes at present. Running jobs continue.",
        "Repeat the request after `Retry-After` seconds; see `GET /readyz` and the log of the scheduler.",
    ),
    "shutting-down": _type(
        503, "The scheduler is stopping.", "Repeat the request once it is back, after `Retry-After` seconds."
    ),
    "not-ready": _type(
        503,
        "The scheduler can't take work now (`GET /readyz`).",
        "`reasons` says why. It is ready again once these are gone.",
        "ready",
        "workers_online",
        "reasons",
    ),
    "timeout": _type(
        504,
        "No answer came in time, and what was asked may have been done.",
        "Look at the job or worker before you repeat the request.",
        "job_id",
    ),
    "start-unanswered": _type(
        504,
        "The start was sent to the worker and not answered, or by what can't be read: the job is `unknown` until its "
        "worker reports.",
        "Wait for the job in `job_id`. Repeat the POST only with an `Idempotency-Key`, else the command may run twice.",
        "job_id",
    ),
}


def type_json(name: str) -> Object:
    """The JSON of the type of that name. Raises ``KeyError`` if there is none."""
    found = asdict(TYPES[name])
    return {"type": f"/problems/{name}", "status": found.pop("statuses"), **found}
