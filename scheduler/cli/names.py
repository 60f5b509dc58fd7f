"""Names of workers as people type them."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator

from scheduler.cli.failures import Failure, of_client
from scheduler.client import ApiProblem, Client, ClientError

#: Names that one message suggests.
_MOST_SUGGESTED = 3


@contextlib.contextmanager
def of_worker(client: Client, name: str | None, url: str) -> Iterator[None]:
    """Something is asked of the worker of that name; where there is none, the ``Failure`` has names like it."""
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
    """Names of workers like that one; none if they can't be had."""
    try:
        names = {worker.name.lower(): worker.name for worker in client.workers()}
    except ClientError:
        return []
    return [names[each] for each in difflib.get_close_matches(name.lower(), names, _MOST_SUGGESTED)]
