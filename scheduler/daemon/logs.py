"""Logs: one line for each event, with named fields, as text or JSON. A request id connects the lines of one request.

Theory of operation. twistd starts its log after the service was made, and before the process becomes a daemon. It uses
the ``ILogObserver`` that is set on the application, else its own. Our service gets to know its application only when
that becomes its parent, so ``LoggingService`` sets our observer at that moment. So there is one observer from the first
line on, and it logs to the place that twistd's options name.

A name, a command or an address in an event is text of unknown origin. It is a field, never a format. In a line of text
every unprintable character is escaped, so no value can forge a line or control a terminal. Only a traceback has lines
of its own, each indented. A failure because the machine lacks a resource has no traceback, since it is no bug and its
reason is complete.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from json import dumps
from string import Formatter
from typing import IO, Any, cast

from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.base import ReactorBase
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    PredicateResult,
    formatEvent,
)
from twisted.python.components import Componentized
from twisted.python.reflect import safe_str

from scheduler.daemon import files, signals
from scheduler.daemon.logfile import LogFile

#: The id of the HTTP request for which the present code runs, ``""`` if there is none. It is sent in gRPC metadata
#: under ``METADATA_KEY``, and appears in the log lines of scheduler and worker.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

METADATA_KEY = "x-request-id"

#: Allowed values of ``log_level``, from most to least output.
LEVELS: Mapping[str, Any] = {
    level.name: level for level in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error)
}

#: Keys without ``log_`` that Twisted's older log (``twisted.python.log``) adds to every event.
_ADDED = frozenset({"message", "time", "system", "isError", "format", "logLevel", "printed"})
_ADDED_TO_OLDER = _ADDED | {"why", "failure"}

#: Error numbers for a lack of files, memory or space, and for a failing disk.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})

_PLAIN = re.compile(r"""[^\s"\\=]+""")


def observer(out: IO[Any], json: bool) -> FileLogObserver:
    """Make an observer that writes every event as a line to ``out``: text for people, or a JSON object."""
    if json:
        return FileLogObserver(out, _as_json)
    encoding = (getattr(out, "encoding", None) or "utf-8").lower()
    if encoding in {"utf-8", "utf8"}:
        return FileLogObserver(out, _as_text)
    # A terminal's encoding may lack a printable character.
    return FileLogObserver(out, lambda event: _as_text(event).encode(encoding, "backslashreplace").decode(encoding))


def _by_the_way(event: LogEvent) -> bool:
    """Whether the event is a report of Twisted that is not a failure."""
    namespace = str(event.get("log_namespace", ""))
    if _older(event):
        return not _said(event).lower().startswith(("failed", "could not", "warning"))
    # twisted.internet.tcp reports connections for which no descriptor is left
    return namespace.startswith("twisted.") and not namespace.startswith("twisted.internet.tcp")


def from_level(observer: ILogObserver, log_level: str) -> FilteringLogObserver:
    """``observer`` for events of this level and above, ours and Twisted's. An event without a level counts as info.

    Twisted's reports about its own parts, such as the start of a factory, count as debug, unless they are warnings.
    """

    def at_least(event: LogEvent) -> Any:
        level = event.get("log_level") or LogLevel.info
        if level is LogLevel.info and _by_the_way(event):
            level = LogLevel.debug
        return PredicateResult.maybe if level >= LEVELS[log_level] else PredicateResult.no

    return FilteringLogObserver(observer, [cast(ILogFilterPredicate, at_least)])


class LoggingService(MultiService):
    """The top service of a process. Under twistd it makes the process log by ``log_format`` and ``log_level``.

    The place of the log is still that of twistd's options: stdout with ``--nodaemon``, else ``--logfile``. With
    ``--syslog`` or ``--logger`` twistd uses its own log. The started service handles signals (``daemon.signals``).
    """

    def __init__(
        self, reactor: ReactorBase, twistd: Mapping[str, Any] | None, log_format: str, log_level: str = "info"
    ) -> None:
        """``twistd`` are twistd's options, ``None`` without twistd; ``log_format`` is ``"text"`` or ``"json"``.

        ``log_level`` is one of ``LEVELS``. Raises ``SystemExit`` with one line if the log file can't be written.
        """
        super().__init__()
        self._reactor = reactor
        self._twistd = twistd
        self._observer: FilteringLogObserver | None = None
        self._file: LogFile | None = None
        if twistd is not None and not twistd["logger"] and not twistd.get("syslog"):
            self._file = _log_file(twistd)
            out = cast(IO[str], self._file or sys.stdout)
            self._observer = from_level(observer(out, log_format == "json"), log_level)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        if self._twistd is not None:
            foreground = bool(self._twistd["nodaemon"] or self._twistd.get("debug"))
            signals.handle(self._reactor, foreground, self._file)
        super().startService()


