"""Checks a machine: whether its clock agrees with another, and whether its disk has room, in bytes and in inodes."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.cli.checks.findings import Finding, error, ok, warning
from scheduler.cli.wording import size, span
from scheduler.client import Disk

#: Seconds by which two clocks may differ before times of one look wrong on the other.
DIFFERENCE_MAX_SECONDS = 5.0

#: Percent of free disk below which a warning is given, if no limit is configured.
LOW_PERCENT = 10.0

#: Percent of free inodes below which a worker starts no jobs.
INODES_PERCENT = 5.0


def check_clock(subject: str, difference: float, uncertainty: float = 0.0) -> Finding:
    """``difference``: seconds by which the subject's clock is ahead of the other, within ``uncertainty``."""
    if abs(difference) <= DIFFERENCE_MAX_SECONDS + uncertainty:
        return ok(subject, "The clocks agree")
    way = "ahead" if difference > 0 else "behind"
    return warning(
        subject,
        f"Its clock is {span(abs(difference))} {way}",
        "Keep the clocks of all machines right with NTP: `timedatectl set-ntp true`, or chrony",
    )


def check_disk(subject: str, disk: Disk, least_free: int = 0) -> Iterator[Finding]:
    """Check the room on a disk. ``least_free``: bytes below which the worker refuses jobs; 0 without such a limit."""
    free = f"{size(disk.free)} of {size(disk.size)} are free on its disk"
    if disk.free < least_free or not disk.free:
        yield error(
            subject,
            f"{free}, and {size(max(least_free, 1))} must be: it takes no jobs" if least_free else free,
            "Free some space there, or lower spool_min_free in [worker]" if least_free else "Free some space there",
        )
    elif disk.free < max(disk.size * LOW_PERCENT / 100, least_free * 1.2):
        yield warning(subject, f"Only {free}", "Free some space there before the disk is full")
    else:
        yield ok(subject, free[0].upper() + free[1:])
    yield from _check_inodes(subject, disk)


def _check_inodes(subject: str, disk: Disk) -> Iterator[Finding]:
    if not disk.inodes:
        return
    percent = disk.inodes_free / disk.inodes * 100
    advice = "Remove small files there: each file takes an inode (`df -i`, `du --inodes`)"
    if percent < INODES_PERCENT:
        yield error(subject, f"Only {percent:.1f}% of the inodes of its disk are free", advice)
    elif percent < LOW_PERCENT:
        yield warning(subject, f"Only {percent:.1f}% of the inodes of its disk are free", advice)
