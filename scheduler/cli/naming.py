"""Jobs and workers as users name them: a job by its id, or a prefix that only one job has, and a worker by its name."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from itertools import islice

from scheduler.cli.failures import Failure, of_client
from scheduler.cli.wording import clock_time, command_line
from scheduler.client import ApiProblem, Client, ClientError, Job

#: Characters of a whole id, and of the shortest prefix.
ID_CHARACTERS, PREFIX_MIN_CHARACTERS = 36, 6

#: Jobs listed if a prefix is not unique.
_MAX_SHOWN_JOBS = 10

#: Characters of the commands of such jobs that are shown.
_COMMAND_MAX_CHARACTERS = 60

#: Names suggested in one message.
_MAX_SUGGESTIONS = 3


def resolve(client: Client, text: str) -> str:
    """The id of the job with this id or prefix. Raises ``Failure`` if no job has it, or several have."""
    if len(text) >= ID_CHARACTERS:
        return text
    if len(text) < PREFIX_MIN_CHARACTERS:
        raise Failure(
            f"{text!r} is too short for the id of a job",
            f"Give at least its first {PREFIX_MIN_CHARACTERS} characters; `schedctl ps -a` shows ids.",
        )
    found = list(islice(client.jobs(id_prefix=text), _MAX_SHOWN_JOBS + 1))
    exact = [job.id for job in found if job.id == text]
    if exact or len(found) == 1:
        return exact[0] if exact else found[0].id
    if not found:
        raise Failure(f"no job has an id that begins with {text!r}", "`schedctl ps -a` shows the ids of jobs.")
    lines = [_line(job) for job in found[:_MAX_SHOWN_JOBS]]
    more = ["  ..."] if len(found) > _MAX_SHOWN_JOBS else []
    raise Failure(
        f"more than one job has an id that begins with {text!r}", "\n".join(["Give more of it:", *lines, *more])
    )


def _line(job: Job) -> str:
    started = clock_time(job.data.get("started_at")) or "(not started)"
    return f"  {job.id}  {started}  {command_line(job.data)[:_COMMAND_MAX_CHARACTERS]}"


@contextlib.contextmanager
def of_worker(client: Client, name: str | None, url: str) -> Iterator[None]:
    """A context for a request to the scheduler at ``url`` about a worker; ``None``: the request names no worker.

    Raises a ``Failure`` that suggests similar names if no worker is called ``name``. Other errors pass unchanged.
    """
    try:
        yield
    except ApiProblem as problem:
        if problem.type != "worker-unknown" or name is None:
            raise
        failure = of_client(problem, url)
        near = _near(client, name)
        step = f"Did you mean {' or '.join(near)}? {failure.next_step}" if near else failure.next_step
        raise Failure(failure.message, step, failure.code) from problem


def _near(client: Client, name: str) -> list[str]:
    """Names of workers that resemble ``name``; empty if they can't be fetched."""
    try:
        names = {worker.name.lower(): worker.name for worker in client.workers()}
    except ClientError:
        return []
    return [names[each] for each in difflib.get_close_matches(name.lower(), names, _MAX_SUGGESTIONS)]
