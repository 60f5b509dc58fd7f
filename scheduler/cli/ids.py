"""Ids of jobs as users type them: the whole id, or a prefix that only one job has."""

from __future__ import annotations

from itertools import islice

from scheduler.cli.failures import Failure
from scheduler.cli.wording import clock_time, command_line
from scheduler.client import Client, Job

#: Characters of an id that the scheduler chose, and of the shortest prefix.
ID_CHARACTERS, PREFIX_MIN_CHARACTERS = 36, 6

#: Jobs listed if a prefix is not unique.
_MAX_SHOWN_JOBS = 10

#: Characters shown of their commands.
_COMMAND_MAX_CHARACTERS = 60


def resolve(client: Client, text: str) -> str:
    """The id of the one job with this id or prefix; ``Failure`` if there is none, or more than one."""
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
