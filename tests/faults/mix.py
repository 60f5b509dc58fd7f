"""What the load is made of."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


@frozen
class Mix:
    """Shares are from 0 to 1."""

    #: Starts a second.
    rate: float = 5.0
    #: Seconds a job runs, at least and at most.
    shortest: float = 0.0
    longest: float = 2.0
    #: Of the starts, with an idempotency key.
    keys: float = 0.5
    #: Of the starts, by ``POST /start``.
    core: float = 0.2
    #: Of the other starts, those that are answered at the end of the job, with its output, and those that are answered
    #: with the output of the job, which is read from the same answer on.
    answered: float = 0.15
    streamed: float = 0.25
    #: Of the starts on a worker that is named, those that wait when it can't be reached.
    waiting: float = 0.3
    #: Of the jobs, stopped by a client.
    stops: float = 0.1
    #: Of the jobs, those that get signals, those that are waited for by a look, and those that are removed.
    signals: float = 0.15
    waits: float = 0.15
    removals: float = 0.15
    #: Of the jobs, those that run only while a client attends them: half of them are attended, half are not.
    unattended: float = 0.08
    #: Of the jobs, those whose output passes a filter that outlives the main process, and those that leave a process
    #: behind that has nothing to do with the output.
    filtered: float = 0.2
    background: float = 0.1
    #: Of the jobs, those whose program is a script that is sent along, and those that are sent something to read.
    scripts: float = 0.15
    stdins: float = 0.2
    #: Of the jobs, those that are tried again when they fail; those that would run for ever but for their ``timeout``,
    #: and as many whose timeout is long; those that write more than their ``output_limit``, and as many that do not.
    retries: float = 0.08
    timeouts: float = 0.04
    limits: float = 0.04
    #: Of the jobs, followed to their end.
    followed: float = 0.5
    #: Threads that start jobs, and threads that follow them.
    starters: int = 2
    readers: int = 4
    #: Threads that look at jobs, and looks a second of each.
    watchers: int = 1
    looks: float = 10.0
    #: Of the starts, on one of the workers that are named here; the others say that any will do.
    named: float = 0.5
    workers: Sequence[str] = ("w1",)


USUAL = Mix()
