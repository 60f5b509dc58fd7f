"""The tokens as one sender's requests reach them: each token that is made or revoked is recorded in the audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.components import proxyForInterface

from scheduler.model import Ref
from scheduler.security.acts import About, ActUnderWay
from scheduler.security.audit import Details, Sender, time_text
from scheduler.security.interfaces import ITokens, NewToken
from scheduler.security.principals import Principal
from scheduler.security.token import Token
from scheduler.security.trail import Audit
from scheduler.texts import cut_tokens

_Passing: Any = proxyForInterface(ITokens, "_tokens")


class AuditedTokens(_Passing):  # type: ignore[misc]
    """Tokens whose making and revocation is recorded, in the transaction that makes or revokes them."""

    def __init__(self, tokens: ITokens, audit: Audit, sender: Sender) -> None:
        super().__init__(tokens)
        self._audit = audit
        self._sender = sender

    def create(self, by: Principal, wanted: NewToken, *more: Any) -> Deferred[tuple[Token, str]]:
        """See ``ITokens``; ``more`` is passed on."""
        details: dict[str, Any] = {"scope": wanted.scope.name.lower()}
        if wanted.reach:
            details["workers"] = dict(wanted.reach)
        if wanted.expires_at is not None:
            details["expires_at"] = time_text(wanted.expires_at)

        def is_new(record: object) -> bool:
            return isinstance(record, Token) and record.name == wanted.name

        return self._carry_out(
            "token.create", wanted.name, details, is_new, lambda: self._tokens.create(by, wanted, *more)
        )

    def revoke(self, by: Principal, token_id: str) -> Deferred[None]:
        name = next((token.name for token in self._tokens.all(by) if token.id == token_id), token_id)
        gone = Ref("token", token_id)
        return self._carry_out(
            "token.revoke",
            name,
            {"id": cut_tokens(token_id)},
            lambda record: record == gone,
            lambda: self._tokens.revoke(by, token_id),
        )

    def _carry_out(
        self, action: str, name: str, details: Details, about: About, operation: Callable[[], Deferred[Any]]
    ) -> Deferred[Any]:
        act = self._sender.act(self._audit.now(), action, name, details=details)
        return self._audit.carry_out(ActUnderWay(act, about), operation)
