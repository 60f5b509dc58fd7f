"""Authentication that asks for nothing."""

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from scheduler.errors import Conflict, NotFound, Unauthenticated
from scheduler.security.authentication import Authentication, Credentials
from scheduler.security.interfaces import ITokens, NewToken
from scheduler.security.principals import Principal, Scope
from scheduler.security.token import Token

#: The principal of every request to a site in tests about other things.
TESTER = Principal("local", "tester", Scope.ADMIN)


@implementer(ITokens)
class NoTokens:
    """Tokens in tests about other things: there are none."""

    def principal(self, token: str) -> Principal:
        raise Unauthenticated("the token is not valid")

    def all(self, by: Principal) -> tuple[Token, ...]:
        return ()

    def get(self, by: Principal, token_id: str) -> Token:
        raise NotFound("token", token_id)

    def create(self, by: Principal, wanted: NewToken) -> Deferred[tuple[Token, str]]:
        return fail(Conflict("there can be no tokens"))

    def revoke(self, by: Principal, token_id: str) -> Deferred[None]:
        raise NotFound("token", token_id)

    def watch(self, ended: Callable[[str], None]) -> None:
        """Nothing ever ends."""


class NoLocalUsers:
    """A machine on which every user needs a token."""

    def principal(self, uid: int) -> Principal:
        raise Unauthenticated("every user needs a token")


class _Trusting(Authentication):
    def principal(self, credentials: Credentials) -> Principal:
        return TESTER


TRUSTING = _Trusting(NoTokens(), NoLocalUsers())
