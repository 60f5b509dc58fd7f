"""The parent of one job: starts it, keeps its output, ends it, and writes down how it ended. Standard library only.

Theory of operation. A shim is forked by the zygote, in a session of its own, and
needs neither zygote nor worker once it has begun a job. Until then it waits for one
on the line to the zygote, and ends with it. All it is told is the name of the spool,
and, on a line that the worker made for this start, that it may begin: the spool is
made durable while it gets ready. All it says is that it closes that line, when the
spool shows what became of the start.

The shim is a subreaper. What the job leaves behind, however often it forked and
whatever sessions it made, becomes a child of the shim, so "no child is left" is
all that has to be known to say that the tree is empty. The mark ``stop`` in the
spool asks for the stop of the job. TERM to the shim means no more than that the
mark may be there: the job can send it, too. Every other signal that can be ignored
is ignored. From the end of the main process, a stop, the timeout or too much output
on, there is one course: TERM to everybody, the grace, KILL to everybody again and again until
nobody is left; then the pipes are emptied and the exit record is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
import traceback
from typing import Any, NoReturn

from scheduler.worker import proctree, request
from scheduler.worker.pump import Allowance, Pump
from scheduler.worker.spool import Record, Spool, boot_id, exit_record

#: Seconds from the first KILL until what is still there is reported as left over.
_KILL_PATIENCE = 5.0

#: Seconds between two rounds of KILL: whoever forked in between is found by the next.
_KILL_AGAIN = 0.02

#: A script that was just written may be held open by a fork under way elsewhere, for milliseconds.
_BUSY_TRIES = 50
_BUSY_PAUSE = 0.02

#: Seconds; poll takes no more than 24 days at once.
_LONGEST_WAIT = 86400.0

#: Of a job in a spool of an earlier version, which does not say.
_DEFAULT_UMASK = 0o022

#: Ignored by Python, by a daemon or by whoever started the worker; the job gets them as they are by default.
_DEFAULTED = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

#: What a shim acts on. The job may send its parent any other signal, and it is ignored.
_HEARD = (signal.SIGCHLD, signal.SIGTERM)
_IGNORED = [number for number in _DEFAULTED if number not in _HEARD]


def main(line: socket.socket) -> NoReturn:
    """Be the shim of the job that is asked for on ``line``, in a process just forked, and end."""
    status = 1
    try:
        os.setsid()
        proctree.become_subreaper()
        signals = _watch_signals()
        asked = request.receive(line)
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
    with spool.locked() as lock:
        if lock is None or spool.read_exit() is not None or spool.begun_by() is not None:
            return
        record = spool.read_job()
        assert record is not None
        job, shim = _Job(spool, record, signals), proctree.itself()
        if not request.may_begin(start):
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
        spool.write_exit(ended, "shim.before-exit-rename")


def _watch_signals() -> int:
    """A descriptor that gets a byte for each SIGCHLD and SIGTERM."""
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
        self._timeout: float | None = record["spec"]["timeout"]
        # The limit is not there in a spool of an older format.
        self._allowance = Allowance(record.get("output_limit"))
        names = ["stdout"] if record["spec"]["merge_stderr"] else ["stdout", "stderr"]
        self._pumps = {name: Pump(spool.output(name), self._allowance) for name in names}
        self._stdin = os.open(spool.stdin if record["stdin"] else os.devnull, os.O_RDONLY)
        self._poll = select.poll()
        self._poll.register(signals, select.POLLIN)
        self._wait_status: int | None = None
        self._children = True
        #: Who ended it: ``""`` itself, ``"stopped"``, ``"timed_out"``, ``"limited"``.
        self._ended_by = ""
        self._stop_asked = spool.stop_asked()
        self._tree = "exited"
        self._kill_at: float | None = None
        self._leftover: tuple[int, ...] = ()
        self.main = 0
        self.starttime = 0
        self.started_at: float | None = None
        self._deadline: float | None = None

    def start(self) -> Record | None:
        """Start it; the exit record when there is nothing to supervise."""
        if self._stop_asked:
            return exit_record("stopped", "stopped before it was started", time.time())
        pumps = list(self._pumps.values())
        stdin, out, err = self._stdin, pumps[0].write_end, pumps[-1].write_end
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, out, err))]
        try:
            self._spawn(actions)
        except (OSError, ValueError) as error:
            return exit_record("failed", self._why(error), time.time())
        finally:
            for fd in {stdin, out, err}:
                os.close(fd)
        for pump in self._pumps.values():
            self._poll.register(pump.source, select.POLLIN)
        found = proctree.process(self.main)  # there even if it has ended: only this process reaps it
        self.starttime = found.identity.starttime if found else 0
        if self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        return None

    def _spawn(self, actions: list[Any]) -> None:
        argv, env, cwd = self._record["argv"], self._record["env"], self._record["cwd"]
        umask = self._record["spec"].get("umask")
        os.chdir(cwd)
        os.umask(self._record.get("umask", _DEFAULT_UMASK) if umask is None else umask)
        try:
            for tries in range(_BUSY_TRIES + 1):
                try:
                    self.started_at = time.time()
                    self.main = os.posix_spawn(
                        argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTED
                    )
                    return
                except OSError as error:
                    if error.errno != errno.ETXTBSY or tries == _BUSY_TRIES:
                        raise
                    time.sleep(_BUSY_PAUSE)
        finally:
            os.umask(0o077)
            os.chdir("/")

    def _why(self, error: Exception) -> str:
        """The reason of a start that failed."""
        program, cwd = self._record["argv"][0], self._record["cwd"]
        problem = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.filename == cwd:
            return f"cwd {cwd!r}: {'not found' if error.errno == errno.ENOENT else problem}"
        if isinstance(error, FileNotFoundError):
            problem = "not found" if not os.path.exists(program) else "the interpreter it names was not found"
        elif isinstance(error, PermissionError):
            problem = "not executable: Permission denied"
        return f"command {program!r}: {problem}"

    def supervise(self) -> Record:
        """Until nothing of the job is left; the exit record."""
        while self._children and not self._leftover:
            self._listen()
            self._reap()
            self._advance(time.monotonic())
        for pump in self._pumps.values():
            pump.drain()
        return self._exit_record()

    def _listen(self) -> None:
        """Move output and take signals until something else may be due."""
        due = self._kill_at if self._kill_at is not None else self._deadline
        # Rounded up: a timeout of 0 ms before the time would spin.
        wait = None if due is None else max(0, int(min(due - time.monotonic(), _LONGEST_WAIT) * 1000) + 1)
        for fd, _ in self._poll.poll(wait):
            if fd == self._signals:
                os.read(fd, 4096)
                self._stop_asked = self._stop_asked or self._spool.stop_asked()
                continue
            pump = next(pump for pump in self._pumps.values() if pump.source == fd)
            pump.move()
            if pump.source < 0:
                self._poll.unregister(fd)
        if self._allowance.spent:
            for pump in self._pumps.values():
                if pump.source >= 0:
                    self._poll.unregister(pump.source)
                    pump.close()

    def _reap(self) -> None:
        try:
            for pid, status in proctree.reaped():
                if pid == self.main:
                    self._wait_status = status
                    # What was asked while it still ran counts, whoever is heard first.
                    if not self._ended_by and (self._stop_asked or self._spool.stop_asked()):
                        self._ended_by = "stopped"
        except ChildProcessError:
            self._children = False

    def _advance(self, now: float) -> None:
        """Begin the end when there is a reason, and see it through."""
        if self._wait_status is None and not self._ended_by:
            if self._stop_asked:
                self._ended_by = "stopped"
            elif self._deadline is not None and now >= self._deadline:
                self._ended_by = "timed_out"
            elif self._allowance.spent:
                self._ended_by = "limited"
        if not self._children or (self._wait_status is None and not self._ended_by):
            return
        if self._kill_at is None:
            self._tree = "terminated"
            self._signal(signal.SIGTERM, signal.SIGCONT)  # who is held can't act on TERM
            self._kill_at = self._give_up_at = now + self._record["spec"]["stop_grace"]
            self._give_up_at += _KILL_PATIENCE
        if now >= self._kill_at:
            self._tree = "killed"
            self._signal(signal.SIGKILL)
            self._kill_at = now + _KILL_AGAIN
            if now >= self._give_up_at:
                self._leftover = tuple(each.pid for each in self._descendants())

    def _signal(self, *numbers: signal.Signals) -> None:
        for each in self._descendants():
            for number in numbers:
                proctree.send(each.identity, number)

    @staticmethod
    def _descendants() -> list[proctree.Process]:
        return proctree.descendants([os.getpid()], list(proctree.alive()))

    def _exit_record(self) -> Record:
        code = None if self._wait_status is None else os.waitstatus_to_exitcode(self._wait_status)
        number = -code if code is not None and code < 0 else None
        state = self._ended_by or ("failed" if code else "succeeded")
        problems = [f"{name}: {pump.error}" for name, pump in self._pumps.items() if pump.error]
        if self._allowance.spent:
            limit = f"output limit of {self._allowance.limit} bytes reached"
            problems.append(limit)
        if self._allowance.spent and self._ended_by in ("", "limited"):
            state, reason = "failed", limit
        elif self._ended_by == "timed_out":
            reason = f"timed out after {self._timeout:.12g} s"
        elif code is None:
            reason = "could not be killed"
        elif number is not None:
            reason = f"signal: {(signal.strsignal(number) or str(number)).lower()}"
        elif code:
            reason = f"exit status {code}"
        else:
            reason = self._ended_by
        return exit_record(
            state=state,
            reason=reason,
            finished_at=time.time(),
            sizes=self._spool.sizes(),
            exit_code=None if number is not None else code,
            signal=None if number is None else _signal_name(number),
            started_at=self.started_at,
            tree=self._tree,
            leftover=self._leftover,
            output_error="; ".join(problems),
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a realtime signal between the ends
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
