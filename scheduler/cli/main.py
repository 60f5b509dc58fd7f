"""The entry point of ``schedctl``: its options, and the table of its commands.

A command's module is imported when the command is used. The table contains their help lines, so ``schedctl --help``
imports none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

import scheduler.client
from scheduler.cli.access import next_step
from scheduler.cli.failures import BROKEN_PIPE, INTERRUPTED, MAY_HAVE_RUN, Failure, of_client, of_usage
from scheduler.cli.session import Session
from scheduler.cli.streams import abandon_stdout, prepare

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """A command: the object ``attribute`` in the module ``module`` of ``scheduler.cli``."""

    name: str
    module: str
    help: str
    attribute: str = "command"


#: Sections of ``schedctl --help``, in this order.
COMMANDS: dict[str, tuple[Entry, ...]] = {
    "Jobs": (
        Entry("run", "run", "Run a command on a worker, as if it ran here."),
        Entry("ps", "ps", "List jobs."),
        Entry("show", "show", "Show all that is known of a job."),
        Entry("logs", "logs", "Show the output of a job."),
        Entry("stop", "jobs", "Stop jobs.", "stop"),
        Entry("signal", "jobs", "Send a signal to a running job.", "signal"),
        Entry("wait", "wait", "Wait for the end of a job, and exit as it did."),
        Entry("rm", "jobs", "Remove ended jobs and their output.", "remove"),
    ),
    "Workers": (
        Entry("workers", "workers", "List workers."),
        Entry("drain", "workers", "Place nothing more on workers.", "drain"),
        Entry("resume", "workers", "Let drained workers take jobs again.", "resume"),
        Entry("forget", "workers", "Forget workers that are gone.", "forget"),
    ),
    "Security": (
        Entry("token", "token", "Make, list and revoke tokens."),
        Entry("ca", "ca", "Make and show the certificates of a cluster."),
        Entry("audit", "audit", "List what clients did, and check that the list is whole."),
    ),
    "Help": (
        Entry("doctor", "doctor", "Look for what is wrong, and say what to do about it."),
        Entry("version", "version", "Show the versions of schedctl and of the scheduler."),
        Entry("completion", "completion", "Print the completion script of a shell.", "script"),
    ),
}

_ENTRIES = {entry.name: entry for entries in COMMANDS.values() for entry in entries}


class Commands(click.Group):
    """The group of all commands. It takes names and help lines from ``COMMANDS``."""

    def invoke(self, ctx: click.Context) -> Any:
        """Turn exceptions of the client into a ``Failure``. If stdout's reader has gone, end the command quietly."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1
            abandon_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise  # here, so that the client need not be imported for the next clause
        except scheduler.client.ClientError as error:
            raise self._failure(error, ctx.obj) from error

    @staticmethod
    def _failure(error: scheduler.client.ClientError, session: Session) -> Failure:
        failure = of_client(error, session.connection.url)
        refused = isinstance(error, scheduler.client.ApiProblem) and error.type == "unauthenticated"
        if refused and session.connection.token is None:
            failure.next_step = next_step(session.connection.url, session.environ) or failure.next_step
        return failure

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        return cast(click.Command, getattr(import_module(f"scheduler.cli.{entry.module}"), entry.attribute))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names from the table, without importing a command."""
        completion = import_module("click.shell_completion")
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        found = (entry for entry in _ENTRIES.values() if entry.name.startswith(incomplete))
        return [completion.CompletionItem(entry.name, help=entry.help) for entry in found]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Print the sections of ``COMMANDS``, without importing a command."""
        for title, entries in COMMANDS.items():
            if entries:
                with formatter.section(title):
                    formatter.write_dl([(entry.name, entry.help) for entry in entries])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n"
    "  schedctl run --on box -- make test\n"
    "  schedctl run -s 'echo hi && ls'\n"
    "  schedctl run -l gpu=1 --detach -- python train.py\n",
)
@click.option("--url", metavar="URL", help="The scheduler [env SCHEDULER_URL; http://127.0.0.1:3000].")
@click.option("--token", metavar="TOKEN", help="The token to send [env SCHEDULER_TOKEN].")
@click.option(
    "--context",
    metavar="NAME",
    shell_complete=lambda *asked: import_module("scheduler.cli.completion").complete_context(*asked),
    help="A context of ~/.config/schedctl.toml, in place of --url.",
)
@click.option(
    "--ca-file",
    metavar="FILE",
    help="The authority to trust for https, in place of the system's [env SCHEDULER_CA_FILE].",
)
@click.pass_context
def commands(ctx: click.Context, url: str | None, token: str | None, context: str | None, ca_file: str | None) -> None:
    """Run and watch jobs on the machines of a scheduler."""
    ctx.obj = Session(url, token, context, ca_file, os.environ)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and return its exit code: the number that the command returned, or 0."""
    prepare()
    try:
        code = invoke(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
        return BROKEN_PIPE
    except OSError as error:
        abandon_stdout()
        return _failed(Failure(f"stdout can't be written: {error.strerror}", "Make room there, and repeat it."))
    except Exception:
        sys.excepthook(*sys.exc_info())
        # The exit code differs from Python's 1, which a job could have, too.
        return _failed(Failure("this is a fault of schedctl", "Report it with the lines above.", MAY_HAVE_RUN))
    return code


def invoke(arguments: Sequence[str] | None) -> int:
    """Run a command line, and return its exit code. A failure is shown."""
    given = sys.argv[1:] if arguments is None else arguments
    if "run" not in given and any("\udc80" <= char <= "\udcff" for char in "".join(given)):
        return _failed(Failure("the command line is not UTF-8, and no name or id is so", "Type it anew."))
    try:
        result = commands.main(args=arguments, prog_name="schedctl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _failed(error if isinstance(error, Failure) else of_usage(error))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _failed(failure: Failure) -> int:
    failure.show()
    return failure.code
