"""Idempotency keys of requests."""

from __future__ import annotations

from attrs import frozen

#: Characters of the longest idempotency key, and of the longest name of a principal that goes with one.
REQUEST_KEY_MAX_CHARACTERS, PRINCIPAL_MAX_CHARACTERS = 255, 1024


@frozen
class RequestKey:
    """The idempotency key of a request, and the SHA-256 of the request's content, in hexadecimal.

    Two principals may use the same text: then these are two keys.
    """

    key: str
    fingerprint: str
    #: The principal that sent the request, as in ``created_by``. ``None``: it is not known, because an earlier version
    #: kept the key, and the key counts for every principal.
    principal: str | None = None

    @property
    def name(self) -> tuple[str | None, str]:
        """The part that no two requests may share, unless they are the same."""
        return self.principal, self.key


def is_request_key(text: str) -> bool:
    """Whether ``text`` is a valid idempotency key."""
    return 1 <= len(text) <= REQUEST_KEY_MAX_CHARACTERS and text.isascii() and text.isprintable()


def is_principal(text: str) -> bool:
    """Whether ``text`` can be the name of a principal."""
    return 1 <= len(text) <= PRINCIPAL_MAX_CHARACTERS and text.isprintable()
