"""Processes as /proc shows them: who descends from whom, and signals to exactly them. Standard library only.

A bare process id is never trusted: between looking and signalling the process
may end and another get its id. So a signal goes to a pidfd, opened first and
then checked against the start time that was seen.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from scheduler.worker.shim.spool import SPOOL_VARIABLE, Identity

#: From linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36

#: From linux/ptrace.h.
_PTRACE_DETACH = 17

#: What pidfd_open says of a process that is gone, is just being reaped, or whose id is a thread's now.
_GONE = (errno.ESRCH, errno.EINVAL, errno.ENOENT)

#: From linux/sched.h, in the flags of a process.
_PF_EXITING = 0x4

#: Seconds between two rounds of KILL: whoever forked in between is found by the next.
_KILL_INTERVAL_SECONDS = 0.02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class Process(NamedTuple):
    """One line of /proc/<pid>/stat."""

    identity: Identity
    parent: int
    session: int
    #: Ended, and only waits to be reaped.
    ended: bool
    #: Is about to end, whatever happens to it.
    exiting: bool = False

    @property
    def pid(self) -> int:
        return self.identity.pid


def become_subreaper() -> None:
    """Descendants whose parent ends become children of this process."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def process(pid: int) -> Process | None:
    """The process with that id now."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; behind the last one begin the fields from the third on.
    fields = line[line.rindex(b")") + 2 :].split()
    # A main thread that has ended looks like an ended process; the others may run on.
    alone = int(fields[17]) <= 1
    ended = fields[0] in (b"Z", b"X") and alone
    exiting = bool(int(fields[6]) & _PF_EXITING) and alone
    return Process(Identity(pid, int(fields[19])), int(fields[1]), int(fields[3]), ended, exiting)


def itself() -> Identity:
    """This process."""
    found = process(os.getpid())
    assert found is not None
    return found.identity


def alive() -> Iterator[Process]:
    """All that have not ended."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = process(int(name))
            if found is not None and not found.ended:
                yield found


def reaped() -> Iterator[tuple[int, int, resource.struct_rusage]]:
    """The children that have ended, each with its wait status and what it took.

    ``ChildProcessError`` where there is no child at all. What a child took includes what the children took that it
    waited for, and theirs.

    A child may have made this process its tracer (PTRACE_TRACEME). Its stops are reported here, too; it is let go.
    """
    while True:
        pid, status, took = os.wait4(-1, os.WNOHANG)
        if not pid:
            return
        if os.WIFSTOPPED(status):
            _detach(pid, os.WSTOPSIG(status))
        else:
            yield pid, status, took


def _detach(pid: int, number: int) -> None:
    """Trace a stopped child no longer, and have it continue with the signal that stopped it."""
    # The kernel stops a tracee with SIGTRAP at exec. Nobody sent that signal, and it would kill the process.
    passed_on = 0 if number == signal.SIGTRAP else number
    _libc.ptrace(_PTRACE_DETACH, pid, None, passed_on)  # fails only where the process was killed meanwhile


def descendants(roots: Collection[int], among: Collection[Process]) -> list[Process]:
    """Those ``among`` these that descend from the processes with ids ``roots``, without the roots."""
    children: dict[int, list[Process]] = {}
    for each in among:
        children.setdefault(each.parent, []).append(each)
    found: list[Process] = []
    pending = list(roots)
    while pending:
        for child in children.get(pending.pop(), ()):
            found.append(child)
            pending.append(child.pid)
    return found


def descends(identity: Identity, root: Identity, look: Callable[[int], Process | None] = process) -> bool:
    """Whether that process descends from ``root``; not where either of them has ended.

    A list of all processes can't tell for sure: a process may end while the list is made, and its id go to another,
    whose children then look like its own. So each step towards the root is checked. A process that has the same
    parent before and after ``look`` at that parent had it meanwhile. And whoever has an ancestor once always had it.
    """
    here = look(identity.pid)
    if here is None or here.identity != identity:
        return False
    while here.parent:
        above, again = look(here.parent), look(here.pid)
        if again is None or again.identity != here.identity:
            return here.identity != identity and descends(identity, root, look)  # it has another parent by now
        if again.parent != here.parent:
            here = again
        elif above is None:  # not to be seen from here
            return False
        elif above.pid == root.pid:
            return above.identity == root
        else:
            here = above
    return False


def of_spool(folder: str, since: int) -> list[Process]:
    """Processes of the job whose spool is at that absolute path, known by the variable that says so.

    None that began before ``since``, in ticks since the machine's start. One with another environment is not found,
    nor one whose environment may not be read. The id of the job alone would prove nothing: a copy of a state folder has
    the same ids.
    """
    mark = os.fsencode(f"{SPOOL_VARIABLE}={folder}")
    return [
        each
        for each in alive()
        if each.identity.starttime >= since and each.pid != os.getpid() and mark in _environment(each.pid)
    ]


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # it ended, or is another user's
        return []


def open_pidfd(identity: Identity) -> int | None:
    """A pidfd of exactly that process, ``None`` when it is gone; ``OSError`` when no descriptor is left."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    try:
        found = process(identity.pid)
    except OSError:
        os.close(pidfd)
        raise
    if found is not None and found.identity == identity:
        return pidfd
    os.close(pidfd)
    return None


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly that process, if it is there and may be signalled; whether the signal was sent."""
    pidfd = open_pidfd(identity)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def end(find: Callable[[], Collection[Process]], seconds: float) -> list[Identity]:
    """Kill those that ``find`` finds, again and again until it finds none; answers which are there after ``seconds``.

    Those that may not be signalled are not waited for.
    """
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        sent = [send(each.identity, signal.SIGKILL) for each in find()]
        if not any(sent):
            break
        time.sleep(_KILL_INTERVAL_SECONDS)
    return [each.identity for each in find()]


def still(identities: Collection[Identity]) -> list[Process]:
    """Those of these that have not ended."""
    found = map(process, (each.pid for each in identities))
    return [each for each in found if each is not None and not each.ended and each.identity in identities]
