"""Processes as the kernel shows them, and the end of those that tests leave behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make orphans of descendants children of this process."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(parent: int) -> Iterator[int]:
    """The processes with this parent, including zombies."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in status.read_text():
                yield int(status.parent.name)


def tree(root: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    for child in children(root):
        found |= {child} | tree(child)
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def parent_of(pid: int) -> int | None:
    """The parent's id."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(words[1])


def descriptors(pid: int) -> int:
    """The number of its open files."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """The number of its threads."""
    return len(os.listdir(f"/proc/{pid}/task"))


def memory(pid: int) -> float:
    """Its resident memory in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def cpu(pid: int) -> float:
    """Its processor time in seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def end_children(kept: Collection[int] = (), seconds: float = 60.0) -> None:
    """Kill and reap all children of this process except ``kept``, and the orphans that become its children."""
    deadline = time.monotonic() + seconds
    while left := set(children(os.getpid())) - set(kept):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise TimeoutError(f"can't end {left}")
        time.sleep(0.01)
