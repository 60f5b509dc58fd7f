"""JSON <-> model: the bodies of requests, and the JSON of jobs and workers in answers.

A body that differs from the contract raises ``Invalid`` (``scheduler.reading``). Facts that only a worker knows, such
as whether a command exists, are not checked here.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Any

from attrs import asdict

from scheduler import reading
from scheduler.errors import Invalid
from scheduler.model import (
    DEFAULT_LINGER_SECONDS,
    DEFAULT_STOP_GRACE_SECONDS,
    SIGNAL_NAMES,
    SIGNAL_TARGETS,
    STOP_MODES,
    STOP_SIGNALS,
    Job,
    JobSpec,
    ScriptSummary,
    error_text,
)
from scheduler.names import env_name_problem
from scheduler.reading import Fields, Object, Unfit, check_count, check_label, check_text, printable, reads, shown
from scheduler.scripts import script_problem
from scheduler.terms import DEFAULT_QUEUE_TIMEOUT_SECONDS, MAX_ATTEMPTS, MAX_PRIORITY, QueueTerms, Retry, Target
from scheduler.views import WaitingFor, WorkerView

#: Bytes of an argument or a variable that Linux takes: MAX_ARG_STRLEN, less the NUL.
TEXT_MAX_BYTES = 131_071

#: Characters that a job shows of the first line of its script, at most.
SCRIPT_LINE_MAX_CHARACTERS = 200

#: Fields of ``POST /v1/jobs`` that name the program to run; exactly one is given.
PROGRAMS = ("command", "script", "shell")

#: Fields of ``POST /v1/jobs``.
SUBMIT_FIELDS = (
    *("worker", "selector", *PROGRAMS, "args", "path", "env", "cwd", "stdin", "stdin_base64", "labels"),
    *("timeout", "linger", "stop_grace", "stop_signal", "stop_mode", "umask", "merge_stderr", "output_limit"),
    *("queue_timeout", "priority", "retry", "unattended_timeout"),
)

#: The program that runs the line in ``shell``.
SHELL = "/bin/sh"

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

MAX_ARGS, MAX_VARIABLES, MAX_LABELS = 32_768, 4_096, 64

_UMASK = re.compile("0?[0-7]{1,3}")

#: Checks of a name, a command, a path, a time to wait and a timeout.
NAME = reading.text(one_line=True, most=reading.NAME_MAX_CHARACTERS, empty=False)
COMMAND = reading.text(one_line=True, most=reading.PATH_MAX_BYTES, empty=False)
PATH = reading.text(one_line=True, most=reading.PATH_MAX_BYTES)
WAIT = reading.duration("from 0, at most 3650d", reading.TIMEOUT_MAX_SECONDS)
TIMEOUT = reading.duration("more than 0, at most 3650d", reading.TIMEOUT_MAX_SECONDS, zero=False)


# -- reading


def load(body: bytes) -> Object:
    """The JSON object in a request's body; an empty body is an empty object. Raises ``Invalid`` for any other text."""
    if not body:
        return {}
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Invalid("body", f"is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Invalid("body", "is nested too deeply") from None
    except ValueError as error:
        raise Invalid("body", f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Invalid("body", f"must be a JSON object, not {shown(value)}")
    return value


def _unrepeated(pairs: list[tuple[str, Any]]) -> Object:
    found: Object = {}
    for name, value in pairs:
        if name in found:
            raise Invalid(printable(name), "is given twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise Invalid("body", f"{name} is not JSON")


@reads("worker_id", "command", "path")
def read_start(fields: Fields) -> tuple[JobSpec, Target]:
    """Read the body of ``POST /start``."""
    target = Target(worker=fields.get("worker_id", NAME))
    spec = JobSpec(command=fields.get("command", COMMAND), path=fields.get("path", PATH, ""))
    return spec, target


@reads("worker_id", "job_id")
def read_worker_and_job(fields: Fields) -> tuple[str, str]:
    """Read the body of ``POST /stop`` and ``/query``: the id or name of the worker, and the job's id."""
    return fields.get("worker_id", NAME), fields.get("job_id", NAME)


@reads()
def read_nothing(_: Fields) -> None:
    """Read the body of a route without fields."""


@reads("signal", "to")
def read_signal(fields: Fields) -> tuple[str, str]:
    """Read the body of ``POST /v1/jobs/{id}/signal``: the signal by its full name, and the processes to send it to.

    Numbers are refused, because they mean different signals on different machines.
    """
    given = fields.get("signal", NAME)
    name = given.upper() if given.upper().startswith("SIG") else f"SIG{given.upper()}"
    if name not in SIGNAL_NAMES:
        allowed = ", ".join(SIGNAL_NAMES)
        raise Invalid("signal", f"{shown(given)} must be one of {allowed}, with or without SIG")
    return name, fields.get("to", reading.one_of(*SIGNAL_TARGETS), SIGNAL_TARGETS[0])


@reads(*SUBMIT_FIELDS)
def read_submit(fields: Fields) -> tuple[JobSpec, Target, QueueTerms]:
    """Read the body of ``POST /v1/jobs``."""
    target = _target(fields)
    patience = DEFAULT_QUEUE_TIMEOUT_SECONDS if target.worker is None else 0.0
    terms = QueueTerms(
        queue_timeout=fields.get("queue_timeout", WAIT, patience),
        priority=fields.get("priority", reading.integer(-MAX_PRIORITY, MAX_PRIORITY), 0),
        retry=fields.find("retry", _retry),
        unattended_timeout=fields.get("unattended_timeout", reading.or_null(TIMEOUT), None),
    )
    if sum(map(fields.given, PROGRAMS)) != 1:
        raise Invalid("command", f"exactly one of {', '.join(PROGRAMS)} must be given")
    script, line = _script(fields), _shell(fields)
    args = _args(fields.get("args", reading.array, []))
    command = fields.find("command", COMMAND) or ""
    if line is not None:
        command, args = SHELL, shell_args(line, args)
    spec = JobSpec(
        command=command,
        args=args,
        path=fields.get("path", PATH, ""),
        env=_env(fields.get("env", reading.mapping, {})),
        cwd=fields.get("cwd", PATH, ""),
        stdin=_stdin(fields),
        script=script,
        timeout=fields.get("timeout", reading.or_null(TIMEOUT), None),
        stop_grace=fields.get("stop_grace", WAIT, DEFAULT_STOP_GRACE_SECONDS),
        labels=_labels("labels", fields.get("labels", reading.mapping, {})),
        merge_stderr=fields.get("merge_stderr", reading.flag, False),
        output_limit=fields.get("output_limit", reading.or_null(reading.size), None),
        linger=fields.get("linger", WAIT, DEFAULT_LINGER_SECONDS),
        stop_signal=fields.get("stop_signal", reading.one_of(*STOP_SIGNALS), STOP_SIGNALS[0]),
        stop_mode=fields.get("stop_mode", reading.one_of(*STOP_MODES), STOP_MODES[0]),
        umask=fields.get("umask", reading.or_null(_umask), None),
        script_summary=None if script is None else _summary(script),
    )
    if spec.path and not fields.given("command"):
        raise Invalid("path", f"goes with command, not with {'script' if line is None else 'shell'}")
    return spec, target, terms


def _target(fields: Fields) -> Target:
    if fields.given("worker") == fields.given("selector"):
        raise Invalid("worker", "exactly one of worker (an id or name) and selector (labels; {} is any) must be given")
    if fields.given("worker"):
        return Target(worker=fields.get("worker", NAME))
    return Target(selector=_labels("selector", fields.get("selector", reading.mapping)))


def _retry(value: Any) -> Retry:
    inner = Fields(reading.mapping(value), ("attempts", "delay"), "retry.")
    return Retry(inner.get("attempts", reading.integer(1, MAX_ATTEMPTS)), inner.get("delay", WAIT, 0.0))


def _umask(value: Any) -> int:
    if not isinstance(value, str) or _UMASK.fullmatch(value) is None:
        raise Unfit('must be an octal number as text, "022"; at most "0777"')
    return int(value, 8)


def _script(fields: Fields) -> bytes | None:
    given = fields.find("script", reading.text(empty=False))
    if given is None:
        return None
    script = given.encode("utf-8")
    if problem := script_problem(script):
        raise Invalid("script", problem)
    return script


def _shell(fields: Fields) -> str | None:
    line = fields.find("shell", reading.text(most=TEXT_MAX_BYTES))
    if line is not None and not line.strip():
        raise Invalid("shell", "must not be empty")
    return line


def shell_args(line: str, args: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments with which ``SHELL`` runs ``line``; ``args`` become ``$1`` and so on, and ``$0`` is ``sh``."""
    options = ("-c", "--") if line.startswith(("-", "+")) else ("-c",)  # so that the line is not taken for an option
    return (*options, line, *(("sh", *args) if args else ()))


def _summary(script: bytes) -> ScriptSummary:
    first_line = script.splitlines()[0].decode("utf-8", "replace")[:SCRIPT_LINE_MAX_CHARACTERS]
    return ScriptSummary(len(script), "".join(each if each.isprintable() else "\ufffd" for each in first_line))


def _stdin(fields: Fields) -> bytes | None:
    if fields.given("stdin") and fields.given("stdin_base64"):
        raise Invalid("stdin", "at most one of stdin and stdin_base64 may be given")
    given, encoded = fields.find("stdin", reading.text()), fields.find("stdin_base64", reading.text())
    if encoded is None:
        return None if given is None else given.encode("utf-8")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("stdin_base64", f"{shown(encoded)} is not base64") from None


def _args(given: list[Any]) -> tuple[str, ...]:
    check_count("args", given, MAX_ARGS)
    return tuple(check_text(f"args[{index}]", arg, most=TEXT_MAX_BYTES) for index, arg in enumerate(given))


def _env(given: Object) -> dict[str, str]:
    check_count("env", given, MAX_VARIABLES)
    for name, value in given.items():
        check_text("env", name)
        if problem := env_name_problem(name):
            raise Invalid("env", f"{shown(name)} {problem}")
        check_text(f"env.{shown(name)[1:-1]}", value, most=TEXT_MAX_BYTES - len(name) - 1)
    return given


def _labels(field: str, given: Object) -> dict[str, str]:
    check_count(field, given, MAX_LABELS)
    return {key: check_label(field, key, value) for key, value in given.items()}


# -- writing


def time_text(when: float | None) -> str | None:
    """A POSIX time as RFC 3339, in UTC, to the microsecond; ``None`` for a time that no calendar has."""
    if when is None:
        return None
    try:
        return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None  # a worker may report any time


def job_json(job: Job, waiting_for: WaitingFor | None = None) -> Object:
    """The JSON of a job; ``waiting_for`` if it is queued. The parts that only the store has are ``null``.

    A new field also goes into ``client.values``, ``docs/api.md`` and, if stored, ``store.rows`` and ``store.schema``.
    """
    spec, terms, retry = job.spec, job.terms, job.terms.retry
    script = spec.script_summary
    return {
        "id": job.id,
        "worker_id": job.worker_id,
        "worker_name": job.worker_name,
        "state": job.state.value,
        "reason": job.reason or None,
        "waiting_for": None if waiting_for is None else asdict(waiting_for),
        "command": spec.command or None,
        "args": None if spec.stored else list(spec.args),
        "path": spec.path or None,
        "cwd": spec.cwd or None,
        "env": None if spec.stored else dict(spec.env),
        "labels": dict(spec.labels),
        "script": None if script is None else {"bytes": script.size, "first_line": script.first_line},
        "timeout": None if spec.timeout is None else _number(spec.timeout),
        "linger": _number(spec.linger),
        "stop_grace": _number(spec.stop_grace),
        "stop_signal": spec.stop_signal,
        "stop_mode": spec.stop_mode,
        "umask": None if spec.umask is None else f"{spec.umask:04o}",
        "output_limit": spec.output_limit,
        "created_by": job.created_by,
        "created_at": time_text(job.created_at),
        "started_at": time_text(job.started_at),
        "finished_at": time_text(job.finished_at),
        "exit_code": job.exit_code,
        "signal": job.signal,
        "stop_requested_at": time_text(job.stop_requested_at),
        "stdout_bytes": job.stdout_bytes,
        "stderr_bytes": job.stderr_bytes,
        "output_error": job.output_error,
        "leftover": list(job.leftover),
        "background_ended": job.background_ended,
        "usage": None if job.usage is None else asdict(job.usage),
        "group_id": job.group_id,
        "retry_of": job.retry_of,
        "retried_by": job.retried_by,
        "orphan": job.orphan,
        "remove_requested_at": time_text(job.remove_requested_at),
        "queue_timeout": _number(terms.queue_timeout),
        "priority": terms.priority,
        "retry": None if retry is None else {"attempts": retry.attempts, "delay": _number(retry.delay)},
        "unattended_timeout": None if terms.unattended_timeout is None else _number(terms.unattended_timeout),
    }


def _number(seconds: float) -> float:
    """The seconds as an integer if they are whole."""
    return int(seconds) if seconds == int(seconds) else seconds


def query_json(job: Job) -> Object:
    """The JSON answer of ``POST /query``."""
    error = error_text(job.state, job.reason)
    return {"done": job.state.final, "error": bool(error), "error_text": error}


def stop_json(job: Job) -> Object:
    """The JSON answer of ``POST /stop``."""
    return {"success": True} if job.over else {"success": False, "stop_requested_at": time_text(job.stop_requested_at)}


def worker_json(view: WorkerView) -> Object:
    """The JSON of a worker."""
    worker, presence = view.worker, view.presence
    return {
        "id": worker.id,
        "name": worker.name,
        "address": worker.address,
        "labels": dict(worker.labels),
        "slots": worker.slots,
        "state": presence.state.value,
        "reason": view.reason,
        "draining": worker.draining,
        "last_seen": time_text(presence.last_seen),
        "running_jobs": view.running_jobs,
        "version": worker.version,
        "features": sorted(worker.features),
        "disk": None if presence.disk is None else asdict(presence.disk),
        "clock_difference": presence.clock_difference,
    }


def dump(value: Object) -> bytes:
    """JSON in UTF-8 on one line, with a line feed. Half surrogate pairs are escaped, so this never fails."""
    return dump_value(value) + b"\n"


def dump_value(value: Any) -> bytes:
    """JSON of any value in UTF-8, without a line feed."""
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")
