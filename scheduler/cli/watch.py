"""Watches a job until its end. Its output goes to stdout and stderr; its changes are reported on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from attrs import define

from scheduler.cli.interrupts import Interrupts
from scheduler.cli.status import Status
from scheduler.cli.streams import write_all
from scheduler.cli.wording import short_id, span
from scheduler.client import ApiProblem, Changed, Client, ClientError, Ended, Job, Output, OutputLost

#: The descriptor for each stream of a job.
DESCRIPTORS = {"stdout": 1, "stderr": 2}

#: Seconds that a wait must last to be shown, and seconds for a broken connection if stderr is no terminal: stderr may
#: be a file with the job's stderr, and a short break is not worth a line there.
_SHOWN_AFTER_SECONDS, _BREAK_SHOWN_AFTER_SECONDS = 1.0, 10.0

#: Seconds between two queries for the place of a queued job.
_PLACE_INTERVAL_SECONDS = 5.0

#: Seconds between two queries of a job that is watched only until it starts.
LOOK_INTERVAL = 1.0


@define(eq=False)
class Watch:
    """Watches one job and its retries."""

    _status: Status
    _interrupts: Interrupts
    #: Seconds for which a job may be ``unknown`` before it is given up.
    _patience: float
    #: Makes a client for another thread.
    _new_client: Callable[[], Client]
    #: The clock of ``_status``.
    _clock: Callable[[], float] = time.monotonic
    #: The start of each of these conditions; ``None`` while it does not hold.
    _queued_since: float | None = None
    _unknown_since: float | None = None
    #: The job runs, but its state has a reason that is worth showing.
    _remarked_since: float | None = None
    _trouble_since: float | None = None
    _trouble: str | None = None
    #: The watched attempt, as last seen.
    job: Job | None = None
    #: Output that could not be read, and why.
    lost: str | None = None

    def trouble(self, why: str | None) -> None:
        """Note why the scheduler can't be reached, or ``None`` when it can be; the ``on_trouble`` of a client."""
        self._trouble = why
        if why is None:
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = self._clock()
        self._show()

    def until_end(self, client: Client, job_id: str, job: Job | None) -> Job:
        """Watch the job and its retries, and return the last one at its end. ``job``: the job as it was accepted.

        Raises ``ClientError`` if watching is impossible, ``GaveUp`` if the job stays ``unknown``, ``BrokenPipeError``.
        """
        if job is not None:
            self.seen(job)
        while True:
            job = self._attempt(client, job_id)
            self.seen(job)
            if job.output_error:
                self._status.note(f"the output of job {job.id} was cut: {job.output_error}")
            if job.leftover:
                pids = ", ".join(map(str, job.leftover))
                self._status.note(f"processes of job {job.id} could not be ended: {pids}")
            if job.retried_by is None:
                return job
            self._status.note(f"job {job.id} {job.state}: {job.reason}; trying again as job {job.retried_by}")
            job_id = job.retried_by

    def _attempt(self, client: Client, job_id: str) -> Job:
        try:
            for event in client.follow(job_id):
                if isinstance(event, Output):
                    self._status.done()
                    write_all(DESCRIPTORS[event.stream], event.data)
                elif isinstance(event, Changed):
                    self.seen(event.job)
                elif isinstance(event, Ended):
                    return event.job
        except OutputLost as error:
            self.lost = str(error)
            self._status.note(f"{error}; waiting for the end of the job")
        except ApiProblem as problem:
            if problem.type != "unsupported":
                raise
            self._status.note(f"{problem}; waiting for the end of the job without its output")
        return client.wait(job_id)

    def seen(self, job: Job) -> None:
        self.job = job
        if job.state != "unknown":
            self._unknown_since = None
            self._interrupts.deadline(None)
        elif self._unknown_since is None:
            self._unknown_since = self._clock()
            self._interrupts.deadline(self._patience)
        if not job.reason or job.state not in {"starting", "running"}:
            self._remarked_since = None
        elif self._remarked_since is None:
            self._remarked_since = self._clock()
        if job.state == "queued" and self._queued_since is None:
            self._queued_since = self._clock()
            if self._status.on_terminal:
                threading.Thread(target=self._keep_place, args=(job.id,), daemon=True).start()
        self._show()

    def _show(self) -> None:
        job = self.job
        if self._trouble_since is not None:
            after = _SHOWN_AFTER_SECONDS if self._status.on_terminal else _BREAK_SHOWN_AFTER_SECONDS
            self._status.waiting(
                f"no connection to the scheduler, trying again: {self._trouble}", after, self._trouble_since
            )
        elif job is not None and job.state == "queued" and self._queued_since is not None:
            self._status.waiting(queue_text(job), _SHOWN_AFTER_SECONDS, self._queued_since)
        elif job is not None and self._unknown_since is not None:
            text = f"job {short_id(job.data)} is unknown, waiting for its worker: {job.reason}"
            self._status.waiting(text, _SHOWN_AFTER_SECONDS, self._unknown_since)
        elif job is not None and self._remarked_since is not None:
            text = f"job {short_id(job.data)} is {job.state}: {job.reason}"
            self._status.waiting(text, _SHOWN_AFTER_SECONDS, self._remarked_since)
        else:
            told = self._status.done()
            if told and self._queued_since is not None and job is not None and not job.final:
                waited = span(self._clock() - self._queued_since)
                self._status.note(f"job {short_id(job.data)} starts on {job.worker_name} after {waited} in the queue")
            self._queued_since = None

    def _keep_place(self, job_id: str) -> None:
        """Keep the shown place in the queue up to date, in a thread: no event says that jobs before it were started."""
        with self._new_client() as client:
            while True:
                time.sleep(_PLACE_INTERVAL_SECONDS)
                try:
                    job = client.job(job_id)
                except ClientError:
                    continue  # the connection that follows the job reports the failure
                if job.state != "queued" or self._queued_since is None:
                    return
                if self._trouble_since is None:
                    self._status.reword(queue_text(job))


def queue_text(job: Job) -> str:
    """A clause that says that the job is queued, and why."""
    waiting = job.waiting_for
    if waiting is None:
        return f"job {short_id(job.data)} is queued" + (f": {job.reason}" if job.reason else "")
    return f"job {short_id(job.data)} is queued, place {waiting.place}: {waiting.detail}"


def out_of_queue(client: Client, job_id: str, status: Status, deadline: float | None = None) -> Job:
    """Wait until the job is no longer queued, or until ``deadline`` (``time.monotonic``). Raises ``ClientError``."""
    job, since = client.job(job_id), time.monotonic()
    while job.state == "queued" and (deadline is None or time.monotonic() < deadline):
        status.waiting(queue_text(job), LOOK_INTERVAL, since)
        left = LOOK_INTERVAL if deadline is None else min(LOOK_INTERVAL, max(0.0, deadline - time.monotonic()))
        job = client.job(job_id, wait=left)
    status.done()
    return job
