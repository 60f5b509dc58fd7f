"""The blocking client, for scripts and notebooks without a reactor.

It uses urllib3, which has no dependencies and loads in a few hundredths of a second. Live output needs its ``read1``,
which returns the bytes of a chunked body as they arrive. httpx would need anyio, httpcore, h11 and idna for features
that are not used here. urllib3's own retries, redirects and decoding are off, because only
``scheduler.client.repeating`` knows which requests may be sent twice.

Redirects are not followed, and proxies in the environment are ignored. A request that runs commands, and its token,
must go only to the given URL.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar, Unpack

from scheduler.client.address import DEFAULT_URL, read_target
from scheduler.client.blocking_channel import Channel, new_pool
from scheduler.client.exchange import Deliver, Script, Source
from scheduler.client.operations import Filter, Operations
from scheduler.client.submission import JobFields
from scheduler.client.values import Event, Job, Readiness, Result, Version, Worker

T = TypeVar("T")


class Client:
    """A scheduler's API, one method for each action. Threads may share a client, and so may processes after a fork.

    Every method raises ``ClientError``, or ``ValueError`` for an argument that can't be sent. If an answer is lost, the
    request is repeated for up to ``patience`` seconds, wherever that is safe. A start has an ``Idempotency-Key``, so
    that it happens once, however often it is sent.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        patience: float = 60.0,
        ca_file: str | None = None,
        on_trouble: Callable[[str | None], object] | None = None,
    ) -> None:
        """Does not send anything yet.

        - ``token``: sent as ``Authorization: Bearer``.
        - ``timeout``: seconds without a byte after which an answer counts as lost.
        - ``patience``: seconds for which requests are repeated after a lost answer, a cut stream or
          a restart of the scheduler. 0: never. Does not apply to a scheduler that was never reached.
        - ``ca_file``: PEM, the authorities trusted for https in place of the system's.
        - ``on_trouble`` is called with a clause about the failure before each repetition, and with
          ``None`` when an answer comes after that. It is called in the thread that waits.
        """
        target = read_target(url, token)
        self._target = target
        self._timeout = timeout
        self._ca_file = ca_file
        self._pool, self._process = new_pool(target, ca_file), os.getpid()
        self._on_trouble = on_trouble
        self._operations = Operations(time.monotonic, timeout, patience)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    # -- jobs

    def run(
        self,
        command: str | Sequence[str] | None = None,
        *,
        check: bool = False,
        on_start: Callable[[Job], object] | None = None,
        stop_on_interrupt: bool = False,
        key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Result:
        """Run a command on a worker, and return its exit code and all of its output.

        ``command`` is a program, or a list of it and its arguments; or give ``shell`` or ``script``. ``worker`` or
        ``selector`` chooses the worker. ``fields`` are those of ``JobFields``; its ``timeout`` is the job's, which then
        ends as ``timed_out``. The output is held in memory; for larger output use ``submit`` and ``follow``.

        - ``check``: ``JobFailed`` unless the job ``succeeded``, and ``OutputLost`` if not all of its output was kept.
        - ``on_start`` is called with the job as soon as it is accepted.
        - ``stop_on_interrupt``: stop the job if this call is interrupted (``KeyboardInterrupt``). Otherwise it
          continues, as it does when this process is killed, unless ``unattended_timeout`` ends it.
        - ``key``: an ``Idempotency-Key`` of your own, for a caller that may itself be restarted.

        If the job has ``retry``, the result is that of its last attempt.
        """
        accepted: list[Job] = []

        def started(job: Job) -> None:
            accepted.append(job)
            if on_start is not None:
                on_start(job)

        try:
            return self._do(self._operations.run(command, check, started, key, fields))
        except KeyboardInterrupt:
            if stop_on_interrupt and accepted:
                self.stop(accepted[0].id)
            raise

    def submit(
        self, command: str | Sequence[str] | None = None, *, key: str | None = None, **fields: Unpack[JobFields]
    ) -> Job:
        """Start a job, and return it once it runs or is queued. Arguments are those of ``run``."""
        return self._do(self._operations.submit(command, key, fields))

    def job(self, job_id: str, wait: float | None = None) -> Job:
        """The job. With ``wait``, once it has ended, or its state after so many seconds (at most 300)."""
        return self._do(self._operations.job(job_id, wait))

    def jobs(self, *, limit: int | None = None, **filters: Filter) -> Iterator[Job]:
        """Matching jobs, newest first, ``limit`` at most. Pages are fetched as needed.

        ``filters`` are those of ``GET /v1/jobs``, such as ``state=["failed", "lost"]``, ``label={"team": "web"}``,
        ``created_after="24h"`` or a datetime.
        """
        return self._iterate(self._operations.jobs(limit, filters))

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it has ended; ``WaitTimedOut`` (a ``TimeoutError``) if it has not within ``timeout`` seconds.

        Waits for this attempt only; a job that was retried has ``retried_by``.
        """
        return self._do(self._operations.wait(job_id, timeout))

    def stop(self, job_id: str) -> Job:
        """Stop a job and wait for its end.

        If the job is not ``final`` then, it will be stopped when its worker can be reached. ``ApiProblem`` of type
        ``left-running`` if processes could not be ended.
        """
        return self._do(self._operations.stop(job_id))

    def stop_matching(self, **filters: Filter) -> list[Job]:
        """Stop all matching jobs, and return them in their new state. At least one filter is required.

        The request is not repeated if its answer is lost, because other jobs could match by then.
        """
        return self._do(self._operations.stop_matching(filters))

    def signal(self, job_id: str, signal: str, to: str = "main") -> Job:
        """Send a signal, such as ``"SIGUSR1"``, to the ``main`` process of a running job, or to its whole ``tree``.

        The request is not repeated if its answer is lost, because the signal could arrive twice.
        """
        return self._do(self._operations.signal(job_id, signal, to))

    def remove(self, job_id: str) -> bool:
        """Remove an ended job with its output. ``False``: it will be done when its worker can be reached."""
        return self._do(self._operations.remove(job_id))

    # -- output

    def output(
        self, job_id: str, stream: str = "stdout", offset: int = 0, tail: int | None = None, follow: bool = False
    ) -> Iterator[bytes]:
        """The bytes of one stream, in pieces, from ``offset`` on, or its last ``tail`` lines.

        Returns the present output or, with ``follow``, all of it until the job has ended. A broken connection is
        resumed at the same offset, so the pieces together are the stream. ``OutputLost``: the rest was not kept.
        """
        return self._iterate(self._operations.output(job_id, stream, offset, tail, follow))

    def follow(self, job_id: str, stdout: int = 0, stderr: int = 0) -> Iterator[Event]:
        """Both streams as they are written, from these offsets on, and the changes of the job.

        ``Output`` for bytes, ``Changed`` when the job's state or reason changes, and at last ``Ended``. Resumes by
        itself after a cut connection or a restart of the scheduler, without a lost or repeated byte.
        """
        return self._iterate(self._operations.follow(job_id, stdout, stderr))

    # -- workers

    def workers(self) -> list[Worker]:
        """All workers."""
        return self._do(self._operations.workers())

    def worker(self, name: str) -> Worker:
        """The worker with this id or name."""
        return self._do(self._operations.worker(name))

    def drain(self, name: str) -> Worker:
        """Place no further jobs on a worker."""
        return self._do(self._operations.set_draining(name, True))

    def resume(self, name: str) -> Worker:
        """Undo ``drain``."""
        return self._do(self._operations.set_draining(name, False))

    def forget(self, name: str) -> None:
        """Forget a worker that is not online; its unfinished jobs are lost."""
        self._do(self._operations.forget(name))

    # -- the scheduler

    def version(self) -> Version:
        """The scheduler's version."""
        return self._do(self._operations.version())

    def ready(self) -> Readiness:
        """Whether the scheduler can take work or, if not, why."""
        return self._do(self._operations.ready())

    # -- driving the scripts

    def _channel(self) -> Channel:
        if self._process != os.getpid():  # a forked child must not use its parent's connections
            self._pool, self._process = new_pool(self._target, self._ca_file), os.getpid()
        return Channel(self._pool, self._target, self._timeout, self._on_trouble)

    def _do(self, script: Script[T]) -> T:
        channel = self._channel()
        try:
            step = next(script)
            while True:
                step = script.send(channel.perform(step))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            script.close()
            channel.close()

    def _iterate(self, source: Source[T]) -> Iterator[T]:
        channel = self._channel()
        try:
            result = None
            while True:
                step = source.send(result)
                if isinstance(step, Deliver):
                    result = None
                    yield step.item
                else:
                    result = channel.perform(step)
        except StopIteration:
            return
        finally:
            source.close()
            channel.close()
