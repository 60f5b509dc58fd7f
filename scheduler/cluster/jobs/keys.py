"""Idempotency keys: a request that is sent again with the same key does nothing again.

The key is a field of the job that came from its request, and is kept as long as that job, or what is left of it. This
module decides what a request with a key is: the first with it, which is carried out; a repetition, which is answered
with the job of the first; another request with a used key (``KeyReused``); or a repetition before the first was
answered (``KeyInUse``). The requests of another principal have keys of their own, whatever their texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.registry import Registry
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import KeyInUse, KeyReused, KeyUnsettled
from scheduler.model import Job, JobState, RemovedJob
from scheduler.request_keys import RequestKey

#: Seconds for which one request waits until it is known whether its key was used: longer than after a mere restart.
KEY_WAIT_MAX_SECONDS = SILENCE_MAX_SECONDS + 2.0


class Keys:
    """The keys of requests under way, beside those that the registry holds."""

    def __init__(self, registry: Registry, set_back: SetBack, flights: Flights) -> None:
        self._registry = registry
        self._set_back = set_back
        self._flights = flights
        # the keys of requests whose jobs are not durable yet, by their names
        self._in_use: dict[tuple[str | None, str], RequestKey] = {}

    @property
    def idle(self) -> bool:
        """Whether no first request with a key is under way."""
        return not self._in_use

    def find(self, key: RequestKey) -> Job | RemovedJob | None:
        """The job of the request with that key; ``None``: the request is the first.

        Raises ``KeyReused`` if another request has the key, ``KeyInUse`` while the first is not answered.
        """
        known = self._found(key)
        if self._is_under_way(key, known):
            raise KeyInUse(key.key)
        return known

    async def told_of(self, key: RequestKey) -> Job | RemovedJob | None:
        """The job of that request as a worker reports it, if the store was set back and did not have it.

        Raises ``KeyReused`` if another request has the key, ``KeyUnsettled`` if not all workers have reported in time.
        """
        settled = await self._set_back.settling.over_within(KEY_WAIT_MAX_SECONDS)
        if not settled and self._registry.find_key(key) is None:
            raise KeyUnsettled(key.key)
        return self._found(key)

    def replays(self, key: RequestKey) -> bool:
        """Whether the same request came before, and was answered."""
        known = self._registry.find_key(key)
        return known is not None and _is_same(known.key, key) and not self._is_under_way(key, known)

    @contextmanager
    def in_use(self, key: RequestKey) -> Iterator[None]:
        """A context in which the first request with that key is under way, and has no durable job yet."""
        self._in_use[key.name] = key
        try:
            yield
        finally:
            del self._in_use[key.name]

    def _found(self, key: RequestKey) -> Job | RemovedJob | None:
        known = self._registry.find_key(key)
        first = self._in_use.get(key.name) if known is None else known.key
        if first is not None and not _is_same(first, key):
            raise KeyReused(key.key)
        return known

    def _is_under_way(self, key: RequestKey, known: Job | RemovedJob | None) -> bool:
        """Whether the first request is not answered. A queued job is the answer once that is durable."""
        if not isinstance(known, Job):
            return key.name in self._in_use
        return known.id in self._flights and (not known.promised or known.state is JobState.QUEUED)


def _is_same(first: RequestKey | None, key: RequestKey) -> bool:
    """Whether a request with ``key`` repeats the one with ``first``, which has the same name or no known principal."""
    return first is not None and first.fingerprint == key.fingerprint
