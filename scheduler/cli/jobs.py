"""``schedctl stop``, ``signal`` and ``rm``: commands that act on jobs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from scheduler.cli.completion import complete_job, complete_signal
from scheduler.cli.failures import OWN_FAILURE, Failure, of_client, say
from scheduler.cli.naming import resolve
from scheduler.cli.session import Session, pass_session
from scheduler.client import ApiProblem, ClientError

_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_job)


@click.command(
    "stop",
    epilog="\b\nExamples:\n"
    "  schedctl stop 3f0c9a12\n"
    "  schedctl stop 3f0c9a12 77d1e0ab\n"
    "  schedctl stop $(schedctl ps -q -l team=blue)\n",
)
@_ids
@pass_session
def stop(session: Session, ids: Sequence[str]) -> int:
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
def signal(session: Session, job: str, name: str, tree: bool) -> None:
    """Send SIGNAL (SIGUSR1, usr1) to a running job.

    To end a job use `schedctl stop`, which makes sure that no process of it is left. An id can be shortened to a prefix
    that only one job has.
    """
    name = name.upper()
    with session.client() as client:
        client.signal(
            resolve(client, job), name if name.startswith("SIG") else f"SIG{name}", to="tree" if tree else "main"
        )


@click.command(
    "rm",
    epilog="\b\nExamples:\n"
    "  schedctl rm 5f3a9c21\n"
    "  schedctl rm $(schedctl ps -a -q --state succeeded --ended-until 7d)\n",
)
@_ids
@pass_session
def remove(session: Session, ids: Sequence[str]) -> int:
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
            except ApiProblem as problem:
                failure = of_client(problem, session.connection.url)
                failure.show()
                code = failure.code
    return code
