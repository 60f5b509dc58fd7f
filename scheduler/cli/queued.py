"""Waits until a job is no longer queued, and shows why it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from scheduler.cli.status import Status
from scheduler.cli.watch import queue_text
from scheduler.client import Client, Job

#: Seconds between two queries of a queued job.
LOOK_INTERVAL = 1.0


def out_of_queue(
    client: Client,
    job_id: str,
    status: Status,
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Job:
    """The job once it is no longer queued, or its state at ``deadline``, a time of ``clock``; ``ClientError``."""
    job, since = client.job(job_id), clock()
    while job.state == "queued" and (deadline is None or clock() < deadline):
        status.waiting(queue_text(job), LOOK_INTERVAL, since)
        left = LOOK_INTERVAL if deadline is None else min(LOOK_INTERVAL, max(0.0, deadline - clock()))
        job = client.job(job_id, wait=left)
    status.done()
    return job
