"""JSON <-> model: what a request's body may say, and how jobs and workers look from outside.

Reading is strict. Whatever is not exactly as the contract has it is ``Invalid``
with the field, the value and what is allowed: a wrong type, an unknown or
repeated field, ``null`` where nothing says so, a NUL or half a surrogate pair
in any text. What a worker alone can know (is that command there?) is left to it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sized
from datetime import UTC, datetime
from typing import Any

from scheduler import durations, sizes
from scheduler.errors import Invalid
from scheduler.interfaces import JobPage, WorkerView
from scheduler.model import (
    DEFAULT_QUEUE_TIMEOUT,
    DEFAULT_STOP_GRACE,
    HIGHEST_PRIORITY,
    LABEL_PATTERN,
    MOST_ATTEMPTS,
    Job,
    JobSpec,
    Retry,
    Target,
    Terms,
    env_name_problem,
    error_text,
)

#: A decoded JSON object.
Object = dict[str, Any]

#: Seconds; no timeout is longer.
LONGEST = 3650 * 86400.0

#: Bytes of an argument or a variable, and of a path, that Linux takes: MAX_ARG_STRLEN and PATH_MAX, less the NUL.
LONGEST_TEXT, LONGEST_PATH = 131_071, 4_095

#: Characters of a name, and of a label's value.
LONGEST_NAME = 253

MOST_ARGS, MOST_VARIABLES, MOST_LABELS = 32_768, 4_096, 64

_MISSING: Any = object()

_KINDS: Mapping[type, str] = {str: "a string", bool: "true or false", list: "a list of strings", dict: "an object"}


# -- reading


def shown(value: object) -> str:
    """A value as a complaint quotes it: JSON, on one line, not too long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."


