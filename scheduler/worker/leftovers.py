"""Leftovers: folders of jobs that could not be removed. Each is tried again, after a longer delay each time.

The disk use of a leftover still counts. A removal whose time was over before it was complete goes on soon. A folder
that can't be removed is logged once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from scheduler.threads import Pool
from scheduler.worker.clearing import Clearing, Remains, job_of
from scheduler.worker.patience import Patience
from scheduler.worker.trees import NOTHING, Amount

#: Seconds until a removal whose time was over goes on.
_CONTINUE_AFTER_SECONDS = 1.0

#: Unfinished removals of one folder that may follow each other at once. With more, a process still writes there, or
#: the folder is huge.
_UNFINISHED_MAX = 60

#: Seconds until a failed removal is tried again: the first delay, which is doubled each time, and the longest.
_RETRY_FIRST_SECONDS = 60.0
_RETRY_MAX_SECONDS = 3600.0


def retry_delay(tried: int) -> float:
    """Answer the seconds until the next try after so many failed removals."""
    return min(_RETRY_FIRST_SECONDS * 2.0 ** min(tried - 1, 16), _RETRY_MAX_SECONDS)


@define(eq=False)
class _Leftover:
    """A folder that is still there."""

    #: By the monotonic clock.
    tried_after: float = 0.0
    tried: int = 0
    #: The disk use, once it is clear that it will not go soon.
    amount: Amount = NOTHING
    #: How often the time was over before all was removed.
    unfinished: int = 0
    told: bool = False
    busy: bool = False
    why: str = "it is being removed"


@define(eq=False, slots=False)
class Leftovers:
    """All leftovers of one worker."""

    _log = Logger()

    _clock: IReactorTime
    _pool: Pool
    _clearing: Clearing
    _patience: Patience
    #: Is called with the seconds after which ``try_again`` should be called at the latest.
    _soon: Callable[[float], None]
    _leftovers: dict[str, _Leftover] = field(init=False, factory=dict)

    def amounts(self) -> Iterator[Amount]:
        return (each.amount for each in self._leftovers.values())

    def add(self, remains: Remains, told: bool = False) -> None:
        """Take up a leftover; ``told``: the log says already that it can't be removed."""
        self._tried(self._leftovers.setdefault(remains.name, _Leftover(told=told)), remains)

    async def try_again(self) -> None:
        """Try to remove the leftovers whose time has come, one after the other."""
        for name in self._clearing.leftovers():
            if (leftover := self._due(name)) is not None:
                await self._patience.wait(name, self._clear(name, leftover))

    async def clear_of(self, job_id: str) -> str:
        """Try to remove the leftovers of one job whose time has come; answers why one is left. ``""``: none is."""
        names = [name for name in self._clearing.leftovers() if job_of(name) == job_id]
        for name in names:
            if (leftover := self._due(name)) is not None:
                await self._clear(name, leftover)
        left = set(self._clearing.leftovers())
        return next((self._leftovers[name].why for name in names if name in left and name in self._leftovers), "")

    def _due(self, name: str) -> _Leftover | None:
        leftover = self._leftovers.setdefault(name, _Leftover())
        return None if leftover.busy or leftover.tried_after > self._clock.seconds() else leftover

    async def _clear(self, name: str, leftover: _Leftover) -> None:
        leftover.busy = True
        try:
            remains = await self._pool.run(self._clearing.clear_thd, name)
        finally:
            leftover.busy = False
        if remains is not None:
            self._tried(leftover, remains)
            return
        self._leftovers.pop(name, None)
        if leftover.told:
            self._log.info("{name}, which could not be removed, is gone", name=name)

    def _tried(self, leftover: _Leftover, remains: Remains) -> None:
        leftover.why = f"{remains.left.path}: {remains.left.why}"
        if remains.left.unfinished and leftover.unfinished < _UNFINISHED_MAX:
            leftover.unfinished += 1
            leftover.tried_after = self._clock.seconds() + _CONTINUE_AFTER_SECONDS
            self._soon(_CONTINUE_AFTER_SECONDS)
            return
        leftover.amount = remains.amount
        leftover.tried += 1
        leftover.tried_after = self._clock.seconds() + retry_delay(leftover.tried)
        if not leftover.told:
            leftover.told = True
            self._log.error(
                "{size} bytes of job {job_id} can't be removed, and are tried again: {path}: {why}",
                size=remains.amount.size,
                job_id=remains.job_id,
                path=remains.left.path,
                why=remains.left.why,
            )
