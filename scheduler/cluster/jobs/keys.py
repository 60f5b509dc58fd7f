"""Requests that their clients named with a key: one sent again does nothing again.

A key is durable with the job that came of its request, and lives as long as that
job (``scheduler.cluster.ledger``). Here is decided what a request with a key is:
the first, which is carried out; the same again, which is given the first one's
answer; another one under a used key; or the same again before the first was
answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import evolve

from scheduler.cluster.registry import Registry
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import KeyInUse, KeyReused, KeyUnsettled
from scheduler.messages import RequestKey
from scheduler.model import IdempotencyKey, Job

#: Seconds for which one request waits until it is known whether its key was used: longer than after a mere restart.
KEY_WAIT_MAX_SECONDS = SILENCE_MAX_SECONDS + 2.0


class Keys:
    """The keys of requests under way, beside those that the registry holds."""

    def __init__(self, registry: Registry, set_back: SetBack) -> None:
        self._registry = registry
        self._set_back = set_back
        # key -> fingerprint
        self._in_use: dict[str, str] = {}

    @property
    def idle(self) -> bool:
        """Whether no request with a key is under way."""
        return not self._in_use

    def find(self, key: RequestKey) -> IdempotencyKey | None:
        """The known key of the request; ``None``: the request is the first. ``KeyReused``, ``KeyInUse``."""
        known = self._registry.find_key(key.key)
        fingerprint = known.fingerprint if known is not None else self._in_use.get(key.key)
        if fingerprint not in {None, key.fingerprint}:
            raise KeyReused(key.key)
        if key.key in self._in_use:
            raise KeyInUse(key.key)
        return known

    async def told_of(self, key: RequestKey | None) -> IdempotencyKey | None:
        """The key as a worker tells it, if the store was set back and did not have it.

        ``KeyReused``; ``KeyUnsettled``: the workers take long.
        """
        if key is None:
            return None
        if not await self._set_back.settles_within(KEY_WAIT_MAX_SECONDS) and self._registry.find_key(key.key) is None:
            raise KeyUnsettled(key.key)
        known = self._registry.find_key(key.key)
        if known is not None and known.fingerprint != key.fingerprint:
            raise KeyReused(key.key)
        return known

    def replays(self, key: RequestKey) -> bool:
        """Whether the request is one that came before and is over."""
        known = self._registry.find_key(key.key)
        return known is not None and known.fingerprint == key.fingerprint and key.key not in self._in_use

    @contextmanager
    def in_use(self, key: RequestKey | None) -> Iterator[None]:
        """The first request with that key is under way."""
        if key is not None:
            self._in_use[key.key] = key.fingerprint
        try:
            yield
        finally:
            if key is not None:
                del self._in_use[key.key]


def request_of(registry: Registry, job: Job) -> RequestKey | None:
    """The key of the request that a job came from."""
    key = registry.key_of(job.id)
    return None if key is None else RequestKey(key.key, key.fingerprint)


def first_answer(registry: Registry, job: Job) -> list[IdempotencyKey]:
    """The key of that request, answered with the job, if there is one that was not answered before."""
    key = registry.key_of(job.id)
    return [] if key is None or key.answer is not None else [evolve(key, answer=job)]


def kept_with(job: Job, key: RequestKey | None, answer: Job | None = None) -> list[IdempotencyKey]:
    """The key of a request as it is kept with the job that came of it, if the request has one."""
    return [] if key is None else [IdempotencyKey(key.key, key.fingerprint, job.id, answer)]
