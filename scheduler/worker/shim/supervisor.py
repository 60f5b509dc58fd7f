"""The shim, the parent of one job: starts it, supervises it and writes its exit record. Standard library only.

Theory of operation. A shim is forked by the zygote, in a session of its own, and needs neither zygote nor worker once
it has begun a job. Until then it waits for a job on the line to the zygote, and ends when that is closed. It is told
the name of the spool, and, on a line that the worker made for this start, that it may begin: the spool is made durable
while the shim gets ready. It closes that line when the spool shows the outcome of the start.

The mark ``stop`` in the spool asks for the stop of the job. TERM to the shim only means that the mark may be there: the
job can send TERM, too. Every other signal that can be ignored is ignored.

The phases from the start to the end are in ``phases``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
import traceback
from typing import Any, NoReturn

from scheduler.worker.shim import handoff, proctree
from scheduler.worker.shim.exits import Exit, Record
from scheduler.worker.shim.phases import Phases
from scheduler.worker.shim.pump import Allowance, Pump
from scheduler.worker.shim.spool import ProcessId, Spool, boot_id

#: A script that was just written may be held open by a fork under way elsewhere, for milliseconds.
_MAX_BUSY_TRIES = 50
_BUSY_RETRY_SECONDS = 0.02

#: Seconds until the next try to write an exit record, for example while the file system is read-only.
_RECORD_RETRY_SECONDS = 1.0

#: The descriptor of the log of zygote and shims.
_LOG = 2

#: For a spool of an earlier version, which has no umask.
_DEFAULT_UMASK = 0o022

#: Errors that mean that the machine lacks a resource to start a process, and not that the command is wrong.
_SHORTAGES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

#: Bytes of a ``#!`` line that the kernel reads.
_LINE_MAX_BYTES = 256

#: Signals that the job gets with their default action: Python, a daemon or the parent of the worker may ignore some.
_DEFAULTED = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

#: The signals that a shim acts on. The job may send its parent any other signal, which is ignored.
_HEARD = (signal.SIGCHLD, signal.SIGTERM)
_IGNORED = [number for number in _DEFAULTED if number not in _HEARD]


def main(line: socket.socket) -> NoReturn:
    """Run a shim, in a process just forked, for the job that is asked for on ``line``; then end the process."""
    status = 1
    try:
        os.setsid()
        proctree.become_subreaper()
        signals = _watch_signals()
        asked = handoff.receive(line)
        line.close()
        if asked is not None:
            folder, start = asked
            _run(Spool(folder), start, signals)
        status = 0
    except BaseException:
        traceback.print_exc()  # into the log of the zygote
    finally:
        os._exit(status)


def _run(spool: Spool, start: socket.socket, signals: int) -> None:
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context(spool.locked())
            if lock is None or spool.read_exit() is not None or spool.begun_by() is not None:
                return
            record = spool.read_job()
            assert record is not None
            job, shim = _Job(spool, record, signals), proctree.itself()
        except OSError as error:
            handoff.refuse(start, f"a shim can't begin the job: {error.strerror}")
            return
        if not handoff.may_begin(start):
            return
        spool.begin(lock, shim)
        ended = job.start()
        if ended is None:
            with contextlib.suppress(OSError):  # a full disk; the exit record has room
                spool.write_start(
                    {"pid": job.main, "starttime": job.starttime, "boot_id": boot_id(), "started_at": job.started_at}
                )
            start.close()
            ended = job.supervise()
        _write_down(spool, ended)


def _write_down(spool: Spool, ended: Record) -> None:
    """Write the exit record, again and again until that succeeds: no other process knows how the job ended."""
    said = False
    while (problem := _problem_of_writing(spool, ended)) is not None:
        if not said:
            said = True
            line = f"the end of job {os.path.basename(spool.folder)} can't be written down yet: {problem}\n"
            with contextlib.suppress(OSError):
                os.write(_LOG, line.encode())
        time.sleep(_RECORD_RETRY_SECONDS)


def _problem_of_writing(spool: Spool, ended: Record) -> str | None:
    """Write the exit record; answers why it is not written. ``None``: it is, or the spool was removed."""
    try:
        spool.write_exit(ended, "shim.before-exit-rename")
        return None
    except OSError as error:
        problem = os.strerror(error.errno or 0)
    with contextlib.suppress(OSError):  # the spool can't be looked at now
        if os.path.exists(spool.exit_path) or spool.removed():
            return None
    return problem


def _watch_signals() -> int:
    """Make a descriptor that gets a byte for each SIGCHLD and SIGTERM."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in _HEARD:
        signal.signal(number, lambda *_: None)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    return reading


