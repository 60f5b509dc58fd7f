"""The tokens: who has which rights, until when.

Theory of operation. The text of a token is shown once, to the client that made it. The ledger keeps its SHA-256. A
request with an unknown id takes as long as one with a wrong secret, and gets the same answer.

A token is judged at each use, so one that expires or is revoked admits no further request. ``watch`` tells the servers
to end the requests that are under way: at once for a revoked token, within ``EXPIRY_INTERVAL_SECONDS`` for an expired
one. A revocation also stops the queued jobs of the token. Its jobs that run go on, but are not tried again. All jobs of
an expired token go on.

The time of the last use is kept to the minute, and saved when there is time: no request waits for it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from scheduler.deferreds import shielded
from scheduler.errors import Conflict, Invalid, NameTaken, NotFound, Refused, SchedulerError, Unauthenticated
from scheduler.interfaces import Record
from scheduler.model import FINAL, Job, JobState
from scheduler.reading import shown
from scheduler.security.interfaces import ITokens, NewToken
from scheduler.security.principals import Principal
from scheduler.security.token import Token
from scheduler.security.token_text import digest_of, id_of, new_id, new_text
from scheduler.units import format_moment
from scheduler.views import JobFilter

#: Tokens that may be valid at the same time.
MAX_TOKENS = 1000

#: Seconds between two looks for tokens that have expired.
EXPIRY_INTERVAL_SECONDS = 5.0

#: Seconds after which another use of a token is noted.
USE_NOTED_AFTER_SECONDS = 60.0

#: The reason of a job that was queued when its token was revoked.
REVOKED = "token revoked"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

_ALL_QUEUED = JobFilter(states=frozenset({JobState.QUEUED}))

#: The states of jobs that may be tried again.
_BEGUN = frozenset(JobState) - FINAL - {JobState.QUEUED}

#: Compared with the digest of a token that is not known, so that the comparison takes as long.
_NO_DIGEST = "0" * 64

#: The job filter's times are half open.
_MOMENT_SECONDS = 0.001


class Keeper(Protocol):
    """The part of the ledger that tokens use."""

    def decide(self, *records: Record) -> Deferred[None]: ...

    def learn(self, *records: Record, lazily: bool = False) -> Deferred[None]: ...


#: Stops the jobs that a filter selects, for a reason; returns them in their new state.
StopMatching = Callable[[JobFilter, str], Coroutine[Any, Any, tuple[Job, ...]]]


@implementer(ITokens)
@define(eq=False, slots=False)
class Tokens:
    """The tokens of one scheduler."""

    _log = Logger()

    _now: Callable[[], float]
    _keeper: Keeper
    #: As the registry has them, by id.
    _tokens: Mapping[str, Token]
    _stop_matching: StopMatching
    #: Returns all jobs that a filter selects.
    _matching: Callable[[JobFilter], Iterable[Job]]

    def __attrs_post_init__(self) -> None:
        # tokens that are being saved
        self._coming: dict[str, Token] = {}
        self._watchers: list[Callable[[str], None]] = []
        # queued jobs that are still to be stopped
        self._to_stop: list[JobFilter] = []

    def principal(self, token: str) -> Principal:
        found = self._tokens.get(id_of(token))
        digest = _NO_DIGEST if found is None else found.digest
        if not hmac.compare_digest(digest, digest_of(token)) or found is None:
            raise Unauthenticated("the token is not valid: it is unknown, or was revoked")
        now = self._now()
        if found.expired(now):
            raise Unauthenticated(f"the token expired at {format_moment(found.expires_at or now)}")
        if found.last_used_at is None or abs(now - found.last_used_at) >= USE_NOTED_AFTER_SECONDS:
            self._keeper.learn(evolve(found, last_used_at=now), lazily=True)
        return found.principal

    @property
    def idle(self) -> bool:
        """Whether no token is being saved, and no job is still to be stopped."""
        return not (self._coming or self._to_stop)

    @property
    def valid(self) -> tuple[Token, ...]:
        """The tokens that have not expired."""
        now = self._now()
        return tuple(token for token in self._tokens.values() if not token.expired(now))

    def all(self, by: Principal) -> tuple[Token, ...]:
        found = (token for token in self._tokens.values() if _includes(by.reach, token.reach))
        return tuple(sorted(found, key=lambda token: (token.name, token.created_at)))

    def get(self, by: Principal, token_id: str) -> Token:
        token = self._tokens.get(token_id)
        if token is None or not _includes(by.reach, token.reach):
            raise NotFound("token", token_id)
        return token

    def create(
        self, by: Principal, wanted: NewToken, reveal: Callable[[str], None] = lambda _: None
    ) -> Deferred[tuple[Token, str]]:
        """See ``ITokens``. ``reveal`` is called with the text before the token is saved; if it raises, none is made."""
        return shielded(Deferred.fromCoroutine(self._create(by, wanted, reveal)))

    async def _create(self, by: Principal, wanted: NewToken, reveal: Callable[[str], None]) -> tuple[Token, str]:
        token_id = new_id({*self._tokens, *self._coming})
        text = new_text(token_id)
        token = Token(
            token_id,
            wanted.name,
            wanted.scope,
            digest_of(text),
            self._now(),
            str(by),
            _reach(by, wanted),
            wanted.expires_at,
        )
        expired = self._check(token)
        reveal(text)
        self._coming[token_id] = token
        try:
            await self._keeper.decide(token, *(each.ref for each in expired))
        finally:
            del self._coming[token_id]
        self._log.info(
            "{by} made the token {name} ({id}) with the scope {scope}",
            by=str(by),
            name=token.name,
            id=token.id,
            scope=token.scope.name.lower(),
        )
        return token, text

    def _check(self, new: Token) -> list[Token]:
        """The expired tokens that give way to a new one. Raises ``Invalid``, ``NameTaken`` or ``Conflict``."""
        if _NAME.fullmatch(new.name) is None:
            raise Invalid("name", f"{shown(new.name)} must be 1 to 64 letters, digits, '.', '_' or '-'")
        valid = [*self.valid, *self._coming.values()]
        if any(token.name == new.name for token in valid):
            raise NameTaken(f"there is a token {new.name!r}; revoke it first, or choose another name")
        if len(valid) >= MAX_TOKENS:
            raise Conflict(f"there are {len(valid)} tokens, and no more may be; revoke some first")
        expired = [token for token in self._tokens.values() if token.expired(new.created_at)]
        is_full = len(expired) + len(valid) >= MAX_TOKENS
        return [token for token in expired if is_full or token.name == new.name]

    def revoke(self, by: Principal, token_id: str) -> Deferred[None]:
        token = self.get(by, token_id)
        self._log.info("{by} revoked the token {name} ({id})", by=str(by), name=token.name, id=token.id)
        return shielded(Deferred.fromCoroutine(self._revoke(token)))

    async def _revoke(self, token: Token) -> None:
        begun = self._matching(JobFilter(created_by=str(token.principal), states=_BEGUN))
        saved = self._keeper.learn(token.ref, *[_for_the_last_time(job) for job in begun])
        self._ended(token.id)
        try:
            await saved  # what the token submitted before is known by then
        finally:
            await self._stop(self._queued_of(str(token.principal)))

    def _queued_of(self, created_by: str) -> JobFilter:
        """Selects the jobs of a principal that are queued now, but none of a later token with the same name."""
        until = self._now() + _MOMENT_SECONDS
        return JobFilter(created_by=created_by, states=frozenset({JobState.QUEUED}), created_before=until)

    async def _stop(self, which: JobFilter) -> None:
        """Stop queued jobs. Those that can't be stopped now, as the store fails, are stopped later."""
        jobs = await self._stop_matching(which, REVOKED)
        starting = evolve(which, states=frozenset({JobState.STARTING}))  # they are queued again if they can't start
        if any(job.state is JobState.QUEUED for job in jobs) or any(self._matching(starting)):
            self._to_stop.append(which)

    def begin(self) -> None:
        """Stop the queued jobs of tokens that were revoked when the process was killed; to be called after the load."""
        known = {str(token.principal) for token in self._tokens.values()}
        found = {job.created_by for job in self._matching(_ALL_QUEUED) if job.created_by is not None}
        self._to_stop += [self._queued_of(who) for who in sorted(found - known) if who.startswith("token:")]
        self._stop_later()

    def watch(self, ended: Callable[[str], None]) -> None:
        self._watchers.append(ended)

    def look(self) -> None:
        """End what tokens began that have expired since; to be called every ``EXPIRY_INTERVAL_SECONDS``."""
        now = self._now()
        for token in self._tokens.values():
            if token.expired(now):
                self._ended(token.id)
        self._stop_later()

    def _stop_later(self) -> None:
        to_stop, self._to_stop = self._to_stop, []
        for which in to_stop:
            Deferred.fromCoroutine(self._stop(which)).addErrback(lambda reason: reason.trap(SchedulerError))

    def _ended(self, token_id: str) -> None:
        for ended in self._watchers:
            ended(token_id)


def _for_the_last_time(job: Job) -> Job:
    """The job without further attempts."""
    retry = job.terms.retry
    return job if retry is None else evolve(job, terms=evolve(job.terms, retry=evolve(retry, attempts=0)))


def _includes(reach: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether all workers within ``other`` are within ``reach``, too."""
    return reach.items() <= other.items()


def _reach(by: Principal, wanted: NewToken) -> Mapping[str, str]:
    """The reach of a new token: the wanted one, combined with its maker's. Raises ``Refused`` if it exceeds that."""
    if wanted.scope > by.scope:
        raise Refused(f"{by} is not permitted to make a token with the scope {wanted.scope.name.lower()!r}")
    for key, value in by.reach.items():
        if wanted.reach.get(key, value) != value:
            raise Refused(f"{by} is not permitted to make a token for workers with another {key} than {value!r}")
    return {**wanted.reach, **by.reach}