def load(body: bytes) -> Object:
    """The JSON object in a request's body; an empty body is an empty object."""
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
            raise Invalid(_printable(name), "is given twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise Invalid("body", f"{name} is not JSON")


def _printable(name: str) -> str:
    return shown(name)[1:-1]


def check_text(field: str, value: object, one_line: bool = False, most: int | None = None) -> str:
    """``value`` if it is text that may be passed on, of at most so many bytes; ``Invalid``."""
    if not isinstance(value, str):
        raise Invalid(field, f"must be a string, not {shown(value)}")
    if "\0" in value:
        raise Invalid(field, f"{shown(value)} holds a NUL, which no text may")
    if one_line and ("\n" in value or "\r" in value):
        raise Invalid(field, f"{shown(value)} must be one line")
    try:
        length = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise Invalid(field, f"{shown(value)} holds half a surrogate pair, which is no character") from None
    if most is not None and length > most:
        raise Invalid(field, f"{shown(value)} has {length} bytes; at most {most} are allowed")
    return value


def check_label(field: str, key: str, value: object) -> str:
    """The value of a label that may be; ``Invalid``."""
    if not LABEL_PATTERN.fullmatch(key):
        raise Invalid(
            field,
            f"{shown(key)} is no label: 1 to 253 letters, digits, '.', '_', '/' or '-', the first a letter or digit",
        )
    text = check_text(f"{field}.{key}", value)
    if len(text) > LONGEST_NAME or not text.isprintable():
        raise Invalid(f"{field}.{key}", f"{shown(text)} must be printable text of at most {LONGEST_NAME} characters")
    return text


def _count(field: str, given: Sized, most: int) -> None:
    if len(given) > most:
        raise Invalid(field, f"{len(given)} of them; at most {most} are allowed")


class Fields:
    """A JSON object being read, field by field; ``end`` refuses what was not asked for."""

    def __init__(self, body: Object, within: str = "") -> None:
        """``within`` is what a field's name is shown behind."""
        self._body = body
        self._within = within
        self._asked: set[str] = set()

    def given(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._body

    def take(self, name: str, kind: type | None = None, default: Any = _MISSING) -> Any:
        """The field's value, of that type; ``Invalid`` if it is another, or missing without a default."""
        self._asked.add(name)
        value = self._body.get(name, default)
        if value is _MISSING:
            raise Invalid(self._within + name, "is missing" + (f": it must be {_KINDS[kind]}" if kind else ""))
        if name in self._body and kind is not None and not isinstance(value, kind):
            raise Invalid(self._within + name, f"must be {_KINDS[kind]}, not {shown(value)}")
        return value

    def number(self, name: str, least: int, most: int, default: Any = _MISSING) -> int:
        """An integer within bounds, both inclusive."""
        value = self.take(name, default=default)
        if type(value) is not int or not least <= value <= most:
            raise Invalid(self._within + name, f"{shown(value)} must be an integer from {least} to {most}")
        return value

    def text(self, name: str, default: Any = _MISSING) -> Any:
        """Text without NUL; or the default as it is."""
        value = self.take(name, str, default)
        return check_text(name, value) if name in self._body else value

    def path(self, name: str, default: str) -> str:
        """One line, not longer than a path may be."""
        value: str = self.take(name, str, default)
        return check_text(name, value, one_line=True, most=LONGEST_PATH)

    def name(self, name: str, most: int = LONGEST_NAME) -> str:
        """One line that is not empty."""
        value: str = self.take(name, str)
        if not value:
            raise Invalid(name, "must not be empty")
        return check_text(name, value, one_line=True, most=most)

    def duration(self, name: str, default: float | None, zero: bool) -> float | None:
        """Seconds; ``null`` where the default is none."""
        value = self.take(name, default=default)
        if value is None and default is None:
            return None
        try:
            seconds = durations.parse(value)
        except ValueError:
            seconds = -1.0
        if seconds < 0 or seconds > LONGEST or (not zero and not seconds):
            limits = "from 0" if zero else "more than 0"
            raise Invalid(self._within + name, f"{shown(value)} must be {durations.ALLOWED}, {limits}, at most 3650d")
        return seconds

    def size(self, name: str) -> int | None:
        """A number of bytes, at least 1; ``null`` is none."""
        value = self.take(name, default=None)
        if value is None:
            return None
        try:
            return sizes.parse(value, least=1)
        except ValueError as error:
            raise Invalid(name, f"{shown(value)} {error}") from None

    def end(self) -> None:
        """``Invalid`` for the first field that nothing asked for."""
        for name in self._body:
            if name not in self._asked:
                allowed = ", ".join(sorted(self._asked)) or "none"
                raise Invalid(self._within + _printable(name), f"is not a field of this request; allowed: {allowed}")


def read_start(body: Object) -> tuple[JobSpec, Target]:
    """``POST /start``."""
    fields = Fields(body)
    target = Target(worker=fields.name("worker_id"))
    spec = JobSpec(command=fields.name("command", LONGEST_PATH), path=fields.path("path", ""))
    fields.end()
    return spec, target


def read_worker_and_job(body: Object) -> tuple[str, str]:
    """``POST /stop`` and ``/query``."""
    fields = Fields(body)
    names = fields.name("worker_id"), fields.name("job_id")
    fields.end()
    return names


def read_nothing(body: Object) -> None:
    """The body of a route that wants none."""
    Fields(body).end()


def read_submit(body: Object) -> tuple[JobSpec, Target, Terms]:
    """``POST /v1/jobs``."""
    fields = Fields(body)
    target = _target(fields)
    patience = DEFAULT_QUEUE_TIMEOUT if target.worker is None else 0.0
    terms = Terms(
        queue_timeout=fields.duration("queue_timeout", patience, zero=True) or 0.0,
        priority=fields.number("priority", -HIGHEST_PRIORITY, HIGHEST_PRIORITY, 0),
        retry=_retry(fields),
    )
    script = _script(fields)
    spec = JobSpec(
        command=fields.name("command", LONGEST_PATH) if script is None else "",
        args=_args(fields.take("args", list, [])),
        path=fields.path("path", ""),
        env=_env(fields.take("env", dict, {})),
        cwd=fields.path("cwd", ""),
        stdin=_stdin(fields),
        script=script,
        timeout=fields.duration("timeout", None, zero=False),
        stop_grace=fields.duration("stop_grace", DEFAULT_STOP_GRACE, zero=True) or 0.0,
        labels=_labels("labels", fields.take("labels", dict, {})),
        merge_stderr=fields.take("merge_stderr", bool, False),
        output_limit=fields.size("output_limit"),
    )
    fields.take("command", str, "")
    fields.end()
    if script is not None and spec.path:
        raise Invalid("path", "goes with command, not with script")
    return spec, target, terms


def _target(fields: Fields) -> Target:
    if fields.given("worker") == fields.given("selector"):
        raise Invalid("worker", "exactly one of worker (an id or name) and selector (labels; {} is any) must be given")
    if fields.given("worker"):
        target = Target(worker=fields.name("worker"))
        fields.take("selector", dict, {})
    else:
        target = Target(selector=_labels("selector", fields.take("selector", dict)))
        fields.take("worker", str, "")
    return target


def _retry(fields: Fields) -> Retry | None:
    if not fields.given("retry"):
        fields.take("retry", dict, {})
        return None
    inner = Fields(fields.take("retry", dict), "retry.")
    attempts = inner.number("attempts", 1, MOST_ATTEMPTS)
    retry = Retry(attempts, inner.duration("delay", 0.0, zero=True) or 0.0)
    inner.end()
    return retry


def _script(fields: Fields) -> bytes | None:
    if fields.given("script") == fields.given("command"):
        raise Invalid("command", "exactly one of command and script must be given")
    text = fields.text("script", None)
    if text == "":
        raise Invalid("script", "must not be empty")
    return None if text is None else text.encode("utf-8")


def _stdin(fields: Fields) -> bytes | None:
    if fields.given("stdin") and fields.given("stdin_base64"):
        raise Invalid("stdin", "at most one of stdin and stdin_base64 may be given")
    text, encoded = fields.text("stdin", None), fields.text("stdin_base64", None)
    if encoded is None:
        return None if text is None else text.encode("utf-8")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("stdin_base64", f"{shown(encoded)} is not base64") from None


def _args(given: list[Any]) -> tuple[str, ...]:
    _count("args", given, MOST_ARGS)
    return tuple(check_text(f"args[{index}]", arg, most=LONGEST_TEXT) for index, arg in enumerate(given))


def _env(given: Object) -> dict[str, str]:
    _count("env", given, MOST_VARIABLES)
    for name, value in given.items():
        check_text("env", name)
        if problem := env_name_problem(name):
            raise Invalid("env", f"{shown(name)} {problem}")
        check_text(f"env.{shown(name)[1:-1]}", value, most=LONGEST_TEXT - len(name) - 1)
    return given


def _labels(field: str, given: Object) -> dict[str, str]:
    _count(field, given, MOST_LABELS)
    return {key: check_label(field, key, value) for key, value in given.items()}


# -- writing


def time_text(when: float | None) -> str | None:
    """RFC 3339, UTC, to the microsecond; ``None`` too for what no calendar has."""
    if when is None:
        return None
    try:
        return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None  # a worker's word is not to be relied on


def job_json(job: Job) -> Object:
    """A job as everyone sees it."""
    spec, terms, retry = job.spec, job.terms, job.terms.retry
    return {
        "id": job.id,
        "worker_id": job.worker_id,
        "worker_name": job.worker_name,
        "state": job.state.value,
        "reason": job.reason or None,
        "command": spec.command or None,
        "args": list(spec.args),
        "path": spec.path or None,
        "cwd": spec.cwd or None,
        "env": dict(spec.env),
        "labels": dict(spec.labels),
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
        "group_id": job.group_id,
        "retry_of": job.retry_of,
        "orphan": job.orphan,
        "queue_timeout": _number(terms.queue_timeout),
        "priority": terms.priority,
        "retry": None if retry is None else {"attempts": retry.attempts, "delay": _number(retry.delay)},
    }


def _number(seconds: float) -> float:
    """Whole where it is."""
    return int(seconds) if seconds == int(seconds) else seconds


def page_json(page: JobPage) -> Object:
    """A list of jobs with the cursor of the next one."""
    return {"jobs": [job_json(job) for job in page.jobs], "next": page.next}


def query_json(job: Job) -> Object:
    """The answer of ``POST /query``."""
    text = error_text(job.state, job.reason)
    return {"done": job.state.final, "error": bool(text), "error_text": text}


def stop_json(job: Job) -> Object:
    """The answer of ``POST /stop``."""
    return {"success": True} if job.over else {"success": False, "stop_requested_at": time_text(job.stop_requested_at)}


def worker_json(view: WorkerView) -> Object:
    """A worker as everyone sees it."""
    worker = view.worker
    return {
        "id": worker.id,
        "name": worker.name,
        "address": worker.address,
        "labels": dict(worker.labels),
        "slots": worker.slots,
        "state": worker.state.value,
        "draining": worker.draining,
        "last_seen": time_text(worker.last_seen),
        "running_jobs": view.running_jobs,
        "version": worker.version,
    }


def workers_json(views: Iterable[WorkerView]) -> Object:
    """All workers."""
    return {"workers": [worker_json(view) for view in views]}


def dump(value: Object) -> bytes:
    """JSON, in UTF-8, one line with a newline. Half surrogate pairs are escaped, so this never fails."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
