"""Forks shims, cheaply, and kills what killed shims leave behind. Standard library only.

A bare interpreter runs this file by its path: ``python -I -S zygote.py <descriptor> <limit>``. The descriptor is its
end of a line for requests (``scheduler.worker.shim.handoff``). The limit is the soft limit of jobs on file descriptors;
the hard limit stays as it is.

Theory of operation. A fork of the worker would copy a large process with threads of grpc in it, and a fresh interpreter
for each job costs 20 ms. This process has one thread, and has loaded all that a shim needs. A fork takes its time too,
so a shim is ready before a request comes, and the request is passed on to it. The next one is forked a moment later:
the start under way needs the processors.

The zygote is a subreaper. The processes of a killed shim become its children, and every child that is not a shim is
killed. When the worker ends, the zygote stays until its last shim has ended. When the zygote is killed, the shims go on
without it.

Jobs run as the user of zygote and shims, and must not be able to steer them. So these have an empty environment and are
not dumpable: no job can trace them, or read their memory or descriptors. A job itself can be traced as usual.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from typing import NamedTuple

if __name__ == "__main__":  # run by its path, so the package is not on the path yet
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "..")))

from scheduler.worker.shim import handoff, proctree, supervisor
from scheduler.worker.shim.spool import boot_id

#: Seconds between two rounds of killing what killed shims left: at first, and at most when some processes don't end.
_KILL_INTERVAL_FIRST_SECONDS = 0.02
_KILL_INTERVAL_MAX_SECONDS = 1.0

#: Seconds from a request to the fork of the next shim. Most jobs have started by then.
_NEXT_FORK_DELAY_SECONDS = 0.008


class _Ready(NamedTuple):
    """The shim that waits for a job on the other end of ``line``."""

    pid: int
    line: socket.socket


class Zygote:
    """Serves one worker."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests: socket.socket | None = requests
        self._shims: set[int] = set()
        #: The one of them that has no job yet.
        self._ready: _Ready | None = None
        #: Why there is none.
        self._problem = ""
        #: When the next is forked, unless a request comes first; ``None``: with the next request.
        self._prepare_at: float | None = None
        #: Seconds until the next round of killing what killed shims left; ``None``: nothing is left.
        self._pause: float | None = None
        self._signals, self._wakeup = os.pipe()
        self._poll = select.poll()

    def run(self) -> None:
        """Serve until the worker is gone, and neither a shim nor a process of a killed shim is left."""
        proctree.become_subreaper()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._wakeup, False)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll.register(self._signals, select.POLLIN)
        assert self._requests is not None
        self._poll.register(self._requests, select.POLLIN)
        boot_id()  # no shim has to read it
        gc.freeze()  # a collection in a shim would copy every page
        self._prepare()
        while self._requests is not None or self._shims or self._pause is not None:
            self._serve()

    def _serve(self) -> None:
        for fd, _ in self._poll.poll(self._timeout()):
            if fd == self._signals:
                os.read(self._signals, 4096)
            else:
                self._take_request()
        self._reap()
        if self._pause is not None:
            self._kill_orphans(self._pause)
        if self._prepare_at is not None and time.monotonic() >= self._prepare_at:
            self._prepare()

    def _timeout(self) -> float | None:
        """Answer the milliseconds until something is due."""
        due = [] if self._pause is None else [self._pause]
        if self._prepare_at is not None:
            due.append(max(self._prepare_at - time.monotonic(), 0.0))
        return min(due) * 1000 if due else None

    def _take_request(self) -> None:
        assert self._requests is not None
        self._prepare()  # the one that was ready may have been killed
        asked = handoff.receive(self._requests)
        if asked is None:
            self._poll.unregister(self._requests)
            self._requests.close()
            self._requests = self._prepare_at = None
            if self._ready is not None:
                self._ready.line.close()  # so it ends
            return
        folder, start = asked
        ready, self._ready = self._ready, None
        with start:
            if ready is None:
                handoff.refuse(start, f"no process can be forked: {self._problem}")
            else:
                try:
                    with ready.line:
                        handoff.send(ready.line, folder, start)
                except OSError:  # the worker sees that the spool was not begun, and asks again
                    traceback.print_exc()
        self._prepare_at = time.monotonic() + _NEXT_FORK_DELAY_SECONDS

    def _prepare(self) -> None:
        """Have a shim ready. No request is being handled, so the shim inherits none."""
        assert self._requests is not None
        self._prepare_at = None
        if self._ready is None:
            try:
                self._ready = self._fork(self._requests)
            except OSError as error:  # the next request tries again
                self._problem = os.strerror(error.errno or 0)

    def _fork(self, requests: socket.socket) -> _Ready:
        ours, theirs = handoff.pair()
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if not pid:
                signal.set_wakeup_fd(-1)
                for fd in (self._signals, self._wakeup):
                    os.close(fd)
                ours.close()
                requests.close()
                supervisor.main(theirs)
        self._shims.add(pid)
        return _Ready(pid, ours)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            for pid, status, _ in proctree.reaped():
                if self._ready is not None and pid == self._ready.pid:
                    self._ready.line.close()
                    self._ready = None
                if pid in self._shims:
                    self._shims.discard(pid)
                    if status:
                        self._pause = _KILL_INTERVAL_FIRST_SECONDS

    def _kill_orphans(self, pause: float) -> None:
        """Do one round of KILL to what killed shims left. A process that forks meanwhile is found by the next."""
        everybody = list(proctree.alive())
        mine = [each for each in everybody if each.parent == os.getpid() and each.pid not in self._shims]
        below = proctree.descendants([each.pid for each in mine], everybody)
        for each in [*mine, *below]:
            proctree.send(each.identity, signal.SIGKILL)
        self._pause = min(2 * pause, _KILL_INTERVAL_MAX_SECONDS) if mine else None


def main() -> None:
    """Serve the worker at the other end of the descriptor that is the first argument."""
    proctree.become_undumpable()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(int(sys.argv[2]), hard), hard))
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.set_inheritable(False)
    Zygote(requests).run()


if __name__ == "__main__":
    main()
