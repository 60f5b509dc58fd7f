"""Signals that clients send to jobs that run: to the main process, or to the whole process tree.

Theory of operation. This process sends them, not the shim, and has to be sure of whom
they reach. The main process is known by its id and start time, as the spool says, the
shim by those that it wrote into the lock. A signal goes to a pidfd, and only after it
was found that the process descends from the shim: as a subreaper that one is an
ancestor of all processes of its job, and of no other. So neither an id that was used
again nor a record that somebody changed leads to a process of anybody else.

The tree is what it is at one look. A process that begins while the others are being
signalled gets no signal: a second look would also find those that the job starts because
of the first, such as the new processes of a server after SIGHUP.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from twisted.internet.defer import Deferred, fail

from scheduler.errors import Conflict, JobNotRunning, Unavailable
from scheduler.threads import Pool
from scheduler.worker.jobs import RunningJob
from scheduler.worker.shim import proctree
from scheduler.worker.shim.exits import MAX_LEFTOVER
from scheduler.worker.shim.spool import Identity, Spool
from scheduler.worker.spools import Spools

#: Why a process got no signal that this process may not send it.
NOT_PERMITTED = "it runs as another user"


class Signals:
    """Called on the reactor thread."""

    def __init__(self, pool: Pool, spools: Spools) -> None:
        self._pool = pool
        self._spools = spools

    def send(self, job: RunningJob, name: str, to: str) -> Deferred[None]:
        """See ``IJobRunner.signal``; to a job whose start was answered."""
        if job.status.state.final:
            return fail(JobNotRunning(job.id, job.status.state.value))
        spool = self._spools.spool(job.id)
        return self._pool.run(send_thd, job.id, spool, job.shim_identity, signal.Signals[name], to == "tree")


def send_thd(job_id: str, spool: Spool, shim: Identity | None, number: signal.Signals, tree: bool) -> None:
    """Send it once; ``shim`` is who has the job, where that is known. Blocks on /proc and the spool.

    ``JobNotRunning``: none of those is left. ``Conflict``: some could not be sent it. ``Unavailable``: none was.
    """
    spool.unlock()
    try:
        shim = shim or spool.begun_by()
        found = _descendants(shim) if tree else _main(job_id, spool)
    except OSError as error:
        raise Unavailable(f"the processes of job {job_id!r} can't be looked up: {error.strerror}") from error
    if shim is None:
        raise Unavailable(f"job {job_id!r} is just being started", retry_after=1)
    sent, failed = 0, dict[str, list[int]]()
    for identity in found:
        try:
            sent += _send(identity, shim, number)
        except PermissionError:
            failed.setdefault(NOT_PERMITTED, []).append(identity.pid)
        except OSError as error:  # no descriptor is left
            failed.setdefault(error.strerror or str(error), []).append(identity.pid)
    if failed:
        raise Conflict(_failure(job_id, number, sent, failed))
    if not sent:
        raise JobNotRunning(job_id, "ending" if tree else "past the end of its main process")


def _main(job_id: str, spool: Spool) -> Iterable[Identity]:
    started = spool.read_start()
    if started is None:
        message = f"the main process of job {job_id!r} is not known: its disk was full at the start; signal the tree"
        raise Conflict(message)
    return [Identity(started["pid"], started["starttime"])]


def _descendants(shim: Identity | None) -> Iterable[Identity]:
    if shim is None:
        return ()
    return [each.identity for each in proctree.descendants([shim.pid], list(proctree.alive()))]


def _send(identity: Identity, shim: Identity, number: signal.Signals) -> bool:
    """Whether that process is there, and of this job, and got the signal; ``OSError``."""
    pidfd = proctree.open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        if not proctree.descends(identity, shim):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _failure(job_id: str, number: signal.Signals, sent: int, failed: dict[str, list[int]]) -> str:
    reasons = "; ".join(f"{why}: {', '.join(map(str, pids[:MAX_LEFTOVER]))}" for why, pids in failed.items())
    count = sum(map(len, failed.values()))
    processes = f"{count} process{'es' * (count > 1)}"
    missed = f"{number.name} can't be sent to {processes} of job {job_id!r} ({reasons})"
    return f"{missed}; it was sent to {sent}" if sent else missed
