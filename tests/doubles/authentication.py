"""Authentication that asks for nothing."""

from scheduler.security.authentication import Authentication, Credentials
from scheduler.security.principals import Principal, Scope

#: The principal of every request to a site in tests about other things.
TESTER = Principal("local", "tester", Scope.ADMIN)


class _Trusting(Authentication):
    def principal(self, credentials: Credentials) -> Principal:
        return TESTER


TRUSTING = _Trusting(None, None)  # type: ignore[arg-type]  # nothing looks at them
