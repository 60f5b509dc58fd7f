"""Supervises a started job: moves its output, ends its process tree, makes its exit record. Standard library only.

Theory of operation. A job goes through these phases:

1. Running. The phase ends with the main process, or by a stop, the timeout or the
   output limit, whichever comes first. That decides the job's state.
2. Lingering, only if the main process ended by itself. The rest of the tree may
   continue until both pipes have reached their end, for ``linger`` seconds at most.
   So a filter can write its last output, and a daemon that has closed the pipes is
   not waited for. A stop, the timeout or the limit ends this phase and decides
   nothing.
3. Ending: the stop signal, the grace, then KILL to all processes again and again
   until none is left, or until KILL is known not to help. With ``stop_mode`` main
   the stop signal goes to the main process alone. Once that has ended, the rest is
   killed as soon as it has closed the pipes: no output can be lost any more.

An empty tree ends every phase. The shim is a subreaper, so "no child is left" means that the tree is empty. Pipes are
read in all phases and emptied at the end; then the exit record is made.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping

from scheduler.worker.shim import proctree
from scheduler.worker.shim.exits import Exit, Record, left_behind, limit_reached
from scheduler.worker.shim.pump import Allowance, Pump
from scheduler.worker.shim.spool import ProcessId, Spool

#: Seconds from the first KILL until what is still there is reported as left over.
KILL_WAIT_MAX_SECONDS = 5.0

#: Seconds for a process that has closed the job's pipes to end by itself: a filter does, a daemon does not.
_CLOSED_GRACE_SECONDS = 0.1

#: Seconds; poll takes no more than 24 days at once.
_WAIT_MAX_SECONDS = 86400.0

#: Why output is cut if a process is left that can still write.
_STILL_WRITTEN = "still open in a process that could not be ended"

#: Seconds, for a spool of an earlier version, which does not say.
_DEFAULT_LINGER_SECONDS = 5.0


class Phases:
    """The phases of one job, from its start to its exit record."""

    def __init__(
        self,
        spool: Spool,
        record: Record,
        signals: int,
        pumps: Mapping[str, Pump],
        allowance: Allowance,
        main: ProcessId,
        started_at: float | None,
    ) -> None:
        """``signals`` becomes readable when a child may have ended, or a stop may have been asked for."""
        self._spool = spool
        self._signals = signals
        self._pumps = pumps
        #: Pumps that may still get output, by the descriptor that they read.
        self._open = {pump.source: pump for pump in pumps.values()}
        self._allowance = allowance
        self._main = main
        self._started_at = started_at
        spec = record["spec"]
        self._timeout: float | None = spec["timeout"]
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._stop_grace: float = spec["stop_grace"]
        self._linger: float = spec.get("linger", _DEFAULT_LINGER_SECONDS)
        self._stop_signal = signal.Signals[spec.get("stop_signal", signal.SIGTERM.name)]
        self._stop_main = spec.get("stop_mode", "tree") == "main"
        self._poll = select.poll()
        for fd in (signals, *self._open):
            self._poll.register(fd, select.POLLIN)
        #: Of the main process.
        self._wait_status: int | None = None
        self._children = True
        #: Why the job was ended: ``"stopped"``, ``"timed_out"``, ``"limited"``; ``""``: it ended by itself.
        self._ended_by = ""
        self._stop_asked = False
        self._linger_until: float | None = None
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        #: The stop signal went to the main process alone.
        self._main_asked = False
        self._tree = "exited"
        #: Processes that got a signal because the linger was over.
        self._background: set[ProcessId] = set()
        self._leftover: tuple[ProcessId, ...] = ()
        #: Over all processes that were reaped, here or by each other: their CPU time, and the KiB of the largest.
        self._cpu_seconds = 0.0
        self._max_rss = 0

    def run(self) -> Record:
        """Supervise the job until no process is left, or those that are can't be ended; answers the exit record."""
        while self._children and not self._leftover:
            self._listen()
            self._reap()
            if self._children:
                self._advance(time.monotonic())
        for pump in self._pumps.values():
            pump.drain(_STILL_WRITTEN if self._leftover else "")
        self._spool.unlock()
        return self._exit_record()

    def _listen(self) -> None:
        """Move output and take signals until something else may be due.

        The timeout of ``poll`` is rounded up: with 0 ms this would spin until the time has come.
        """
        due = self._deadline
        if self._kill_at is not None:
            due = self._kill_at
        elif self._linger_until is not None:
            due = self._linger_until
        wait = None if due is None else max(0, int(min(due - time.monotonic(), _WAIT_MAX_SECONDS) * 1000) + 1)
        for fd, _ in self._poll.poll(wait):
            if fd == self._signals:
                os.read(fd, 4096)
                self._stop_asked = self._stop_asked or self._spool.stop_asked()
            else:
                self._open[fd].move()
        if self._allowance.spent:
            for pump in self._open.values():
                pump.close()
        self._drop_closed()

    def _drop_closed(self) -> None:
        for fd, pump in list(self._open.items()):
            if pump.source < 0:
                self._poll.unregister(fd)
                del self._open[fd]

    def _reap(self) -> None:
        try:
            for pid, status, took in proctree.reaped():
                self._cpu_seconds += took.ru_utime + took.ru_stime
                self._max_rss = max(self._max_rss, took.ru_maxrss)
                if pid == self._main.pid:
                    self._wait_status = status
                    self._decide_at_exit()
        except ChildProcessError:
            self._children = False

    def _decide_at_exit(self) -> None:
        """Let a stop or the output limit decide if it came before the end of the main process.

        Both may be pending: their order of arrival here says nothing.
        """
        if self._ended_by:
            return
        if self._stop_asked or self._spool.stop_asked():
            self._ended_by = "stopped"
            return
        for pump in self._open.values():
            pump.move_all()
        self._drop_closed()
        if self._allowance.spent:
            self._ended_by = "limited"

    def _advance(self, now: float) -> None:
        """Go on to the next phase when it is time, and through the last."""
        if self._kill_at is None:
            lingering = self._wait_status is not None and not self._ended_by
            if not (self._linger_is_over(now) if lingering else self._run_is_over(now)):
                return
            self._kill_at = now + self._stop_grace
            self._ask_to_end()
        elif self._main_asked and self._wait_status is not None and not self._open:
            # No output of the other processes can be lost any more.
            self._kill_at = min(self._kill_at, now + _CLOSED_GRACE_SECONDS)
        if now >= self._kill_at:
            self._kill(now)

    def _run_is_over(self, now: float) -> bool:
        if not self._ended_by:
            if self._stop_asked:
                self._ended_by = "stopped"
            elif self._deadline is not None and now >= self._deadline:
                self._ended_by = "timed_out"
            elif self._allowance.spent:
                self._ended_by = "limited"
        return bool(self._ended_by)

    def _linger_is_over(self, now: float) -> bool:
        if self._linger_until is None:
            self._linger_until = now + self._linger
            if self._deadline is not None:
                self._linger_until = min(self._linger_until, self._deadline)
        if not self._open:
            self._linger_until = min(self._linger_until, now + _CLOSED_GRACE_SECONDS)
        return self._stop_asked or self._allowance.spent or now >= self._linger_until

    def _ask_to_end(self) -> None:
        self._tree = "terminated"
        if self._stop_main and self._wait_status is None:
            self._main_asked = True
            self._ask(self._main, self._stop_signal)
            return
        # With ``stop_mode`` main the stop signal is meant for the main process, which is gone.
        number = signal.SIGTERM if self._stop_main else self._stop_signal
        asked = {each.identity for each in self._descendants() if self._ask(each.identity, number) and not each.exiting}
        if not self._ended_by:
            self._background = asked

    @staticmethod
    def _ask(identity: ProcessId, number: signal.Signals) -> bool:
        """Send a signal, and CONT, so that a stopped process acts on it; answers whether it was sent."""
        sent = proctree.send(identity, number)
        proctree.send(identity, signal.SIGCONT)
        return sent

    def _kill(self, now: float) -> None:
        """Do one round of KILL."""
        self._tree = "killed"
        killed = {each.identity for each in self._descendants() if proctree.send(each.identity, signal.SIGKILL)}
        self._kill_at = now + proctree.KILL_INTERVAL_SECONDS
        if self._give_up_at is None:
            self._give_up_at = now + KILL_WAIT_MAX_SECONDS
            if not self._ended_by:  # including those that began while others were asked to end
                self._background |= killed
        elif now >= self._give_up_at:
            self._leftover = tuple(each.identity for each in self._descendants())

    @staticmethod
    def _descendants() -> list[proctree.Process]:
        return proctree.descendants([os.getpid()], list(proctree.alive()))

    def _exit_record(self) -> Record:
        code = None if self._wait_status is None else os.waitstatus_to_exitcode(self._wait_status)
        number = -code if code is not None and code < 0 else None
        state = self._ended_by or ("failed" if code else "succeeded")
        problems = [f"{name}: {pump.error}" for name, pump in self._pumps.items() if pump.error]
        limit = limit_reached(self._allowance.limit or 0)
        if self._allowance.spent:
            problems.append(limit)
        if self._ended_by == "limited":
            state, reason = "failed", limit
        elif self._ended_by == "timed_out":
            reason = f"timed out after {self._timeout:.12g} s"
        elif number is not None:
            reason = f"signal: {(signal.strsignal(number) or str(number)).lower()}"
        elif code:
            reason = f"exit status {code}"
        else:
            reason = self._ended_by
        background = len(self._background.difference(self._leftover))
        leftover = tuple(each.pid for each in self._leftover)
        if leftover:
            reason = "; ".join(filter(None, (reason, left_behind(leftover))))
        elif background and not reason:
            ended = "1 background process was" if background == 1 else f"{background} background processes were"
            reason = f"{ended} ended after the main process"
        return Exit(
            state,
            reason,
            time.time(),
            *self._spool.sizes(),
            exit_code=None if number is not None else code,
            signal=None if number is None else _signal_name(number),
            started_at=self._started_at,
            tree=self._tree,
            leftover=leftover,
            leftover_started=tuple(each.starttime for each in self._leftover),
            background_ended=background,
            output_error="; ".join(problems),
            usage={"max_rss": 1024 * self._max_rss, "cpu_seconds": round(self._cpu_seconds, 6)},
        ).record()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a realtime signal between the ends
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
