"""A token as it is kept: what it permits, and the digest by which its text is recognised."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from scheduler.model import Ref
from scheduler.security.principals import Principal, Scope
from scheduler.terms import EMPTY, frozen_mapping


@frozen
class Token:
    """A token, without its text, which only the client that made it was shown. Times are POSIX times."""

    id: str
    name: str
    scope: Scope
    #: SHA-256 of the text, in hexadecimal digits.
    digest: str = field(repr=False)
    created_at: float
    #: The principal that made it, as text.
    created_by: str
    #: Labels that a worker must have to be within reach. Empty: every worker is.
    reach: Mapping[str, str] = field(default=EMPTY, converter=frozen_mapping)
    #: ``None``: never.
    expires_at: float | None = None
    #: To the minute; ``None``: it was not used yet.
    last_used_at: float | None = None

    @property
    def ref(self) -> Ref:
        """The reference to this record."""
        return Ref("token", self.id)

    @property
    def principal(self) -> Principal:
        """The principal of requests with this token."""
        return Principal("token", self.name, self.scope, self.reach, self.id)

    def expired(self, now: float) -> bool:
        """Whether the token is no longer valid at that time."""
        return self.expires_at is not None and self.expires_at <= now
