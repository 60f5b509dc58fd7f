"""The terms of a job: where it may run, how long it may wait for a worker, and whether it is run again."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen
from attrs.converters import optional

EMPTY: Mapping[str, str] = MappingProxyType({})


def frozen_mapping(value: Mapping[str, str]) -> Mapping[str, str]:
    """A copy that nobody can change; the value itself where it is one."""
    return value if isinstance(value, MappingProxyType) else MappingProxyType(dict(value)) if value else EMPTY


@frozen
class Target:
    """Where a job shall run: a worker by id or name, or any that has all ``selector`` labels."""

    worker: str | None = None
    #: ``{}`` is any worker; ``None`` when ``worker`` is given.
    selector: Mapping[str, str] | None = field(default=None, converter=optional(frozen_mapping))


@frozen
class Retry:
    """How often a job that ``failed`` or ``timed_out`` is run again, each time as a job of its own."""

    #: Runs after the first.
    attempts: int
    #: Seconds from an end to the next run.
    delay: float = 0.0


@frozen
class QueueTerms:
    """What the scheduler does for a job beside starting it: how it waits, what follows it, and who has to watch it."""

    #: Seconds it may be ``queued``; 0: it starts at once or not at all.
    queue_timeout: float = 0.0
    #: Higher goes first.
    priority: int = 0
    retry: Retry | None = None
    #: Seconds without any client that follows it or waits for it, after which it is stopped; ``None``: it never is.
    unattended_timeout: float | None = None


#: Now or not at all, and nothing after it.
NO_WAITING = QueueTerms()

#: Seconds a job placed by selector may be ``queued`` when it does not say.
DEFAULT_QUEUE_TIMEOUT_SECONDS = 3600.0

#: The limits of ``QueueTerms.priority``, both ways, and of ``Retry.attempts``.
MAX_PRIORITY, MAX_ATTEMPTS = 1000, 100
