"""The door: each request is admitted with its principal, if this principal has the scope that the route needs.

Routes of the scope ``OPEN`` answer everybody. Every other path, also one that no route has, needs a principal.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from attrs import field, frozen
from twisted.web.server import Request

from scheduler.api.admitted import Admitted
from scheduler.api.guard import values_of
from scheduler.api.local_peers import came_through_proxy
from scheduler.errors import ScopeNeeded, TooManyRequests, Unauthenticated
from scheduler.security.authentication import Authentication, Credentials
from scheduler.security.interfaces import ITokens
from scheduler.security.logins import FailedLogins
from scheduler.security.principals import Principal, Scope


class FromClient(Protocol):
    """A request that knows the address of its client."""

    client_address: str


@frozen
class Door:
    """Admits requests to the routes."""

    _authentication: Authentication
    #: The failed logins by address. After too many, tokens from there are not looked at.
    _logins: FailedLogins
    admitted: Admitted = field(init=False, factory=Admitted)

    def __attrs_post_init__(self) -> None:
        self.tokens.watch(self.admitted.end)

    @property
    def tokens(self) -> ITokens:
        """The tokens that this door knows."""
        return self._authentication.tokens

    def admit(self, request: Request, scope: Scope) -> Principal | None:
        """The principal of a request for a route of this scope. ``None``: the route is open, and there is none.

        Raises ``Unauthenticated`` if it has no principal, ``ScopeNeeded`` if the principal's scope is too small, and
        ``TooManyRequests`` if it has a token after too many that were not valid.
        """
        credentials = _credentials(request)
        try:
            principal = self._principal(request, credentials)
        except (Unauthenticated, TooManyRequests):
            if scope is Scope.OPEN:
                return None
            self._authentication.refused(credentials)
            raise
        if principal.scope < scope:
            raise ScopeNeeded(str(principal), scope.name.lower())
        self.admitted.add(principal, request)
        return principal

    def knows(self, request: Request) -> bool:
        """Whether the request has a principal. Nothing is counted or noted; ``admit`` follows."""
        credentials = _credentials(request)
        try:
            if credentials.authorization:
                self._logins.check(_sender(request))
            self._authentication.principal(credentials)
        except (Unauthenticated, TooManyRequests):
            return False
        return True

    def _principal(self, request: Request, credentials: Credentials) -> Principal:
        if not credentials.authorization:
            return self._authentication.principal(credentials)
        sender = _sender(request)
        self._logins.check(sender)
        try:
            return self._authentication.principal(credentials)
        except Unauthenticated:
            self._logins.failed(sender)
            raise


def _sender(request: Request) -> str:
    """The sender of a token: a user of this machine must not use up the attempts of the others on it."""
    uid = user_at_the_other_end(request)
    return cast(FromClient, request).client_address if uid is None else f"user {uid}"


def user_at_the_other_end(request: Request) -> int | None:
    """The user of this machine whose connection a request came by; ``None``: it is not known, or a trusted proxy's.

    Unlike the user in ``Credentials``, it is known of a request with headers of proxies, too, which anybody may write.
    """
    passed_on = cast(FromClient, request).client_address != getattr(request.client, "host", "")
    return None if passed_on else getattr(request.channel, "uid", None)


def _credentials(request: Request) -> Credentials:
    channel: Any = request.channel
    uid = getattr(channel, "uid", None)
    if uid is not None and came_through_proxy(request.requestHeaders):
        uid = None
    return Credentials(values_of(request.requestHeaders, "authorization"), uid)