class _Job:
    """A job, from its start to its exit record."""

    def __init__(self, spool: Spool, record: Record, signals: int) -> None:
        self._spool = spool
        self._record = record
        self._signals = signals
        # A spool of an older format has no limit.
        self._allowance = Allowance(record.get("output_limit"))
        names = ["stdout"] if record["spec"]["merge_stderr"] else ["stdout", "stderr"]
        self._pumps = {name: Pump(spool.output(name), self._allowance) for name in names}
        self._stdin = os.open(spool.stdin if record["stdin"] else os.devnull, os.O_RDONLY)
        self.main = 0
        self.starttime = 0
        self.started_at: float | None = None

    def start(self) -> Record | None:
        """Start the job; answers an exit record if there is nothing to supervise."""
        if self._spool.stop_asked():
            return Exit("stopped", "stopped before it was started", time.time()).record()
        pumps = list(self._pumps.values())
        stdin, out, err = self._stdin, pumps[0].write_end, pumps[-1].write_end
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, out, err))]
        try:
            self._spawn(actions)
        except (OSError, ValueError) as error:
            problem = self._why(error)
            short = isinstance(error, OSError) and error.errno in _SHORTAGES
            return Exit("failed", problem, time.time(), shortage=problem if short else "").record()
        finally:
            for fd in {stdin, out, err}:
                os.close(fd)
        found = proctree.process(self.main)  # found even if it has ended: only this process reaps it
        self.starttime = found.identity.starttime if found else 0
        return None

    def _spawn(self, actions: list[Any]) -> None:
        (program, *args), env, cwd = self._record["argv"], self._record["env"], self._record["cwd"]
        # As in a shell, argv[0] is the name that the client gave: programs begin their messages with it.
        argv = [self._record["spec"]["command"] or program, *args]
        umask = self._record["spec"].get("umask")
        os.chdir(cwd)
        os.umask(self._record.get("umask", _DEFAULT_UMASK) if umask is None else umask)
        try:
            for tries in range(_MAX_BUSY_TRIES + 1):
                try:
                    self.started_at = time.time()
                    self.main = os.posix_spawn(
                        program, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTED
                    )
                    return
                except OSError as error:
                    if error.errno != errno.ETXTBSY or tries == _MAX_BUSY_TRIES:
                        raise
                    time.sleep(_BUSY_RETRY_SECONDS)
        finally:
            os.umask(0o077)
            os.chdir("/")

    def _why(self, error: Exception) -> str:
        program, cwd = self._record["argv"][0], self._record["cwd"]
        problem = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.filename == cwd:
            return f"cwd {cwd!r}: {'not found' if error.errno == errno.ENOENT else problem}"
        if isinstance(error, FileNotFoundError):
            problem = "not found" if not os.path.exists(program) else _why_no_interpreter(program)
        elif isinstance(error, PermissionError):
            problem = "not executable: Permission denied"
        return f"command {program!r}: {problem}"

    def supervise(self) -> Record:
        """Supervise the job until no process of it is left; answers the exit record."""
        main = ProcessId(self.main, self.starttime)
        job = Phases(self._spool, self._record, self._signals, self._pumps, self._allowance, main, self.started_at)
        return job.run()


def _why_no_interpreter(program: str) -> str:
    with contextlib.suppress(OSError), open(program, "rb") as script:
        line = script.readline(_LINE_MAX_BYTES)
        if line.startswith(b"#!") and line.endswith(b"\r\n"):
            return "its #! line ends in a carriage return (CR LF)"
    return "the interpreter it names was not found"
