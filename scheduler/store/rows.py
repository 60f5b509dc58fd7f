"""Records of the model as rows of the tables, and back.

A loaded record equals the saved one, with three exceptions. The spec of a job is the one with which it was first saved.
Some of its fields stay in the database once they are not needed to run the job: ``stdin`` and ``script``, and ``args``
and ``env`` if they are large (``Job.trimmed``; here their length as JSON decides). And no text contains a NUL or half a
surrogate pair, which a database may refuse. A worker could send such a text, and a record that can never be saved would
delay all others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any

from attrs import asdict, evolve
from sqlalchemy import Connection, Select, case, func, or_, select

from scheduler.model import (
    DEFAULT_LINGER_SECONDS,
    FINAL,
    SPEC_KEPT_MAX_CHARACTERS,
    STOP_MODES,
    STOP_SIGNALS,
    Job,
    JobSpec,
    JobState,
    RemovedJob,
    ScriptSummary,
    Usage,
    Worker,
)
from scheduler.request_keys import RequestKey
from scheduler.security.principals import Scope
from scheduler.security.token import Token
from scheduler.store.schema import JOBS, REMOVED, SPECS, TOKENS, WORKERS
from scheduler.terms import QueueTerms, Retry, Target

Row = dict[str, Any]

#: Part of the reason of a job that has a row but no spec.
NO_SPEC = "what it was to run is not in the database"

#: Part of the reason of a job whose arguments and variables are lost.
ARGS_LOST = "its args and env are lost: the database was set back"

_NO_TERMS = QueueTerms()

# Fields of a job, a spec, a worker and a token that are stored unchanged in a column of the same name.
_PLAIN = (
    *("id", "worker_id", "worker_name", "remote_id", "reason", "created_by", "created_at", "started_at"),
    *("finished_at", "unknown_since", "stop_requested_at", "exit_code", "signal", "stdout_bytes", "stderr_bytes"),
    *("group_id", "retry_of", "retried_by", "promised", "orphan", "output_error"),
    *("remove_requested_at", "stop_reason"),
)
_PLAIN_OF_SPEC = ("timeout", "stop_grace", "merge_stderr", "output_limit", "umask")
_PLAIN_OF_WORKER = ("id", "address", "slots", "draining", "deregistered_at")
_PLAIN_OF_TOKEN = ("id", "digest", "created_at", "expires_at", "last_used_at")
_INPUT = (SPECS.c.stdin, SPECS.c.script)
_LARGE = (SPECS.c.args, SPECS.c.env)
_ENDED = JOBS.c.state.in_([state.value for state in FINAL])
# the length of the arguments and variables of an ended job, if it is large
_LENGTH = func.coalesce(func.length(SPECS.c.args), 0) + func.coalesce(func.length(SPECS.c.env), 0)
_STORED = case((_ENDED & (_LENGTH > SPEC_KEPT_MAX_CHARACTERS), _LENGTH), else_=0)


def job_row(job: Job) -> Row:
    """The row in ``jobs``: the fields that may change. A new field needs a column, and a step in ``schema``."""
    row: Row = {name: getattr(job, name) for name in _PLAIN}
    row["state"] = job.state.value
    for name in ("worker_name", "reason", "remote_id", "signal", "output_error"):
        row[name] = _clean(row[name])
    row["leftover"] = _json(job.leftover)
    row["background_ended"] = job.background_ended or None
    row["usage"] = _fields(job.usage)
    row["target"] = _target(job.target)
    row["terms"] = None if job.terms == _NO_TERMS else _fields(job.terms)
    return row | _key_columns(job.key)


def spec_row(job: Job) -> Row:
    """The row in ``job_specs``: the fields that never change."""
    spec = job.spec
    plain = (*_PLAIN_OF_SPEC, "stdin", "script", "linger", "stop_signal", "stop_mode")
    return {name: getattr(spec, name) for name in plain} | {
        "job_id": job.id,
        "command": _clean(spec.command),
        "path": _clean(spec.path),
        "args": _json(spec.args),
        "env": _json(spec.env),
        "cwd": _clean(spec.cwd),
        "labels": _json(spec.labels),
        "script_summary": _fields(spec.script_summary),
    }


def worker_row(worker: Worker) -> Row:
    """The row in ``workers``."""
    return {name: getattr(worker, name) for name in _PLAIN_OF_WORKER} | {
        "name": _clean(worker.name),
        "labels": _json(worker.labels),
        "boot_id": _clean(worker.boot_id),
        "version": _clean(worker.version),
        "features": _json(sorted(worker.features)),
        "folder": worker.folder or None,
        "nonce": _clean(worker.nonce) or None,
    }


def removed_row(removed: RemovedJob) -> Row:
    """The row in ``removed_jobs``."""
    return {"job_id": removed.job_id, "removed_at": removed.removed_at, **_key_columns(removed.key)}


def token_row(token: Token) -> Row:
    """The row in ``tokens``."""
    return {name: getattr(token, name) for name in _PLAIN_OF_TOKEN} | {
        "name": _clean(token.name),
        "scope": token.scope.name.lower(),
        "reach": _json(token.reach),
        "created_by": _clean(token.created_by),
    }


def load_jobs(connection: Connection) -> Iterator[Job]:
    """All jobs in the order in which they ended, followed by those that have not ended."""
    has_input = or_(SPECS.c.stdin.is_not(None), SPECS.c.script.is_not(None))
    inputs = {
        job_id: (stdin, script)
        for job_id, stdin, script in connection.execute(
            select(SPECS.c.job_id, *_INPUT).join(JOBS, JOBS.c.id == SPECS.c.job_id).where(~_ENDED, has_input)
        )
    }
    plain = (column for column in SPECS.c if column not in {*_INPUT, *_LARGE})
    large = (case((_STORED == 0, column)).label(column.name) for column in _LARGE)
    joined = (
        select(*JOBS.c, *plain, *large, _STORED.label("stored"))
        .outerjoin(SPECS, SPECS.c.job_id == JOBS.c.id)
        .order_by(JOBS.c.finished_at.is_(None), JOBS.c.finished_at, JOBS.c.created_at, JOBS.c.id)
    )
    for row in _rows(connection, joined):
        if row["job_id"] is None:
            yield _without_spec(_job(row, JobSpec()))
            continue
        stdin, script = inputs.get(row["id"], (None, None))
        job = _job(row, _spec(row, stdin, script))
        yield evolve(job, spec=evolve(job.spec, stored=1)) if lacks_args(job) else job


def load_specs(connection: Connection, job_ids: Collection[str]) -> dict[str, JobSpec]:
    """The specs of these jobs, without ``stdin`` and ``script``. A job without a spec is left out."""
    columns = [column for column in SPECS.c if column not in set(_INPUT)]
    found = _rows(connection, select(*columns).where(SPECS.c.job_id.in_(job_ids)))
    return {row["job_id"]: _spec(row, None, None) for row in found}


def without_args(job: Job) -> Job:
    """The job, with a reason that says that its arguments and variables are lost."""
    reason = job.reason or ARGS_LOST
    return evolve(job, reason=reason if ARGS_LOST in reason else f"{reason}; {ARGS_LOST}")


def lacks_args(job: Job) -> bool:
    """Whether ``without_args`` was applied to the job."""
    return job.state.final and job.reason is not None and ARGS_LOST in job.reason


def _without_spec(job: Job) -> Job:
    """The job whose spec is missing from the database, with the rest of its record. If it is queued, it fails."""
    reason = job.reason or NO_SPEC
    if NO_SPEC not in reason:
        reason = f"{reason}; {NO_SPEC}"
    if job.state is JobState.QUEUED:
        return evolve(job, state=JobState.FAILED, reason=reason, finished_at=job.created_at)
    return evolve(job, reason=reason, promised=False)


def load_workers(connection: Connection) -> Iterator[Worker]:
    """All workers, by id."""
    return map(_worker, _rows(connection, select(WORKERS).order_by(WORKERS.c.id)))


def load_removed(connection: Connection) -> Iterator[RemovedJob]:
    """The rests of all removed jobs, by id."""
    found = _rows(connection, select(REMOVED).order_by(REMOVED.c.job_id))
    return (RemovedJob(row["job_id"], row["removed_at"], _key_of(row)) for row in found)


def load_tokens(connection: Connection) -> Iterator[Token]:
    """All tokens, in the order in which they were made."""
    for row in _rows(connection, select(TOKENS).order_by(TOKENS.c.created_at, TOKENS.c.id)):
        yield Token(**row | {"scope": Scope[row["scope"].upper()], "reach": _mapping_of(row["reach"])})


def _rows(connection: Connection, query: Select[Any]) -> Iterator[Row]:
    result = connection.execute(query)
    names = tuple(result.keys())
    for values in result:
        yield dict(zip(names, values, strict=True))


def _job(row: Mapping[str, Any], spec: JobSpec) -> Job:
    facts: Any = {name: row[name] for name in _PLAIN}
    for name in ("worker_id", "worker_name", "reason", "created_by"):  # few distinct values in many rows
        if facts[name] is not None:
            facts[name] = intern(facts[name])
    return Job(
        spec=spec,
        state=JobState(row["state"]),
        target=_target_of(row["target"]),
        terms=_terms_of(row["terms"]),
        key=_key_of(row),
        leftover=_list_of(row["leftover"]),
        background_ended=row["background_ended"] or 0,
        usage=None if row["usage"] is None else Usage(**json.loads(row["usage"])),
        **facts,
    )


def _spec(row: Row, stdin: bytes | None, script: bytes | None) -> JobSpec:
    return JobSpec(
        command=intern(row["command"]),
        path=intern(row["path"]),
        args=_list_of(row["args"]),
        env=_mapping_of(row["env"]),
        cwd=intern(row["cwd"]),
        labels=_mapping_of(row["labels"]),
        stdin=stdin,
        script=script,
        linger=DEFAULT_LINGER_SECONDS if row["linger"] is None else row["linger"],
        stop_signal=row["stop_signal"] or STOP_SIGNALS[0],
        stop_mode=row["stop_mode"] or STOP_MODES[0],
        stored=row.get("stored", 0),
        script_summary=None if row["script_summary"] is None else ScriptSummary(**json.loads(row["script_summary"])),
        **{name: row[name] for name in _PLAIN_OF_SPEC},
    )


def _worker(row: Row) -> Worker:
    features, labels = frozenset(_list_of(row["features"])), _mapping_of(row["labels"])
    identity = {name: row[name] or "" for name in ("folder", "nonce")}
    return Worker(**row | {"labels": labels, "features": features} | identity)


def _key_columns(key: RequestKey | None) -> Row:
    text, fingerprint, principal = (None, None, None) if key is None else (key.key, key.fingerprint, key.principal)
    return {"request_key": text, "request_fingerprint": fingerprint, "request_principal": principal}


def _key_of(row: Mapping[str, Any]) -> RequestKey | None:
    if row["request_key"] is None:
        return None
    principal = row["request_principal"]
    return RequestKey(row["request_key"], row["request_fingerprint"], None if principal is None else intern(principal))


def _target(target: Target | None) -> str | None:
    if target is None:
        return None
    selector = None if target.selector is None else dict(target.selector)
    return _compact({"worker": target.worker, "selector": selector})


def _fields(value: Usage | ScriptSummary | QueueTerms | None) -> str | None:
    return None if value is None else _compact(asdict(value))


def _json(value: Collection[Any]) -> str | None:
    if not value:
        return None
    return _compact(dict(value) if isinstance(value, Mapping) else value)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# Most jobs are alike, so parsed values are frozen and shared.


@lru_cache
def _target_of(text: str | None) -> Target | None:
    return None if text is None else Target(**json.loads(text))


@lru_cache
def _terms_of(text: str | None) -> QueueTerms:
    if text is None:
        return _NO_TERMS
    facts = json.loads(text)
    retry = facts.pop("retry")
    return QueueTerms(retry=retry and Retry(**retry), **facts)


@lru_cache
def _mapping_of(text: str | None) -> Mapping[str, str]:
    return MappingProxyType({} if text is None else json.loads(text))


@lru_cache
def _list_of(text: str | None) -> tuple[Any, ...]:
    return () if text is None else tuple(json.loads(text))


def _clean(text: str | None) -> str | None:
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
