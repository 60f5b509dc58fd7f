"""Finds the jobs of the previous worker process in their spools: how they ended, or which shim has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from attrs import define, frozen
from twisted.logger import Logger

from scheduler.messages import JobStatus
from scheduler.model import JobSpec
from scheduler.request_keys import RequestKey
from scheduler.worker.clearing import Clearing, DiskUse
from scheduler.worker.endings import Endings
from scheduler.worker.records import CopiedSpool, HeldByShim, NeverBegun, NotStartable, key_of, spec_of, status_of
from scheduler.worker.shim.spool import Spool
from scheduler.worker.trees import Amount
from scheduler.worker.used_ids import HowUsed, UsedIds


@frozen
class RecoveredSpool:
    """A job that was found by its spool."""

    job_id: str
    seen: JobStatus | HeldByShim
    #: ``False``: a shim has the lock and may still not begin the job.
    begun: bool = True
    #: Without stdin and script. Of an acknowledged job neither this nor ``created_at`` and ``key`` are read.
    spec: JobSpec | None = None
    created_at: float | None = None
    key: RequestKey | None = None
    stop_asked: bool = False
    acknowledged: bool = False
    #: The disk use of an acknowledged job, if that is written down.
    taken: DiskUse | None = None

    @property
    def finished_at(self) -> float:
        """POSIX time of the end; 0: the job has not ended, or the time is not known."""
        return 0.0 if isinstance(self.seen, HeldByShim) else self.seen.finished_at or 0.0


@define(eq=False, slots=False)
class Recovery:
    """Decides about spools that are there when a worker starts."""

    _log = Logger()

    #: Makes the spool of a job, whether it exists or not.
    _spool: Callable[[str], Spool]
    _used: UsedIds
    _clearing: Clearing
    _endings: Endings

    def find_thd(self, job_id: str, tell: bool = False) -> RecoveredSpool | None:
        """Find a job whose spool is there; ``None``: it is unreadable, or no job.

        With ``tell``, raises ``OSError`` for a spool that can't be read at present.
        """
        spool = self._spool(job_id)
        spool.unlock()
        try:
            acknowledged, ended = spool.acknowledged(), spool.read_exit()
            if acknowledged is not None and ended is not None:
                return RecoveredSpool(job_id, status_of(job_id, ended), acknowledged=True, taken=_taken(acknowledged))
            if ended is not None and ended.get("shortage"):  # the job did not run, and its start was not answered
                self._clearing.move_away(job_id)
                return None
            record = spool.read_job()
            if record is None:
                raise ValueError("no job.json")
            begun = True
            try:
                seen = self.decide_thd(job_id)
                begun = not isinstance(seen, HeldByShim) or seen.shim is not None
            except OSError:  # a full disk takes no record now
                self._log.failure("job {job_id} can't be decided on yet", job_id=job_id)
                seen = HeldByShim(None, None)
            except CopiedSpool:
                self._log.warn(
                    "the spool {folder} is a copy of the one that job {job_id} was begun from: it is left as it is, "
                    "and the job is not reported; --new-id makes a copied state folder one of its own",
                    folder=spool.folder,
                    job_id=job_id,
                )
                return None
            if isinstance(seen, NeverBegun):
                self._log.info("job {job_id} was not begun before the worker ended, so it is dropped", job_id=job_id)
                return None
            created_at, key = record["created_at"], key_of(record)
            return RecoveredSpool(job_id, seen, begun, spec_of(record), created_at, key, spool.stop_asked())
        except Exception as error:
            if tell and isinstance(error, OSError):
                raise  # it may well run
            if not tell and self._clear_cut_short(job_id, spool):
                return None
            self._log.failure("the spool {folder} is unreadable and left as it is", folder=spool.folder)
            return None

    def decide_thd(self, job_id: str) -> JobStatus | HeldByShim | NeverBegun:
        """Decide how a job that the previous process was asked to start ended, or which shim has it.

        ``NeverBegun``: no shim began it, and none will. Its start was not answered, so the spool is removed as if the
        start had never come. Raises ``OSError`` if this can't be decided now.
        """
        try:
            seen = self._endings.see_thd(job_id)
        except FileNotFoundError:
            if not self._spool(job_id).removed():
                raise
            return NeverBegun()
        if isinstance(seen, NeverBegun):
            seen = self._endings.withdraw_thd(job_id)
        if isinstance(seen, NotStartable):
            self._clearing.move_away(job_id)
            return NeverBegun()
        return seen

    def remove_again_thd(self, found: RecoveredSpool) -> bool:
        """Finish the removal of an ended job, if the previous process had begun it; answers whether the job is gone."""
        if isinstance(found.seen, HeldByShim):
            return False
        try:
            if self._used.find_thd(found.job_id) is not HowUsed.PRUNED:
                return False
            self._clearing.move_away(found.job_id)
        except OSError:  # the next sweep tries it again
            return False
        return True

    def _clear_cut_short(self, job_id: str, spool: Spool) -> bool:
        """Remove a spool that a power cut left before it was durable; whether it was such a spool, and is gone."""
        try:
            if not _is_cut_short(spool):
                return False
            self._clearing.move_away(job_id)
        except (OSError, ValueError):  # the lock can't be read either
            return False
        self._log.warn("job {job_id} was cut short before it was durable, so it is dropped", job_id=job_id)
        return True


def _is_cut_short(spool: Spool) -> bool:
    """Whether a power cut took the record of the job, before the spool was durable, and no shim or end is there.

    Raises ``OSError`` or ``ValueError`` if the lock file, which every spool has, is unreadable.
    """
    try:
        with open(spool.job_path, "rb") as job:
            json.load(job)
    except (FileNotFoundError, ValueError):
        return spool.begun_by() is None and not os.path.exists(spool.exit_path)
    return False


def _taken(takes: tuple[int, ...]) -> DiskUse | None:
    return DiskUse(Amount(*takes[:2]), Amount(*takes[2:4]), Amount(*takes[4:])) if takes else None
