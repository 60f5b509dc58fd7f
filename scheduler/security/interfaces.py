"""The interface at which the HTTP API and the tokens meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from scheduler.security.principals import Principal, Scope
from scheduler.security.token import Token
from scheduler.terms import EMPTY


@frozen
class NewToken:
    """A wish for a token. ``expires_at`` is a POSIX time; ``None``: never."""

    name: str
    scope: Scope
    #: Labels that a worker must have to be within reach.
    reach: Mapping[str, str] = EMPTY
    expires_at: float | None = None


class ITokens(Interface):
    """The tokens. A principal with a reach has only the tokens that reach no further than itself."""

    def principal(token: str) -> Principal:
        """The principal of the text of a token. Raises ``Unauthenticated`` for a token that is not valid now."""

    def all(by: Principal) -> tuple[Token, ...]:
        """The tokens that ``by`` has, by name, including expired ones."""

    def get(by: Principal, token_id: str) -> Token:
        """The token with this id. Raises ``NotFound`` if ``by`` has none."""

    def create(by: Principal, wanted: NewToken) -> Deferred[tuple[Token, str]]:
        """Make a token that reaches no further than ``by``. Fires with it and its text once it is durable.

        Fails with ``Invalid`` (``name``), ``NameTaken``, ``Conflict`` (there are too many tokens), ``Refused`` (the
        token would exceed ``by``) or ``StoreFailed``.
        """

    def revoke(by: Principal, token_id: str) -> Deferred[None]:
        """Revoke a token at once. Fires once that is durable, and its queued jobs are stopped.

        Raises ``NotFound`` if ``by`` has no such token. Fails with ``StoreFailed`` if the revocation is saved later: it
        holds, but may be lost if the process is killed before.
        """

    def watch(ended: Callable[[str], None]) -> None:
        """Call ``ended`` with the id of each token that is revoked or has expired, perhaps repeatedly."""
