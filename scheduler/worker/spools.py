"""All spools of this worker: what blocks, and so runs in a pool."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from twisted.logger import Logger

from scheduler.completeness import output_cut
from scheduler.daemon import failpoints
from scheduler.errors import Conflict, JobNotEnded, NotFound, OffsetBeyondEnd, OutputPruned, Unavailable
from scheduler.messages import Chunk, JobStatus, RequestKey
from scheduler.model import Disk, JobSpec, JobState, Stream, is_id
from scheduler.units import Share
from scheduler.worker import room
from scheduler.worker.clearing import MAKING, REMOVING, Clearing, Remains
from scheduler.worker.commands import NotRunnable, mounted_noexec
from scheduler.worker.endings import Endings
from scheduler.worker.launcher import Launcher
from scheduler.worker.records import (
    CopiedSpool,
    HeldByShim,
    NeverBegun,
    NotStartable,
    judge_thd,
    key_of,
    spec_of,
    spec_record,
    status_of,
)
from scheduler.worker.recovery import RecoveredSpool, Recovery
from scheduler.worker.room import DiskFull, DiskUse
from scheduler.worker.shim.spool import Record, Spool, boot_id, create, exit_record
from scheduler.worker.starting import Starter
from scheduler.worker.trees import Left
from scheduler.worker.used_ids import HowUsed, UsedIds

#: A disk or a quota that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PolicyLike(Protocol):
    """``scheduler.worker.commands.Policy``: what may run here, and how."""

    def environment_thd(self, job_id: str, spec: JobSpec, spool: Spool) -> dict[str, str]: ...

    def command_line_thd(self, spec: JobSpec, script: str | None) -> list[str]: ...


class Spools:
    """The folder ``jobs`` and what is in it."""

    _log = Logger()

    def __init__(
        self,
        folder: str,
        used: UsedIds,
        policy: PolicyLike,
        launcher: Launcher,
        wall_time: Callable[[], float],
        min_free: Share,
        output_limit: int | None,
        umask: int,
    ) -> None:
        """``min_free`` of the disk must be free for a start. No job writes more bytes than ``output_limit``.

        ``umask`` is that of every job that sets none.
        """
        self._folder = folder
        self._used = used
        self._policy = policy
        self.endings = Endings(folder, self.spool, used, wall_time)
        self._clearing = Clearing(folder)
        self._starter = Starter(launcher, self._clearing.move_away, wall_time)
        self._recovery = Recovery(self.spool, used, self._clearing, self._starter, wall_time)
        self._wall_time = wall_time
        self._min_free = min_free
        self._output_limit = output_limit
        self._umask = umask

    def spool(self, job_id: str) -> Spool:
        """The spool of a job, whether it exists or not; ``NotFound`` for an id that is none."""
        if not is_id(job_id):
            raise NotFound("job", job_id)
        return Spool(os.path.join(self._folder, job_id))

    def start_thd(
        self, job_id: str, spec: JobSpec, created_at: float, key: RequestKey | None
    ) -> JobStatus | HeldByShim:
        """Make the spool, unless it is there, and have a shim start the job.

        Answers when the job runs, or has ended, or could not be started. ``Conflict``: the id was used up.
        ``DiskFull``; ``Unavailable``: it can't be started now; nothing ran, and there is no such job.
        """
        spool, new = self.spool(job_id), False
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)  # somebody may have removed it
            self._check_unused(job_id)
            new = not os.path.exists(spool.folder)
            if new:
                self._check_room()
                seen = self.create_thd(job_id, spool, spec, created_at, key)
            else:
                self._check_readable(job_id, spool)
                seen = judge_thd(job_id, spool, self._wall_time)
                if isinstance(seen, NotStartable):
                    self._clearing.move_away(job_id)
                    return self.start_thd(job_id, spec, created_at, key)
            return seen if isinstance(seen, (JobStatus, HeldByShim)) else self._starter.start_thd(job_id, spool, new)
        except CopiedSpool as error:
            raise Conflict(
                f"job {job_id!r} is not started: its spool is there, and is a copy of the one that it was begun from"
            ) from error
        except OSError as error:  # no shim was told to begin it
            if new and os.path.exists(spool.folder):
                self._starter.unmake_thd(job_id)
            if error.errno in _FULL:
                raise DiskFull(f"the disk for the output of jobs is full: {os.strerror(error.errno)}", True) from error
            raise Unavailable(f"the job's spool can't be used: {os.strerror(error.errno or 0)}") from error

    def _check_unused(self, job_id: str) -> None:
        use = self._used.find_thd(job_id)
        if use is HowUsed.SEALED:
            raise Conflict(f"job {job_id!r} was not started before its scheduler gave it up, so it is not started now")
        if use is not None:
            raise Conflict(f"job {job_id!r} was started before, and is no longer kept")

    def _check_room(self) -> None:
        if lack := room.lack(room.disk(self._folder), self._min_free):
            raise DiskFull(lack)

    @staticmethod
    def _check_readable(job_id: str, spool: Spool) -> None:
        try:
            readable = spool.read_job() is not None
        except ValueError:
            readable = False
        if not readable:
            raise Conflict(f"the spool of job {job_id!r} is there and unreadable, so it is not started")

    def seal_thd(self, job_id: str) -> RecoveredSpool | None:
        """The job, if its spool is there; else its id is used up from now on. ``Unavailable``: it can't be told."""
        try:
            if os.path.exists(self.spool(job_id).folder):
                found = self._recovery.find_thd(job_id, tell=True)
                if found is not None:
                    return found
            lost = self.endings.find_removed_thd(job_id)
            if lost is not None:
                return RecoveredSpool(job_id, lost)
            self._used.add_thd([job_id], HowUsed.SEALED)
        except OSError as error:
            raise Unavailable(f"job {job_id!r} can't be sealed: {os.strerror(error.errno or 0)}") from error
        return None

    def create_thd(
        self, job_id: str, spool: Spool, spec: JobSpec, created_at: float, key: RequestKey | None
    ) -> JobStatus | HeldByShim | NeverBegun | NotStartable:
        """Answers like ``judge_thd``; one that was refused has ended."""
        refused: Record | None = None
        argv: list[str] = []
        env: dict[str, str] = {}
        try:
            if spec.script is not None and mounted_noexec(self._folder):
                state = os.path.dirname(self._folder)
                raise NotRunnable(
                    f"script: can't be run here: the worker's state folder, {state}, is on a file system mounted noexec"
                )
            argv = self._policy.command_line_thd(spec, None if spec.script is None else spool.script)
            env = self._policy.environment_thd(job_id, spec, spool)
            if spec.cwd and not os.path.isabs(spec.cwd):
                raise NotRunnable(f"cwd {spec.cwd!r}: must be an absolute path")
        except NotRunnable as error:
            refused = exit_record(JobState.FAILED.value, str(error), self._wall_time())
        limits = [limit for limit in (spec.output_limit, self._output_limit) if limit is not None]
        record: Record = {
            "id": job_id,
            "created_at": created_at,
            "request_key": None if key is None else [key.key, key.fingerprint],
            "boot_id": boot_id(),
            "spec": spec_record(spec),
            "argv": argv,
            "env": env,
            "cwd": spec.cwd or spool.work,
            "stdin": spec.stdin is not None,
            "output_limit": min(limits, default=None),
            "umask": self._umask,
        }
        making = self._clearing.beside(job_id, MAKING)
        self._clearing.discard(making)  # of a start that failed and could not even clear up
        try:
            create(spool.folder, making, record, spec.stdin, spec.script, refused)
        except OSError:
            self._clearing.discard(making)
            raise
        if refused is None:
            return NeverBegun()  # it is synced while a shim gets ready
        spool.sync()
        return judge_thd(job_id, spool, self._wall_time)

    def load_thd(self) -> list[RecoveredSpool]:
        """All jobs there are; what is left of unfinished work in the folder is removed."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        if mounted_noexec(self._folder):
            self._log.warn("{folder} is on a file system mounted noexec: no job can run a script", folder=self._folder)
        self._clearing.take_over(name for name in os.listdir(self._folder) if name.startswith((MAKING, REMOVING)))
        try:
            self._used.open_thd()
        except OSError:  # starts are refused as long as it can't be read, or made
            self._log.failure("used ids can't be looked up")
        found = (self._recovery.find_thd(job_id) for job_id in os.listdir(self._folder) if is_id(job_id))
        return [each for each in found if each is not None and not self._recovery.remove_again_thd(each)]

    def recover_thd(self, job_id: str) -> JobStatus | HeldByShim | NeverBegun:
        """See ``Recovery.decide_thd``."""
        return self._recovery.decide_thd(job_id)

    def describe_thd(self, job_ids: Iterable[str]) -> dict[str, tuple[JobSpec, float, RequestKey | None]]:
        """Specs without stdin and script, when the jobs were created, and the keys, of those whose spools are there."""
        described = {}
        for job_id in job_ids:
            record = self.spool(job_id).read_job()
            if record is not None:
                described[job_id] = spec_of(record), record["created_at"], key_of(record)
        return described

    def acknowledge_thd(self, job_ids: Iterable[str]) -> dict[str, DiskUse]:
        """Remember across restarts that the scheduler keeps these, and what their spools take."""
        found = {}
        for job_id in job_ids:
            spool = self.spool(job_id)
            found[job_id] = self._clearing.taken(spool)
            failpoints.hit("worker.before-ack-written")
            try:
                spool.acknowledge(_takes(found[job_id]))
            except FileNotFoundError:  # somebody removed it
                continue
            except OSError:  # the next process has it acknowledged again; on a full disk this one is to make room
                self._log.failure("the acknowledgement of job {job_id} is not written down", job_id=job_id)
        return found

    # for ``retention``

    def disk_thd(self) -> Disk:
        """The disk that they are on; ``OSError``."""
        return room.disk(self._folder)

    def look_thd(self, running: Iterable[str]) -> tuple[Disk, Mapping[str, int]]:
        """The disk, and how many bytes of output each of those has that run."""
        os.makedirs(self._folder, 0o700, exist_ok=True)  # it may have been removed by hand
        written = {job_id: self._clearing.written(self.spool(job_id)) for job_id in running}
        return room.disk(self._folder), written

    def measure_thd(self, job_id: str, running: bool) -> DiskUse:
        """What its folder takes."""
        return self._clearing.taken(self.spool(job_id), running)

    def clean_thd(self, job_id: str, output: bool) -> tuple[DiskUse, Left | None]:
        """Of an ended job, remove the work folder, and the output if so told; answers what it takes now."""
        spool = self.spool(job_id)
        left = self._clearing.clean(spool, output)
        taken = self._clearing.taken(spool)
        if spool.acknowledged() is not None:
            with contextlib.suppress(OSError):  # the next process counts too much, then
                spool.acknowledge(_takes(taken))
        return taken, left

    def use_up_thd(self, job_ids: Iterable[str]) -> tuple[str, ...]:
        """Remember that those ids were used, before their spools are removed; answers for which that is durable."""
        return self._use_up(tuple(job_ids))

    def remove_thd(self, job_id: str) -> Remains | None:
        """Remove a job, at once as far as anybody can see; answers what resists. ``OSError``: it is still there."""
        failpoints.hit("worker.before-spool-removed")
        return self._clearing.move_away(job_id)

    def remove_unlisted_thd(self, job_id: str) -> None:
        """Remove what there is of a job that no process of the worker could read, or found; its id is used up.

        What resists is among the ``leftovers``. ``JobNotEnded``: a shim has it. ``Unavailable``: it is still there.
        """
        spool = self.spool(job_id)
        try:
            if self._is_held(spool):
                raise JobNotEnded(job_id, JobState.RUNNING.value)
            self._used.add_thd([job_id], HowUsed.PRUNED)
            if os.path.lexists(spool.folder):
                self._clearing.move_away(job_id)
        except OSError as error:
            raise Unavailable(f"job {job_id!r} can't be removed: {error.strerror}") from error

    @staticmethod
    def _is_held(spool: Spool) -> bool:
        """Whether a shim has the lock. ``OSError``: that can't be told."""
        spool.unlock()
        try:
            with spool.locked() as lock:
                return lock is None and not spool.removed()
        except FileNotFoundError:
            return False

    def clear_thd(self, name: str) -> Remains | None:
        """Try again to remove a leftover."""
        return self._clearing.clear(name)

    def leftovers(self) -> tuple[str, ...]:
        """Names of folders that are to go and are there."""
        return self._clearing.leftovers()

    def _use_up(self, job_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Those whose ids are used up now; on a full disk there may be a place for some only."""
        try:
            self._used.add_thd(job_ids, HowUsed.PRUNED)
            return job_ids
        except OSError as error:
            if len(job_ids) <= 1:
                self._log.error("job {job_id} can't be removed: {why}", job_id=job_ids[0], why=str(error))
                return ()
            half = len(job_ids) // 2
            return self._use_up(job_ids[:half]) + self._use_up(job_ids[half:])

    def read_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        """See ``IJobRunner.read_output_thd``."""
        spool = self.spool(job_id)
        ended = os.path.exists(spool.exit_path)  # looked at first: from then on the file does not grow
        try:
            with open(spool.output(stream.value), "rb", buffering=0) as file:
                length = os.fstat(file.fileno()).st_size
                if offset > length:
                    raise OffsetBeyondEnd(offset, length)
                data = os.pread(file.fileno(), min(size, length - offset), offset)
        except FileNotFoundError:
            if os.path.exists(spool.folder):
                raise OutputPruned(job_id) from None
            if self._used.find_thd(job_id) is HowUsed.PRUNED:
                raise OutputPruned(job_id) from None
            raise NotFound("job", job_id) from None
        except OSError as error:
            raise Unavailable(f"the output of job {job_id!r} can't be read: {error.strerror}") from error
        if not ended or offset + len(data) < length:
            return Chunk(data, offset, size=length)
        record = spool.read_exit()
        if record is None:  # removed meanwhile
            raise OutputPruned(job_id)
        if record.get("shortage"):  # nothing ran, and the start is about to be refused
            raise NotFound("job", job_id)
        return Chunk(data, offset, True, length, output_cut(status_of(job_id, record), stream, length))


def _takes(taken: DiskUse) -> tuple[int, ...]:
    """For the mark of an acknowledgement."""
    return (*taken.output, *taken.work, *taken.records)
