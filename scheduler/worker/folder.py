"""The identity of a state folder: its secret id, and how a copy of the folder becomes a worker of its own.

Theory of operation. The id is made with the folder, before a worker registers from it,
and is durable then: a file appears under its name only when it is whole and on the disk.
A folder of an earlier version has none, and gets one beside the worker id that it holds.

A copy has the id of the original. ``--new-id`` writes another one beside it, as
``folder_id.next``. From then on each start first finishes what was begun: the copied jobs
and used ids get other names, the worker id goes, and the new folder id takes its place,
as the last step. So no process ever has the new id with the copied jobs, or the old id
without them, wherever the one before it was killed.

All of it blocks, and runs before the worker does, while it holds the folder's lock.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from scheduler.errors import Invalid
from scheduler.model import is_id
from scheduler.worker.shim.files import sync_folder
from scheduler.worker.shim.spool import Spool

_log = Logger()

#: In a state folder.
FOLDER_ID = "folder_id"
JOBS = "jobs"
USED_IDS = "used-ids"
WORKER_ID = "worker_id"
COMMIT_COUNT = "commit_count"

#: The folder id to be, of a copy.
_NEXT = "folder_id.next"

_PATTERN = re.compile(r"[0-9a-f]{32}\n?")
_MAX_BYTES = 64

#: What a file with an id must hold, and what to do where it does not. ``_NEXT`` is not to be removed: the copy would
#: be the original then, and some of its jobs may be set aside already.
_MEND = (
    "the id of this state folder, 32 hexadecimal digits, and does not: restore it from a backup of this folder; or "
    "remove it, and the worker makes another one and may be given another worker id"
)
_MEND_NEXT = (
    "the id that this copy of a state folder is to have, 32 hexadecimal digits, and does not: start the worker once "
    "with --new-id, which writes another one; do not remove it, or the copy is the original, without the jobs of that"
)

#: In the names of what is set aside, of a worker that never had an id.
_NO_ID = "no-worker"


@frozen
class StateFolder:
    """What a worker is known by."""

    #: Secret.
    folder_id: str = field(repr=False)
    #: Where the jobs of the original are now, of a copy that has just become a worker of its own; ``""``: it has not.
    set_aside: str = ""

    def announce(self) -> None:
        """Log it, if a copy has just become a worker of its own."""
        if self.set_aside:
            _log.info(
                "this state folder is a copy and has an id of its own now; the jobs of the original are set aside in "
                "{folder}, and are neither reported nor touched: remove it when nobody needs it",
                folder=self.set_aside,
            )


def open_folder(path: Path, new_id: bool, uid: int | None = None, gid: int | None = None) -> StateFolder:
    """The identity of the state folder at ``path``, made if need be, for that user. The caller holds its lock.

    ``new_id``: the folder is a copy, and gets an id of its own. ``Invalid``, its field the file that is meant: that
    can't be used, or the folder is no copy.
    """
    try:
        if (path / _NEXT).exists() and not (new_id and _is_damaged(path / _NEXT)):
            return _finish(path)  # what a process before this one began
        if new_id:
            _check_copy(path)
            _write(path, _NEXT, uid, gid)
            return _finish(path)
        if not (path / FOLDER_ID).exists():
            _write(path, FOLDER_ID, uid, gid)
        return StateFolder(_read(path / FOLDER_ID, _MEND))
    except OSError as error:
        file = error.filename or path / FOLDER_ID
        raise Invalid(str(file), f"must be a file this process can read and write: {error.strerror}") from error


def _read(file: Path, mend: str) -> str:
    """The id in a file; ``Invalid``, which says what it must hold, and to ``mend`` it."""
    with open(file, "rb") as opened:
        content = opened.read(_MAX_BYTES).decode("ascii", "replace")
    if not _PATTERN.fullmatch(content):
        raise Invalid(str(file), f"must hold {mend}")
    return content.strip()


def _is_damaged(file: Path) -> bool:
    try:
        _read(file, _MEND_NEXT)
    except Invalid:
        return True
    return False


def _write(path: Path, name: str, uid: int | None, gid: int | None) -> None:
    """Durably, a new one."""
    draft = path / f"{name}.tmp"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
        file.write(f"{uuid.uuid4().hex}\n")
        file.flush()
        os.fsync(descriptor)
    draft.rename(path / name)
    sync_folder(str(path))


def _check_copy(path: Path) -> None:
    """``Invalid``: a job runs from this very folder."""
    jobs = path / JOBS
    for job_id in filter(is_id, os.listdir(jobs) if jobs.exists() else ()):
        try:
            with Spool(str(jobs / job_id)).locked() as lock:
                held = lock is None
        except OSError:  # there is no lock that a shim could hold
            continue
        if held:
            raise Invalid(
                str(path),
                f"is no copy, as its job {job_id} runs: --new-id is for the first start from a copy of a state folder",
            )


def _finish(path: Path) -> StateFolder:
    """Make the copy a worker of its own, from whichever step on."""
    folder_id = _read(path / _NEXT, _MEND_NEXT)
    worker = _NO_ID
    if (path / WORKER_ID).exists():
        held = (path / WORKER_ID).read_text(encoding="ascii", errors="replace").strip()
        worker = held if is_id(held) else _NO_ID
    aside = ""
    for name in (USED_IDS, JOBS):
        if os.path.lexists(path / name):
            target = _unused(path, f"{name}-of-{worker}")
            os.rename(path / name, target)
            aside = target if name == JOBS else aside
    sync_folder(str(path))  # before the id that they belong to is gone
    for name in (WORKER_ID, COMMIT_COUNT):  # what schedulers told the original
        (path / name).unlink(missing_ok=True)
    os.rename(path / _NEXT, path / FOLDER_ID)
    sync_folder(str(path))
    return StateFolder(folder_id, aside)


def _unused(path: Path, name: str) -> str:
    """A path there that nothing has."""
    found, number = path / name, 1
    while os.path.lexists(found):
        number += 1
        found = path / f"{name}.{number}"
    return str(found)
