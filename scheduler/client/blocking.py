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
from typing import Concatenate, ParamSpec, TypeVar, Unpack

from scheduler.client.address import DEFAULT_URL, read_target
from scheduler.client.blocking_channel import Channel, new_pool
from scheduler.client.exchange import Deliver, Script, Source, Trouble
from scheduler.client.operations import Operations, presented
from scheduler.client.submission import JobFields
from scheduler.client.values import Job, Result

T = TypeVar("T")
P = ParamSpec("P")


def _method(operation: Callable[Concatenate[Operations, P], Script[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._do(operation(client._operations, *args, **kwargs))

    return presented(method, operation)


def _iterator(
    operation: Callable[Concatenate[Operations, P], Source[T]],
) -> Callable[Concatenate[Client, P], Iterator[T]]:
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return client._iterate(operation(client._operations, *args, **kwargs))

    return presented(method, operation)


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
        """Make a client. It connects with the first request.

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

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

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

    submit = _method(Operations.submit)
    job = _method(Operations.job)
    jobs = _iterator(Operations.jobs)
    wait = _method(Operations.wait)
    stop = _method(Operations.stop)
    stop_matching = _method(Operations.stop_matching)
    signal = _method(Operations.signal)
    remove = _method(Operations.remove)

    output = _iterator(Operations.output)
    follow = _iterator(Operations.follow)

    workers = _method(Operations.workers)
    worker = _method(Operations.worker)
    drain = _method(Operations.drain)
    resume = _method(Operations.resume)
    forget = _method(Operations.forget)

    create_token = _method(Operations.create_token)
    tokens = _method(Operations.tokens)
    revoke_token = _method(Operations.revoke_token)
    audit = _iterator(Operations.audit)

    version = _method(Operations.version)
    ready = _method(Operations.ready)

    def _channel(self) -> Channel:
        if self._process != os.getpid():  # a forked child must not use its parent's connections
            self._pool, self._process = new_pool(self._target, self._ca_file), os.getpid()
        return Channel(self._pool, self._target, self._timeout, Trouble(self._on_trouble))

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
