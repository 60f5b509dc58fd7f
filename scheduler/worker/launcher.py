"""The worker's end of the zygote: starts it, asks it for shims, and starts another when it is gone, or hangs.

The zygote is exec'd by ``subprocess``, which forks nothing of this process (it
uses vfork as long as it is asked for no more than here), in a session of its
own: Ctrl-C is for the worker. One that does not answer is killed, by the id of a
child that is not reaped yet. Its shims go on without it.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from twisted.logger import Logger

from scheduler.daemon import failpoints
from scheduler.worker.shim import handoff, zygote
from scheduler.worker.shim.spool import SPOOL_VARIABLE

#: A worker that a job started has these, and its zygote and shims are no processes of that job.
_OF_JOBS = ("SCHEDULER_JOB_ID", SPOOL_VARIABLE)


class Shortage(Exception):
    """The machine can't start a process now, and nothing was begun; ``str()`` says why."""


class Launcher:
    """All of it may be called from any thread."""

    _log = Logger()

    def __init__(self, log_file: str) -> None:
        """``log_file`` gets the tracebacks of zygote and shims, so nothing."""
        self.log_file = log_file
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The zygote's."""
        return None if self._process is None else self._process.pid

    def launch_thd(self, folder: str, deadline: float, sync_thd: Callable[[], None]) -> bool:
        """Have a shim begin that spool; wait until the spool shows what became of it, or the shim is gone.

        ``sync_thd`` makes the spool durable while the shim gets ready; what it raises is raised, and nothing begun.
        ``False`` when the shim did nothing within ``deadline`` seconds: that zygote is given up then, and the shim
        may yet begin. ``Shortage``; ``OSError`` when nobody could be asked.
        """
        ours, theirs = handoff.pair()
        with ours:
            with theirs:
                asked = self._request(folder, theirs, deadline)
            try:
                sync_thd()
                failpoints.hit("worker.before-begin")
                handoff.let_begin(ours)
            except Exception:
                ours.shutdown(socket.SHUT_WR)
                _await_answer(ours, deadline)
                raise
            if _await_answer(ours, deadline):
                refusal = handoff.refusal(ours)
                if refusal:
                    raise Shortage(refusal)
                return True
            self._give_up(asked)
            return False

    def close(self) -> None:
        """Let the zygote go: it ends after its last shim. Nothing is launched any more."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _request(self, folder: str, start: socket.socket, deadline: float) -> subprocess.Popen[bytes] | None:
        """Answers which zygote was asked."""
        with self._lock:
            if self._requests is not None and not self._send(self._requests, folder, start, deadline):
                self._log.warn("the zygote is gone; starting another")
                self._kill()
            if self._requests is None:
                self._requests = self._start()
                if not self._send(self._requests, folder, start, deadline):
                    self._kill()
                    raise Shortage(f"{sys.executable} ended at once, see {self.log_file}")
            return self._process

    def _give_up(self, asked: subprocess.Popen[bytes] | None) -> None:
        with self._lock:
            if asked is not None and asked is self._process:  # else somebody else did so already
                self._log.warn("the zygote {pid} does not answer; it is killed", pid=asked.pid)
                self._kill()

    @staticmethod
    def _send(requests: socket.socket, folder: str, start: socket.socket, deadline: float) -> bool:
        requests.settimeout(deadline)
        return handoff.send(requests, folder, start)

    def _start(self) -> socket.socket:
        if self._closed:
            raise Shortage("the worker is shutting down")
        with self._open_log() as log:
            ours, theirs = handoff.pair()
            with theirs:
                # UTF-8 whatever the locale: the spool's records are.
                command = [sys.executable, "-I", "-S", "-X", "utf8", zygote.__file__, str(theirs.fileno())]
                try:
                    self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                        cwd="/",
                        env={name: value for name, value in os.environ.items() if name not in _OF_JOBS},
                        umask=0o077,
                    )
                except OSError as error:
                    ours.close()
                    raise Shortage(f"{sys.executable} can't be started: {error.strerror}") from error
        return ours

    def _open_log(self) -> BinaryIO:
        try:
            return open(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        except OSError as error:
            raise Shortage(f"{self.log_file} can't be opened: {error.strerror}") from error

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._let_go()

    def _let_go(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            # Reaps it if it has ended. One that has not is reaped by init, or by a later call of subprocess.
            self._process.poll()
            self._process = None


def _await_answer(line: socket.socket, seconds: float) -> bool:
    """Whether the other end was closed in time, or said something."""
    waiting = select.poll()
    waiting.register(line, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))
