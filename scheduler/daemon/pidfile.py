"""The file with the process's id.

twistd writes it before it becomes the user that ``--uid`` names, and follows a link there. So with ``--uid`` this
process writes the default file itself, as that user. A file that an option names must be where root alone may write.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from scheduler.daemon import drafts, files
from scheduler.daemon.services import Step


def set_up(twistd: MutableMapping[str, Any], default: Path, daemon: bool, is_default: bool) -> Step:
    """Choose the pidfile in twistd's options; answers the service that writes it if twistd must not.

    ``is_default``: no option names one, so a daemon's is ``default``. Raises ``SystemExit`` with one line for a file
    that root must not write.
    """
    uid, gid = twistd["uid"], twistd["gid"]
    switches = os.geteuid() == 0 and bool(uid or gid)
    if is_default:
        with files.as_user(uid, gid):
            default.unlink(missing_ok=True)
        twistd["pidfile"] = str(default) if daemon and not switches else ""
        return writer(default) if daemon and switches else Step()
    if twistd["pidfile"] and switches:
        place = os.path.dirname(os.path.abspath(twistd["pidfile"]))
        if problem := files.way_problem(place):
            raise SystemExit(f"--pidfile {twistd['pidfile']}: root writes it only where nobody else may: {problem}")
    return Step()


def writer(path: Path) -> Step:
    """Make the service that writes the file at its start, and removes it at its end."""
    return Step(
        lambda: drafts.replace(str(path), f"{os.getpid()}\n".encode(), sync=False),
        lambda: path.unlink(missing_ok=True),
    )
