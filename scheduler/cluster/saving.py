"""Saves records, and retries while the database is unavailable.

While it is available, a save goes straight to it. When a save fails, the ids of its records are kept as *owed*, and
later saves only add ids. A retry after 1 s, then after growing delays up to 5 s, saves the current version of each owed
record. So retries are few, a late retry can't overwrite a newer version, and no record is owed twice. The first retry
that succeeds ends this.

Records that nobody waits for, and that workers report again anyway, are only *noted*: they are saved together with the
next save, or after 0.1 s.

The act that is under way (``scheduler.security.acts``) goes with the first save of its operation. If that save fails,
the act of a decision is given back, because nothing came of the decision. Any other act is owed like a record. At most
``MAX_OWED_ACTS`` are: the first ones, so that nobody can push out an act by many later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from scheduler.errors import StoreFailed
from scheduler.interfaces import IStore, Record
from scheduler.model import Ref
from scheduler.security.acts import UNDER_WAY, ActUnderWay
from scheduler.security.audit import Act

#: Seconds from a failure to the next attempt; each further one waits twice as long, up to the second of these.
STORE_RETRY_FIRST_SECONDS = 1.0
STORE_RETRY_MAX_SECONDS = 5.0

#: Seconds for which a noted record stays unsaved, at most.
UNSAVED_MAX_SECONDS = 0.1

#: Acts kept while the database is unavailable. Of further ones only the log knows.
MAX_OWED_ACTS = 10_000


@define(eq=False, slots=False)
class Saving:
    """``problem`` is why the database is unavailable, ``""`` while it is not."""

    _log = Logger()

    _clock: IReactorTime
    _store: IStore
    #: Says what is to be saved under an id now: its record, or that there is none, as it was given.
    _present: Callable[[Ref], Record]
    #: Is called with what the store had failed to take, and has taken now.
    _caught_up: Callable[[Sequence[Record]], None]

    def __attrs_post_init__(self) -> None:
        self.problem = ""
        # an ordered set
        self._owed: dict[Ref, None] = {}
        self._owed_acts: list[Act] = []
        self._delay = STORE_RETRY_FIRST_SECONDS
        self._timer: IDelayedCall | None = None
        # what nobody waits for, an ordered set, and when it is saved if nothing else is before
        self._noted: dict[Ref, None] = {}
        self._moment: IDelayedCall | None = None
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether no record is still to be saved."""
        return not (self._owed or self._owed_acts or self._noted or self._timer or self._moment)

    def save(self, records: Sequence[Record], decided: bool = False) -> Deferred[None]:
        """Fires once they, and all before them, are durable.

        ``StoreFailed``: what is known under their ids will be saved once that is possible. ``decided``: then they have
        no effect.
        """
        under_way = UNDER_WAY.get()
        if under_way is None:
            return Deferred.fromCoroutine(self._save([*self._take_noted(), *records], []))
        acts = under_way.take(records)
        saved = Deferred.fromCoroutine(self._save([*self._take_noted(), *records], acts, keep=not decided))
        return saved.addErrback(_give_back, under_way, acts) if acts and decided else saved

    def record(self, act: Act) -> None:
        """Save the act with the next commit, or once the database takes it."""
        saved = Deferred.fromCoroutine(self._save(self._take_noted(), [act]))
        saved.addErrback(lambda reason: reason.trap(StoreFailed))

    def note(self, record: Record) -> None:
        """Save the record, as it is known by then, with the next save, or after ``UNSAVED_MAX_SECONDS``."""
        self._noted[_ref(record)] = None
        if self._moment is None and not self._closed:
            self._moment = self._clock.callLater(UNSAVED_MAX_SECONDS, self._save_noted)

    def close(self) -> Deferred[None]:
        """Save the noted records, or retry once if saves failed, and save nothing later; fires when that is over."""
        self._closed = True
        saved = (self.save([]) if self._noted else succeed(None)).addErrback(lambda _: None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            return Deferred.fromCoroutine(self._attempt()).addErrback(lambda _: None)
        return saved

    def _take_noted(self) -> list[Record]:
        noted, self._noted = self._noted, {}
        if self._moment is not None and self._moment.active():
            self._moment.cancel()
        self._moment = None
        return [self._present(each) for each in noted]

    def _save_noted(self) -> None:
        self.save([]).addErrback(lambda reason: reason.trap(StoreFailed))

    async def _save(self, records: Sequence[Record], acts: Sequence[Act], keep: bool = True) -> None:
        """Save the records and acts. ``keep``: acts that could not be saved are owed."""
        kept = acts if keep else ()
        if not self.problem:
            await self._send(records, acts, kept)
            kept = ()
        if self.problem:  # one before them may have failed meanwhile
            self._owe(records, kept)
            raise StoreFailed(self.problem)

    async def _send(self, records: Sequence[Record], acts: Sequence[Act], kept: Sequence[Act]) -> None:
        try:
            await self._store.save([*records, *acts] if acts else records)
        except StoreFailed as error:
            self._owe(records, kept)
            if not self.problem:
                self._log.error("database unavailable: {why}", why=str(error))
                self._delay = STORE_RETRY_FIRST_SECONDS
                self._try_later()
            self.problem = str(error)
            raise

    def _owe(self, records: Iterable[Record], acts: Iterable[Act]) -> None:
        self._owed.update(dict.fromkeys(map(_ref, records)))
        for act in acts:
            if len(self._owed_acts) < MAX_OWED_ACTS:
                self._owed_acts.append(act)
            else:
                self._log.error(
                    "not in the audit, for which too many acts wait: {who} {origin} {action} {target} {result}",
                    who=act.who,
                    origin=act.origin,
                    action=act.action,
                    target=act.target,
                    result=act.result,
                )

    def _try_later(self) -> None:
        if self._closed:
            return
        self._timer = self._clock.callLater(self._delay, self._try_again)
        self._delay = min(2 * self._delay, STORE_RETRY_MAX_SECONDS)

    def _try_again(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._attempt()).addErrback(lambda _: self._try_later())

    async def _attempt(self) -> None:
        records, acts = self._take_owed(), self._take_owed_acts()
        await self._send(records, acts, acts)
        self.problem = ""
        self._log.info("the store works again")
        since, acts = self._take_owed(), self._take_owed_acts()  # their saves failed during the attempt
        if since or acts:
            saving = Deferred.fromCoroutine(self._save([*self._take_noted(), *since], acts))
            saved = saving.addCallback(lambda _: self._caught_up(since))
            saved.addErrback(lambda reason: reason.trap(StoreFailed))
        self._caught_up(records)

    def _take_owed(self) -> list[Record]:
        owed, self._owed = self._owed, {}
        return [self._present(each) for each in owed]

    def _take_owed_acts(self) -> list[Act]:
        acts, self._owed_acts = self._owed_acts, []
        return acts


def _give_back(reason: Failure, under_way: ActUnderWay, acts: Sequence[Act]) -> Failure:
    if reason.check(StoreFailed):
        under_way.give_back(acts)
    return reason


def _ref(record: Record) -> Ref:
    return record if isinstance(record, Ref) else record.ref
