"""``schedctl token``: makes, lists and revokes tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

import scheduler.client
from scheduler.cli.failures import Failure, say
from scheduler.cli.listing import TOKEN_FIELDS, listing_options, print_listing
from scheduler.cli.options import KeyValue
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import Column, Format, terminal
from scheduler.cli.wording import Object, clock_time, labels, moment, span


@click.group(
    "token",
    epilog="\b\nExamples:\n"
    "  schedctl token create ci --scope run --expires 90d\n"
    "  schedctl token create gpu --scope run --workers gpu=1 -q > gpu.token\n"
    "  schedctl token ls\n"
    "  schedctl token revoke ci\n",
)
def command() -> None:
    """Make, list and revoke tokens.

    A token with the scope read may look at jobs, output and workers; run may also start and stop jobs; admin may do
    everything. These commands need the scope admin.
    """


@command.command("create", epilog="\b\nExamples:\n  schedctl token create ci --scope run --expires 90d\n")
@click.argument("name", metavar="NAME")
@click.option("--scope", type=click.Choice(("read", "run", "admin")), required=True, help="What it may do.")
@click.option(
    "--workers",
    type=KeyValue(),
    multiple=True,
    help="Only workers with this label are within its reach; several labels: repeat it.",
)
@click.option("--expires", metavar="DURATION|TIME", help="When it expires: 90d, or 2026-05-01T12:00:00Z [never].")
@click.option("-q", "--quiet", is_flag=True, help="Print the token alone, also on a terminal.")
@pass_session
def create(
    session: Session, name: str, scope: str, workers: Sequence[tuple[str, str]], expires: str | None, quiet: bool
) -> None:
    """Make a token, and print it. It is not shown again.

    NAME has letters, digits, '.', '_' and '-'. What is done with the token has this name.
    """
    with session.client() as client:
        made = client.create_token(name, scope, workers=dict(workers), expires=expires)
    click.echo(made.token)
    if terminal() and not quiet:
        until = f" It expires at {clock_time(made.data.get('expires_at'))}." if made.expires_at else ""
        say(f"Keep it: it is not shown again.{until} `schedctl token revoke {made.name}` revokes it.")


def columns(now: float) -> Sequence[Column]:
    """The columns of a table of tokens; ``now`` is the wall clock's POSIX time."""

    def expires(token: Object) -> str:
        when = moment(token.get("expires_at"))
        if when is None:
            return "never"
        return "expired" if token.get("expired") else f"in {span(when - now)}"

    def used(token: Object) -> str:
        when = moment(token.get("last_used_at"))
        return "not yet" if when is None else f"{span(now - when)} ago"

    return (
        Column("NAME", lambda token: token["name"]),
        Column("ID", lambda token: token["id"]),
        Column("SCOPE", lambda token: token["scope"]),
        Column("EXPIRES", expires),
        Column("USED", used, right=True),
        Column("CREATED BY", lambda token: token.get("created_by") or ""),
        Column("WORKERS", lambda token: labels({"labels": token.get("workers")}) or "all", shrinks=True),
    )


@command.command("ls", epilog="\b\nExamples:\n  schedctl token ls\n  schedctl token ls --format '{name} {scope}'\n")
@listing_options(TOKEN_FIELDS, "{name} {scope}")
@pass_session
def listed(session: Session, as_json: bool, line_format: Format | None) -> None:
    """List tokens: name, id, scope, when they expire and were last used, who made them, and their reach."""
    with session.client() as client:
        found = [token.data for token in client.tokens()]
    print_listing(found, columns(time.time()), as_json, line_format)


@command.command("revoke", epilog="\b\nExamples:\n  schedctl token revoke ci\n")
@click.argument("names", metavar="NAME|ID...", nargs=-1, required=True)
@pass_session
def revoke(session: Session, names: Sequence[str]) -> None:
    """Revoke tokens, by name or id, at once.

    Streams of a revoked token are cut, and its queued jobs are stopped. Its jobs that run go on.
    """
    with session.client() as client:
        for token in [_find(client, name) for name in names]:
            client.revoke_token(token.id)
            say(f"The token {token.name} ({token.id}) is revoked.")


def _find(client: scheduler.client.Client, text: str) -> scheduler.client.Token:
    """The token with this id or, if there is none, with this name. Raises ``Failure`` if there is no such token."""
    tokens = client.tokens()
    for token in (*(each for each in tokens if each.id == text), *(each for each in tokens if each.name == text)):
        return token
    raise Failure(f"there is no token {text!r}", "`schedctl token ls` lists the tokens.")
