"""The folder of one job: its files, and how they are written and read. Standard library only.

::

    job.json      what to run, and which file is the lock: that of a copy of the folder is another one
    stdin script  the job's, where it has them
    work/         where it runs, unless it says otherwise; usable by all users, as far as they get into the folder
    stdout stderr its output, every byte in order
    lock          flock of the shim, and who that is: "<pid> <start time>"; before, room for that
    start.json    that the job was started, when, and as which process
    stop.tmp      the mark ``stop``, made with the folder, so that it can be set on a full disk
    stop          exists: somebody asked for the stop
    exit.tmp      room for the exit record, taken with the folder
    exit.json     the exit record: the job has ended, and nothing here changes any more
    acknowledged  exists: the scheduler keeps the end; what the folder takes

Of a job whose output was removed before its end was acknowledged the records are
left.

Theory of operation. Who holds the lock decides what becomes of the job. A shim
starts it only if it gets the lock, finds no exit record and finds nobody in the
lock file, and writes itself into the lock file first; so a job is started at most
once, and a shim that was killed leaves a trace. A worker that gets the lock of
a job without an exit record knows that the shim is gone and writes the record
itself, while it holds the lock. A folder gets its name when all is in it, and is
begun when all that is durable. A file that matters and is written later appears under its name only
when it is whole and on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from scheduler.daemon import failpoints
from scheduler.worker.shim.beneath import open_handle
from scheduler.worker.shim.copies import file_id, is_other
from scheduler.worker.shim.exits import Record, shortened
from scheduler.worker.shim.files import sync_file, sync_folder, take_room, write_file

#: Of all records that are written; and those that are read: in the first there is no output limit.
FORMAT = 2
_READABLE = (1, 2)

#: The variable of every process of a job that names its spool.
SPOOL_VARIABLE = "SCHEDULER_SPOOL"

#: Bytes taken for the exit record beforehand, so that a full disk still gets one.
EXIT_RECORD_BYTES = 16384

#: Bytes taken for the name of the shim, so that on a full disk what has a spool can be begun.
_SHIM_NAME_BYTES = 64

#: Processes of the job that run as another user work here, too; nobody else gets into the folder around it. Like
#: /tmp: one user's files are safe from the others.
_WORK_MODE = 0o1777

#: Who opens /dev/stdin opens the file anew, for which a process of another user needs permission.
_STDIN_MODE = 0o644

#: Numbers in the mark of an acknowledgement; in those of earlier versions there is one.
_DISK_USE_NUMBERS = 6


class Identity(NamedTuple):
    """One process, ever: ids are used again, and then with another start time."""

    pid: int
    #: In ticks since the machine's start.
    starttime: int


class NotDurable(OSError):
    """A spool could not be made durable."""


class Acknowledged(NamedTuple):
    """The scheduler keeps the end."""

    #: What the folder took then: bytes and entries of the output, of work folder, stdin and script, and of all else.
    #: ``None`` if that was not written down.
    takes: tuple[int, ...] | None


class Spool:
    """The folder of a job."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.job_path = self._path("job.json")
        self.stdin = self._path("stdin")
        self.script = self._path("script")
        self.work = self._path("work")
        self.start_path = self._path("start.json")
        self.exit_path = self._path("exit.json")
        self.lock_path = self._path("lock")
        self.exit_draft_path = self._path("exit.tmp")
        self.stop_draft_path = self._path("stop.tmp")

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def output(self, stream: str) -> str:
        """The file of ``stdout`` or ``stderr``."""
        return self._path(stream)

    def sync(self) -> None:
        """Make durable what ``create`` made; ``NotDurable``."""
        try:
            # First: where one file's sync commits all that went before, the folders' have nothing to wait for.
            sync_file(self.job_path)
            sync_folder(self.folder)
            sync_folder(os.path.dirname(self.folder))
        except OSError as error:
            raise NotDurable(error.errno or errno.EIO, error.strerror) from error

    def removed(self) -> bool:
        """Whether somebody removed the folder, or so much of it that nobody can say what becomes of the job.

        ``OSError``: it can't be looked at now.
        """
        try:
            os.stat(self.lock_path)
            os.stat(self.job_path)
        except FileNotFoundError:
            return True
        return False

    def unlock(self) -> None:
        """Take back the permissions of the folder, should the job have taken them away."""
        with contextlib.suppress(OSError):
            if os.stat(self.folder).st_mode & stat.S_IRWXU != stat.S_IRWXU:
                handle = open_handle(*os.path.split(self.folder))  # not what is linked or mounted there
                try:
                    os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)
                finally:
                    os.close(handle)

    def sizes(self) -> tuple[int, int]:
        """Bytes of stdout and of stderr; 0 for a file that was removed."""
        return _size(self.output("stdout")), _size(self.output("stderr"))

    # records

    def read_job(self) -> Record | None:
        return _read(self.job_path)

    def read_start(self) -> Record | None:
        """``None`` also for one that a power cut left in pieces."""
        try:
            return _read(self.start_path)
        except json.JSONDecodeError:
            return None

    def read_exit(self) -> Record | None:
        return _read(self.exit_path)

    def is_copy(self, job: Record) -> bool:
        """Whether this is a copy of the folder that was made for the job: its lock is another file, or missing.

        ``job`` is its record, of this boot of the machine. That of an earlier version says less of the file that the
        lock is, or nothing. ``OSError``.
        """
        made = job.get("lock")
        try:
            return made is not None and is_other([*made, *job.get("lock_more", (0, 0))], file_id(self.lock_path))
        except FileNotFoundError:
            return True

    def write_start(self, record: Record) -> None:
        """Whole or not there. The start waits for it; so it is not synced: a power cut takes the job, too."""
        _write(f"{self.start_path}.tmp", record, sync=False)
        os.rename(f"{self.start_path}.tmp", self.start_path)

    def write_exit(self, record: Record, failpoint: str = "worker.before-exit-rename") -> None:
        """Write the end down, whole and durable, in the room that was taken for it."""
        _write(self.exit_draft_path, shortened(record))
        failpoints.hit(failpoint)
        os.rename(self.exit_draft_path, self.exit_path)
        with contextlib.suppress(FileNotFoundError):  # nobody has to stop it any more
            os.unlink(self.stop_draft_path)
        sync_folder(self.folder)

    # marks

    def ask_stop(self) -> None:
        """Set the mark ``stop``, durably."""
        self.unlock()
        try:
            os.rename(self.stop_draft_path, self._path("stop"))
        except FileNotFoundError:  # it is set already, or the spool is of an earlier version
            write_file(self._path("stop"), b"")
        sync_folder(self.folder)

    def stop_asked(self) -> bool:
        return os.path.exists(self._path("stop"))

    def acknowledge(self, takes: tuple[int, ...]) -> None:
        """Not synced: a mark that is lost is made again. See ``Acknowledged``."""
        fd = os.open(self._path("acknowledged"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            with contextlib.suppress(OSError):  # on a full disk it is the mark that counts
                os.write(fd, b" ".join(b"%d" % each for each in takes) + b"\n")
        finally:
            os.close(fd)

    def acknowledged(self) -> Acknowledged | None:
        try:
            with open(self._path("acknowledged"), "rb") as file:
                line, end, _ = file.read().partition(b"\n")
        except FileNotFoundError:
            return None
        takes = [int(word) for word in line.split() if word.isdigit()]
        return Acknowledged(tuple(takes) if end and len(takes) == _DISK_USE_NUMBERS else None)

    # lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[int | None]:
        """The lock as a descriptor, or ``None`` when another holds it, or took the spool away.

        No process started meanwhile inherits it.
        """
        fd = os.open(self.lock_path, os.O_RDWR)
        try:
            yield fd if _is_locked(fd, self.lock_path) else None
        finally:
            os.close(fd)

    def begin(self, lock: int, shim: Identity) -> None:
        """Leave the trace of the shim that has the lock."""
        os.ftruncate(lock, os.pwrite(lock, f"{shim.pid} {shim.starttime}\n".encode(), 0))

    def begun_by(self) -> Identity | None:
        """The shim that took the job on; ``None``: none ever did."""
        with open(self.lock_path, "rb") as lock:
            words = lock.read().rstrip(b"\0").split()
        return Identity(int(words[0]), int(words[1])) if len(words) == 2 else None


def create(
    folder: str,
    making_in: str,
    record: Record,
    stdin: bytes | None,
    script: bytes | None,
    exit_record: Record | None = None,
) -> None:
    """Make a spool, at once; with an ``exit_record``, of a job that has ended already. Durable it is by its ``sync``.

    ``making_in`` is the name of the folder, beside ``folder``, until it is complete.
    """
    making = Spool(making_in)
    os.mkdir(making.folder, 0o700)
    os.mkdir(making.work, 0o700)
    os.chmod(making.work, _WORK_MODE)  # whatever the umask
    for empty in (making.output("stdout"), making.output("stderr")):
        os.close(os.open(empty, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    take_room(making.lock_path, _SHIM_NAME_BYTES)
    if stdin is not None:
        write_file(making.stdin, stdin)
        os.chmod(making.stdin, _STDIN_MODE)
    if script is not None:
        write_file(making.script, script, 0o700)
    if exit_record is None:
        take_room(making.exit_draft_path, EXIT_RECORD_BYTES)
        # ``ask_stop`` only has to rename this, which takes neither a block nor an inode.
        os.close(os.open(making.stop_draft_path, os.O_WRONLY | os.O_CREAT, 0o600))
    else:
        making.write_exit(exit_record)
    lock = file_id(making.lock_path)
    record = {"format": FORMAT, **record, "lock": lock[:2], "lock_more": lock[2:]}  # earlier versions read ``lock``
    write_file(making.job_path, json.dumps(record).encode(), sync=False)
    failpoints.hit("worker.before-spool-rename")
    os.rename(making.folder, folder)
    failpoints.hit("worker.after-spool-rename")


@lru_cache
def boot_id() -> str:
    """Another after each start of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _read(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:
            record: Mapping[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    if record.get("format") not in _READABLE:
        raise ValueError(f"{path}: format {record.get('format')!r}, known are {_READABLE}")
    return dict(record)


def _write(path: str, record: Record, sync: bool = True) -> None:
    write_file(path, json.dumps({"format": FORMAT, **record}).encode(), sync=sync)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _is_locked(fd: int, path: str) -> bool:
    """Whether this process holds the lock now, and the lock is still the one at ``path``."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
