"""The audit of one scheduler: records acts and refusals, and writes entries and the head of the chain to the log.

An act that changes something is saved in the transaction of its change (``scheduler.security.acts``). Everything else
is saved with the next commit, and nobody waits for it.

An attacker must not fill the disk. So each address has only some refusals a minute recorded, and so have all together.
The rest is counted, and recorded as one entry for each address at the end of the minute. A principal's reads of the
output of a job that another principal created are recorded once an hour for each job. So are calls of workers that are
refused, since a worker repeats them by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.deferreds import shielded
from scheduler.errors import SchedulerError
from scheduler.interfaces import IStore
from scheduler.security.acts import UNDER_WAY, ActUnderWay
from scheduler.security.audit import UNCHANGED, Act, Anchor, AuditFilter, AuditPage, Entry, Sender, time_text
from scheduler.security.flood import Hourly, Refusals

T = TypeVar("T")

#: Seconds between two lines with the head, and for which refusals are counted.
MINUTE_SECONDS = 60.0

# of a name that filters of logs can rely on, whatever this module is called
_log = Logger(namespace="scheduler.audit")

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def result_of(error: BaseException | None) -> str:
    """The result of an act that failed: the error's name, like ``no-free-slot``; ``internal`` for a bug.

    The text of an error is not recorded, because other texts may be part of it.
    """
    return _WORD.sub("-", type(error).__name__).lower() if isinstance(error, SchedulerError) else "internal"


class Audit:
    """The audit of one scheduler."""

    def __init__(
        self, clock: IReactorTime, wall_time: Callable[[], float], store: IStore, record: Callable[[Act], None]
    ) -> None:
        """``clock`` measures elapsed time, ``wall_time`` gives POSIX times.

        ``record`` saves an act with the next commit to ``store``, or once that is possible.
        """
        self._clock = clock
        #: POSIX time.
        self.now = wall_time
        self._store = store
        #: Record an act that changed nothing, with the next commit.
        self.record = record
        self._head = Anchor()
        self._logged = Anchor()
        self._refusals = Refusals()
        self._reads = Hourly()
        self._calls = Hourly()
        store.on_entries(self._hear)

    @property
    def idle(self) -> bool:
        """Whether every refusal is recorded."""
        return self._refusals.idle

    def carry_out(
        self,
        under_way: ActUnderWay,
        operation: Callable[[], Deferred[T]],
        *,
        unsaved: str = UNCHANGED,
        acts_of: Callable[[Act, T], Sequence[Act]] = lambda act, _: [act],
        unheard: Callable[[T], object] = lambda _: None,
    ) -> Deferred[T]:
        """Begin an operation with that act under way, and fire with its result.

        The acts are ``acts_of`` of the result; those that the operation did not save are recorded as ``unsaved``. If it
        failed, its act is recorded with the name of the error, also if it was saved before. If the returned Deferred is
        cancelled, the operation goes on, and its result goes to ``unheard``.
        """
        token = UNDER_WAY.set(under_way)
        try:
            done = maybeDeferred(operation)
        finally:
            UNDER_WAY.reset(token)

        def over(result: Any) -> Any:
            under_way.close()
            if isinstance(result, Failure):
                for act in list(under_way.taken.values()) or [under_way.act]:
                    self.record(evolve(act, time=self.now(), result=result_of(result.value)))
            else:
                for act in acts_of(under_way.act, result):
                    if act.target not in under_way.taken:
                        self.record(evolve(act, result=unsaved))
            return result

        return shielded(done.addBoth(over), unheard)

    def refused(self, sender: Sender, asked: str, result: str) -> bool:
        """Record that a request was refused before it was looked at. False: it was only counted.

        ``asked`` is its method and path, ``result`` the reason.
        """
        recorded = self._refusals.may_record(sender.origin)
        if recorded:
            self.record(sender.act(self.now(), "refused", asked, result=result))
        return recorded

    def refused_call(self, sender: Sender, method: str, result: str) -> None:
        """Record that a call of gRPC was refused, the same once an hour. ``method`` is its full name."""
        caller, now = f"{sender.origin} {sender.who} {sender.uid}", self._clock.seconds()
        if self._calls.is_due(caller, method, now) and self.refused(sender, f"gRPC {method}", result):
            self._calls.note(caller, method, now)

    def read(self, act: Act) -> None:
        """Record a read of a job's output by another principal than its creator, once an hour for each job."""
        if self._reads.may_record(act.who, act.target, self._clock.seconds()):
            self.record(act)

    def page(self, which: AuditFilter, limit: int, before: int | None) -> Deferred[AuditPage]:
        """See ``IStore.read_audit``."""
        return self._store.read_audit(which, limit, before)

    def begin(self, head: Anchor) -> None:
        """Log the head with which the chain was loaded."""
        self._head = head
        self._log_head()

    def end_minute(self) -> None:
        """Record the refusals that were only counted, and log the head if it has changed; called every minute."""
        for origin, count in self._refusals.end().items():
            self.record(Act(self.now(), "", "refused", "", "", "many", origin, details={"count": count}))
        if self._head != self._logged:
            self._log_head()

    def _log_head(self) -> None:
        self._logged = self._head
        _log.info("audit head {seq} {hash}", seq=self._head.seq, hash=self._head.hash)

    def _hear(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            act = entry.act
            _log.info(
                "{seq} {at} {who} {origin} {uid} {action} {target} {worker} {result} {request_id}",
                seq=entry.seq,
                at=time_text(act.time),
                who=_word(act.who),
                origin=_word(act.origin),
                uid="-" if act.uid is None else act.uid,
                action=_word(act.action),
                target=_word(act.target),
                worker=_word(act.worker),
                result=_word(act.result),
                request_id=_word(act.request_id),
            )
        self._head = entries[-1].anchor


def _word(text: str) -> str:
    """A text as one word of a line: clients choose some, and must not be able to forge the words that follow."""
    return text.replace(" ", "%20") or "-"
