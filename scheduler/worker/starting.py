"""Starts a job, in a thread: checks the request, makes the spool, has a shim begin the job, and reads the outcome.

Theory of operation. A start is refused only when nothing ran and nothing will. As long as no shim was told that it may
begin, removing the spool is enough. A shim that was told and did not answer, because the machine is overloaded or
somebody stopped the process, may go on later. Its spool is then removed by the holder of the lock: the shim finds no
spool, or the lock of one that is gone, and does nothing. A job that its shim could not start for lack of processes,
memory or descriptors has an exit record that says so, and its start counts as never made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from attrs import define

from scheduler.errors import Conflict, Unavailable
from scheduler.messages import JobStatus
from scheduler.model import JobSpec, JobState
from scheduler.request_keys import RequestKey
from scheduler.units import Share
from scheduler.worker.clearing import MAKING
from scheduler.worker.commands import NotRunnable, Policy, mounted_noexec
from scheduler.worker.disk import DiskFull, disk_of, lack
from scheduler.worker.launcher import Launcher, Shortage
from scheduler.worker.records import CopiedSpool, HeldByShim, NeverBegun, NotStartable, Seen, spec_record
from scheduler.worker.shim.exits import Exit, Record
from scheduler.worker.shim.spool import NotDurable, Spool, boot_id, create
from scheduler.worker.spools import Spools
from scheduler.worker.used_ids import HowUsed, UsedIds

#: Seconds that a shim has to start its job. Two tries take less time than a scheduler waits for the answer.
START_DEADLINE_SECONDS = 4.0

#: Tries for one start: a zygote may hang, or be killed while it handles the first.
MAX_LAUNCHES = 2

#: A disk or a quota that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@define(eq=False, slots=False)
class Starter:
    """Starts the jobs of one worker. All of it blocks, and may be called from any thread."""

    _spools: Spools
    _used: UsedIds
    _policy: Policy
    _launcher: Launcher
    _wall_time: Callable[[], float]
    #: Of the disk, this must be free for a start.
    _min_free: Share
    #: No job writes more bytes than that.
    _output_limit: int | None
    #: For a job that sets none.
    _umask: int

    def start_thd(
        self, job_id: str, spec: JobSpec, created_at: float, key: RequestKey | None
    ) -> JobStatus | HeldByShim:
        """Make the spool, unless it is there, and have a shim start the job.

        Answers when the job runs, or has ended. Raises ``Conflict`` if the id was used up, ``DiskFull``, or
        ``Unavailable`` if the machine can't start it now. After these errors the job did not run, and does not exist.
        """
        spool, new = self._spools.spool(job_id), False
        try:
            os.makedirs(self._spools.folder, 0o700, exist_ok=True)  # it may have been removed
            self._check_unused(job_id)
            new = not os.path.exists(spool.folder)
            if new:
                if lacking := lack(disk_of(self._spools.folder), self._min_free):
                    raise DiskFull(lacking)
                seen = self.make_thd(job_id, spec, created_at, key)
            else:
                self._check_readable(job_id, spool)
                seen = self._spools.endings.see_thd(job_id)
                if isinstance(seen, NotStartable):
                    self._spools.clearing.move_away(job_id)
                    return self.start_thd(job_id, spec, created_at, key)
            return seen if isinstance(seen, (JobStatus, HeldByShim)) else self._begin(job_id, spool, new)
        except CopiedSpool as error:
            raise Conflict(
                f"job {job_id!r} is not started: its spool is there, and is a copy of the one that it was begun from"
            ) from error
        except OSError as error:  # no shim was told to begin it
            if new and os.path.exists(spool.folder):
                self._spools.endings.unmake_thd(job_id)
            if error.errno in _FULL:
                raise DiskFull(f"the disk for the output of jobs is full: {os.strerror(error.errno)}", True) from error
            raise Unavailable(f"the job's spool can't be used: {os.strerror(error.errno or 0)}") from error

    # checks

    def _check_unused(self, job_id: str) -> None:
        use = self._used.find_thd(job_id)
        if use is HowUsed.SEALED:
            raise Conflict(f"job {job_id!r} was not started before its scheduler gave it up, so it is not started now")
        if use is not None:
            raise Conflict(f"job {job_id!r} was started before, and is no longer kept")

    @staticmethod
    def _check_readable(job_id: str, spool: Spool) -> None:
        try:
            readable = spool.read_job() is not None
        except ValueError:
            readable = False
        if not readable:
            raise Conflict(f"the spool of job {job_id!r} is there and unreadable, so it is not started")

    # the spool

    def make_thd(self, job_id: str, spec: JobSpec, created_at: float, key: RequestKey | None) -> Seen:
        """Make the spool. A job that may not or can't run here has ended then; any other one is ``NeverBegun``."""
        spool, refused = self._spools.spool(job_id), None
        argv: list[str] = []
        env: dict[str, str] = {}
        try:
            argv, env = self._command(job_id, spec, spool)
        except NotRunnable as error:
            refused = Exit(JobState.FAILED.value, str(error), self._wall_time()).record()
        limits = [limit for limit in (spec.output_limit, self._output_limit) if limit is not None]
        record: Record = {
            "id": job_id,
            "created_at": created_at,
            "request_key": None if key is None else [key.key, key.fingerprint],
            "request_principal": None if key is None else key.principal,
            "boot_id": boot_id(),
            "spec": spec_record(spec),
            "argv": argv,
            "env": env,
            "cwd": spec.cwd or spool.work,
            "stdin": spec.stdin is not None,
            "output_limit": min(limits, default=None),
            "umask": self._umask,
        }
        clearing = self._spools.clearing
        making = clearing.beside(job_id, MAKING)
        clearing.discard(making)  # left by a start that failed and could not even clear up
        try:
            create(spool.folder, making, record, spec.stdin, spec.script, refused)
        except OSError:
            clearing.discard(making)
            raise
        if refused is None:
            return NeverBegun()  # it is synced while a shim gets ready
        spool.sync()
        return self._spools.endings.see_thd(job_id)

    def _command(self, job_id: str, spec: JobSpec, spool: Spool) -> tuple[list[str], dict[str, str]]:
        """Make the command line and the environment of the job. Raises ``NotRunnable`` if it can't run here."""
        folder = self._spools.folder
        if spec.script is not None and mounted_noexec(folder):
            raise NotRunnable(
                f"script: can't be run here: the worker's state folder, {os.path.dirname(folder)}, "
                "is on a file system mounted noexec"
            )
        argv = self._policy.command_line_thd(spec, None if spec.script is None else spool.script)
        env = self._policy.environment_thd(job_id, spec, spool)
        if spec.cwd and not os.path.isabs(spec.cwd):
            raise NotRunnable(f"cwd {spec.cwd!r}: must be an absolute path")
        return argv, env

    # the shim

    def _begin(self, job_id: str, spool: Spool, new: bool) -> JobStatus | HeldByShim:
        """Have a shim begin the job, and answer the outcome; ``new``: no shim was asked before.

        Raises ``Unavailable`` if the machine can't start it now, or ``NotDurable``. In both cases the job did not run,
        and the spool is removed.
        """
        seen: Seen = NeverBegun()
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
            seen = self._spools.endings.look_thd(job_id)
            if not isinstance(seen, NeverBegun):
                break
        if isinstance(seen, NeverBegun):
            if pending:  # a shim may still begin it, or may just have done so
                seen = self._spools.endings.withdraw_thd(job_id)
            else:
                self._spools.endings.unmake_thd(job_id)
        elif isinstance(seen, NotStartable):
            problem = seen.why
            self._spools.endings.unmake_thd(job_id)
        if isinstance(seen, NeverBegun) and isinstance(failure, NotDurable):
            raise failure
        if isinstance(seen, (NeverBegun, NotStartable)):
            raise Unavailable(f"the worker's machine can't start a job now: {problem}")
        return seen
