"""Has a shim begin the job of a spool, or sees to it that none ever will.

Theory of operation. A start is refused only when nothing ran and nothing will.
As long as no shim was told that it may begin, removing the spool is enough. A shim
that was told and did not answer, as the machine is overloaded or somebody stopped
it, may go on later: so the spool is then removed by whoever holds its lock. Such a
shim finds no spool, or the lock of one that is gone, and does nothing. What a shim
took on and could not start for want of processes, memory or descriptors says so in
its exit record, and counts as never made.

All of it blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.logger import Logger

from scheduler.errors import Unavailable
from scheduler.messages import JobStatus
from scheduler.worker.launcher import Launcher, Shortage
from scheduler.worker.records import HeldByShim, NeverBegun, NotStartable, judge_thd
from scheduler.worker.shim.spool import NotDurable, Spool

#: Seconds a shim has to start its job: with a second try less than a scheduler waits for the answer.
START_DEADLINE_SECONDS = 4.0

#: A zygote may hang, or be killed with a start in its hands; so twice.
MAX_LAUNCHES = 2


class Starter:
    """Of one worker."""

    _log = Logger()

    def __init__(
        self, launcher: Launcher, move_away_thd: Callable[[str], object], wall_time: Callable[[], float]
    ) -> None:
        """``move_away_thd`` removes the spool of a job, gone at once as far as anybody can see; ``OSError``."""
        self._launcher = launcher
        self._move_away_thd = move_away_thd
        self._wall_time = wall_time

    def start_thd(self, job_id: str, spool: Spool, new: bool) -> JobStatus | HeldByShim:
        """Have the job begun, or answer what became of that; ``new``: no shim was ever asked to.

        ``Unavailable``: the machine can't start it now. ``NotDurable``. In both cases nothing ran, and the spool is
        removed.
        """
        seen: JobStatus | HeldByShim | NeverBegun | NotStartable = NeverBegun()
        problem, pending = "", not new
        failure: OSError | None = None
        for _ in range(MAX_LAUNCHES):
            try:
                if self._launcher.launch_thd(spool.folder, START_DEADLINE_SECONDS, spool.sync):
                    problem = f"no shim began it, see {self._launcher.log_file}"
                else:
                    problem, pending = f"no shim answered within {START_DEADLINE_SECONDS:g} s", True
            except Shortage as shortage:
                problem = str(shortage)
                break
            except OSError as error:
                failure, problem = error, f"no shim can be asked: {os.strerror(error.errno or 0)}"
                break
            seen = self._judge_thd(job_id, spool)
            if not isinstance(seen, NeverBegun):
                break
        if isinstance(seen, NeverBegun):
            seen = self._withdrawn_thd(job_id, spool, pending)
        elif isinstance(seen, NotStartable):
            problem = seen.why
            self.unmake_thd(job_id)
        if isinstance(seen, NeverBegun) and isinstance(failure, NotDurable):
            raise failure
        if isinstance(seen, (NeverBegun, NotStartable)):
            raise Unavailable(f"the worker's machine can't start a job now: {problem}")
        return seen

    def _withdrawn_thd(
        self, job_id: str, spool: Spool, pending: bool
    ) -> JobStatus | HeldByShim | NeverBegun | NotStartable:
        """Unmake a spool that was not begun; ``pending``: a shim may still come for it, and may have."""
        if not pending:
            self.unmake_thd(job_id)
            return NeverBegun()
        return self.withdraw_thd(job_id, spool)

    def withdraw_thd(self, job_id: str, spool: Spool) -> JobStatus | HeldByShim | NeverBegun | NotStartable:
        """Unmake the spool of a job that was not begun, unless a shim has come for it, or has it now."""
        try:
            with spool.locked() as lock:
                if lock is not None and spool.begun_by() is None and spool.read_exit() is None:
                    return NeverBegun() if self.unmake_thd(job_id) else HeldByShim(None, None)
        except OSError:
            return HeldByShim(None, None)  # it may run: to be asked again
        return self._judge_thd(job_id, spool)

    def unmake_thd(self, job_id: str) -> bool:
        """Have no spool of a start that was refused, or the next process takes it for a job that failed.

        The rename is not made durable, which takes a descriptor: were it undone, by a power cut in the next seconds,
        that is what would be told, and no more.
        """
        try:
            self._move_away_thd(job_id)
        except OSError:
            self._log.failure("what is left of the start of job {job_id} can't be removed", job_id=job_id)
            return False
        return True

    def _judge_thd(self, job_id: str, spool: Spool) -> JobStatus | HeldByShim | NeverBegun | NotStartable:
        try:
            return judge_thd(job_id, spool, self._wall_time)
        except OSError:
            return HeldByShim(None, None)  # it may run: to be asked again
