"""The folder ``jobs``, with the spools of this worker. Methods that end in ``_thd`` block on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.logger import Logger

from scheduler.cut_output import output_cut
from scheduler.daemon import failpoints
from scheduler.errors import JobNotEnded, NotFound, OffsetBeyondEnd, OutputPruned, Unavailable
from scheduler.messages import Chunk
from scheduler.model import Disk, JobSpec, JobState, Stream
from scheduler.names import is_id
from scheduler.request_keys import RequestKey
from scheduler.worker.clearing import MAKING, REMOVING, Clearing, DiskUse, Remains
from scheduler.worker.commands import mounted_noexec
from scheduler.worker.disk import disk_of
from scheduler.worker.endings import Endings
from scheduler.worker.records import key_of, spec_of, status_of
from scheduler.worker.recovery import RecoveredSpool, Recovery
from scheduler.worker.shim.spool import Spool
from scheduler.worker.trees import Left
from scheduler.worker.used_ids import HowUsed, UsedIds


class Spools:
    """Finds, reads, describes, acknowledges and removes spools."""

    _log = Logger()

    def __init__(self, folder: str, used: UsedIds, wall_time: Callable[[], float]) -> None:
        self.folder = folder
        self.clearing = Clearing(folder)
        self.endings = Endings(folder, self.spool, used, self.clearing, wall_time)
        self._used = used
        self.recovery = Recovery(self.spool, used, self.clearing, self.endings)

    def spool(self, job_id: str) -> Spool:
        """Make the spool of a job, whether it exists or not. Raises ``NotFound`` for an invalid id."""
        if not is_id(job_id):
            raise NotFound("job", job_id)
        return Spool(os.path.join(self.folder, job_id))

    def seal_thd(self, job_id: str) -> RecoveredSpool | None:
        """Find the job, if its spool is there; otherwise seal its id. Raises ``Unavailable`` if neither is possible."""
        try:
            if os.path.exists(self.spool(job_id).folder):
                found = self.recovery.find_thd(job_id, tell=True)
                if found is not None:
                    return found
            if (lost := self.endings.find_removed_thd(job_id)) is not None:
                return RecoveredSpool(job_id, lost)
            self._used.add_thd([job_id], HowUsed.SEALED)
        except OSError as error:
            raise Unavailable(f"job {job_id!r} can't be sealed: {os.strerror(error.errno or 0)}") from error
        return None

    def load_thd(self) -> list[RecoveredSpool]:
        """Find all jobs, and remove the rests of unfinished work from the folder."""
        os.makedirs(self.folder, 0o700, exist_ok=True)
        if mounted_noexec(self.folder):
            self._log.warn("{folder} is on a file system mounted noexec: no job can run a script", folder=self.folder)
        self.clearing.take_over(name for name in os.listdir(self.folder) if name.startswith((MAKING, REMOVING)))
        try:
            self._used.open_thd()
        except OSError:  # starts are refused as long as the file can't be read, or made
            self._log.failure("used ids can't be looked up")
        found = (self.recovery.find_thd(job_id) for job_id in os.listdir(self.folder) if is_id(job_id))
        return [each for each in found if each is not None and not self.recovery.remove_again_thd(each)]

    def describe_thd(self, job_ids: Iterable[str]) -> dict[str, tuple[JobSpec, float, RequestKey | None]]:
        """Read the specs (without stdin and script), creation times and keys of the jobs whose spools are there."""
        described = {}
        for job_id in job_ids:
            if (record := self.spool(job_id).read_job()) is not None:
                described[job_id] = spec_of(record), record["created_at"], key_of(record)
        return described

    def acknowledge_thd(self, job_ids: Iterable[str]) -> dict[str, DiskUse]:
        """Mark jobs as acknowledged, for this and later processes; answers the disk use of their spools."""
        found = {}
        for job_id in job_ids:
            spool = self.spool(job_id)
            found[job_id] = self.clearing.taken(spool)
            failpoints.hit("worker.before-ack-written")
            try:
                spool.acknowledge(_takes(found[job_id]))
            except FileNotFoundError:  # it was removed
                continue
            except OSError:  # this process may remove it, to make room on a full disk; the next one reports it again
                self._log.failure("the acknowledgement of job {job_id} is not written down", job_id=job_id)
        return found

    # for ``retention``

    def look_thd(self, running: Iterable[str]) -> tuple[Disk, Mapping[str, int]]:
        """Look at the disk, and at the bytes of output of each running job."""
        os.makedirs(self.folder, 0o700, exist_ok=True)  # it may have been removed by hand
        written = {job_id: self.clearing.written(self.spool(job_id)) for job_id in running}
        return disk_of(self.folder), written

    def measure_thd(self, job_id: str, running: bool) -> DiskUse:
        return self.clearing.taken(self.spool(job_id), running)

    def clean_thd(self, job_id: str, output: bool) -> tuple[DiskUse, Left | None]:
        """Remove work folder, stdin and script of an ended job, with ``output`` the output, too.

        Answers the disk use after that, and the first entry that could not be removed.
        """
        spool = self.spool(job_id)
        left = self.clearing.clean(spool, output)
        taken = self.clearing.taken(spool)
        if spool.acknowledged() is not None:
            with contextlib.suppress(OSError):  # the next process then counts too much
                spool.acknowledge(_takes(taken))
        return taken, left

    def use_up_thd(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Mark ids as used, before their spools are removed; answers those for which that is durable.

        On a full disk there may be room for some only.
        """
        try:
            self._used.add_thd(job_ids, HowUsed.PRUNED)
            return tuple(job_ids)
        except OSError as error:
            if len(job_ids) <= 1:
                self._log.error("job {job_id} can't be removed: {why}", job_id=job_ids[0], why=str(error))
                return ()
            half = len(job_ids) // 2
            return self.use_up_thd(job_ids[:half]) + self.use_up_thd(job_ids[half:])

    def remove_thd(self, job_id: str) -> Remains | None:
        """Remove a job, and answer what is left of it. Raises ``OSError`` if its spool is still in place."""
        failpoints.hit("worker.before-spool-removed")
        return self.clearing.move_away(job_id)

    def remove_unlisted_thd(self, job_id: str) -> None:
        """Remove the spool, if there is one, of a job that is not in the table, and mark its id as used.

        What can't be removed becomes a leftover. Raises ``JobNotEnded`` if a shim has the job, ``Unavailable`` if the
        spool is still there.
        """
        spool = self.spool(job_id)
        try:
            if self._is_held(spool):
                raise JobNotEnded(job_id, JobState.RUNNING.value)
            self._used.add_thd([job_id], HowUsed.PRUNED)
            if os.path.lexists(spool.folder):
                self.clearing.move_away(job_id)
        except OSError as error:
            raise Unavailable(f"job {job_id!r} can't be removed: {error.strerror}") from error

    @staticmethod
    def _is_held(spool: Spool) -> bool:
        """Whether a shim has the lock. Raises ``OSError`` if that can't be found out."""
        spool.unlock()
        try:
            with spool.locked() as lock:
                return lock is None and not spool.removed()
        except FileNotFoundError:
            return False

    def read_thd(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        """Read output as ``IJobRunner.read_output_thd``."""
        spool = self.spool(job_id)
        ended = os.path.exists(spool.exit_path)  # checked first: once it is there, the output does not grow
        try:
            with open(spool.output(stream.value), "rb", buffering=0) as file:
                length = os.fstat(file.fileno()).st_size
                if offset > length:
                    raise OffsetBeyondEnd(offset, length)
                data = os.pread(file.fileno(), min(size, length - offset), offset)
        except FileNotFoundError:
            if os.path.exists(spool.folder) or self._used.find_thd(job_id) is HowUsed.PRUNED:
                raise OutputPruned(job_id) from None
            raise NotFound("job", job_id) from None
        except OSError as error:
            raise Unavailable(f"the output of job {job_id!r} can't be read: {error.strerror}") from error
        if not ended or offset + len(data) < length:
            return Chunk(data, offset, size=length)
        record = spool.read_exit()
        if record is None:  # removed meanwhile
            raise OutputPruned(job_id)
        if record.get("shortage"):  # the job did not run, and its start is about to be refused
            raise NotFound("job", job_id)
        return Chunk(data, offset, True, length, output_cut(status_of(job_id, record), stream, length))


def _takes(taken: DiskUse) -> tuple[int, ...]:
    """Make the numbers in the mark of an acknowledgement."""
    return (*taken.output, *taken.work, *taken.records)
