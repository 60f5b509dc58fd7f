"""The header ``Idempotency-Key``: what a client calls its request, and which request that was."""

from __future__ import annotations

import hashlib
import json

from twisted.web.http_headers import Headers

from scheduler.api.guard import values_of
from scheduler.errors import Invalid
from scheduler.fields import Object, shown
from scheduler.messages import REQUEST_KEY_MAX_CHARACTERS, RequestKey, is_request_key

HEADER = "Idempotency-Key"

#: Of an answer that was given before, to the same request.
REPLAYED = b"Idempotent-Replayed"


def key_of(headers: Headers, route: str, body: Object) -> RequestKey | None:
    """The key of a request, ``None`` if it has none; ``Invalid``.

    ``route`` and ``body`` are what tells one request from another: not how the body
    is written, and not how the answer is wanted.
    """
    values = values_of(headers, HEADER.lower())
    if not values:
        return None
    if len(values) > 1:
        raise Invalid(HEADER, f"is given {len(values)} times")
    key = values[0]
    if not is_request_key(key):
        raise Invalid(HEADER, f"{shown(key)} must be 1 to {REQUEST_KEY_MAX_CHARACTERS} printable characters of ASCII")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return RequestKey(key, hashlib.sha256(f"{route}\n{text}".encode("ascii")).hexdigest())
