"""Names of workers as users type them."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator

from scheduler.cli.failures import Failure, of_client
from scheduler.client import ApiProblem, Client, ClientError

#: Names suggested in one message.
_MAX_SUGGESTIONS = 3


@contextlib.contextmanager
def of_worker(client: Client, name: str | None, url: str) -> Iterator[None]:
    """Runs a request about this worker. If it does not exist, the ``Failure`` suggests similar names."""
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
