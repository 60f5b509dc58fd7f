"""Authentication that asks for nothing."""

from collections.abc import Callable

from scheduler.security.authentication import Authentication, Credentials, Nobody
from scheduler.security.principals import Principal, Scope

#: The principal of every request to a site in tests about other things.
TESTER = Principal("local", "tester", Scope.ADMIN)


class NoTokens:
    """Tokens in tests about other things."""

    def watch(self, ended: Callable[[str], None]) -> None:
        """Nothing ever ends."""


class _Trusting(Authentication):
    def principal(self, credentials: Credentials) -> Principal:
        return TESTER


TRUSTING = _Trusting(NoTokens(), Nobody())
