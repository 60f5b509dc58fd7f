"""The worker's end of the zygote: starts it, asks it for shims, and starts another when it is gone, or hangs.

The zygote is exec'd by ``subprocess``, which copies nothing of this process (with the arguments that are used here it
uses vfork). It has a session of its own: Ctrl-C is for the worker. A zygote that does not answer is killed by its
process id, which is safe while it is not reaped. Its shims go on without it. Its environment is empty: a secret among
the worker's variables goes no further, and no variable steers the interpreter.
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
from scheduler.daemon.descriptors import JOBS_MAX
from scheduler.worker.shim import handoff, zygote


class Shortage(Exception):
    """The machine can't start a process now, and nothing was begun; ``str()`` says why."""


class Launcher:
    """The zygote of one worker. May be used from any thread."""

    _log = Logger()

    def __init__(self, log_file: str, descriptors: int = JOBS_MAX) -> None:
        """``log_file`` gets the tracebacks of zygote and shims, so it should stay empty.

        ``descriptors``: the soft limit of jobs on file descriptors.
        """
        self.log_file = log_file
        self._descriptors = descriptors
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def launch_thd(self, folder: str, deadline: float, sync_thd: Callable[[], None]) -> bool:
        """Have a shim begin the job of a spool; waits until the spool shows the outcome, or the shim is gone.

        ``sync_thd`` makes the spool durable while the shim gets ready. If it raises, that is raised here, and nothing
        begins. ``False``: the shim did nothing within ``deadline`` seconds; it may still begin, and its zygote is given
        up. Raises ``Shortage`` if the machine can't start a process, ``OSError`` if no zygote can be asked.
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
                if refusal := handoff.refusal(ours):
                    raise Shortage(refusal)
                return True
            self._give_up(asked)
            return False

    def close(self) -> None:
        """Close the line to the zygote, which ends after its last shim. No job is launched any more."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _request(self, folder: str, start: socket.socket, deadline: float) -> subprocess.Popen[bytes] | None:
        """Ask for a shim, of a new zygote if need be; answers which zygote was asked."""
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
            if asked is not None and asked is self._process:  # otherwise another thread did so already
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
                options = ["-I", "-S", "-X", "utf8"]
                command = [sys.executable, *options, zygote.__file__, str(theirs.fileno()), str(self._descriptors)]
                try:
                    self._process = subprocess.Popen(  # noqa: S603 - no part of it comes from outside
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                        cwd="/",
                        env=failpoints.environment(),  # empty but in a test
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
            # This reaps it if it has ended. Otherwise init does so, or a later call of subprocess.
            self._process.poll()
            self._process = None


def _await_answer(line: socket.socket, seconds: float) -> bool:
    """Wait until the other end sends a message or is closed; ``False``: neither happened in time."""
    waiting = select.poll()
    waiting.register(line, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))
