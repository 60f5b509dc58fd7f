"""``schedctl wait``."""

from __future__ import annotations

import time

import click

from scheduler.cli.completion import complete_job
from scheduler.cli.failures import MAY_HAVE_RUN, Failure
from scheduler.cli.naming import resolve
from scheduler.cli.options import DURATION, seconds
from scheduler.cli.outcome import outcome
from scheduler.cli.session import Session, pass_session
from scheduler.cli.status import Status
from scheduler.cli.watch import out_of_queue
from scheduler.client import Client, ConnectionFailed, Job, WaitTimedOut


@click.command(
    "wait",
    epilog="\b\nExamples:\n"
    "  schedctl wait 3f0c9a12\n"
    "  schedctl wait --timeout 5m 3f0c9a12 && echo ok\n"
    "  id=$(schedctl run --detach -- make) && schedctl wait $id\n",
)
@click.option("--timeout", type=DURATION, help="Give up after this time, with 121; the job continues.")
@click.argument("job", metavar="ID", shell_complete=complete_job)
@pass_session
def command(session: Session, job: str, timeout: str | None) -> int:
    """Wait for the end of a job, and exit as it did.

    The exit codes are those of `schedctl run`. If the job is retried, its last attempt counts. An id can be shortened
    to a prefix that only one job has.
    """
    with session.client(waits=True) as client, Status() as status:
        job_id = resolve(client, job)
        limit = None if timeout is None else seconds(timeout)
        code, sentence = outcome(_last_attempt(client, status, job_id, limit))
        if sentence is not None:
            status.note(sentence)
        return code


def _last_attempt(client: Client, status: Status, job_id: str, timeout: float | None) -> Job:
    """Wait for the end of a job's last attempt. Raises ``Failure`` if it does not come within ``timeout`` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    following: str | None = job_id
    while following is not None:
        try:
            job = out_of_queue(client, following, status, deadline)
            if not job.final:
                job = client.wait(following, None if deadline is None else max(0.0, deadline - time.monotonic()))
        except WaitTimedOut as error:
            message = f"job {error.job.id} has not ended within {timeout:g} s"
            raise Failure(message, f"`schedctl show {error.job.id}` shows how it is.", MAY_HAVE_RUN) from None
        except ConnectionFailed as error:
            message = f"job {following} can't be waited for any longer: {error}"
            raise Failure(message, f"Repeat it: `schedctl wait {following}`.", MAY_HAVE_RUN) from None
        following = job.retried_by
    return job
