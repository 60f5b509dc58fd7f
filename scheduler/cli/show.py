"""``schedctl show``: everything known about a job, in words."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from scheduler.cli.completion import complete_job
from scheduler.cli.listing import JOB_FIELDS, listing_options, print_listing
from scheduler.cli.naming import resolve
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import Format, paint
from scheduler.cli.wording import (
    STATE_COLOURS,
    Object,
    clock_time,
    command_line,
    labels,
    moment,
    printable,
    run_time,
    size,
    span,
)

#: Characters for the names of rows, including the gap behind a name.
_NAME_WIDTH = 12


@click.command(
    "show",
    epilog="\b\nExamples:\n"
    "  schedctl show 5f3a9c21\n"
    "  schedctl show --json 5f3a9c21 | jq .env\n"
    "  schedctl show --format '{state} {exit_code}' 5f3a9c21\n",
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_job)
@listing_options(JOB_FIELDS, "{id} {state}")
@pass_session
def command(session: Session, ids: Sequence[str], as_json: bool, line_format: Format | None) -> None:
    """Show all that is known of jobs: state and why, times, exit, memory and processor time, output.

    An ID can be shortened to a prefix of at least 6 characters that only one job has.
    """
    with session.client() as client:
        jobs = [client.job(resolve(client, each)).data for each in ids]
    if as_json or line_format:
        print_listing(jobs, (), as_json, line_format)
        return
    click.echo("\n".join(describe(job, time.time()) for job in jobs), nl=False)


def describe(job: Object, now: float) -> str:
    """The rows about a job, each with its newline; ``now`` is the wall clock's POSIX time."""
    rows = [("job", str(job["id"])), *_state(job, now), ("command", command_line(job)), *_about(job), *_times(job, now)]
    rows += [*_exit(job), *_output(job), *_attempts(job)]
    colours = {"state": STATE_COLOURS.get(job["state"], "")}
    lines = (f"{name:<{_NAME_WIDTH}}{paint(printable(text), colours.get(name, ''))}\n" for name, text in rows)
    return "".join(lines)


def _state(job: Object, now: float) -> Iterator[tuple[str, str]]:
    state, reason, waits = job["state"], job.get("reason"), job.get("waiting_for")
    yield "state", f"{state}: {reason}" if reason else state
    if waits is not None:
        yield "waiting for", f"{waits['detail']} (place {waits['place']} in the queue)"
    if job.get("orphan"):
        yield "", "its worker still runs it: `schedctl stop` ends it"
    if job.get("stop_requested_at"):
        yield "stop", f"requested {_when(job['stop_requested_at'], now)}"
    if job.get("remove_requested_at"):
        yield "removal", f"requested {_when(job['remove_requested_at'], now)}; done when its worker can be reached"


def _about(job: Object) -> Iterator[tuple[str, str]]:
    if job.get("worker_name") or job.get("worker_id"):
        yield "worker", job.get("worker_name") or job["worker_id"]
    if job.get("cwd"):
        yield "folder", job["cwd"]
    if job.get("labels"):
        yield "labels", labels(job)
    if job.get("env"):
        yield "variables", ", ".join(sorted(job["env"]))


def _times(job: Object, now: float) -> Iterator[tuple[str, str]]:
    by = f" by {job['created_by']}" if job.get("created_by") else ""
    yield "created", _when(job["created_at"], now) + by
    created, started = moment(job["created_at"]), moment(job.get("started_at"))
    if started is not None:
        waited = started - created if created is not None else 0.0
        yield "started", _when(job["started_at"], now) + (f", after {span(waited)}" if waited >= 1 else "")
    if job.get("finished_at"):
        ran = run_time(job, now)
        yield "ended", _when(job["finished_at"], now) + ("" if ran is None else f", ran {span(ran)}")
    elif started is not None:
        yield "running for", span(now - started)
    if job.get("timeout") is not None:
        yield "timeout", span(job["timeout"])


def _exit(job: Object) -> Iterator[tuple[str, str]]:
    if job.get("exit_code") is not None:
        yield "exit code", str(job["exit_code"])
    if job.get("signal"):
        yield "signal", job["signal"]
    if (usage := job.get("usage")) is not None:
        yield "used", f"{size(usage['max_rss'])} of memory at most, {span(usage['cpu_seconds'])} of processor time"
    if job.get("background_ended"):
        count = job["background_ended"]
        processes = "1 process was" if count == 1 else f"{count} processes were"
        yield "background", f"{processes} ended after the main process"
    if job.get("leftover"):
        yield "left running", f"processes that could not be ended: {', '.join(map(str, job['leftover']))}"


def _output(job: Object) -> Iterator[tuple[str, str]]:
    sizes = [
        f"{name} {size(count)}" for name in ("stdout", "stderr") if (count := job.get(f"{name}_bytes")) is not None
    ]
    if sizes:
        yield "output", ", ".join(sizes)
    if job.get("output_error"):
        yield "", f"not all of it was kept: {job['output_error']}"


def _attempts(job: Object) -> Iterator[tuple[str, str]]:
    if (retry := job.get("retry")) is not None:
        delay = f", {span(retry['delay'])} apart" if retry["delay"] else ""
        left = retry["attempts"]
        yield "retry", f"up to {left} more attempt{'' if left == 1 else 's'}{delay}" if left else "no more attempts"
    if job.get("retry_of"):
        yield "retry of", job["retry_of"]
    if job.get("retried_by"):
        yield "retried by", job["retried_by"]
    if job.get("group_id") and job["group_id"] != job["id"]:
        yield "group", job["group_id"]


def _when(text: str, now: float) -> str:
    when = moment(text)
    return "at an unknown time" if when is None else f"{clock_time(text)} ({span(now - when)} ago)"
