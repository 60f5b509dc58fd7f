"""Failed logins, counted by address, so that nobody can try tokens quickly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field

from scheduler.errors import TooManyRequests
from scheduler.limits import LOGINS_SECONDS, MAX_LOGIN_ADDRESSES
from scheduler.net import address_group


@define
class _Window:
    """The time until which failures count, and their number."""

    ends: float
    failures: int = 0


@define
class FailedLogins:
    """The failed logins of each address in a time of ``LOGINS_SECONDS``, which begins with the first of them.

    An IPv6 address counts as its network of 64 bits. When too many addresses have failed, the one whose time began
    first is forgotten.
    """

    _most: int
    #: A monotonic clock, in seconds.
    _seconds: Callable[[], float]
    _max_addresses: int = MAX_LOGIN_ADDRESSES
    # in the order in which the windows end
    _windows: OrderedDict[str, _Window] = field(init=False, factory=OrderedDict)

    def check(self, address: str) -> None:
        """Raise ``TooManyRequests`` if no token from this address may be looked at now."""
        window = self._window(address_group(address))
        if window is not None and window.failures >= self._most:
            raise TooManyRequests(
                f"{self._most} requests from this address had a token that is not valid; tokens from there are refused "
                "for a while",
                max(1, round(window.ends - self._seconds())),
            )

    def failed(self, address: str) -> None:
        """Count a token from this address that is not valid."""
        group = address_group(address)
        window = self._window(group)
        if window is None:
            window = self._windows[group] = _Window(self._seconds() + LOGINS_SECONDS)
            if len(self._windows) > self._max_addresses:
                self._windows.popitem(last=False)
        window.failures += 1

    def _window(self, group: str) -> _Window | None:
        window = self._windows.get(group)
        if window is not None and window.ends <= self._seconds():
            del self._windows[group]
            return None
        return window
