"""Authentication that asks for nothing, and authentication with a token of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import Factory, evolve, frozen
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from scheduler.errors import Conflict, NotFound, Unauthenticated
from scheduler.security.authentication import Authentication, Credentials, LocalUsers
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

#: Tokens that are valid, and their principals. ``limited`` reaches only workers with the label ``zone=a``.
TOKENS: Mapping[str, Principal] = {
    "reader": Principal("token", "reader", Scope.READ),
    "runner": Principal("token", "runner", Scope.RUN),
    "admin": Principal("token", "admin", Scope.ADMIN),
    "limited": Principal("token", "limited", Scope.ADMIN, {"zone": "a"}),
}

#: Tokens that are not valid, and why.
INVALID: Mapping[str, str] = {
    "garbage": "the token is not valid",
    "expired": "the token has expired",
    "revoked": "the token was revoked",
}

#: The user of the process itself, and a user who needs a token.
OWN_UID, OTHER_UID = 1000, 1001


class _Tokens(NoTokens):
    def principal(self, token: str) -> Principal:
        if token not in TOKENS:
            raise Unauthenticated(INVALID[token])
        return TOKENS[token]


class _Users:
    def principal(self, uid: int) -> Principal:
        if uid != OWN_UID:
            raise Unauthenticated(f"user {uid} needs a token")
        return TESTER


@frozen
class Doorkeeper(Authentication):
    """Knows the tokens above, and takes every request for one of the user ``uid[0]``; ``None``: of no known user."""

    tokens: ITokens = Factory(_Tokens)
    local_users: LocalUsers = Factory(_Users)
    uid: list[int | None] = Factory(lambda: [None])

    def principal(self, credentials: Credentials) -> Principal:
        return Authentication.principal(self, evolve(credentials, uid=self.uid[0]))
