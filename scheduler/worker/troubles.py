"""Counts calls that fail in a row: limits the log lines about them, and lengthens the delay after each."""

from __future__ import annotations

from random import Random

from twisted.logger import Logger

#: Seconds: the first delay after a failure, which is doubled with each further one, and the longest.
RETRY_FIRST_SECONDS = 0.25
RETRY_MAX_SECONDS = 5.0

#: Log lines about failures in a row: the text of an error may change each time.
_TROUBLES_LOGGED_MAX = 10


def retry_delay(count: int, random: Random) -> float:
    """Answer the seconds until the next call, after so many failures or cuts in a row."""
    delay = min(RETRY_MAX_SECONDS, RETRY_FIRST_SECONDS * 2.0 ** min(count - 1, 16))
    return delay * random.uniform(0.5, 1)


class Troubles:
    """The failures of one worker's calls to its scheduler."""

    _log = Logger()

    def __init__(self, random: Random) -> None:
        self._random = random
        #: In a row.
        self.failures = 0
        self._last = ""
        self._logged = 0

    def add(self, trouble: str, why: str = "") -> float:
        """Count a failure, and log it if it is new; answers the seconds until the next try."""
        self.failures += 1
        if trouble != self._last and self._logged < _TROUBLES_LOGGED_MAX:
            self._last = trouble
            self._logged += 1
            self._log.warn("{trouble}, trying again", trouble=trouble, **({"why": why} if why else {}))
        return retry_delay(self.failures, self._random)

    def end(self) -> bool:
        """Count a success; answers whether the log told of a failure since the last success."""
        told, self._last = bool(self._last), ""
        self.failures = self._logged = 0
        return told
