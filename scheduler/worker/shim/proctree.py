"""Processes as /proc shows them, their descent, and signals to exactly one process. Standard library only.

A bare process id is never trusted: between looking and signalling, the process may end and another may get its id. So a
signal goes to a pidfd, which is opened first and then checked against the start time that was seen.
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

from scheduler.worker.shim.spool import SPOOL_VARIABLE, ProcessId

#: From linux/prctl.h.
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

#: From linux/ptrace.h.
_PTRACE_DETACH = 17

#: Errors of pidfd_open for a process that is gone or just being reaped, or whose id now belongs to a thread.
_GONE = (errno.ESRCH, errno.EINVAL, errno.ENOENT)

#: From linux/sched.h, in the flags of a process.
_PF_EXITING = 0x4

#: Seconds between two rounds of KILL: a process that forked in between is found by the next.
KILL_INTERVAL_SECONDS = 0.02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class Process(NamedTuple):
    """A process, as /proc/<pid>/stat describes it."""

    identity: ProcessId
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
    """Have descendants whose parent ends become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def become_undumpable() -> None:
    """Keep other processes of this user, such as jobs, from tracing this process and from reading its memory.

    Forked children inherit it; ``exec`` ends it. Files in /proc/<pid> then belong to root. ``stat`` stays readable for
    all, and this process still gets at its own files there.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")


def process(pid: int) -> Process | None:
    """Look up the process that has the id now."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything. The third field begins after the last parenthesis.
    fields = line[line.rindex(b")") + 2 :].split()
    # A main thread that has ended looks like an ended process, but other threads may run on.
    alone = int(fields[17]) <= 1
    ended = fields[0] in (b"Z", b"X") and alone
    exiting = bool(int(fields[6]) & _PF_EXITING) and alone
    return Process(ProcessId(pid, int(fields[19])), int(fields[1]), int(fields[3]), ended, exiting)


def itself() -> ProcessId:
    """Identify this process."""
    found = process(os.getpid())
    assert found is not None
    return found.identity


def alive() -> Iterator[Process]:
    """Go through all processes that have not ended."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = process(int(name))
            if found is not None and not found.ended:
                yield found


def reaped() -> Iterator[tuple[int, int, resource.struct_rusage]]:
    """Reap the children that have ended, each with its wait status and resource usage.

    Raises ``ChildProcessError`` if there is no child at all. The usage of a child includes that of the children it
    waited for.

    A child may have made this process its tracer (PTRACE_TRACEME). Its stops are reported here, too, and it is
    detached.
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
    """Stop tracing a stopped child, and have it continue with the signal that stopped it."""
    # The kernel stops a tracee with SIGTRAP at exec. No process sent that signal, and it would kill the child.
    passed_on = 0 if number == signal.SIGTRAP else number
    _libc.ptrace(_PTRACE_DETACH, pid, None, passed_on)  # fails only where the process was killed meanwhile


def descendants(roots: Collection[int], among: Collection[Process]) -> list[Process]:
    """Find those ``among`` the given processes that descend from the ids ``roots``, without the roots."""
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


def descends(identity: ProcessId, root: ProcessId, look: Callable[[int], Process | None] = process) -> bool:
    """Whether the process descends from ``root``. If either of them has ended, ``False``.

    A list of all processes can't tell for sure: a process may end while the list is made, and its id may go to another,
    whose children then look like its own. So each step towards the root is checked. A process that has the same parent
    before and after ``look`` at that parent had it meanwhile. And a process never gains an ancestor: all that it has
    now, it had from the beginning.
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
        elif above is None:  # it can't be seen from here
            return False
        elif above.pid == root.pid:
            return above.identity == root
        else:
            here = above
    return False


def of_spool(folder: str, since: int) -> list[Process]:
    """Find the processes of the job whose spool is at that absolute path, by the variable that names it.

    Processes that began before ``since``, in ticks since the machine's start, are left out. Processes that changed
    their environment, or whose environment may not be read, are not found. The id of the job alone would prove nothing:
    a copy of a state folder has the same ids.
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
    except OSError:  # it has ended, or belongs to another user
        return []


def open_pidfd(identity: ProcessId) -> int | None:
    """Open a pidfd of exactly that process; ``None``: it is gone. Raises ``OSError`` if no descriptor is left."""
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


def send(identity: ProcessId, number: signal.Signals) -> bool:
    """Signal exactly that process, if it is there and may be signalled; answers whether the signal was sent."""
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


def end(find: Callable[[], Collection[Process]], seconds: float) -> list[ProcessId]:
    """Kill the processes that ``find`` finds until it finds none; answers those that are left after ``seconds``.

    Processes that may not be signalled are not waited for.
    """
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        sent = [send(each.identity, signal.SIGKILL) for each in find()]
        if not any(sent):
            break
        time.sleep(KILL_INTERVAL_SECONDS)
    return [each.identity for each in find()]


def still(identities: Collection[ProcessId]) -> list[Process]:
    """Find those of the processes that have not ended."""
    found = map(process, (each.pid for each in identities))
    return [each for each in found if each is not None and not each.ended and each.identity in identities]
