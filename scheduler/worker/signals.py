"""Sends the signals of clients to running jobs: to the main process, or to the whole process tree.

Theory of operation. This process sends them, not the shim, and has to make sure that they reach only processes of the
job. The main process is known by its id and start time in the spool, the shim by those that it wrote into the lock. A
signal goes to a pidfd, and only after a check that the process descends from the shim: as a subreaper, the shim is an
ancestor of all processes of its job, and of no other. So neither an id that was used again nor a changed record leads
to a foreign process.

The tree is looked at once. A process that begins while the others are being signalled gets no signal: a second look
would also find processes that the job starts because of the first signal, such as the new ones of a server after
SIGHUP.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable

from scheduler.errors import Conflict, JobNotRunning, Unavailable
from scheduler.worker.shim import proctree
from scheduler.worker.shim.exits import MAX_LEFTOVER
from scheduler.worker.shim.files import held
from scheduler.worker.shim.spool import ProcessId, Spool

#: The reason of a signal that this process may not send.
NOT_PERMITTED = "it runs as another user"


def send_thd(job_id: str, spool: Spool, shim: ProcessId | None, name: str, to: str) -> None:
    """Carry out ``IJobRunner.signal``; ``shim`` has the job, if that is known. Blocks on /proc and the spool.

    Raises ``JobNotRunning`` if none of the processes is left, ``Conflict`` if some could not be sent the signal,
    ``Unavailable`` if they are not known now.
    """
    number, tree = signal.Signals[name], to == "tree"
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


def _main(job_id: str, spool: Spool) -> Iterable[ProcessId]:
    started = spool.read_start()
    if started is None:
        message = f"the main process of job {job_id!r} is not known: its disk was full at the start; signal the tree"
        raise Conflict(message)
    return [ProcessId(started["pid"], started["starttime"])]


def _descendants(shim: ProcessId | None) -> Iterable[ProcessId]:
    if shim is None:
        return ()
    return [each.identity for each in proctree.descendants([shim.pid], list(proctree.alive()))]


def _send(identity: ProcessId, shim: ProcessId, number: signal.Signals) -> bool:
    """Signal a process, if it is there and belongs to the job; answers whether it was sent. Raises ``OSError``."""
    pidfd = proctree.open_pidfd(identity)
    if pidfd is None:
        return False
    with held(pidfd), contextlib.suppress(ProcessLookupError):
        if proctree.descends(identity, shim):
            signal.pidfd_send_signal(pidfd, number)
            return True
    return False


def _failure(job_id: str, number: signal.Signals, sent: int, failed: dict[str, list[int]]) -> str:
    reasons = "; ".join(f"{why}: {', '.join(map(str, pids[:MAX_LEFTOVER]))}" for why, pids in failed.items())
    count = sum(map(len, failed.values()))
    processes = f"{count} process{'es' * (count > 1)}"
    missed = f"{number.name} can't be sent to {processes} of job {job_id!r} ({reasons})"
    return f"{missed}; it was sent to {sent}" if sent else missed
