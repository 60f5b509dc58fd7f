"""The composition of the load."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


@frozen
class Mix:
    """Shares are from 0 to 1."""

    #: Starts a second.
    rate: float = 5.0
    #: Seconds that a job runs, at least and at most.
    shortest: float = 0.0
    longest: float = 2.0
    #: Share of starts with an idempotency key.
    keys: float = 0.5
    #: Share of starts by ``POST /start``.
    core: float = 0.2
    #: Shares of the other starts: answered at the job's end, with its output, and answered with the job's output as it
    #: comes.
    answered: float = 0.15
    streamed: float = 0.25
    #: Share of starts on a named worker that wait if it can't be reached.
    waiting: float = 0.3
    #: Share of jobs that a client stops.
    stops: float = 0.1
    #: Shares of jobs that get signals, whose end is awaited by a GET, and that are removed.
    signals: float = 0.15
    waits: float = 0.15
    removals: float = 0.15
    #: Share of jobs that run only while a client attends them; half of these are attended, half are not.
    unattended: float = 0.08
    #: Shares of jobs whose output passes a filter that outlives the main process, and that leave a process behind which
    #: does not use the output.
    filtered: float = 0.2
    background: float = 0.1
    #: Shares of jobs that are a script in the request, and that are sent input.
    scripts: float = 0.15
    stdins: float = 0.2
    #: Shares of jobs with a retry, of jobs that would run for ever but for their ``timeout`` (as many have a long one),
    #: and of jobs that exceed their ``output_limit`` (as many do not).
    retries: float = 0.08
    timeouts: float = 0.04
    limits: float = 0.04
    #: Share of jobs that are followed to their end.
    followed: float = 0.5
    #: Threads that start jobs, and threads that follow them.
    starters: int = 2
    readers: int = 4
    #: Threads that observe jobs, and observations per second of each.
    watchers: int = 1
    looks: float = 10.0
    #: Share of starts on one of the named workers; the others take any worker.
    named: float = 0.5
    workers: Sequence[str] = ("w1",)


USUAL = Mix()
