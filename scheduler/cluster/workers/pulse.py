"""The signs of life of one worker, and what follows from them: pure functions of values."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from scheduler.model import WorkerState


@define
class Pulse:
    """Signs of life of one process of a worker; times by the reactor's clock, ``None`` is never."""

    heard: float | None = None
    answered: float | None = None
    probing: bool = False
    #: Those that wait until the probe under way has ended.
    waiting: list[Deferred[None]] = field(factory=list)
    #: Why the last probe failed, if no call was answered since; ``""``: nobody knows why; ``None``: it did not fail.
    failed: str | None = None
    #: Why it was known to be gone, before it was heard of again; ``""``: it was not.
    gone: str = ""
    #: The program that answers there is no worker. It may answer probes all the same: only a query tells.
    no_worker: bool = False
    #: Since when it may be online at any moment; ``None``: it is online, or nothing says that it may be.
    expected: float | None = None
    #: Why it is unreachable, as it was logged last.
    logged: str = ""


def is_in_doubt(pulse: Pulse) -> bool:
    """Whether no call to it has succeeded, or the last probe failed."""
    return pulse.answered is None or pulse.failed is not None


def judge(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> WorkerState:
    """The state that follows from the signs; ``heartbeats`` tells whether the worker sends any."""
    online = is_alive(pulse, heartbeats, now, lease) and not is_in_doubt(pulse)
    return WorkerState.ONLINE if online else WorkerState.UNREACHABLE


def is_alive(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> bool:
    """Whether there was a sign of life within the lease."""
    sign = pulse.heard if heartbeats else pulse.answered
    return sign is not None and now - sign <= lease


def why_unreachable(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> str:
    """Why ``judge`` does not call it online, in words that end a sentence."""
    sign = pulse.heard if heartbeats else pulse.answered
    silence = None if sign is None or now - sign <= lease else now - sign
    if sign is None and heartbeats and not pulse.gone:
        return _and_calls("it has not called since the scheduler was started", pulse)
    return _cause(pulse, silence) or "no call to it has succeeded yet"


def why_for_log(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> str:
    """The same without a number that grows; ``""``: nothing was found out yet."""
    sign = pulse.heard if heartbeats else pulse.answered
    return _cause(pulse, None if sign is None or now - sign <= lease else lease)


def _cause(pulse: Pulse, silence: float | None) -> str:
    """The cause that was found; ``silence`` in seconds, ``None``: it is not silent."""
    if pulse.gone:
        return pulse.gone
    return _and_calls("" if silence is None else f"no sign of life for {silence:.0f} s", pulse)


def _and_calls(why: str, pulse: Pulse) -> str:
    if pulse.failed is None:
        return why
    calls = f"calls to it fail: {pulse.failed}" if pulse.failed else "calls to it fail"
    return f"{why}; {calls}" if why else calls


def wants_probe(pulse: Pulse, heartbeats: bool, now: float, lease: float) -> bool:
    """Whether it is time to find out if calls to it succeed."""
    silent = heartbeats and not is_alive(pulse, heartbeats, now, lease)
    if pulse.probing or silent:
        return False
    return pulse.answered is None or pulse.failed is not None or now - pulse.answered >= lease / 2
