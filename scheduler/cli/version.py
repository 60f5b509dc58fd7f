"""``schedctl version``."""

from __future__ import annotations

import click

from scheduler import __version__
from scheduler.cli.session import Session, pass_session
from scheduler.cli.tables import json_line


@click.command(
    "version", epilog="\b\nExamples:\n  schedctl version\n  schedctl version --client\n  schedctl version --json\n"
)
@click.option("--client", "own", is_flag=True, help="Only the version of schedctl; no scheduler is asked.")
@click.option("--json", "as_json", is_flag=True, help='One line of JSON: {"schedctl", "scheduler", "url"}.')
@pass_session
def command(session: Session, own: bool, as_json: bool) -> None:
    """Show the versions of schedctl and of the scheduler."""
    if not as_json:
        click.echo(f"schedctl   {__version__}")
    if own:
        if as_json:
            click.echo(json_line({"schedctl": __version__, "scheduler": None, "url": None}))
        return
    with session.client() as client:
        theirs = client.version().version
    url = session.connection.url
    if as_json:
        click.echo(json_line({"schedctl": __version__, "scheduler": theirs, "url": url}))
    else:
        click.echo(f"scheduler  {theirs}  ({url})")
