"""What workers, labels and environment variables may be called. Standard library only."""

from __future__ import annotations

import re

#: What a worker may be called, and what a label of a job or, in its configuration, of a worker.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
LABEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def env_name_problem(name: str) -> str | None:
    """Why no job may be given an environment variable of that name; ``None``: its worker decides."""
    if _ENV_NAME.fullmatch(name) is None:
        return "is not a name of letters, digits and '_' that does not begin with a digit"
    if name.startswith("SCHEDULER_") or name == "NOTIFY_SOCKET":
        return "is not for jobs to be given (SCHEDULER_*, NOTIFY_SOCKET)"
    return None
