"""What may follow the ``?``: each parameter known, given once, and checked; and the filters of jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from scheduler import units
from scheduler.errors import Invalid
from scheduler.fields import Fields, check_label, check_names, check_text, printable, reads, shown
from scheduler.interfaces import JobFilter
from scheduler.model import JobState, Stream, is_id

#: Names of the filters of jobs.
FILTERS = (
    "worker",
    "state",
    "label",
    "created_by",
    "created_after",
    "created_before",
    "finished_after",
    "finished_before",
    "orphan",
    "group_id",
    "id_prefix",
)

#: Seconds; nobody waits longer for one answer.
WAIT_MAX_SECONDS = 300.0

#: Seconds; no follower waits longer for a sign of life of its job.
STALL_MAX_SECONDS = 86_400.0

#: Bytes of each stream in an answer: without a value given, and at most.
DEFAULT_OUTPUT_BYTES, OUTPUT_MAX_BYTES = 64 * 1024, 1024 * 1024

PAGE_MAX_JOBS = 1000

#: Characters of the beginning of an id by which jobs can be listed.
ID_PREFIX_MIN_LENGTH = 6

_FLAGS = {"1": True, "true": True, "0": False, "false": False}

# A "+" that was not escaped arrives as a space.
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?(?:([Zz])|([ +-][0-9]{2}:[0-9]{2}))"
)

# A value may have commas; but one that goes on like this was meant as the next label.
_NEXT_LABEL = re.compile(r",\s*[A-Za-z0-9][A-Za-z0-9._/-]*=")

Pairs = list[tuple[str, str]]


def read_pairs(query: bytes) -> Pairs:
    """The parameters of a query string, in order; ``Invalid`` if they are not UTF-8."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("query", "is not percent-encoded UTF-8") from None
    for name, value in pairs:
        check_text(printable(name), value)
        if name == "label":
            _one_label(value)
    return pairs


