"""Authentication: which principal a request comes from, by its token or by the local user who sent it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import field, frozen

from scheduler.errors import Unauthenticated
from scheduler.security.interfaces import ITokens
from scheduler.security.principals import ANONYMOUS, Principal

_BEARER = "bearer"


class LocalUsers(Protocol):
    """The users of this machine."""

    def principal(self, uid: int) -> Principal:
        """The principal of a user. Raises ``Unauthenticated`` for a user who needs a token."""

    def refused(self, uid: int) -> None:
        """Note that a request of the user was refused, for want of a token."""


@frozen
class Credentials:
    """The facts about the sender of a request."""

    #: The values of the header ``Authorization``.
    authorization: Sequence[str] = field(default=(), repr=False)
    #: The user id of the process at the other end of the connection. ``None``: it is on another machine, the system
    #: can't tell, or a proxy is in between.
    uid: int | None = None


@frozen
class Authentication:
    """Finds the principal of a request. A token counts more than the local user who sends it."""

    tokens: ITokens
    local_users: LocalUsers
    #: Whether a request that shows nothing of its sender is ``ANONYMOUS``: ``[http_server] allow_insecure``.
    allow_insecure: bool = False

    def principal(self, credentials: Credentials) -> Principal:
        """The principal of a request. Raises ``Unauthenticated`` if it has none."""
        given = credentials.authorization
        if len(given) > 1:
            raise Unauthenticated(f"Authorization is given {len(given)} times")
        if given:
            kind, _, token = given[0].strip().partition(" ")
            if kind.lower() != _BEARER or not token.strip():
                raise Unauthenticated("Authorization must be `Bearer` and a token")
            return self.tokens.principal(token.strip())
        if self.allow_insecure:
            return ANONYMOUS
        if credentials.uid is not None:
            return self.local_users.principal(credentials.uid)
        raise Unauthenticated("the request has no token; send `Authorization: Bearer TOKEN`")

    def refused(self, credentials: Credentials) -> None:
        """Note that a request without a principal was refused. It would not be on a route that is open."""
        if not credentials.authorization and credentials.uid is not None:
            self.local_users.refused(credentials.uid)
