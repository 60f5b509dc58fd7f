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

from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.registry import Registry
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.settling import SILENCE_MAX_SECONDS
from scheduler.errors import KeyInUse, KeyReused, KeyUnsettled
from scheduler.model import IdempotencyKey, Job, JobState, RequestKey

#: Seconds for which one request waits until it is known whether its key was used: longer than after a mere restart.
KEY_WAIT_MAX_SECONDS = SILENCE_MAX_SECONDS + 2.0


class Keys:
    """The keys of requests under way, beside those that the registry holds."""

    def __init__(self, registry: Registry, set_back: SetBack, flights: Flights) -> None:
        self._registry = registry
        self._set_back = set_back
        self._flights = flights
        # key -> fingerprint, of requests whose jobs are not durable yet
        self._in_use: dict[str, str] = {}

    @property
    def idle(self) -> bool:
        """Whether no job of a request with a key is to be made."""
        return not self._in_use

    def find(self, key: RequestKey | None) -> IdempotencyKey | None:
        """The known key of the request; ``None``: the request is the first. ``KeyReused``, ``KeyInUse``."""
        if key is None:
            return None
        known = self._registry.find_key(key.key)
        fingerprint = known.fingerprint if known is not None else self._in_use.get(key.key)
        if fingerprint not in {None, key.fingerprint}:
            raise KeyReused(key.key)
        if self._is_under_way(key, known):
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
        return known is not None and known.fingerprint == key.fingerprint and not self._is_under_way(key, known)

    @contextmanager
    def in_use(self, key: RequestKey | None) -> Iterator[None]:
        """The job of the first request with that key is to be made."""
        if key is not None:
            self._in_use[key.key] = key.fingerprint
        try:
            yield
        finally:
            if key is not None:
                del self._in_use[key.key]

    def _is_under_way(self, key: RequestKey, known: IdempotencyKey | None) -> bool:
        """Whether the first request is not answered. A queued job is the answer once that is durable."""
        job = None if known is None else self._registry.find_job(known.job_id)
        if job is None:
            return key.key in self._in_use
        return job.id in self._flights and (not job.promised or job.state is JobState.QUEUED)


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
