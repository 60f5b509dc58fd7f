"""Reads query strings strictly, and the filters of jobs in a query string or a JSON body."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from scheduler import reading, units
from scheduler.errors import Invalid
from scheduler.model import JobState, Stream
from scheduler.names import is_id
from scheduler.reading import Fields, Reader, Unfit, check_label, check_names, check_text, printable, reads, shown
from scheduler.views import JobFilter

#: Names of the filters of jobs.
FILTERS = (
    *("worker", "state", "label", "created_by"),
    *("created_after", "created_before", "finished_after", "finished_before"),
    *("orphan", "group_id", "id_prefix"),
)

#: Seconds of the longest wait for an answer.
WAIT_MAX_SECONDS = 300.0

#: Seconds of the longest ``stall``: the time without a byte after which a follower's connection is cut.
STALL_MAX_SECONDS = 86_400.0

#: Bytes of each stream in an answer: the number if ``output`` has no value, and the largest.
DEFAULT_OUTPUT_BYTES, OUTPUT_MAX_BYTES = 64 * 1024, 1024 * 1024

PAGE_MAX_JOBS = 1000

#: Characters of an id's beginning by which jobs can be listed, at least.
ID_PREFIX_MIN_LENGTH = 6

_FLAGS = {"1": True, "true": True, "0": False, "false": False}

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[ +-][0-9]{2}:[0-9]{2})")

# An unescaped "+" arrives as a space.
_PLUS = re.compile(" (?=[0-9:]{5}$)")

# A value may have commas. But after a comma, "key=" was meant as the next label.
_NEXT_LABEL = re.compile(r",\s*[A-Za-z0-9][A-Za-z0-9._/-]*=")

Pairs = list[tuple[str, str]]


def read_pairs(query: bytes) -> Pairs:
    """The parameters of a query string, in order. Raises ``Invalid`` if they are not UTF-8, or hold a NUL."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("query", "is not percent-encoded UTF-8") from None
    for name, value in pairs:
        check_text(printable(name), value)
        if name == "label":
            _one_label(value)
    return pairs


class Query(Reader):
    """The parameters of one request. Each may be given once; ``label`` several times."""

    def __init__(self, pairs: Pairs, allowed: Collection[str]) -> None:
        """Raises ``Invalid`` for a parameter that is not among ``allowed``, or is given twice."""
        check_names((name for name, _ in pairs), allowed, "a parameter of this route")
        values: dict[str, str] = {}
        super().__init__(values)
        self.pairs = pairs
        self.labels = [value for name, value in pairs if name == "label"]
        for name, value in pairs:
            if name in values and name != "label":
                raise Invalid(name, "is given twice")
            values[name] = value

    def refusal(self, name: str, value: object, unfit: Unfit) -> Exception:
        return Invalid(name, unfit.complaint(value))

    def text(self, name: str) -> str | None:
        """A parameter as text, which must not be empty; ``None`` if it is absent."""
        return self.find(name, reading.text(empty=False))

    def flag(self, name: str) -> bool:
        """A parameter that is ``1`` or ``true``, ``0`` or ``false``; false if it is absent."""
        return self.get(name, _flag, "0")

    def number(self, name: str, least: int, most: int) -> int | None:
        """A parameter that is an integer from ``least`` to ``most``; ``None`` if it is absent."""

        def check(value: str) -> int:
            if re.fullmatch("[0-9]{1,18}", value) is None or not least <= int(value) <= most:
                raise Unfit(f"must be a number from {least} to {most}")
            return int(value)

        return self.find(name, check)

    def wait(self) -> float | None:
        """The parameter ``wait``, in seconds; ``None`` if it is absent."""
        return self.find("wait", reading.duration(f"at most {WAIT_MAX_SECONDS:g} s", WAIT_MAX_SECONDS))

    def stall(self) -> float | None:
        """The parameter ``stall``, in seconds, more than 0; ``None`` if it is absent."""
        return self.find("stall", reading.duration("more than 0 and at most a day", STALL_MAX_SECONDS, zero=False))

    def output(self) -> int | None:
        """The parameter ``output``, in bytes; ``DEFAULT_OUTPUT_BYTES`` if it has no value, ``None`` if it is absent."""
        return self.find("output", _output)

    def stream(self) -> Stream:
        """The parameter ``stream``; stdout if it is absent."""
        return self.get("stream", _stream, Stream.STDOUT.value)

    def moment(self, name: str, now: float) -> float | None:
        """A parameter as a POSIX time, ``None`` if it is absent. ``24h`` is counted back from ``now``."""
        return self.find(name, partial(_moment, now))

    def filter(self, now: float) -> JobFilter:
        """The filter of jobs; ``now`` is the POSIX time from which ``24h`` is counted back."""
        moment = partial(_moment, now)
        return JobFilter(
            worker=self.text("worker"),
            states=self.find("state", _states) or frozenset(),
            labels=self._labels(),
            created_by=self.text("created_by"),
            created_after=self.find("created_after", moment),
            created_before=self.find("created_before", moment),
            finished_after=self.find("finished_after", moment),
            finished_before=self.find("finished_before", moment),
            orphan=self.find("orphan", _flag),
            group_id=self.text("group_id"),
            id_prefix=self.find("id_prefix", _id_prefix),
        )

    def _labels(self) -> dict[str, str]:
        labels: dict[str, str] = {}
        for label in self.labels:
            key, equals, value = label.partition("=")
            if not equals:
                raise Invalid("label", f"{shown(label)} must be like key=value")
            if labels.setdefault(key, check_label("label", key, value)) != value:
                raise Invalid("label", f"{shown(key)} is given twice")
        return labels


