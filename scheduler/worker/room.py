"""What spools take of the disk, and what is free of it. All of it blocks."""

from __future__ import annotations

import contextlib
import os
import shutil

from attrs import frozen
from twisted.logger import Logger

from scheduler.worker.spool import Spool

_log = Logger()

#: Bytes, in what a file says of the blocks it has.
_BLOCK = 512


@frozen
class Disk:
    """In bytes."""

    size: int
    #: For whoever runs this.
    free: int


@frozen
class Taken:
    """What the spool of an ended job takes."""

    size: int
    #: Its output is gone already.
    stripped: bool = False


def disk(folder: str) -> Disk:
    """The disk that a folder is on."""
    found = os.statvfs(folder)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def taken(spool: Spool) -> Taken:
    """All that is in a spool; what can't be looked at is left out."""
    size, folders = 0, [spool.folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return Taken(size, not os.path.exists(spool.output("stdout")))


def written(spool: Spool) -> int:
    """The output of a job that runs; 0 if it has just gone."""
    size = 0
    for stream in ("stdout", "stderr"):
        with contextlib.suppress(OSError):
            size += os.stat(spool.output(stream)).st_blocks * _BLOCK
    return size


def strip(spool: Spool) -> None:
    """Remove the output, and all else that is not needed to tell how the job ended."""
    remove(spool.work)
    for path in (spool.stdin, spool.script, spool.output("stderr"), spool.output("stdout")):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def remove(folder: str) -> None:
    """Remove as much of it as can be."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # a job may make folders in folders
        _log.error("{folder} is too deep to be removed", folder=folder)
