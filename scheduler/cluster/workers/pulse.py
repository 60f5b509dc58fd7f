"""The signs of life of one worker, and the state that follows from them. Pure functions."""

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


def is_in_doubt(pulse: Pulse) -> bool:
    """Whether no call to the worker has succeeded, or the last probe failed."""
    return pulse.answered is None or pulse.failed is not None


def judge(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> WorkerState:
    """The state that follows from the signs; ``heartbeats`` tells whether the worker sends heartbeats."""
    online = is_alive(pulse, heartbeats, now, lease) and not is_in_doubt(pulse)
    return WorkerState.ONLINE if online else WorkerState.UNREACHABLE


def is_alive(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> bool:
    """Whether there was a sign of life within the lease."""
    sign = pulse.heard if heartbeats else pulse.answered
    return sign is not None and now - sign <= lease


def why_unreachable(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> str:
    """The reason why ``judge`` does not call the worker online, in words that end a sentence."""
    sign = pulse.heard if heartbeats else pulse.answered
    silence = None if sign is None or now - sign <= lease else now - sign
    if sign is None and heartbeats and not pulse.gone:
        return _and_calls("it has not called since the scheduler was started", pulse)
    return _cause(pulse, silence) or "no call to it has succeeded yet"


def why_for_log(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> str:
    """The reason as in ``why_unreachable``, without a number that grows; ``""``: no reason is known yet."""
    sign = pulse.heard if heartbeats else pulse.answered
    return _cause(pulse, None if sign is None or now - sign <= lease else lease)


def _cause(pulse: Pulse, silence: float | None) -> str:
    """The known cause; ``silence`` in seconds, ``None``: the worker is not silent."""
    if pulse.gone:
        return pulse.gone
    return _and_calls("" if silence is None else f"no sign of life for {silence:.0f} s", pulse)


def _and_calls(why: str, pulse: Pulse) -> str:
    if pulse.failed is None:
        return why
    calls = f"calls to it fail: {pulse.failed}" if pulse.failed else "calls to it fail"
    return f"{why}; {calls}" if why else calls


def wants_probe(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> bool:
    """Whether it is time to find out if calls to the worker succeed."""
    silent = heartbeats and not is_alive(pulse, heartbeats, now, lease)
    if pulse.probing or silent:
        return False
    return pulse.answered is None or pulse.failed is not None or now - pulse.answered >= lease / 2
