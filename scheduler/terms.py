"""The terms of a job: where it may run, how long it may wait for a worker, and whether it is run again."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen
from attrs.converters import optional

EMPTY: Mapping[str, str] = MappingProxyType({})


def frozen_mapping(value: Mapping[str, str]) -> Mapping[str, str]:
    """An immutable copy; the value itself if it is immutable already."""
    return value if isinstance(value, MappingProxyType) else MappingProxyType(dict(value)) if value else EMPTY


@frozen
class Target:
    """The worker for a job: one by id or name, or any that has all ``selector`` labels."""

    worker: str | None = None
    #: ``{}`` is any worker. With ``worker``: the labels that it must have when the job starts; ``None``: any.
    selector: Mapping[str, str] | None = field(default=None, converter=optional(frozen_mapping))


@frozen
class Retry:
    """Further runs of a job that ``failed`` or ``timed_out``, each as a job of its own."""

    #: The number of runs after the first.
    attempts: int
    #: Seconds from an end to the next run.
    delay: float = 0.0


@frozen
class QueueTerms:
    """Terms for the time before and after a job runs, and for the case that no client attends the job."""

    #: Seconds for which the job may be ``queued``; 0: it starts at once or not at all.
    queue_timeout: float = 0.0
    #: A higher priority starts first.
    priority: int = 0
    retry: Retry | None = None
    #: Seconds without a client that follows the job or waits for it, after which it is stopped; ``None``: no limit.
    unattended_timeout: float | None = None


#: Start at once or not at all, and never again.
NO_WAITING = QueueTerms()

#: Seconds for which a job with a selector may be ``queued`` by default.
DEFAULT_QUEUE_TIMEOUT_SECONDS = 3600.0

#: The limits of ``QueueTerms.priority``, in both directions, and of ``Retry.attempts``.
MAX_PRIORITY, MAX_ATTEMPTS = 1000, 100