# -- checks


_filled = reading.text(empty=False)


def _flag(value: str) -> bool:
    if value not in _FLAGS:
        raise Unfit("must be 1 or 0")
    return _FLAGS[value]


def _output(value: str) -> int:
    try:
        size = units.parse_size(value) if value else DEFAULT_OUTPUT_BYTES
    except ValueError:
        size = -1
    if not 0 <= size <= OUTPUT_MAX_BYTES:
        raise Unfit(f"must be {units.SIZE_ALLOWED}, at most {OUTPUT_MAX_BYTES} bytes")
    return size


def _stream(value: str) -> Stream:
    try:
        return Stream(value)
    except ValueError:
        raise Unfit("must be stdout or stderr") from None


def _states(value: str) -> frozenset[JobState]:
    try:
        return frozenset(JobState(name.strip()) for name in _filled(value).split(","))
    except ValueError:
        allowed = ", ".join(state.value for state in JobState)
        raise Unfit(f"must be one or more, parted by commas, of {allowed}") from None


def _id_prefix(value: str) -> str:
    if len(_filled(value)) < ID_PREFIX_MIN_LENGTH or not is_id(value):
        raise Unfit(f"must be the beginning of an id, at least {ID_PREFIX_MIN_LENGTH} of its characters")
    return value


def time_of(value: str) -> float | None:
    """The POSIX time of an RFC 3339 time; ``None`` for another text."""
    with suppress(ValueError, OverflowError):
        if _TIME.fullmatch(value):
            return datetime.fromisoformat(_PLUS.sub("+", value).upper()).astimezone(UTC).timestamp()
    return None


def _moment(now: float, value: str) -> float:
    if (moment := time_of(_filled(value))) is not None:
        return moment
    with suppress(ValueError, OverflowError):
        if units.has_unit(value):  # a bare number could also be meant as a POSIX time
            return now - units.parse_duration(value)
    raise Unfit("must be a time like 2024-05-01T12:00:00Z, or like 24h for so long ago")


@reads(*FILTERS)
def pairs_of(fields: Fields) -> Pairs:
    """Filters in a JSON body, as pairs of a query string.

    A number or a boolean stands for its text. ``state`` and ``label`` may also be lists, and ``label`` an object of
    keys and values.
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
    """The text of a whole number or a boolean, as it is in a query string; any other value unchanged."""
    return json.dumps(value) if isinstance(value, int) else value


def _one_label(text: str) -> str:
    """The text of a filter by one label. Raises ``Invalid`` if several labels are meant."""
    if (more := _NEXT_LABEL.search(text)) is None:
        return text
    first, second = text[: more.start()], text[more.start() + 1 :].strip()
    raise Invalid(
        "label", f"{shown(text)} must be one label; give each of several by itself, like label={first}&label={second}"
    )
