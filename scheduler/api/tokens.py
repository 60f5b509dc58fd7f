"""The handlers of ``/v1/tokens`` and the routes below it."""

from __future__ import annotations

from attrs import evolve

from scheduler.api.answers import Answer, json_answer
from scheduler.api.call import Call
from scheduler.api.context import Reply
from scheduler.api.recording import audited_tokens
from scheduler.api.token_json import expiry, token_json
from scheduler.security.interfaces import ITokens
from scheduler.security.principals import Principal


async def create(call: Call) -> Reply:
    """Make a token. Its text is in this answer, and never again."""
    wanted, expires = call.body
    now = call.context.wall_time()
    wanted = evolve(wanted, expires_at=expiry(expires, now))
    token, text = await _tokens(call).create(_principal(call), wanted)
    headers = {"Location": f"/v1/tokens/{token.id}"}
    shown = token_json(token, now)
    return json_answer({"id": shown.pop("id"), "token": text, **shown}, 201, headers)


async def every(call: Call) -> Reply:
    """Answer with all tokens, by name."""
    now = call.context.wall_time()
    return json_answer({"tokens": [token_json(each, now) for each in call.context.tokens.all(_principal(call))]})


async def one(call: Call, token_id: str) -> Reply:
    """Answer with a token, by id."""
    return json_answer(token_json(call.context.tokens.get(_principal(call), token_id), call.context.wall_time()))


async def revoke(call: Call, token_id: str) -> Reply:
    """Revoke a token, and end its requests. A token that revokes itself gets this answer."""
    principal = _principal(call)
    call.context.door.admitted.spare(principal, call.request)
    await _tokens(call).revoke(principal, token_id)
    return Answer(status=204)


def _tokens(call: Call) -> ITokens:
    return audited_tokens(call.context.tokens, call.context.audit, _principal(call), call.request)


def _principal(call: Call) -> Principal:
    assert call.principal is not None  # no route here is open
    return call.principal
