"""``schedctl audit`` and ``schedctl audit verify``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from scheduler.cli.failures import Failure
from scheduler.cli.listing import listing_options, print_listing
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import Column, Format
from scheduler.cli.wording import Object, clock_time, printable, short_id
from scheduler.security.audit import Anchor, entry_of, verify

#: Fields of an entry, named as in the API.
ENTRY_FIELDS = (
    *("seq", "time", "who", "from", "uid", "action", "target", "worker", "result", "request_id", "details", "hash"),
)

#: Rows that are listed unless ``--limit`` is given.
ROWS = 50


def _target(entry: Object) -> str:
    """The target: of a job the part of its id that other tables show, too."""
    if entry["action"] in ("start", "stop", "signal", "remove", "read") and entry["target"]:
        return short_id({"id": entry["target"]})
    return printable(entry["target"])


def _colour(entry: Object) -> str:
    return "green" if entry["result"] == "ok" else "yellow" if entry["result"] == "unchanged" else "red"


COLUMNS: Sequence[Column] = (
    Column("ROW", lambda entry: str(entry["seq"]), right=True),
    Column("TIME", lambda entry: clock_time(entry["time"])),
    Column("WHO", lambda entry: printable(entry["who"]) or "-"),
    Column("FROM", lambda entry: printable(entry["from"]) or "-"),
    Column("ACTION", lambda entry: printable(entry["action"])),
    Column("TARGET", _target, shrinks=True),
    Column("WORKER", lambda entry: printable(entry["worker"])),
    Column("RESULT", lambda entry: printable(entry["result"]), _colour),
)


class AnchorType(click.ParamType[Anchor]):
    """``SEQ:HASH``."""

    name = "seq:hash"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Anchor:
        if isinstance(value, Anchor):
            return value
        try:
            return Anchor.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}.", param, ctx)


@click.group(
    "audit",
    invoke_without_command=True,
    epilog="\b\nExamples:\n"
    "  schedctl audit --since 24h\n"
    "  schedctl audit --who token:ci --json | jq -c .details\n"
    "  schedctl audit verify\n",
)
@click.option("--who", metavar="PRINCIPAL", help="Only acts of this principal, like token:ci or local:root.")
@click.option("--action", metavar="ACTION", help="Only these acts, like start, stop or refused.")
@click.option("--since", metavar="TIME", help="Only acts since then: a time, or 24h for so long ago.")
@click.option("--until", metavar="TIME", help="Only acts before then.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=ROWS, show_default=True, help="Rows at most.")
@listing_options(ENTRY_FIELDS, "{time} {who} {action} {target}")
@click.pass_context
def command(
    ctx: click.Context,
    who: str | None,
    action: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
    line_format: Format | None,
) -> None:
    """List acts of clients, newest first: who did what, from where, and with which result.

    `schedctl audit verify` checks that nobody has changed the list.
    """
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    with session.client() as client:
        entries = client.audit(limit=limit, who=who, action=action, since=since, until=until)
        print_listing(entries, COLUMNS, as_json, line_format)


@command.command(
    "verify",
    epilog="\b\nExamples:\n  schedctl audit verify\n  schedctl audit verify --anchor 1742:9f2c...\n",
)
@click.option(
    "--anchor",
    type=AnchorType(),
    metavar="SEQ:HASH",
    help="Also check that this row is there with this hash, as an older log has it.",
)
@pass_session
def verify_command(session: Session, anchor: Anchor | None) -> int:
    """Check that each row of the audit follows from the one before. Exits with 1 if one does not.

    Somebody who can write to the database can make all rows anew. An anchor from a log that was kept elsewhere shows
    that: the lines `audit head SEQ HASH`.
    """
    with session.client() as client:
        try:
            verdict = verify(map(entry_of, client.audit()), anchor)
        except ValueError as error:
            raise Failure(
                f"the answer can't be checked: {error}", "Use a schedctl of the scheduler's version."
            ) from None
    if verdict.broken:
        click.echo(f"The audit was changed: {verdict.why}.")
    else:
        click.echo(f"{verdict.count} rows, and each follows from the one before.")
    if verdict.anchored is False and anchor is not None:
        last = f"its last row is {verdict.head.seq}" if anchor.seq > verdict.head.seq else "that row has another hash"
        click.echo(f"The anchor {anchor} is not in the audit: {last}.")
    elif verdict.anchored:
        click.echo(f"The anchor is row {anchor and anchor.seq}.")
    click.echo(f"Head: {verdict.head}")
    return 0 if verdict.intact else 1
