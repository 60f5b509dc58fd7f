"""Random ids of jobs, workers and requests: UUIDs of version 4 (RFC 9562, 5.4). Standard library only.

Random bytes for many ids are read from the system at once. Each read gives up the GIL, and a busy thread then waits to
get it back: in the reactor thread this took longer than the rest of making an id.
"""

from __future__ import annotations

import os
from uuid import UUID

_ID_BYTES, _IDS_PER_READ = 16, 256

_unused: list[bytes] = []

# A process and its fork must not make the same ids.
os.register_at_fork(after_in_child=_unused.clear)


def random_uuid() -> UUID:
    """A new UUID; may be called in any thread."""
    try:
        random = _unused.pop()
    except IndexError:
        read = os.urandom(_ID_BYTES * _IDS_PER_READ)
        random, *others = (read[at : at + _ID_BYTES] for at in range(0, len(read), _ID_BYTES))
        _unused.extend(others)
    return UUID(bytes=random, version=4)
