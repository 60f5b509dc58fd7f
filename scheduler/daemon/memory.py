"""Memory that a process has freed: the C library keeps some of it, instead of giving it back to the system at once.

glibc gives freed memory at the end of a heap back as soon as there is a little of it (mallopt(3)). A daemon that passes
output on frees its pieces of output and takes as much again a moment later, and each time the system must provide every
page anew: a million times while 1.5 GB went through a scheduler with HTTPS, a fifth of the time.

glibc also makes up to eight heaps for each processor, for threads that take memory at the same time. Those of a Python
process seldom do, and each heap would keep memory of its own.
"""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

#: Heaps, and bytes that are kept at the end of each.
HEAPS, KEPT_BYTES = 2, 32 << 20

#: Bytes of a piece of memory that is in no heap, and is given back as soon as it is freed.
LARGE_BYTES = 2 << 20


def keep_freed() -> bool:
    """Keep up to ``KEPT_BYTES`` in each heap. False: the C library is not glibc, and does as it likes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_THRESHOLD, LARGE_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_ARENA_MAX, HEAPS))
    return all(mallopt(parameter, value) for parameter, value in wanted)
