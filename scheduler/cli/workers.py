"""``schedctl workers``, ``drain``, ``resume`` and ``forget``."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

import scheduler.client
from scheduler.cli.completion import complete_worker
from scheduler.cli.failures import Failure, say
from scheduler.cli.listing import WORKER_FIELDS, listing_options, print_listing
from scheduler.cli.naming import of_worker
from scheduler.cli.options import DURATION, seconds
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import Column, Format, terminal
from scheduler.cli.wording import STATE_COLOURS, Object, labels, moment, size, span

#: Seconds between two queries of ``drain --wait``.
DRAIN_INTERVAL = 1.0

#: The exit code of ``drain --wait`` if its timeout is over, as for timeout(1).
TIMED_OUT = 124

_names = click.argument("names", metavar="WORKER...", nargs=-1, required=True, shell_complete=complete_worker)


def columns(now: float) -> Sequence[Column]:
    """The columns of a table of workers; ``now`` is the wall clock's POSIX time."""

    def seen(worker: Object) -> str:
        when = moment(worker.get("last_seen"))
        return "not yet" if when is None else f"{span(now - when)} ago"

    return (
        Column("NAME", lambda worker: worker["name"]),
        Column("STATE", _state, lambda worker: STATE_COLOURS.get(worker["state"], "")),
        Column("JOBS", _jobs, right=True),
        Column("SEEN", seen, right=True),
        Column("VERSION", lambda worker: worker.get("version") or ""),
        Column("DISK FREE", _disk, right=True),
        Column("LABELS", lambda worker: labels(_without_name(worker))),
        Column("WHY", lambda worker: worker.get("reason") or "", shrinks=True),
    )


def _state(worker: Object) -> str:
    return f"{worker['state']}, drained" if worker.get("draining") else str(worker["state"])


def _jobs(worker: Object) -> str:
    """The number of running jobs, and of slots."""
    slots = worker.get("slots")
    return str(worker["running_jobs"]) if slots is None else f"{worker['running_jobs']}/{slots}"


def _disk(worker: Object) -> str:
    disk = worker.get("disk")
    return "" if disk is None else size(disk["free"])


def _without_name(worker: Object) -> Object:
    """The worker without the label ``name``, which every worker has and the first column shows."""
    return {"labels": {key: value for key, value in worker["labels"].items() if key != "name"}}


@click.command(
    "workers",
    epilog="\b\nExamples:\n"
    "  schedctl workers\n"
    "  schedctl workers --format '{name} {state} {labels.gpu}'\n"
    "  schedctl workers --json | jq -r 'select(.state != \"online\") | .name'\n",
)
@listing_options(WORKER_FIELDS, "{name} {state}")
@pass_session
def command(session: Session, as_json: bool, line_format: Format | None) -> None:
    """List workers: state, running jobs and slots, when they were last seen, version, free disk, labels.

    Online means that scheduler and worker reach each other. Offline means that the worker was stopped while it had no
    jobs. WHY says what keeps a worker from taking jobs.
    """
    with session.client() as client:
        found = sorted((worker.data for worker in client.workers()), key=lambda worker: worker["name"])
    count = print_listing(found, columns(time.time()), as_json, line_format)
    if not count and terminal():
        say("No worker has registered; `schedctl doctor` says how to start one.")


@click.command(
    "drain",
    epilog="\b\nExamples:\n"
    "  schedctl drain box\n"
    "  schedctl drain --wait box && ssh box reboot\n"
    "  schedctl drain --wait --timeout 2h box1 box2\n",
)
@_names
@click.option("--wait", is_flag=True, help="Wait until no job runs there any more.")
@click.option("--timeout", type=DURATION, help="With --wait: the longest wait (90s, 5m, 2h); then exit with 124.")
@pass_session
def drain(session: Session, names: Sequence[str], wait: bool, timeout: str | None) -> int:
    """Place nothing more on WORKERs. Jobs that run there continue.

    `schedctl resume` lets them take jobs again. To end what runs there: `schedctl stop $(schedctl ps -q --on WORKER)`.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    deadline = None if timeout is None else time.monotonic() + seconds(timeout)
    with session.client(waits=wait) as client:
        for name in names:
            with of_worker(client, name, session.connection.url):
                worker = client.drain(name)
            if not wait:
                running = f"; {_count(worker.running_jobs)} there" if worker.running_jobs else ""
                say(f"{worker.name} is drained{running}.")
        if not wait:
            return 0
        left = list(names)
        try:
            _wait_until_empty(client, left, deadline)
        except KeyboardInterrupt:
            say(f"schedctl: interrupted. {_stays(left)}")
            raise
    if left:
        say(f"schedctl: the time is over, and jobs still run on {', '.join(left)}. {_stays(left)}")
    return TIMED_OUT if left else 0


def _stays(names: Sequence[str]) -> str:
    them = " ".join(names)
    return f"`schedctl resume {them}` undoes the draining, `schedctl drain --wait {them}` waits on."


def _wait_until_empty(client: scheduler.client.Client, left: list[str], deadline: float | None) -> None:
    """Remove each worker without running jobs from ``left``, until it is empty or ``deadline`` has passed."""
    told: dict[str, tuple[int, str]] = {}
    while True:
        for name in tuple(left):
            worker = client.worker(name)
            if not worker.draining:
                raise Failure(f"{worker.name} was resumed by someone", "Drain it again to wait for its jobs.")
            now = worker.running_jobs, worker.state
            if told.get(name) != now:
                say(_progress(worker))
                told[name] = now
            if not worker.running_jobs:
                left.remove(name)
        if not left or (deadline is not None and time.monotonic() >= deadline):
            return
        time.sleep(DRAIN_INTERVAL)


def _progress(worker: scheduler.client.Worker) -> str:
    if not worker.running_jobs:
        return f"{worker.name} is drained, and no job runs there."
    unreachable = "" if worker.state == "online" else f" It is {worker.state}: {worker.reason}."
    return f"{worker.name} is drained; {_count(worker.running_jobs)} there.{unreachable}"


def _count(jobs: int) -> str:
    return "1 job still runs" if jobs == 1 else f"{jobs} jobs still run"


@click.command("resume", epilog="\b\nExamples:\n  schedctl resume box\n  schedctl resume box1 box2\n")
@_names
@pass_session
def resume(session: Session, names: Sequence[str]) -> None:
    """Let drained WORKERs take jobs again."""
    with session.client() as client:
        for name in names:
            with of_worker(client, name, session.connection.url):
                say(f"{client.resume(name).name} takes jobs again.")


@click.command("forget", epilog="\b\nExamples:\n  schedctl forget old-box\n  schedctl forget old-box1 old-box2\n")
@_names
@pass_session
def forget(session: Session, names: Sequence[str]) -> None:
    """Forget WORKERs that are gone for good. Their unfinished jobs are lost.

    A worker that is online can't be forgotten: stop it first. One that is forgotten and starts again registers anew.
    """
    with session.client() as client:
        for name in names:
            with of_worker(client, name, session.connection.url):
                client.forget(name)
            say(f"{name} is forgotten.")
