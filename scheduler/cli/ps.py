"""``schedctl ps``: list jobs."""

from __future__ import annotations

import heapq
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

import scheduler.client
from scheduler.cli.completion import complete_worker
from scheduler.cli.failures import say
from scheduler.cli.listing import JOB_FIELDS, listing_options, print_listing
from scheduler.cli.naming import of_worker
from scheduler.cli.options import KeyValue
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import Column, Format, draw, paint, redrawn, terminal
from scheduler.cli.wording import (
    STATE_COLOURS,
    UNFINISHED,
    Object,
    age,
    command_line,
    ending,
    printable,
    run_time,
    short_id,
    span,
)

#: Seconds between two updates with ``--watch``.
WATCH_INTERVAL = 2.0

STATES = ("queued", "starting", "running", "unknown", "succeeded", "failed", "stopped", "timed_out", "lost")

_AGO = re.compile(r"[0-9.]+(ms|s|m|h|d)")


class Moment(click.ParamType[str]):
    """A point in time in the API's form: ``12h`` ago, RFC 3339, or a date and time in this machine's zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _AGO.fullmatch(value):
            return str(value)
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time. Give 12h for so long ago, or a time like 2024-05-01 22:00", param, ctx)
        return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def columns(now: float) -> Sequence[Column]:
    """The columns of a table of jobs; ``now`` is the wall clock's POSIX time."""
    return (
        Column("ID", short_id),
        Column("WORKER", lambda job: job.get("worker_name") or ""),
        Column("STATE", _state, lambda job: STATE_COLOURS.get(job["state"], "")),
        Column("AGE", lambda job: _span(age(job, now)), right=True),
        Column("RAN", lambda job: _span(run_time(job, now)), right=True),
        Column("EXIT", ending, right=True),
        Column("COMMAND", command_line, shrinks=True),
    )


def _span(seconds: float | None) -> str:
    return "" if seconds is None else span(seconds)


def _state(job: Object) -> str:
    """The job's state, with a note for a lost job that turned out to run."""
    return f"{job['state']}, runs" if job.get("orphan") else str(job["state"])


def _split_states(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> Sequence[str]:
    found = [name.strip() for value in values for name in value.split(",")]
    for name in found:
        if name not in STATES:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(STATES)}")
    return found


@click.command(
    "ps",
    epilog="\b\nExamples:\n"
    "  schedctl ps\n"
    "  schedctl ps -a -n 20\n"
    "  schedctl ps -a --state failed --since 12h\n"
    "  schedctl ps --on box --watch\n"
    "  schedctl stop $(schedctl ps -q -l team=blue)\n"
    "  schedctl ps -a --format '{id} {state} {labels.team}'\n"
    "  schedctl ps -a --json | jq -r 'select(.exit_code == 2) | .id'\n",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also list ended jobs.")
@click.option("-n", "most", metavar="N", type=click.IntRange(1), help="Only the newest N.")
@click.option(
    "--on", "worker", metavar="WORKER", shell_complete=complete_worker, help="Jobs of this worker, by name or id."
)
@click.option(
    "--state",
    "states",
    metavar="STATE",
    multiple=True,
    callback=_split_states,
    shell_complete=lambda _context, _parameter, incomplete: [each for each in STATES if each.startswith(incomplete)],
    help=f"Those in this state, ended or not; may be repeated, or a list with commas. {', '.join(STATES)}.",
)
@click.option(
    "-l", "--label", type=KeyValue(), multiple=True, help="Jobs with this label; if repeated, all must match."
)
@click.option("--by", "created_by", metavar="WHO", help="Jobs that WHO submitted.")
@click.option(
    "--since",
    "created_after",
    metavar="TIME",
    type=Moment(),
    help="Created after TIME: 12h (ago), or '2024-05-01 22:00'.",
)
@click.option("--until", "created_before", metavar="TIME", type=Moment(), help="Created before TIME.")
@click.option("--ended-since", "finished_after", metavar="TIME", type=Moment(), help="Ended after TIME.")
@click.option("--ended-until", "finished_before", metavar="TIME", type=Moment(), help="Ended before TIME.")
@click.option("--group", "group_id", metavar="ID", help="All attempts of the job with this group_id.")
@click.option("-w", "--watch", is_flag=True, help=f"Show them anew every {WATCH_INTERVAL:g} s, until Ctrl-C.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the whole ids.")
@listing_options(JOB_FIELDS, "{id} {state}")
@pass_session
def command(
    session: Session,
    /,
    everything: bool,
    most: int | None,
    states: Sequence[str],
    watch: bool,
    quiet: bool,
    as_json: bool,
    line_format: Format | None,
    **filters: Any,
) -> None:
    """List jobs, the newest first: those that have not ended, or with -a all.

    A filter for ended jobs (--state, --ended-since, --ended-until, --group) finds them without -a.
    """
    if quiet and (as_json or line_format):
        raise click.UsageError("-q can't be given together with --json or --format.")
    filters["label"] = dict(filters["label"])
    wanted = {name: value for name, value in filters.items() if value}
    unfinished = not (everything or states or wanted.keys() & {"finished_after", "finished_before", "group_id"})
    if states:
        wanted["state"] = ",".join(states)
    with session.client() as client:

        def find() -> Iterator[Object]:
            with of_worker(client, filters["worker"], session.connection.url):
                yield from islice(_find(client, wanted, unfinished, most), most)

        if watch:
            if not redrawn() or as_json or line_format or quiet:
                raise click.UsageError("--watch shows a table on a terminal that can be redrawn.")
            _watch(lambda: draw(columns(time.time()), list(find())))
            return
        count = print_listing(find(), columns(time.time()), as_json, line_format, "id" if quiet else None)
    if not count and terminal() and not quiet:
        say("No job waits or runs; `schedctl ps -a` shows those that have ended." if unfinished else "No job matches.")


def _find(
    client: scheduler.client.Client, filters: Mapping[str, Any], unfinished: bool, most: int | None
) -> Iterator[Object]:
    """Find jobs, newest first. Orphans are final for the scheduler but still run, so they count as unfinished."""
    if not unfinished:
        yield from (job.data for job in client.jobs(**filters, limit=most))
        return
    running = (job.data for job in client.jobs(**filters, state=",".join(UNFINISHED), limit=most))
    orphans = (job.data for job in client.jobs(**filters, orphan=True, limit=most))
    yield from heapq.merge(running, orphans, key=lambda job: job["created_at"], reverse=True)


def _watch(table: Callable[[], str]) -> None:
    """Draw the table again and again, over the previous one, until Ctrl-C."""
    try:
        shown = table()  # a failure of the first fetch ends the command
        click.echo("\x1b[2J", nl=False)
        while True:
            click.echo(screen(shown), nl=False)
            time.sleep(WATCH_INTERVAL)
            try:
                shown = table()
            except scheduler.client.ClientError as error:
                shown = f"{paint(printable(str(error)), 'red')}\n"
    except KeyboardInterrupt:
        return


def screen(table: str) -> str:
    """The text that redraws the terminal: as many lines as it has, each to its right end, and nothing below.

    Line wrapping is off meanwhile. Otherwise a line wider than the terminal would push other lines off the screen.
    """
    lines = table.splitlines()
    height = max(shutil.get_terminal_size().lines - 1, 2)
    if len(lines) > height:
        lines = [*lines[: height - 1], f"... and {len(lines) - height + 1} more"]
    return "\x1b[?7l\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J\x1b[?7h"
