"""Decides from the spools how jobs have ended, and ends processes that are left of them. All of it blocks.

Processes are known by id and start time, as an id alone may belong to another one by now.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable

from attrs import define
from twisted.logger import Logger

from scheduler.cut_output import LOST_OUTPUT
from scheduler.messages import JobStatus
from scheduler.model import JobState
from scheduler.worker.clearing import Clearing
from scheduler.worker.records import CopiedSpool, HeldByShim, NeverBegun, NotStartable, Seen, status_of
from scheduler.worker.shim import proctree
from scheduler.worker.shim.exits import MAX_LEFTOVER, Exit, Record, left_behind, limit_reached
from scheduler.worker.shim.proctree import Process
from scheduler.worker.shim.spool import ProcessId, Spool, boot_id
from scheduler.worker.used_ids import HowUsed, UsedIds

#: The reason of a job that no shim began.
NOT_BEGUN = "not started: no shim began it"

#: Reasons of ``lost``.
SHIM_KILLED = "its shim was killed by a signal"
SPOOL_REMOVED = "its spool was removed"
REBOOTED = "rebooted"

#: Seconds to wait for the end of the processes that a killed shim left.
_STRAYS_WAIT_MAX_SECONDS = 5.0

#: Seconds to wait for processes that another KILL was sent to; less than the call waits that asks for it.
_KILL_WAIT_MAX_SECONDS = 5.0


@define(eq=False, slots=False)
class Endings:
    """The endings of jobs whose spools are in one folder."""

    _log = Logger()

    _folder: str
    #: Gives the spool of a job in the folder, whether it exists or not.
    _spool: Callable[[str], Spool]
    _used: UsedIds
    _clearing: Clearing
    _wall_time: Callable[[], float]

    def see_thd(self, job_id: str, not_begun: str | None = None, own: bool = False) -> Seen:
        """Decide how the job ended, or which shim has it.

        A job with neither shim nor exit record is lost: this writes the record, while holding the lock. With
        ``not_begun``, a job that was never begun fails for that reason, and a shim that still comes for it will not
        begin it. Raises ``FileNotFoundError`` if the spool was removed, ``CopiedSpool`` for a copy, unless a shim was
        seen to have it (``own``).
        """
        spool = self._spool(job_id)
        spool.unlock()
        ended = spool.read_exit()
        if ended is not None:
            return _end_of(job_id, ended)
        with spool.locked() as lock:
            begun_by = spool.begun_by()
            if lock is None:
                started = spool.read_start()
                return HeldByShim(begun_by, started["started_at"] if started else None)
            ended = spool.read_exit()
            if ended is None:
                job = spool.read_job()
                if job is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), spool.job_path)
                rebooted = job["boot_id"] != boot_id()
                if not (rebooted or own) and (spool.is_copy(job) or _lives(begun_by)):
                    raise CopiedSpool
                if rebooted or begun_by is not None:  # a power cut may have taken the trace of a shim
                    ended = self._lost(spool, job, rebooted)
                elif not_begun is not None:
                    spool.sync()  # the process that made it may not have done so
                    ended = Exit(JobState.FAILED.value, not_begun, self._wall_time()).record()
                else:
                    return NeverBegun()
                spool.write_exit(ended)
            return _end_of(job_id, ended)

    def _lost(self, spool: Spool, job: Record, rebooted: bool) -> Record:
        """Make the record of a lost job, once the processes that its shim left are ended."""
        started, shim = spool.read_start(), spool.begun_by()
        since = started["starttime"] if started else shim.starttime if shim else None
        tree: str = ""
        left: list[ProcessId] = []
        if not rebooted and since is not None and proctree.of_spool(spool.folder, since):
            tree = "killed"
            left = proctree.end(lambda: proctree.of_spool(spool.folder, since), _STRAYS_WAIT_MAX_SECONDS)
        reasons = [REBOOTED if rebooted else SHIM_KILLED]
        if left:
            reasons.append(left_behind(_ids(left)))
        sizes, limit = spool.sizes(), job.get("output_limit")
        return Exit(
            JobState.LOST.value,
            "; ".join(reasons),
            self._wall_time(),
            *sizes,
            output_error=LOST_OUTPUT if limit is None or sum(sizes) < limit else limit_reached(limit),
            started_at=started["started_at"] if started else None,
            tree=tree,
            leftover=_ids(left),
            leftover_started=tuple(each.starttime for each in left),
        ).record()

    def judge_thd(self, job_id: str, shim: ProcessId | None, not_begun: str) -> JobStatus | HeldByShim:
        """Decide the same of a job whose start was answered. It fails, with ``not_begun``, if no shim began it.

        ``shim`` was seen to have the job; ``None``: none was, and ``CopiedSpool`` may be raised.
        """
        spool = self._spool(job_id)
        try:
            seen = self.see_thd(job_id, not_begun, own=shim is not None)
            if isinstance(seen, NotStartable):  # its start was answered all the same, so the end is reported
                record = spool.read_exit()
                assert record is not None
                record.pop("shortage")
                spool.write_exit(record)
                seen = status_of(job_id, record)
        except FileNotFoundError:
            if not spool.removed():
                raise
            return self.lose_thd(job_id, shim)
        assert not isinstance(seen, NeverBegun)
        return seen

    def look_thd(self, job_id: str) -> Seen:
        """Answer as ``see_thd``. If that fails, the job may run, so it counts as held by a shim."""
        try:
            return self.see_thd(job_id)
        except OSError:
            return HeldByShim(None, None)

    def withdraw_thd(self, job_id: str) -> Seen:
        """Remove the spool of a job that no shim has begun, while holding its lock, so that none will begin it.

        Answers ``NeverBegun`` then. If a shim has come for the job, or that can't be told now, answers as ``look_thd``.
        """
        spool = self._spool(job_id)
        try:
            with spool.locked() as lock:
                if lock is not None and spool.begun_by() is None and spool.read_exit() is None:
                    return NeverBegun() if self.unmake_thd(job_id) else HeldByShim(None, None)
        except OSError:
            return HeldByShim(None, None)
        return self.look_thd(job_id)

    def unmake_thd(self, job_id: str) -> bool:
        """Remove the spool of a refused start, or the next worker process would report it as a failed job.

        The rename is not synced, as that takes a descriptor. After a power cut in the next seconds the job may be
        reported as failed.
        """
        try:
            self._clearing.move_away(job_id)
        except OSError:
            self._log.failure("what is left of the start of job {job_id} can't be removed", job_id=job_id)
            return False
        return True

    def removed_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]:
        """Find those of the running jobs whose spool was removed. If the folder ``jobs`` is gone, it is made again."""
        found = []
        with contextlib.suppress(OSError):  # a spool that can't be looked at now may well be there
            os.makedirs(self._folder, 0o700, exist_ok=True)
            for job_id in job_ids:
                if self._spool(job_id).removed():
                    found.append(job_id)
        return tuple(found)

    def lose_thd(self, job_id: str, shim: ProcessId | None) -> JobStatus:
        """Make the end of a job whose spool was removed. Nothing is written down, except that its id is used up."""
        left = tuple(each.pid for each in _tree(self._spool(job_id).folder, shim))[:MAX_LEFTOVER]
        still_run = f"; processes of it still run: {', '.join(map(str, left))}" if left else ""
        try:
            self._used.add_thd([job_id], HowUsed.PRUNED)
        except (OSError, ValueError):  # this process knows it all the same
            self._log.failure("the id of job {job_id} is not used up for the next process", job_id=job_id)
        return JobStatus(
            job_id, JobState.LOST, reason=f"{SPOOL_REMOVED}{still_run}", finished_at=self._wall_time(), leftover=left
        )

    def find_removed_thd(self, job_id: str) -> JobStatus | None:
        """Find the end of a job that is not known here: it has no spool, and processes of it still run."""
        spool = self._spool(job_id)
        if os.path.lexists(spool.folder) or not _tree(spool.folder, None):
            return None
        return self.lose_thd(job_id, None)

    def end_leftover_thd(self, job_id: str, shim: ProcessId | None) -> tuple[int, ...]:
        """Kill once more the processes that are left of an ended job; answers the ids of those that are still there.

        ``shim`` had the job, if that is known.
        """
        spool = self._spool(job_id)
        if os.path.exists(spool.exit_path):
            return _end_named(spool)
        return _end_tree(spool.folder, shim)


def _end_of(job_id: str, record: Record) -> JobStatus | NotStartable:
    shortage = record.get("shortage")
    return NotStartable(shortage) if shortage else status_of(job_id, record)


def _lives(shim: ProcessId | None) -> bool:
    """Whether the shim runs. It then has the lock of its own spool."""
    return shim is not None and any(not each.exiting for each in proctree.still([shim]))


def _end_named(spool: Spool) -> tuple[int, ...]:
    """Kill once more the processes that the exit record names; answers the ids of those that are still there.

    If the spool is a copy they belong to another worker, and are not killed. Processes from before a restart of the
    machine count as gone, and so do those whose start times the record of an earlier version lacks.
    """
    ended, job = spool.read_exit(), spool.read_job()
    if ended is None or job is None or job["boot_id"] != boot_id():
        return ()
    named = [ProcessId(*each) for each in zip(ended["leftover"], ended.get("leftover_started", ()), strict=False)]
    if spool.is_copy(job):
        return _ids([each.identity for each in proctree.still(named)])
    return _ids(proctree.end(lambda: proctree.still(named), _KILL_WAIT_MAX_SECONDS))


def _tree(folder: str, shim: ProcessId | None) -> list[Process]:
    """Find the processes of a job whose folder is gone, with the shim as the last.

    If it is not known which shim had the job, all processes that carry the path of its folder are found, of any age.
    """
    found = proctree.of_spool(folder, shim.starttime if shim else 0)
    alive = proctree.still([shim]) if shim else []
    if shim and alive:
        found += proctree.descendants([shim.pid], list(proctree.alive()))
    return [*{each.identity: each for each in found}.values(), *alive]


def _end_tree(folder: str, shim: ProcessId | None) -> tuple[int, ...]:
    """Kill the processes of a job whose folder is gone; answers the ids of those that are still there."""
    seen: dict[ProcessId, None] = {}

    def find() -> list[Process]:
        seen.update(dict.fromkeys(each.identity for each in _tree(folder, shim)))
        return proctree.still(list(seen))  # including those that lost their parent, and are not found any more

    return _ids(proctree.end(find, _KILL_WAIT_MAX_SECONDS))


def _ids(identities: list[ProcessId]) -> tuple[int, ...]:
    return tuple(each.pid for each in identities)
