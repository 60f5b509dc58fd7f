"""Limits on the entries of the audit that anybody can cause: refusals, and reads of other principals' jobs."""

from __future__ import annotations

#: Refusals recorded in a minute: of one address, and of all.
REFUSALS_PER_ADDRESS, REFUSALS_OF_ALL = 10, 100

#: Addresses that are counted by themselves in a minute; the rest is counted under ``""``.
ADDRESSES_MAX = 1000

#: Seconds after which the same is recorded again, and things that are remembered for that.
AGAIN_SECONDS, REMEMBERED_MAX = 3600.0, 10_000


class Refusals:
    """The refusals of one minute, by address."""

    def __init__(self) -> None:
        self._recorded: dict[str, int] = {}
        self._beyond: dict[str, int] = {}
        self._of_all = 0

    @property
    def idle(self) -> bool:
        """Whether no refusal was only counted."""
        return not self._beyond

    def may_record(self, address: str) -> bool:
        """Count a refusal, and return whether it may have an entry of its own."""
        recorded = self._recorded.get(address, 0)
        if recorded < REFUSALS_PER_ADDRESS and self._of_all < REFUSALS_OF_ALL:
            self._recorded[address] = recorded + 1
            self._of_all += 1
            return True
        known = address in self._beyond or len(self._beyond) < ADDRESSES_MAX
        counted = address if known else ""
        self._beyond[counted] = self._beyond.get(counted, 0) + 1
        return False

    def end(self) -> dict[str, int]:
        """Begin the next minute. Returns the number of refusals without an entry, by address."""
        beyond, self._beyond, self._recorded, self._of_all = self._beyond, {}, {}, 0
        return beyond


class Hourly:
    """Things that are recorded once an hour, such as reads: the last ones, by who did them and what they were."""

    def __init__(self) -> None:
        # in order
        self._at: dict[tuple[str, str], float] = {}

    def may_record(self, who: str, what: str, now: float) -> bool:
        """Whether it may have an entry, which is then noted. ``now`` is in seconds of any steady clock."""
        due = self.is_due(who, what, now)
        if due:
            self.note(who, what, now)
        return due

    def is_due(self, who: str, what: str, now: float) -> bool:
        """Whether it may have an entry, as its last one is old enough."""
        last = self._at.get((who, what))
        return last is None or now - last >= AGAIN_SECONDS

    def note(self, who: str, what: str, now: float) -> None:
        """Note that it has an entry now."""
        self._at.pop((who, what), None)
        self._at[who, what] = now
        if len(self._at) > REMEMBERED_MAX:
            del self._at[next(iter(self._at))]
