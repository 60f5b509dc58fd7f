"""``schedctl logs``."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread

import click

from scheduler.cli.completion import complete_job
from scheduler.cli.failures import say
from scheduler.cli.naming import resolve
from scheduler.cli.session import Session, pass_session
from scheduler.cli.status import Status
from scheduler.cli.streams import write_all
from scheduler.cli.watch import DESCRIPTORS, out_of_queue, queue_text
from scheduler.cli.wording import printable, short_id
from scheduler.client import Client, Job


@click.command(
    "logs",
    epilog="\b\nExamples:\n"
    "  schedctl logs 3f0c9a12\n"
    "  schedctl logs -f --tail 20 3f0c9a12\n"
    "  schedctl logs --stderr 3f0c9a12 | less\n"
    "  schedctl logs 3f0c9a12 > stdout 2> stderr\n",
)
@click.option("-f", "--follow", is_flag=True, help="Follow the output until the job has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.option("--stdout", "only", flag_value="stdout", help="Only its stdout.")
@click.option("--stderr", "only", flag_value="stderr", help="Only its stderr, on our stdout.")
@click.argument("job", metavar="ID", shell_complete=complete_job)
@pass_session
def command(session: Session, job: str, follow: bool, tail: int | None, only: str | None) -> None:
    """Show the output of a job: its stdout on our stdout, its stderr on our stderr.

    Without -f the present output is shown, stdout first. With -f both streams are shown as they are written, until the
    job has ended; Ctrl-C ends this, and not the job. If the job was retried, this is about the one attempt with that
    id. An id can be shortened to a prefix that only one job has.
    """
    with session.client(waits=follow) as client:
        job_id = resolve(client, job)
        if follow:
            with Status() as status:
                out_of_queue(client, job_id, status)
        if only is not None:
            written = _copy(client.output(job_id, only, tail=tail, follow=follow), 1)
        elif follow:
            written = _follow_both(client, job_id, tail)
        else:
            found = [_copy(client.output(job_id, name, tail=tail), number) for name, number in DESCRIPTORS.items()]
            written = any(found)
        if not written:
            _tell_why_there_is_none(client.job(job_id))


def _tell_why_there_is_none(job: Job) -> None:
    """Say why there is no output, if the job never ran. A job that ran may simply have written nothing."""
    if job.started_at is None:
        is_now = "did not start" if job.state == "failed" else f"is {job.state}"
        why = queue_text(job) if job.state == "queued" else f"job {short_id(job.data)} {is_now}: {job.reason}"
        say(f"schedctl: there is no output: {printable(why)}")


def _copy(pieces: Iterator[bytes], descriptor: int) -> bool:
    """Write all pieces to the descriptor. Returns whether there were any."""
    written = False
    for data in pieces:
        write_all(descriptor, data)
        written = True
    return written


def _follow_both(client: Client, job_id: str, tail: int | None) -> bool:
    """Follow each stream in a separate thread. Raises the first failure. Returns whether there was any output."""
    ended: SimpleQueue[BaseException | bool] = SimpleQueue()

    def follow(stream: str, descriptor: int) -> None:
        try:
            ended.put(_copy(client.output(job_id, stream, tail=tail, follow=True), descriptor))
        except BaseException as error:
            ended.put(error)

    written = False
    for stream, descriptor in DESCRIPTORS.items():
        Thread(target=follow, args=(stream, descriptor), daemon=True).start()
    for _ in DESCRIPTORS:
        result = ended.get()
        if isinstance(result, BaseException):
            raise result
        written = written or result
    return written
