"""Principals: the parties that make requests, and their rights."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from attrs import field, frozen

from scheduler.terms import EMPTY, frozen_mapping


class Scope(IntEnum):
    """The rights of a principal, and those that a route needs. A scope includes the scopes below it.

    ``OPEN`` is a route that needs no principal; no principal has this scope.
    """

    OPEN = 0
    READ = 1
    RUN = 2
    ADMIN = 3


@frozen
class Principal:
    """The party that makes a request; ``str()`` is its name in ``created_by`` and in the audit, like ``token:ci``."""

    #: ``"token"``, ``"local"`` (a user of this machine), ``"worker"`` (the identity in a certificate) or
    #: ``"anonymous"``, which has no name.
    kind: str
    name: str
    scope: Scope
    #: Labels that a worker must have to be within the principal's reach. Empty: every worker is.
    reach: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    #: The id of the token; ``""`` for other kinds.
    token_id: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


#: Everybody who can reach a server with ``allow_insecure``.
ANONYMOUS = Principal("anonymous", "", Scope.ADMIN)
