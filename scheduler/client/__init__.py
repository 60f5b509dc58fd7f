"""The Python client: ``from scheduler.client import Client`` (blocking) or ``TwistedClient`` (Deferreds).

Importing this package loads none of its modules, so a program that may not need them (``schedctl --help``) starts
quickly. A name is loaded when it is first used. ``Client`` loads urllib3, ``TwistedClient`` loads treq and Twisted, and
the values and exceptions load neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scheduler.client.blocking import Client
    from scheduler.client.errors import (
        ApiProblem,
        ClientError,
        ConnectionFailed,
        JobFailed,
        OutputLost,
        Started,
        WaitTimedOut,
    )
    from scheduler.client.submission import JobFields
    from scheduler.client.twisted import Items, TwistedClient
    from scheduler.client.values import (
        FINAL_STATES,
        Changed,
        Disk,
        Ended,
        Event,
        Job,
        Output,
        Readiness,
        Result,
        Token,
        Usage,
        Version,
        WaitingFor,
        Worker,
    )

#: The modules of the names that are neither values nor errors.
_HOMES = {"Client": "blocking", "Items": "twisted", "JobFields": "submission", "TwistedClient": "twisted"}

__all__ = [
    "FINAL_STATES",
    "ApiProblem",
    "Changed",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Disk",
    "Ended",
    "Event",
    "Items",
    "Job",
    "JobFailed",
    "JobFields",
    "Output",
    "OutputLost",
    "Readiness",
    "Result",
    "Started",
    "Token",
    "TwistedClient",
    "Usage",
    "Version",
    "WaitTimedOut",
    "WaitingFor",
    "Worker",
]


def __getattr__(name: str) -> Any:
    """Load the module that has a public name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = (_HOMES[name],) if name in _HOMES else ("errors", "values")
    modules = (importlib.import_module(f"{__name__}.{home}") for home in homes)
    value = globals()[name] = next(getattr(module, name) for module in modules if hasattr(module, name))
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
