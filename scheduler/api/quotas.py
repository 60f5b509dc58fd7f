"""Counts that leave something for others: connections by address, followers by principal, bytes of bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred

from scheduler.errors import TooManyRequests
from scheduler.security.principals import Principal


@define
class Shares:
    """Counts of things at a time, by the address or principal that has them."""

    most: int
    _counts: Counter[Hashable] = Factory(Counter)

    def take(self, key: Hashable) -> bool:
        """Count one more; whether that is within the limit."""
        self._counts[key] += 1
        return self._counts[key] <= self.most

    def give_back(self, key: Hashable) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def of(self, key: Hashable) -> int:
        return self._counts[key]

    @property
    def idle(self) -> bool:
        return not self._counts


class Followers(Shares):
    """The streams at a time, by principal."""

    def add(self, principal: Principal | None, until: Deferred[Any]) -> None:
        """Count a stream of a principal ``until`` its request ends.

        Raises ``TooManyRequests`` if the principal may have no more.
        """
        if principal is None:
            return
        key = (principal.kind, principal.name, principal.token_id)
        taken = self.take(key)

        def ended(_: object) -> None:
            self.give_back(key)

        until.addBoth(ended)
        if not taken:
            raise TooManyRequests(f"{principal} follows {self.most} streams, and no more are allowed")


@define
class BodyBytes:
    """The bytes of all bodies that have come and are not yet read."""

    most: int
    total: int = 0

    def take(self, size: int) -> bool:
        """Count so many more, unless that exceeds the limit; whether they are counted."""
        if self.total + size > self.most:
            return False
        self.total += size
        return True

    def give_back(self, size: int) -> None:
        self.total -= size
