"""The change feed: every change of a job, a worker or a worker's presence, with the value before and after it.

Theory of operation. The ledger publishes a change when it is visible in the registry. Listeners hear it in the next
turn of the reactor, in the order of the changes, and never inside the call that made the change. A listener that
raises is logged, and the others hear the change all the same. There are no kinds of events: a listener finds out what
happened from the difference between ``before`` and ``after``. For example, a worker is drained if ``draining`` is set
only in ``after``. ``scheduler.cluster.build`` subscribes the listeners.

A listener hears the changes that were published after it subscribed: a state that it found in the registry when it
began is never followed by an earlier one.

The feed keeps the last changes, so that a reader which was away for a moment can read what it missed. It keeps them
without large specs of jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from attrs import define, evolve, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from scheduler.model import SPEC_KEPT_MAX_CHARACTERS, Job, JobSpec, Presence, Ref, Worker

R = TypeVar("R", Job, Worker)

#: Arguments and variables of a job that are kept.
_TEXTS_KEPT_MAX = 64

_NO_SPEC = JobSpec()

#: Changes that are kept for ``since``. A change of a job takes about 1 KiB.
BACKLOG_MAX_CHANGES = 1000


@frozen
class _RecordChanged(Generic[R]):
    """A record is new (``before`` is ``None``), another than before, or gone (``after`` is ``None``)."""

    before: R | None
    after: R | None

    @property
    def last(self) -> R:
        """The record after the change; one that is gone as it was before."""
        record = self.after or self.before
        assert record is not None
        return record

    @property
    def ref(self) -> Ref:
        """The key of the record."""
        return self.last.ref


@frozen
class JobChanged(_RecordChanged[Job]):
    """A job is new, another than before, or gone."""


@frozen
class WorkerChanged(_RecordChanged[Worker]):
    """A worker is new, another than before, or gone. One that deregistered has become offline."""


@frozen
class PresenceChanged:
    """A worker that has not deregistered has another state, or another reason why it accepts no job."""

    worker_id: str
    before: Presence
    after: Presence

    @property
    def ref(self) -> Ref:
        """The key of the worker."""
        return Ref("worker", self.worker_id)


Change = JobChanged | WorkerChanged | PresenceChanged
Hear = Callable[[Change], None]


@define(eq=False)
class _Listener:
    hear: Hear
    #: The number of the last change before it subscribed.
    since: int
    #: It has not left.
    listens: bool = True


class ChangeFeed:
    """Publishes changes, numbered from 1; there is one for each scheduler."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, backlog: int = BACKLOG_MAX_CHANGES) -> None:
        """``backlog`` changes are kept for ``since``."""
        self._clock = clock
        #: The number of the last change that was published.
        self.seq = 0
        self._backlog: deque[tuple[int, Change]] = deque(maxlen=backlog)
        self._undelivered: list[tuple[int, Change]] = []
        self._delivery: IDelayedCall | None = None
        # those of all changes, and those of the changes of one record; dicts, for their order
        self._listeners: dict[_Listener, None] = {}
        self._listeners_to: dict[Ref, dict[_Listener, None]] = {}

    @property
    def idle(self) -> bool:
        """Whether every change has been heard, and nobody listens to the changes of one record."""
        return not (self._undelivered or self._delivery or self._listeners_to)

    def publish(self, change: Change) -> None:
        """Have all listeners hear the change in the next turn."""
        self.seq += 1
        self._backlog.append((self.seq, _kept(change)))
        self._undelivered.append((self.seq, change))
        if self._delivery is None:
            self._delivery = self._clock.callLater(0, self._deliver)

    def subscribe(self, hear: Hear, to: Ref | None = None) -> Callable[[], None]:
        """Call ``hear`` with each later change, or with those of one record, until the returned function is called.

        That function may be called twice. Listeners to all changes hear a change first.
        """
        listener = _Listener(hear, self.seq)
        listeners = self._listeners if to is None else self._listeners_to.setdefault(to, {})
        listeners[listener] = None

        def unsubscribe() -> None:
            listener.listens = False
            listeners.pop(listener, None)
            if to is not None and not listeners and self._listeners_to.get(to) is listeners:
                del self._listeners_to[to]

        return unsubscribe

    def since(self, seq: int) -> list[tuple[int, Change]] | None:
        """The changes after number ``seq``, with their numbers; ``None``: not all of them are kept any more.

        A job in them whose spec is large has an empty one.
        """
        missed = self.seq - seq
        if not 0 <= missed <= len(self._backlog):
            return None
        return list(islice(self._backlog, len(self._backlog) - missed, None))

    def _deliver(self) -> None:
        self._delivery = None
        changes, self._undelivered = self._undelivered, []
        for seq, change in changes:
            to_one = self._listeners_to.get(change.ref, ()) if self._listeners_to else ()
            for listener in (*self._listeners, *to_one):
                if listener.listens and listener.since < seq:
                    try:
                        listener.hear(change)
                    except Exception:  # the others have to hear it all the same
                        ref = change.ref
                        self._log.failure("a listener failed after a change of {kind} {id}", kind=ref.kind, id=ref.id)


def _kept(change: Change) -> Change:
    """The change as it is kept."""
    if not isinstance(change, JobChanged):
        return change
    specs = {id(job.spec): job.spec for job in (change.before, change.after) if job is not None}  # most often one
    if not any(map(_is_large, specs.values())):
        return change
    before, after = (None if job is None else evolve(job, spec=_NO_SPEC) for job in (change.before, change.after))
    return JobChanged(before, after)


def _is_large(spec: JobSpec) -> bool:
    """Whether the spec takes much memory, as far as a short look at it tells."""
    if spec.stdin is not None or spec.script is not None or len(spec.args) + len(spec.env) > _TEXTS_KEPT_MAX:
        return True
    return sum(map(len, (*spec.args, *spec.env, *spec.env.values()))) > SPEC_KEPT_MAX_CHARACTERS
