"""The first call to each worker that was loaded when the scheduler started.

A worker that is called by a new scheduler sends a heartbeat at once. So the scheduler calls all of them, a few at a
time: this takes seconds for 10,000 workers that answer. A worker that does not answer soon holds up no other: its call
goes on beside the next one. Workers that were heard meanwhile come first. A worker that a request waits for is called
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.deferreds import shielded

#: First calls that others wait for: fewer than there are threads for probes, as other probes need some.
MAX_FIRST_CALLS = 24
#: Seconds that others wait for a first call: the time of the first attempt of a probe.
FIRST_CALL_SECONDS = 0.5


class FirstCalls:
    """The calls that are left to make, in order; they begin with ``begin``."""

    def __init__(self, clock: IReactorTime, call: Callable[[str], Deferred[None]]) -> None:
        """``call`` calls the worker with that id; it fires when that is over, and never fails."""
        self._clock = clock
        self._call = call
        # ids of the workers that are left, and of those among them that were heard; dicts, for their order
        self._left: dict[str, None] = {}
        self._heard: dict[str, None] = {}
        # for each call that others wait for, a Deferred that fires when they no longer wait
        self._waited_for: set[Deferred[None]] = set()
        self._begun = False
        self._making = False

    def __contains__(self, worker_id: str) -> bool:
        """Whether a call to that worker is still to be made."""
        return worker_id in self._left

    def plan(self, worker_ids: Iterable[str]) -> None:
        """Call these workers, instead of those planned before."""
        self._left, self._heard = dict.fromkeys(worker_ids), {}

    def begin(self) -> None:
        """Make the planned calls."""
        self._begun = True
        self._make()

    def now(self, worker_id: str) -> None:
        """Make the call to that worker at once, if it has not been made."""
        if self._begun and self.cancel(worker_id):
            self._call(worker_id)

    def soon(self, worker_id: str) -> bool:
        """Call that worker before those that were not heard; ``False``: it was called, or the calls have not begun."""
        if self._begun and worker_id in self._left:
            self._heard.setdefault(worker_id)
            return True
        return False

    def cancel(self, worker_id: str) -> bool:
        """Make no call to that worker; returns whether there was one to make."""
        self._heard.pop(worker_id, None)
        return worker_id in self._left and self._left.pop(worker_id) is None

    def stop(self) -> None:
        """Make no further call."""
        self._begun = False
        self._left.clear()
        self._heard.clear()
        for waited in tuple(self._waited_for):
            waited.cancel()

    def _make(self) -> None:
        if self._making:
            return  # a call that was answered at once
        self._making = True
        while self._left and len(self._waited_for) < MAX_FIRST_CALLS:
            worker_id = next(iter(self._heard or self._left))
            self.cancel(worker_id)
            waited = shielded(self._call(worker_id))
            self._waited_for.add(waited)
            waited.addTimeout(FIRST_CALL_SECONDS, self._clock).addBoth(self._over, waited)
        self._making = False

    def _over(self, _: object, waited: Deferred[None]) -> None:
        self._waited_for.discard(waited)
        self._make()
