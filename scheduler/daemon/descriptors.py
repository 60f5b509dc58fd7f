"""The limit on file descriptors of a process: daemons use all that they may have, and jobs get the usual number."""

from __future__ import annotations

import resource

#: The soft limit of jobs, at most. Programs that use ``select`` fail beyond it.
JOBS_MAX = 1024


def raise_limit() -> int:
    """Raise the soft limit of this process to its hard limit; returns the soft limit before."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return before


def limit() -> int:
    """The descriptors that this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
