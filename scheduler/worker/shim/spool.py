"""The folder of one job: its files, and how they are written and read. Standard library only.

::

    job.json      the command, and which file is the lock (``copies``): a copy of the folder has another one
    stdin script  of the job, if it has them
    work/         the job's default cwd; usable by all users, as far as they get into the folder
    stdout stderr the output, every byte in order
    lock          has the flock of the shim, and its identity: "<pid> <start time>"; before that, room for it
    start.json    the job was started: the time, and the process
    stop.tmp      the mark ``stop``, made with the folder, so that it can be set on a full disk
    stop          exists: a stop was asked for
    exit.tmp      room for the exit record, taken with the folder
    exit.json     the exit record: the job has ended, and nothing here changes any more
    acknowledged  exists: the scheduler keeps the end; contains the disk use of the folder

If the output was removed before the end was acknowledged, the records are left.

Theory of operation. The holder of the lock decides the outcome of the job. A shim starts the job only if it gets the
lock and finds neither an exit record nor an identity in the lock file. It first writes its own identity into the lock
file. So a job is started at most once, and a shim that was killed leaves a trace. A worker that gets the lock of a job
without an exit record knows that the shim is gone. It writes the record itself, while it holds the lock. A spool gets
its name when it is complete, and its job begins when the spool is durable. A file that matters and is written later
appears under its name only when it is whole and on the disk.
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

from scheduler.daemon import drafts, failpoints
from scheduler.daemon.drafts import sync_folder
from scheduler.worker.shim.beneath import open_handle
from scheduler.worker.shim.copies import file_id, is_other
from scheduler.worker.shim.exits import Record, shortened
from scheduler.worker.shim.files import held, sync_file, take_room, write_file

#: The format of all records that are written, and those that can be read: the first has no output limit.
FORMAT = 2
_READABLE = (1, 2)

#: The variable that names the spool to every process of a job.
SPOOL_VARIABLE = "SCHEDULER_SPOOL"

#: Bytes taken for the exit record beforehand, so that a full disk still gets one.
EXIT_RECORD_BYTES = 16384

#: Bytes taken for the identity of the shim, so that a job with a spool can be begun on a full disk.
_SHIM_NAME_BYTES = 64

#: The work folder is like /tmp, as processes of the job may run as another user: one user's files are safe from the
#: others. The folder around it keeps all other users out.
_WORK_MODE = 0o1777

#: An open of /dev/stdin opens the file anew, for which a process of another user needs permission.
_STDIN_MODE = 0o644

#: Numbers in the mark of an acknowledgement. Earlier versions wrote one.
_DISK_USE_NUMBERS = 6


class ProcessId(NamedTuple):
    """A process, told from all others: an id that is used again comes with another start time."""

    pid: int
    #: In ticks since the machine's start.
    starttime: int


class NotDurable(OSError):
    """The spool could not be made durable."""


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
        return self._path(stream)

    def sync(self) -> None:
        """Make the new spool durable. Raises ``NotDurable`` if that fails."""
        try:
            # First: where the sync of one file commits all earlier changes, those of the folders do not wait.
            sync_file(self.job_path)
            sync_folder(self.folder)
            sync_folder(os.path.dirname(self.folder))
        except OSError as error:
            raise NotDurable(error.errno or errno.EIO, error.strerror) from error

    def removed(self) -> bool:
        """Whether the folder was removed, or so much of it that the outcome of the job can't be told.

        Raises ``OSError`` if it can't be looked at now.
        """
        try:
            os.stat(self.lock_path)
            os.stat(self.job_path)
        except FileNotFoundError:
            return True
        return False

    def unlock(self) -> None:
        """Restore the permissions of the folder, in case the job has changed them."""
        with contextlib.suppress(OSError):
            if os.stat(self.folder).st_mode & stat.S_IRWXU != stat.S_IRWXU:
                with held(open_handle(*os.path.split(self.folder))) as handle:  # never the target of a link or mount
                    os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)

    def sizes(self) -> tuple[int, int]:
        """Answer the bytes of stdout and of stderr; 0 for a file that was removed."""
        return _size(self.output("stdout")), _size(self.output("stderr"))

    # records

    def read_job(self) -> Record | None:
        return _read(self.job_path)

    def read_start(self) -> Record | None:
        """Read the record of the start; ``None``: there is none, or a power cut left it in pieces."""
        try:
            return _read(self.start_path)
        except json.JSONDecodeError:
            return None

    def read_exit(self) -> Record | None:
        return _read(self.exit_path)

    def is_copy(self, job: Record) -> bool:
        """Whether this is a copy of the folder that was made for the job: its lock is another file, or missing.

        ``job`` is its record, of this boot of the machine. A record of an earlier version says less of the lock, or
        nothing. Raises ``OSError`` if the lock can't be looked at.
        """
        made = job.get("lock")
        try:
            return made is not None and is_other([*made, *job.get("lock_more", (0, 0))], file_id(self.lock_path))
        except FileNotFoundError:
            return True

    def write_start(self, record: Record) -> None:
        """Write the record of the start, whole or not at all.

        It is not synced, as the start waits for it: a power cut ends the job, too.
        """
        drafts.replace(self.start_path, _encoded(record), sync=False)

    def write_exit(self, record: Record, failpoint: str = "worker.before-exit-rename") -> None:
        """Write the end down, whole and durable, in the room that was taken for it."""
        write_file(self.exit_draft_path, _encoded(shortened(record)))
        failpoints.hit(failpoint)
        os.rename(self.exit_draft_path, self.exit_path)
        with contextlib.suppress(FileNotFoundError):  # a stop is not possible any more
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
        """Set the mark ``acknowledged``. A mark that is lost is set again, so it is not synced.

        ``takes`` is the disk use: bytes and entries of the output; of work folder, stdin and script; of all else.
        """
        mark = os.open(self._path("acknowledged"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with held(mark), contextlib.suppress(OSError):  # on a full disk the mark alone must do
            os.write(mark, b" ".join(b"%d" % each for each in takes) + b"\n")

    def acknowledged(self) -> tuple[int, ...] | None:
        """Read the disk use in the mark ``acknowledged``: ``()`` if it was not written down; ``None``: no mark."""
        try:
            with open(self._path("acknowledged"), "rb") as file:
                line, end, _ = file.read().partition(b"\n")
        except FileNotFoundError:
            return None
        takes = [int(word) for word in line.split() if word.isdigit()]
        return tuple(takes) if end and len(takes) == _DISK_USE_NUMBERS else ()

    # lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[int | None]:
        """Take the lock; gives a descriptor, or ``None`` if another process holds it or has removed the spool.

        A process that is started meanwhile does not inherit it.
        """
        with held(os.open(self.lock_path, os.O_RDWR)) as fd:
            yield fd if _is_locked(fd, self.lock_path) else None

    def begin(self, lock: int, shim: ProcessId) -> None:
        """Write the identity of the shim into its lock."""
        os.ftruncate(lock, os.pwrite(lock, f"{shim.pid} {shim.starttime}\n".encode(), 0))

    def begun_by(self) -> ProcessId | None:
        """Read which shim took the job on; ``None``: no shim has."""
        with open(self.lock_path, "rb") as lock:
            words = lock.read().rstrip(b"\0").split()
        return ProcessId(int(words[0]), int(words[1])) if len(words) == 2 else None


def create(
    folder: str,
    making_in: str,
    record: Record,
    stdin: bytes | None,
    script: bytes | None,
    exit_record: Record | None = None,
) -> None:
    """Make a spool, whole or not at all; not durable until its ``sync``.

    ``making_in`` is the name of the folder, beside ``folder``, until it is complete. With ``exit_record``, the job has
    ended already.
    """
    making = Spool(making_in)
    os.mkdir(making.folder, 0o700)
    os.mkdir(making.work, 0o700)
    os.chmod(making.work, _WORK_MODE)  # whatever the umask
    for empty in (making.output("stdout"), making.output("stderr")):
        os.close(drafts.create(empty))
    take_room(making.lock_path, _SHIM_NAME_BYTES)
    if stdin is not None:
        write_file(making.stdin, stdin)
        os.chmod(making.stdin, _STDIN_MODE)
    if script is not None:
        write_file(making.script, script, 0o700)
    if exit_record is None:
        take_room(making.exit_draft_path, EXIT_RECORD_BYTES)
        # ``ask_stop`` only has to rename this, which takes neither a block nor an inode.
        os.close(drafts.create(making.stop_draft_path))
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
    """Identify this run of the machine: the id changes with each start of it."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
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


def _encoded(record: Record) -> bytes:
    return json.dumps({"format": FORMAT, **record}).encode()


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
