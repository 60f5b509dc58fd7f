"""Tokens in JSON: the body that asks for one, and the token in answers."""

from __future__ import annotations

from scheduler import reading
from scheduler.api.parameters import time_of
from scheduler.errors import Invalid
from scheduler.names import LABELS_MAX
from scheduler.reading import Fields, Object, Unfit, check_count, check_label, reads, shown
from scheduler.security.interfaces import NewToken
from scheduler.security.principals import Scope
from scheduler.security.token import Token
from scheduler.wire import time_text

#: The scopes that a token may have, by their names.
SCOPES = {scope.name.lower(): scope for scope in (Scope.READ, Scope.RUN, Scope.ADMIN)}

_LIFETIME = reading.duration("more than 0, at most 3650d", reading.TIMEOUT_MAX_SECONDS, zero=False)


@reads("name", "scope", "workers", "expires")
def read_new_token(fields: Fields) -> tuple[NewToken, float | str | None]:
    """Read the body of ``POST /v1/tokens``: the token, and its end as seconds from now or as an RFC 3339 time."""
    workers = fields.get("workers", reading.or_null(reading.mapping), None) or {}
    check_count("workers", workers, LABELS_MAX)
    reach = {key: check_label("workers", key, value) for key, value in workers.items()}
    name = fields.get("name", reading.text(one_line=True, empty=False))
    scope = SCOPES[fields.get("scope", reading.one_of(*SCOPES))]
    return NewToken(name, scope, reach), fields.get("expires", reading.or_null(_expires), None)


def _expires(value: object) -> float | str:
    if isinstance(value, str) and time_of(value) is not None:
        return value
    try:
        return _LIFETIME(value)
    except Unfit as unfit:
        raise Unfit(f"{unfit}, or a time like 2026-05-01T12:00:00Z") from None


def expiry(expires: float | str | None, now: float) -> float | None:
    """The POSIX time at which a token expires; ``None``: never. Raises ``Invalid`` for a time that is over."""
    if not isinstance(expires, str):
        return None if expires is None else now + expires
    moment = time_of(expires)
    if moment is None or moment <= now:
        raise Invalid("expires", f"{shown(expires)} is over")
    return moment


def token_json(token: Token, now: float) -> Object:
    """The JSON of a token, without its text and its digest."""
    return {
        "id": token.id,
        "name": token.name,
        "scope": token.scope.name.lower(),
        "workers": dict(token.reach),
        "created_at": time_text(token.created_at),
        "created_by": token.created_by,
        "expires_at": time_text(token.expires_at),
        "expired": token.expired(now),
        "last_used_at": time_text(token.last_used_at),
    }
