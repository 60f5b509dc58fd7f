"""The secret id of a state folder, and the steps by which a copy of the folder becomes a worker of its own.

Theory of operation. The id is made with the folder, and is durable before a worker registers from it: a file appears
under its name only when it is whole and on the disk. A folder of an earlier version has no id, and gets one beside the
worker id in it.

A copy has the id of the original. ``--new-id`` writes another one beside it, as ``folder_id.next``. From then on each
start first finishes the change: the copied jobs and used ids get other names, the worker id is removed, and, as the
last step, the new folder id gets its name. So no process ever has the new id with the copied jobs, or the old id
without them, wherever the previous process was killed.

All of it blocks. It runs before the worker does, while the folder's lock is held.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from scheduler.daemon import drafts
from scheduler.daemon.drafts import sync_folder
from scheduler.errors import Invalid
from scheduler.names import is_id
from scheduler.worker.shim.spool import Spool

_log = Logger()

#: Names in a state folder.
FOLDER_ID = "folder_id"
JOBS = "jobs"
USED_IDS = "used-ids"
WORKER_ID = "worker_id"
COMMIT_COUNT = "commit_count"

#: The file of a copy's next folder id.
_NEXT = "folder_id.next"

_PATTERN = re.compile(r"[0-9a-f]{32}\n?")
_MAX_BYTES = 64

#: Ends of the error for a file without an id: the content it must have, and how to mend it. ``_NEXT`` must not be
#: removed: the copy would then count as the original, and some of its jobs may be set aside already.
_MEND = (
    "the id of this state folder, 32 hexadecimal digits, and does not: restore it from a backup of this folder; or "
    "remove it, and the worker makes another one and may be given another worker id"
)
_MEND_NEXT = (
    "the id that this copy of a state folder is to have, 32 hexadecimal digits, and does not: start the worker once "
    "with --new-id, which writes another one; do not remove it, or the copy is the original, without the jobs of that"
)

#: Part of the names of folders that are set aside, for a worker that never had an id.
_NO_ID = "no-worker"


@frozen
class StateFolder:
    """A worker's state folder, by its id."""

    #: Secret.
    folder_id: str = field(repr=False)
    #: The new folder of the original's jobs, if a copy has just become a worker of its own; else ``""``.
    set_aside: str = ""

    def announce(self) -> None:
        """Log where the jobs of the original are, if a copy has just become a worker of its own."""
        if self.set_aside:
            _log.info(
                "this state folder is a copy and has an id of its own now; the jobs of the original are set aside in "
                "{folder}, and are neither reported nor touched: remove it when nobody needs it",
                folder=self.set_aside,
            )


def open_folder(path: Path, new_id: bool) -> StateFolder:
    """Open the state folder at ``path``; its id is made if it has none. The caller holds its lock.

    ``new_id``: the folder is a copy, and gets an id of its own. Raises ``Invalid``, with the file as its field, if the
    file can't be used, or the folder is no copy.
    """
    try:
        if (path / _NEXT).exists() and not (new_id and _is_damaged(path / _NEXT)):
            return _finish(path)  # a previous process began it
        if new_id:
            _check_copy(path)
            _write(path, _NEXT)
            return _finish(path)
        if not (path / FOLDER_ID).exists():
            _write(path, FOLDER_ID)
        return StateFolder(_read(path / FOLDER_ID, _MEND))
    except OSError as error:
        file = error.filename or path / FOLDER_ID
        raise Invalid(str(file), f"must be a file this process can read and write: {error.strerror}") from error


def _read(file: Path, mend: str) -> str:
    """Read the id in a file. Raises ``Invalid``, with ``mend`` as the end of its message, if there is no valid id."""
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


def _write(path: Path, name: str) -> None:
    """Write a new id, durably."""
    drafts.replace(str(path / name), f"{uuid.uuid4().hex}\n".encode())


def _check_copy(path: Path) -> None:
    """Raise ``Invalid`` if a job runs from this very folder."""
    jobs = path / JOBS
    for job_id in filter(is_id, os.listdir(jobs) if jobs.exists() else ()):
        try:
            with Spool(str(jobs / job_id)).locked() as lock:
                held = lock is None
        except OSError:  # without a lock no shim can hold it
            continue
        if held:
            raise Invalid(
                str(path),
                f"is no copy, as its job {job_id} runs: --new-id is for the first start from a copy of a state folder",
            )


def _finish(path: Path) -> StateFolder:
    """Make the copy a worker of its own; some of the steps may be done already."""
    folder_id = _read(path / _NEXT, _MEND_NEXT)
    worker = _NO_ID
    if (path / WORKER_ID).exists():
        held = (path / WORKER_ID).read_text(encoding="utf-8", errors="replace").strip()
        worker = held if is_id(held) else _NO_ID
    aside = ""
    for name in (USED_IDS, JOBS):
        if os.path.lexists(path / name):
            target = _unused(path, f"{name}-of-{worker}")
            os.rename(path / name, target)
            aside = target if name == JOBS else aside
    sync_folder(str(path))  # before the id to which they belong is gone
    for name in (WORKER_ID, COMMIT_COUNT):  # told by schedulers to the original
        (path / name).unlink(missing_ok=True)
    os.rename(path / _NEXT, path / FOLDER_ID)
    sync_folder(str(path))
    return StateFolder(folder_id, aside)


def _unused(path: Path, name: str) -> str:
    found, number = path / name, 1
    while os.path.lexists(found):
        number += 1
        found = path / f"{name}.{number}"
    return str(found)
