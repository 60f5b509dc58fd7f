"""``schedctl signal``."""

from __future__ import annotations

import click

from scheduler.cli.completion import complete_job, complete_signal
from scheduler.cli.ids import resolve
from scheduler.cli.session import Session, pass_session


@click.command(
    "signal",
    epilog="\b\nExamples:\n"
    "  schedctl signal 3f0c9a12 SIGUSR1\n"
    "  schedctl signal 3f0c9a12 hup\n"
    "  schedctl signal --tree 3f0c9a12 INT\n",
)
@click.option("--tree", is_flag=True, help="Send it to all processes of the job, not only to its main process.")
@click.argument("job", metavar="ID", shell_complete=complete_job)
@click.argument("name", metavar="SIGNAL", shell_complete=complete_signal)
@pass_session
def command(session: Session, job: str, name: str, tree: bool) -> None:
    """Send SIGNAL (SIGUSR1, usr1) to a running job.

    To end a job use `schedctl stop`, which makes sure that no process of it is left. An id can be shortened to a prefix
    that only one job has.
    """
    name = name.upper()
    with session.client() as client:
        client.signal(
            resolve(client, job), name if name.startswith("SIG") else f"SIG{name}", to="tree" if tree else "main"
        )
