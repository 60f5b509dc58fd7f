"""The common part of commands that list things: the options ``--json`` and ``--format``, and the printing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from scheduler.cli.tables import Column, Format, draw, json_line
from scheduler.cli.wording import Object

F = TypeVar("F", bound=Callable[..., Any])

#: Fields of a job, of a worker and of a token, named as in the API.
JOB_FIELDS = (
    *("id", "worker_id", "worker_name", "state", "reason"),
    *("command", "args", "path", "cwd", "env", "labels", "script"),
    *("timeout", "linger", "stop_grace", "stop_signal", "stop_mode", "umask", "output_limit", "unattended_timeout"),
    *("created_by", "created_at", "started_at", "finished_at", "exit_code", "signal"),
    *("stop_requested_at", "remove_requested_at"),
    *("stdout_bytes", "stderr_bytes", "output_error", "leftover", "background_ended", "usage"),
    *("group_id", "retry_of", "retried_by", "orphan", "queue_timeout", "priority", "retry", "waiting_for"),
)
WORKER_FIELDS = (
    *("id", "name", "address", "labels", "slots", "state", "reason", "draining", "last_seen", "running_jobs"),
    *("version", "features", "disk", "clock_difference"),
)
TOKEN_FIELDS = (
    *("id", "name", "scope", "workers", "created_at", "created_by", "expires_at", "expired", "last_used_at"),
)


def listing_options(fields: Sequence[str], example: str) -> Callable[[F], F]:
    """Make the decorator that adds ``--json`` (``as_json``) and ``--format`` (``line_format``) for these fields."""

    def decorate(function: F) -> F:
        format_option = click.option(
            "--format",
            "line_format",
            metavar="FORMAT",
            callback=lambda _context, _parameter, value: None if value is None else Format(value, fields),
            help=f"A line of this form for each, such as '{example}'. Fields: {', '.join(fields)}.",
        )
        json_option = click.option(
            "--json", "as_json", is_flag=True, help="A line of JSON for each, with the fields of the API, for programs."
        )
        return json_option(format_option(function))

    return decorate


def print_listing(
    found: Iterable[Object],
    columns: Sequence[Column],
    as_json: bool,
    line_format: Format | None,
    names: str | None = None,
) -> int:
    """Print the objects or, with ``names``, the field of that name alone. Returns the number of objects.

    Lines are printed as objects arrive, a table once all have arrived.
    """
    if as_json and line_format is not None:
        raise click.UsageError("--json and --format can't be given together.")
    count = 0
    if not (as_json or line_format or names):
        rows = list(found)
        click.echo(draw(columns, rows), nl=False)
        return len(rows)
    for each in found:
        count += 1
        if names:
            click.echo(each[names])
        else:
            click.echo(json_line(each) if line_format is None else line_format.line(each))
    return count
