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
        Usage,
        Version,
        WaitingFor,
        Worker,
    )

#: Module -> the public names in it.
_MODULES = {
    "blocking": ("Client",),
    "errors": (
        "ApiProblem",
        "ClientError",
        "ConnectionFailed",
        "JobFailed",
        "OutputLost",
        "Started",
        "WaitTimedOut",
    ),
    "submission": ("JobFields",),
    "twisted": ("Items", "TwistedClient"),
    "values": (
        "FINAL_STATES",
        "Changed",
        "Disk",
        "Ended",
        "Event",
        "Job",
        "Output",
        "Readiness",
        "Result",
        "Usage",
        "Version",
        "WaitingFor",
        "Worker",
    ),
}

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

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
    "TwistedClient",
    "Usage",
    "Version",
    "WaitTimedOut",
    "WaitingFor",
    "Worker",
]


def __getattr__(name: str) -> Any:
    """Load the module that has a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
