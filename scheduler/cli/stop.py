"""``schedctl stop``."""

from __future__ import annotations

import click

from scheduler.cli.completion import complete_job
from scheduler.cli.failures import OWN_FAILURE, Failure, of_client, say
from scheduler.cli.ids import resolve
from scheduler.cli.session import Session, pass_session
from scheduler.client import ClientError


@click.command(
    "stop",
    epilog="\b\nExamples:\n"
    "  schedctl stop 3f0c9a12\n"
    "  schedctl stop 3f0c9a12 77d1e0ab\n"
    "  schedctl stop $(schedctl ps -q -l team=blue)\n",
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_job)
@pass_session
def command(session: Session, ids: tuple[str, ...]) -> int:
    """Stop jobs, and wait for their verified end.

    The ids of the jobs that are stopped, or had ended, are printed. A job whose worker can't be reached now is stopped
    when it can be. An id can be shortened to a prefix that only one job has.
    """
    code = 0
    with session.client() as client:
        for text in ids:
            try:
                job = client.stop(resolve(client, text))
            except (Failure, ClientError) as error:
                failure = error if isinstance(error, Failure) else of_client(error, session.connection.url)
                failure.show()
                code = OWN_FAILURE
                continue
            click.echo(job.id)
            if not job.final:
                say(f"schedctl: job {job.id} will be stopped as soon as its worker can be told")
    return code
