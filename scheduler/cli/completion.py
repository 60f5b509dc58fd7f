"""Shell completion of workers, recent jobs, contexts, signals and files, and the shells' scripts.

If the candidates can't be fetched, or not quickly, none are offered. Nothing else may be printed, because the user is
typing a command line.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
from collections.abc import Callable
from itertools import islice

import click
from click.shell_completion import CompletionItem, get_completion_class

import scheduler.client
from scheduler.cli.contexts import config_file, load
from scheduler.cli.failures import Failure
from scheduler.cli.session import Session
from scheduler.cli.wording import SHORT_ID, Object, command_line

#: Seconds to wait for candidates, while the user waits at a prompt.
COMPLETION_TIMEOUT = 2.0

#: Recent jobs whose ids are offered.
MAX_OFFERED_JOBS = 50

SHELLS = ("bash", "zsh", "fish")


def complete_worker(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete names of workers; a ``shell_complete`` of click."""
    return [
        CompletionItem(worker["name"], help=worker["state"])
        for worker in _ask(ctx, "workers")
        if worker["name"].startswith(incomplete)
    ]


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete ids of the newest jobs, shortened if possible; a ``shell_complete`` of click."""
    return [
        CompletionItem(_shown_id(job, incomplete), help=f"{job['state']}: {command_line(job)}"[:60])
        for job in _ask(ctx, "jobs")
        if job["id"].startswith(incomplete)
    ]


def complete_context(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete names of contexts; a ``shell_complete`` of click."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Failure):
        named = load(config_file(os.environ)).named
        return [CompletionItem(name, help=named[name].url) for name in named if name.startswith(incomplete)]
    return []


def complete_signal(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete signals with or without SIG, in upper or lower case as typed; a ``shell_complete`` of click."""
    names = [name for name in signal.Signals.__members__ if not name.startswith("SIGRT")]
    if not incomplete.upper().startswith("S"):
        names = [name.removeprefix("SIG") for name in names]
    if incomplete and not incomplete.isupper():
        names = [name.lower() for name in names]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _complete_path(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    return lambda _ctx, _param, incomplete: [CompletionItem(incomplete, type=kind)]


#: Files and folders of this machine, found by the shell; each a ``shell_complete`` of click.
complete_file, complete_folder = _complete_path("file"), _complete_path("dir")


def _shown_id(job: Object, incomplete: str) -> str:
    return str(job["id"] if len(incomplete) > SHORT_ID else job["id"][:SHORT_ID])


def _ask(ctx: click.Context, what: str) -> list[Object]:
    """Fetch workers or jobs; empty if they can't be fetched in time."""
    options = ctx.find_root().params
    session = Session(
        options.get("url"), options.get("token"), options.get("context"), options.get("ca_file"), os.environ
    )
    found: list[Object] = []
    # A client's timeout does not cover the resolving of a name, so the request is made in a thread.
    thread = threading.Thread(target=_fetch_thd, args=(session, what, found), daemon=True)
    thread.start()
    thread.join(COMPLETION_TIMEOUT)
    return [] if thread.is_alive() else found


def _fetch_thd(session: Session, what: str, found: list[Object]) -> None:
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(scheduler.client.ClientError, Failure, OSError),
        session.client(timeout=COMPLETION_TIMEOUT, patience=0) as client,
    ):
        if what == "workers":
            found += [worker.data for worker in client.workers()]
        else:
            found += [job.data for job in islice(client.jobs(limit=MAX_OFFERED_JOBS), MAX_OFFERED_JOBS)]


@click.command(
    "completion",
    epilog="\b\nExamples:\n"
    "  schedctl completion bash > ~/.local/share/bash-completion/completions/schedctl\n"
    "  schedctl completion zsh > ~/.zfunc/_schedctl\n"
    "  schedctl completion fish > ~/.config/fish/completions/schedctl.fish\n",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def script(ctx: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, workers and recent jobs.

    Put it where the shell looks for such scripts, as in the examples, or load it in a session:
    eval "$(schedctl completion bash)".
    """
    kind = get_completion_class(shell)
    assert kind is not None  # one of SHELLS
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "schedctl", "_SCHEDCTL_COMPLETE").source())
