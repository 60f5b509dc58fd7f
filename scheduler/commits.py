"""Counts of a store's commits.

Workers are told the count. So a store that was set back is detected: workers know of commits that it does not have. It
then begins a new timeline, whose counts start above every count that any worker may know.
"""

from __future__ import annotations

#: The most commits of one timeline. Its counts begin at a multiple of this.
TIMELINE_COMMITS = 1 << 40

#: The limit of all counts. A worker that reports a higher one is not believed.
COMMIT_COUNT_MAX = 1 << 62


def timeline_of(count: int) -> int:
    """The first count of the timeline that contains ``count``."""
    return count - count % TIMELINE_COMMITS


def next_timeline(count: int) -> int:
    """The first count of the next timeline."""
    return timeline_of(count) + TIMELINE_COMMITS
