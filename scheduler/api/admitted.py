"""The requests under way whose principals are tokens. They are ended when their tokens are."""

from __future__ import annotations

from twisted.web.server import Request

from scheduler.api.bodies import abort
from scheduler.security.principals import Principal

#: The reason in the log if a request is ended.
TOKEN_ENDED = "its token was revoked or has expired"  # noqa: S105 - no password


class Admitted:
    """Ends the requests of tokens: streams, long polls, and whatever else has no answer yet."""

    def __init__(self) -> None:
        # token id -> its requests; a dict, for their order
        self._requests: dict[str, dict[Request, None]] = {}

    def add(self, principal: Principal, request: Request) -> None:
        """Note a request of this principal until it is answered or cut."""
        token_id = principal.token_id
        if token_id:
            self._requests.setdefault(token_id, {})[request] = None
            request.notifyFinish().addBoth(lambda _: self.spare(principal, request))

    def spare(self, principal: Principal, request: Request) -> None:
        """Do not end this request of the principal."""
        requests = self._requests.get(principal.token_id, {})
        requests.pop(request, None)
        if not requests:
            self._requests.pop(principal.token_id, None)

    def end(self, token_id: str) -> None:
        """Drop the connections of all requests of a token, so that no body looks complete."""
        for request in list(self._requests.get(token_id, ())):
            abort(request, TOKEN_ENDED)