class Query:
    """The parameters of one request: those allowed, each once at most (``label`` as often as wanted)."""

    def __init__(self, pairs: Pairs, allowed: Iterable[str]) -> None:
        """``Invalid`` for a parameter that is not among ``allowed``, or given twice."""
        check_names((name for name, _ in pairs), tuple(allowed), "a parameter of this route")
        self.pairs = pairs
        self._values: dict[str, str] = {}
        self.labels: list[str] = []
        for name, value in pairs:
            if name == "label":
                self.labels.append(value)
            elif name in self._values:
                raise Invalid(name, "is given twice")
            else:
                self._values[name] = value

    def given(self, name: str) -> bool:
        """Whether the parameter is there."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """Its value; ``None`` if it is absent, ``Invalid`` if it is empty."""
        value = self._values.get(name)
        if value == "":
            raise Invalid(name, "must not be empty")
        return value

    def flag(self, name: str) -> bool:
        """``1`` or ``true``, ``0`` or ``false``; absent is false."""
        value = self._values.get(name, "0")
        if value not in _FLAGS:
            raise Invalid(name, f"{shown(value)} must be 1 or 0")
        return _FLAGS[value]

    def number(self, name: str, least: int, most: int) -> int | None:
        """An integer within bounds; ``None`` if it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if re.fullmatch("[0-9]{1,18}", value) is None or not least <= int(value) <= most:
            raise Invalid(name, f"{shown(value)} must be a number from {least} to {most}")
        return int(value)

    def wait(self) -> float | None:
        """``wait`` in seconds; ``None`` if it is absent."""
        value = self._values.get("wait")
        if value is None:
            return None
        try:
            seconds = units.parse_duration(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= WAIT_MAX_SECONDS:
            raise Invalid("wait", f"{shown(value)} must be {units.DURATION_ALLOWED}, at most {WAIT_MAX_SECONDS:g} s")
        return seconds

    def output(self) -> int | None:
        """``output`` in bytes, ``DEFAULT_OUTPUT_BYTES`` if it has no value; ``None`` if it is absent."""
        value = self._values.get("output")
        if not value:
            return None if value is None else DEFAULT_OUTPUT_BYTES
        try:
            size = units.parse_size(value)
        except ValueError:
            size = -1
        if not 0 <= size <= OUTPUT_MAX_BYTES:
            raise Invalid("output", f"{shown(value)} must be {units.SIZE_ALLOWED}, at most {OUTPUT_MAX_BYTES} bytes")
        return size

    def stall(self) -> float | None:
        """``stall`` in seconds, more than 0; ``None`` if it is absent."""
        value = self._values.get("stall")
        if value is None:
            return None
        try:
            seconds = units.parse_duration(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= STALL_MAX_SECONDS:
            raise Invalid("stall", f"{shown(value)} must be {units.DURATION_ALLOWED}, more than 0 and at most a day")
        return seconds

    def stream(self) -> Stream:
        """``stream``; stdout if it is absent."""
        value = self._values.get("stream", Stream.STDOUT.value)
        try:
            return Stream(value)
        except ValueError:
            raise Invalid("stream", f"{shown(value)} must be stdout or stderr") from None

    def filter(self, now: float) -> JobFilter:
        """The jobs meant; ``now`` is the POSIX time that ``24h`` is counted back from."""
        return JobFilter(
            worker=self.text("worker"),
            states=self._states(),
            labels=self._labels(),
            created_by=self.text("created_by"),
            created_after=self._time("created_after", now),
            created_before=self._time("created_before", now),
            finished_after=self._time("finished_after", now),
            finished_before=self._time("finished_before", now),
            orphan=self.flag("orphan") if self.given("orphan") else None,
            group_id=self.text("group_id"),
            id_prefix=self._id_prefix(),
        )

    def _states(self) -> frozenset[JobState]:
        names = self.text("state")
        if names is None:
            return frozenset()
        try:
            return frozenset(JobState(name.strip()) for name in names.split(","))
        except ValueError:
            allowed = ", ".join(state.value for state in JobState)
            raise Invalid("state", f"{shown(names)} must be one or more, parted by commas, of {allowed}") from None

    def _labels(self) -> dict[str, str]:
        labels: dict[str, str] = {}
        for text in self.labels:
            key, equals, value = text.partition("=")
            if not equals:
                raise Invalid("label", f"{shown(text)} must be like key=value")
            if labels.setdefault(key, check_label("label", key, value)) != value:
                raise Invalid("label", f"{shown(key)} is given twice")
        return labels

    def _id_prefix(self) -> str | None:
        prefix = self.text("id_prefix")
        if prefix is not None and (len(prefix) < ID_PREFIX_MIN_LENGTH or not is_id(prefix)):
            raise Invalid(
                "id_prefix",
                f"{shown(prefix)} must be the beginning of an id, at least {ID_PREFIX_MIN_LENGTH} of its characters",
            )
        return prefix

    def _time(self, name: str, now: float) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        when = _rfc3339(text) if _TIME.fullmatch(text) else _ago(text, now)
        if when is None:
            raise Invalid(name, f"{shown(text)} must be a time like 2024-05-01T12:00:00Z, or like 24h for so long ago")
        return when


def _rfc3339(text: str) -> float | None:
    match = _TIME.fullmatch(text)
    assert match is not None
    date, clock, fraction, zulu, offset = match.groups()
    zone = "+00:00" if zulu else offset.replace(" ", "+")
    try:
        when = datetime.fromisoformat(f"{date}T{clock}.{(fraction or '')[:6]:0<6}{zone}")
        return when.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _ago(text: str, now: float) -> float | None:
    # A bare number could as well be meant as a POSIX time, so it is neither.
    if not units.has_unit(text):
        return None
    try:
        return now - units.parse_duration(text)
    except ValueError:
        return None


@reads(*FILTERS)
def pairs_of(fields: Fields) -> Pairs:
    """Filters in a JSON body as the pairs they would be in a query string.

    A number or a boolean stands for its text. ``state`` and ``label`` may also be lists, and
    ``label`` an object of keys and values.
    """
    pairs: Pairs = []
    for name, value in fields.values.items():
        if name == "label" and isinstance(value, dict):
            pairs += [(name, f"{key}={check_label('label', key, _as_text(text))}") for key, text in value.items()]
        elif name == "label" and isinstance(value, list):
            pairs += [(name, _one_label(check_text(name, text))) for text in value]
        elif name == "state" and isinstance(value, list):
            pairs.append((name, ",".join(check_text(name, state) for state in value)))
        else:
            text = check_text(name, _as_text(value))
            pairs.append((name, _one_label(text) if name == "label" else text))
    return pairs


def _as_text(value: Any) -> Any:
    """What a whole number or a boolean of JSON is in a query string; anything else as it is."""
    return json.dumps(value) if isinstance(value, int) else value


def _one_label(text: str) -> str:
    """A filter by one label; ``Invalid`` for what is meant as several."""
    if (more := _NEXT_LABEL.search(text)) is None:
        return text
    first, second = text[: more.start()], text[more.start() + 1 :].strip()
    raise Invalid(
        "label", f"{shown(text)} must be one label; give each of several by itself, like label={first}&label={second}"
    )
