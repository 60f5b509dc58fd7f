"""``schedctl rm``: remove jobs that have ended."""

from __future__ import annotations

from collections.abc import Sequence

import click

import scheduler.client
from scheduler.cli.completion import complete_job
from scheduler.cli.failures import of_client, say
from scheduler.cli.ids import resolve
from scheduler.cli.session import Session, pass_session


@click.command(
    "rm",
    epilog="\b\nExamples:\n"
    "  schedctl rm 5f3a9c21\n"
    "  schedctl rm $(schedctl ps -a -q --state succeeded --ended-until 7d)\n",
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_job)
@pass_session
def command(session: Session, ids: Sequence[str]) -> int:
    """Remove jobs that have ended, with their output.

    If the worker of a job can't be reached now, the job is removed when it can be. An ID can be shortened to a prefix
    of at least 6 characters that only one job has.
    """
    code = 0
    with session.client() as client:
        for job_id in [resolve(client, each) for each in ids]:
            try:
                if not client.remove(job_id):
                    say(f"{job_id} will be removed when its worker can be reached.")
            except scheduler.client.ApiProblem as problem:
                failure = of_client(problem, session.connection.url)
                failure.show()
                code = failure.code
    return code
