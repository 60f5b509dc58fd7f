"""Counts of a store's commits.

Workers are told the count, so a store that was set back is found out: they heard of commits that it does not have. It
then begins a new timeline: its counts go on from a number that is higher than any of which somebody may have heard.
"""

from __future__ import annotations

#: Commits of one timeline: its counts begin at a multiple of this.
TIMELINE_COMMITS = 1 << 40

#: No count is as high as this; what a worker says beyond it is not believed.
COMMIT_COUNT_MAX = 1 << 62


def timeline_of(count: int) -> int:
    """The first count of the timeline that ``count`` is of."""
    return count - count % TIMELINE_COMMITS


def next_timeline(count: int) -> int:
    """The first count of the timeline after that."""
    return timeline_of(count) + TIMELINE_COMMITS
