"""The first seconds of a scheduler, until the workers that it loaded have reported what the store may lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from scheduler.deferreds import Waiters

#: Seconds from the start for which the workers that were loaded are waited for.
SILENCE_MAX_SECONDS = 6.0

#: Seconds after that for which a registration under way is waited for: the worker that has its name may be asked first.
REGISTRATION_MAX_SECONDS = 3.0

#: The share of a lease in which every worker that is there calls.
SILENT_SHARE = 0.5


class Settling:
    """Ends once each worker to wait for has reported all (until then it is *silent*), or after ``SILENCE_MAX_SECONDS``.

    If the store was set back, it lasts at least ``SILENT_SHARE`` of a lease, and at most a lease. A registration under
    way at the end, of a worker that may know more than the store, is waited for ``REGISTRATION_MAX_SECONDS`` longer.
    """

    def __init__(self, clock: IReactorTime, lease: float, on_over: Callable[[], None]) -> None:
        """``lease`` in seconds; ``on_over`` is called when it ends."""
        self._clock = clock
        self._lease = lease
        self._on_over = on_over
        self.over = False
        # ids of the workers that have yet to report a count that the store has
        self._silent: set[str] = set()
        self._began_at = 0.0
        #: Whether the store was found to be set back: a worker has reported a count of the past to this process.
        self.is_set_back = False
        # registrations under way; and whether only they are waited for
        self._registering = 0
        self._overdue = False
        self._running = False
        self._timer: IDelayedCall | None = None
        self._waiting: Waiters[None] = Waiters()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for the end."""
        return not (self._waiting or self._timer)

    def begin(self, silent: Iterable[str]) -> None:
        """Begin, with the ids of the workers to wait for."""
        self._running = True
        self._began_at = self._clock.seconds()
        self._silent = set(silent)
        if self._silent:
            self._wait(SILENCE_MAX_SECONDS)
        else:
            self._end()

    def stop(self) -> None:
        self._running = False
        self._stop_timer()
        self._waiting.settle(None)

    def is_silent(self, worker_id: str) -> bool:
        return worker_id in self._silent

    def heard_all_of(self, worker_id: str) -> None:
        """Note that the worker has reported all that the store may lack; the last such worker ends the settling."""
        self._silent.discard(worker_id)
        if self._silent or self.over or not self._running:
            return
        least = SILENT_SHARE * self._lease if self.is_set_back else 0.0
        left = self._began_at + least - self._clock.seconds()
        if left > 0:
            self._wait(left)
        else:
            self._time_is_over()

    @contextmanager
    def registering(self) -> Iterator[None]:
        """The context for the registration of a worker that may know more than the store."""
        self._registering += 1
        try:
            yield
        finally:
            self._registering -= 1
            if self._overdue and not self._registering and self._running:
                self._end()

    def set_back(self) -> None:
        """Note that the store was set back: the settling lasts longer, for workers that registered after the backup."""
        if not self.is_set_back and not self.over:
            self._overdue = False
            self._wait(self._began_at + self._lease - self._clock.seconds())
        self.is_set_back = True

    def when_over(self) -> Deferred[None]:
        """Fires when the settling is over, or is stopped."""
        if self.over or not self._running:
            return succeed(None)
        return self._waiting.wait()

    async def over_within(self, seconds: float) -> bool:
        """Whether it is over, or stops, before so many seconds have passed; answers as soon as it is."""
        in_time = self.when_over().addCallback(lambda _: True)
        return await in_time.addTimeout(seconds, self._clock, lambda *_: False) or self.over

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._clock.callLater(max(seconds, 0.0), self._time_is_over)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _time_is_over(self) -> None:
        if self._registering and not self._overdue:
            self._overdue = True
            self._wait(REGISTRATION_MAX_SECONDS)
        else:
            self._end()

    def _end(self) -> None:
        self._stop_timer()
        self._overdue = False
        self.over = True
        self._on_over()
        if self._waiting:
            # In the next turn: not within what a worker that leaves changes.
            self._clock.callLater(0, self._waiting.settle, None)
