"""Checks whether the clocks of two machines agree."""

from __future__ import annotations

from scheduler.cli.checks.findings import Finding, ok, warning
from scheduler.cli.wording import span

#: Seconds by which two clocks may differ before times of one look wrong on the other.
DIFFERENCE_MAX_SECONDS = 5.0

_ADVICE = "Keep the clocks of all machines right with NTP: `timedatectl set-ntp true`, or chrony"


def check_clock(subject: str, difference: float, uncertainty: float = 0.0) -> Finding:
    """``difference``: seconds by which the subject's clock is ahead of the other, within ``uncertainty``."""
    if abs(difference) <= DIFFERENCE_MAX_SECONDS + uncertainty:
        return ok(subject, "The clocks agree")
    way = "ahead" if difference > 0 else "behind"
    return warning(subject, f"Its clock is {span(abs(difference))} {way}", _ADVICE)
