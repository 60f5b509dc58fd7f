"""The fields of a submission, and their JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

#: A duration: seconds, or text like ``"90s"``, ``"5m"``, ``"1h"``.
Duration = float | str


class JobFields(TypedDict, total=False):
    """The fields of ``POST /v1/jobs`` (``docs/api.md``), as keyword arguments.

    Exactly one of ``worker`` and ``selector`` is needed, and exactly one of ``command`` (an argument of its own in
    ``run`` and ``submit``), ``shell`` and ``script``. The scheduler refuses unknown fields by name.
    """

    #: Id or name of the worker.
    worker: str
    #: Labels of the worker; ``{}``: any worker.
    selector: Mapping[str, str]
    #: A line for ``/bin/sh -c``.
    shell: str
    #: Text of a script, which its ``#!`` line runs.
    script: str
    path: str
    args: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    #: ``str`` is sent as UTF-8.
    stdin: bytes | str
    #: The job's timeout: after it, the worker ends the job as ``timed_out``.
    timeout: Duration | None
    unattended_timeout: Duration | None
    linger: Duration
    stop_grace: Duration
    stop_signal: str
    stop_mode: str
    #: Octal text: ``"0027"``.
    umask: str
    labels: Mapping[str, str]
    merge_stderr: bool
    #: Bytes, or text like ``"100MB"``.
    output_limit: int | str | None
    queue_timeout: Duration
    priority: int
    #: ``{"attempts": 3, "delay": "1m"}``.
    retry: Mapping[str, Any] | None


def body_of(command: str | Sequence[str] | None, fields: JobFields) -> dict[str, Any]:
    """The JSON object of a submission. Raises ``ValueError`` for a contradiction.

    ``command`` as a list is the command and its arguments. A field that is ``None`` is left out.
    """
    body: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if command is not None:
        if isinstance(command, str):
            body["command"] = command
        else:
            if not command:
                raise ValueError("command must not be empty")
            body["command"], *args = command
            if args and (body.get("args") or body.get("path")):
                raise ValueError("a command with its arguments goes with neither args nor path")
            if args:
                body["args"] = args
    if "args" in body:
        body["args"] = list(body["args"])
    for name in ("env", "labels", "selector", "retry"):
        if name in body:
            body[name] = dict(body[name])
    if isinstance(body.get("stdin"), (bytes, bytearray, memoryview)):
        body["stdin_base64"] = base64.b64encode(body.pop("stdin")).decode("ascii")
    return body
