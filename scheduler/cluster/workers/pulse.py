"""The signs of life of one worker, and the state that follows from them."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from scheduler.model import WorkerState


@define
class Pulse:
    """Signs of life of one process of a worker: when it was ``heard``, and when it ``answered`` a call.

    Times are by the reactor's clock; ``None``: never.
    """

    heard: float | None = None
    answered: float | None = None
    probing: bool = False
    #: Deferreds that fire when the probe under way has ended.
    waiting: list[Deferred[None]] = field(factory=list)
    #: Why the last probe failed, if no call was answered since; ``""``: it is not known why; ``None``: it did not fail.
    failed: str | None = None
    #: Why the worker is known to be gone; ``""``: it is not, or was heard again.
    gone: str = ""
    #: The program that answers at the address is no worker. It may answer probes all the same: only a query shows it.
    no_worker: bool = False
    #: Since when the worker may be online at any moment; ``None``: it is online, or is not expected.
    expected: float | None = None
    #: The reason for being unreachable that was logged last.
    logged: str = ""

    @property
    def is_in_doubt(self) -> bool:
        """Whether no call to the worker has succeeded, or the last probe failed."""
        return self.answered is None or self.failed is not None

    def judge(self, heartbeats: bool, now: float, lease: float) -> WorkerState:
        """The state that follows from the signs; ``heartbeats`` tells whether the worker sends heartbeats."""
        online = self.is_alive(heartbeats, now, lease) and not self.is_in_doubt
        return WorkerState.ONLINE if online else WorkerState.UNREACHABLE

    def is_alive(self, heartbeats: bool, now: float, lease: float) -> bool:
        """Whether there was a sign of life within the lease."""
        sign = self.heard if heartbeats else self.answered
        return sign is not None and now - sign <= lease

    def why_unreachable(self, heartbeats: bool, now: float, lease: float) -> str:
        """The reason why ``judge`` does not call the worker online, in words that end a sentence."""
        sign = self.heard if heartbeats else self.answered
        silence = None if sign is None or now - sign <= lease else now - sign
        if sign is None and heartbeats and not self.gone:
            return self._and_calls("it has not called since the scheduler was started")
        return self._cause(silence) or "no call to it has succeeded yet"

    def why_for_log(self, heartbeats: bool, now: float, lease: float) -> str:
        """The reason as in ``why_unreachable``, without a number that grows; ``""``: no reason is known yet."""
        sign = self.heard if heartbeats else self.answered
        return self._cause(None if sign is None or now - sign <= lease else lease)

    def _cause(self, silence: float | None) -> str:
        """The known cause; ``silence`` in seconds, ``None``: the worker is not silent."""
        return self.gone or self._and_calls("" if silence is None else f"no sign of life for {silence:.0f} s")

    def _and_calls(self, why: str) -> str:
        if self.failed is None:
            return why
        calls = f"calls to it fail: {self.failed}" if self.failed else "calls to it fail"
        return f"{why}; {calls}" if why else calls

    def wants_probe(self, heartbeats: bool, now: float, lease: float) -> bool:
        """Whether it is time to find out if calls to the worker succeed."""
        if self.probing or (heartbeats and not self.is_alive(heartbeats, now, lease)):
            return False  # a silent worker would not be online for an answer
        return self.answered is None or self.failed is not None or now - self.answered >= lease / 2