def _log_file(twistd: Mapping[str, Any]) -> LogFile | None:
    """Open the file that twistd's options name; ``None`` for stdout."""
    name = twistd["logfile"]
    if twistd["nodaemon"]:
        if name in (None, "", "-"):
            return None
    elif name == "-":
        raise SystemExit("--logfile -: a daemon can't log to stdout; use --nodaemon, or name a file")
    name = name or "twistd.log"
    try:
        return _open_as(name, twistd.get("uid"), twistd.get("gid"))
    except OSError as error:
        raise SystemExit(f"--logfile {name}: can't be written: {error.strerror}") from None


def _open_as(name: str, uid: int | None, gid: int | None) -> LogFile:
    """Open a log file with the rights of the user that the process becomes.

    Where that user may not create it, root creates it, but only in a folder that no other user may write. Raises
    ``OSError``.
    """
    try:
        with files.as_user(uid, gid):
            return LogFile(name)
    except PermissionError:
        folder = os.path.dirname(os.path.abspath(name))
        if os.geteuid() != 0 or files.way_problem(folder):
            raise
        return LogFile(name, (uid, gid))


def _as_text(event: LogEvent) -> str:
    used = _fields_used(safe_str(event.get("log_format", "")))
    named = "".join(f" {_escaped(key)}={_quoted(value)}" for key, value in _fields(event).items() if key not in used)
    line = f"{_time(event)} {_level(event):<8} {_escaped(_namespace(event))}: {_escaped(_message(event))}{named}\n"
    traceback = "".join(f"    {_escaped(part)}\n" for part in _traceback(event).splitlines())
    return line + traceback


def _as_json(event: LogEvent) -> str:
    record: dict[str, Any] = {
        "time": _time(event),
        "level": _level(event),
        "namespace": _namespace(event),
        "message": _message(event),
    }
    if traceback := _traceback(event):
        record["traceback"] = traceback
    for key, value in _fields(event).items():
        record[f"{key}_" if key in record else key] = _json_value(value)
    return dumps(record) + "\n"


def _fields(event: LogEvent) -> dict[str, Any]:
    added = _ADDED_TO_OLDER if _older(event) else _ADDED
    fields = {key: value for key, value in event.items() if not key.startswith("log_") and key not in added}
    request_id = fields.pop("request_id", REQUEST_ID.get())
    if request_id:
        fields["request_id"] = request_id
    return fields


@lru_cache
def _fields_used(template: str) -> frozenset[str]:
    """The fields that a format contains."""
    try:
        return frozenset(re.split(r"[.\[(]", name)[0] for _, name, _, _ in Formatter().parse(template) if name)
    except ValueError:
        return frozenset()


def _time(event: LogEvent) -> str:
    second, millisecond = divmod(int(1000 * event.get("log_time", time.time())), 1000)
    return f"{_second(second)}.{millisecond:03}Z"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    if level is LogLevel.critical and _shortage(event):
        level = LogLevel.error
    return level.name if level is not None else "info"


def _older(event: LogEvent) -> bool:
    """Whether the event comes from Twisted's older log."""
    return event.get("log_namespace") == "log_legacy"


def _namespace(event: LogEvent) -> str:
    return safe_str(event.get("log_system" if _older(event) else "log_namespace", "-"))


def _message(event: LogEvent) -> str:
    shortage = _shortage(event)
    return f"{_said(event)}: {shortage}" if shortage else _said(event)


def _said(event: LogEvent) -> str:
    if _older(event) and "failure" in event:  # its text would be the traceback
        return safe_str(event.get("why") or "Unhandled Error")
    try:
        return str(event["log_format"].format_map(event))
    except Exception:  # Twisted's slower function can call fields, and survives values that can't be shown
        return formatEvent(event)


def _failure(event: LogEvent) -> Any:
    return event.get("failure" if _older(event) else "log_failure")


def _shortage(event: LogEvent) -> str:
    """The missing resource and its place, if the event is a failure for lack of a resource; else ``""``."""
    error = getattr(_failure(event), "value", None)
    if not isinstance(error, OSError) or error.errno not in _SHORTAGES:
        return ""
    where = "" if error.filename is None else f": {safe_str(error.filename)}"
    return os.strerror(error.errno) + where


def _traceback(event: LogEvent) -> str:
    failure = _failure(event)
    if failure is None or _shortage(event):
        return ""
    try:
        return str(failure.getTraceback())
    except Exception:  # the exception can't be shown as text
        return safe_str(failure.type)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _quoted(value: object) -> str:
    text = safe_str(value)
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(quoted)}"'


def _json_value(value: object) -> Any:
    try:
        dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return safe_str(value)
    return value
