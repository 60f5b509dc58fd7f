"""The failure of a command: a sentence, a next step, and an exit code.

A command raises ``Failure``, or an exception of ``scheduler.client`` that ``main`` turns into one.
"""

from __future__ import annotations

import contextlib
from typing import IO, Any

import click

import scheduler.client
from scheduler.cli.wording import printable

#: Exit code: schedctl failed, nothing was started, and the command can be repeated.
OWN_FAILURE = 125
#: Exit code: a job may have run, and its outcome is not known.
MAY_HAVE_RUN = 121
#: Exit codes if schedctl was interrupted, or its output has no reader any more: 128 plus the signal's number.
INTERRUPTED, BROKEN_PIPE = 130, 141

#: Options of ``schedctl`` itself and their values, which some users type behind the command.
_GLOBAL_OPTIONS = {"--url": "URL", "--token": "TOKEN", "--context": "NAME", "--ca-file": "FILE"}

#: The next step for a problem, by the problem's type; ``{url}`` is the scheduler's, ``{path}`` the command.
_NEXT_STEPS = {
    "worker-unknown": "`schedctl workers` lists the workers.",
    "job-unknown": "`schedctl ps -a` lists the jobs.",
    "token-unknown": "`schedctl token ls` lists the tokens.",
    "name-taken": "`schedctl token revoke NAME` revokes a token of that name; or choose another name.",
    "worker-unreachable": "`schedctl workers` says why it can't be reached; `schedctl doctor` looks for the cause.",
    "worker-draining": "`schedctl resume WORKER` lets it take jobs again.",
    "no-match": "`schedctl workers` shows the labels of workers, and which of them take jobs.",
    "invalid-request": "Correct that; `{path} --help` shows what there is, with examples.",
    "no-free-slot": "Repeat it later, or let the job wait: --queue-timeout 1h.",
    "too-many-requests": "Repeat it later; end other commands of yours that follow jobs.",
    "queue-full": "Repeat it later; `schedctl ps --state queued` shows what waits.",
    "job-not-running": "`schedctl show ID` shows the state of the job.",
    "job-not-ended": "`schedctl stop ID` stops the job.",
    "left-running": "`schedctl show ID` names the processes; end them on that machine.",
    "worker-online": "It is the program `twistd worker` on that machine.",
    "output-pruned": "`schedctl show ID` shows what is still known of the job.",
    "output-gone": "`schedctl show ID` shows what is still known of the job.",
    "output-cut": "`schedctl show ID` shows why.",
    "host-not-allowed": "Use a name or an address that the scheduler accepts (allowed_hosts in its configuration).",
    "unsupported": "`schedctl workers` shows the version and the features of each worker.",
    "store-failing": "Nothing was started. `schedctl doctor` looks for the cause; repeat it later.",
    "shutting-down": "Repeat it when the scheduler is back.",
    "busy": "Repeat it later.",
    "route-unknown": "Is {url} a scheduler of this version? `schedctl version` shows both.",
    "refused": "Use a token that is permitted to do it (--token, SCHEDULER_TOKEN, or token of the context).",
    "unauthenticated": "Give a valid token (--token, SCHEDULER_TOKEN, or token of the context), or use sudo there.",
    "scope-needed": "Use a token with that scope (--token, SCHEDULER_TOKEN, or token of the context).",
    "conflict": "`schedctl workers` and `schedctl show ID` show how things are now.",
    "output-unknown": "`schedctl show ID` shows what is still known of the job.",
    "output-unavailable": "`schedctl logs -f ID` shows the output when it can be had.",
    "key-in-use": "Repeat it in a moment: the first command with that --key has not been answered yet.",
    "key-unsettled": "Repeat it with the same --key: it is carried out once.",
    "key-reused": "Give another --key, or the very command that this one was given to.",
    "job-removed": "Give another --key to run it again.",
    "body-too-large": "Put large input where the job can read it; a request has room for 1 MiB.",
    "worker-fault": "See the log of that worker.",
    "unavailable": "Repeat it later; `schedctl workers` shows what keeps workers from taking jobs.",
    "timeout": "It may have been done: look with `schedctl show ID` or `schedctl workers` before you repeat it.",
    "start-unanswered": "`schedctl show ID` shows what becomes of it; do not repeat it before that is known.",
    "not-ready": "`schedctl doctor` looks for the cause.",
    "internal": "The scheduler's log has the details under that id.",
}

_UNREACHABLE = (
    "Check the address (--url, --context or SCHEDULER_URL; that of [http_server]), and whether the scheduler runs; "
    "`schedctl doctor` looks for the cause."
)


class Failure(click.ClickException):
    """Ends the command. ``message`` is a sentence about the failure, ``next_step`` a remedy."""

    def __init__(self, message: str, next_step: str = "", code: int = OWN_FAILURE) -> None:
        super().__init__(message)
        self.next_step = next_step
        #: The exit code.
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - click's signature
        say(f"schedctl: {printable(self.message)}")
        for line in self.next_step.splitlines():
            say(printable(line))


def _path() -> str:
    """The command that runs, such as ``schedctl ps``."""
    context = click.get_current_context(silent=True)
    if context is None:
        return "schedctl"
    # In the group's context, the command is known only by name.
    return " ".join(filter(None, [context.command_path, context.invoked_subcommand]))


def say(text: str) -> None:
    """Print a line on stderr. If that fails, nothing can be told to the user, so the failure is ignored."""
    with contextlib.suppress(OSError):  # a closed pipe, or a terminal that is gone
        click.echo(text, err=True)


def of_usage(error: click.ClickException) -> Failure:
    """The failure for a command line that click can't parse."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "schedctl"
    message = error.format_message().rstrip(".")
    step = f"`{path} --help` shows what there is, with examples."
    name = getattr(error, "option_name", None)
    if name in _GLOBAL_OPTIONS:
        message = f"{name} stands before the command"
        step = f"`schedctl {name} {_GLOBAL_OPTIONS[name]} {path.partition(' ')[2]} ...`"
    return Failure(message[:1].lower() + message[1:], step)


def of_client(error: scheduler.client.ClientError, url: str) -> Failure:
    """The failure for an exception of the client: a refusal, or a missing answer."""
    message, step = str(error), ""
    if isinstance(error, scheduler.client.ConnectionFailed):
        message, step = f"no answer from {url}: {message}", _UNREACHABLE
        if url.startswith("https:"):
            step += f" If it has no TLS, it is {url.replace('https:', 'http:', 1)}."
    elif isinstance(error, scheduler.client.ApiProblem):
        step = _NEXT_STEPS.get(error.type, "").format(url=url, path=_path())
    return Failure(message, step, MAY_HAVE_RUN if error.started in (True, "unknown") else OWN_FAILURE)
