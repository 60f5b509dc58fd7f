"""The audit of HTTP requests: who sends a request, from where, and the requests that are refused at the door."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.web.server import Request

from scheduler.api.door import Door, user_at_the_other_end
from scheduler.errors import ScopeNeeded, Unauthenticated
from scheduler.interfaces import IScheduler
from scheduler.model import Job
from scheduler.security.audit import Sender
from scheduler.security.audited import Audited
from scheduler.security.audited_tokens import AuditedTokens
from scheduler.security.interfaces import ITokens
from scheduler.security.principals import Principal, Scope
from scheduler.security.trail import Audit


def sender_of(request: Request, who: str) -> Sender:
    """The sender of a request, whose principal is ``who``; ``""``: it has none."""
    origin, request_id = getattr(request, "client_address", ""), getattr(request, "request_id", "")
    return Sender(who, origin, user_at_the_other_end(request), request_id)


def audited(scheduler: IScheduler, audit: Audit | None, principal: Principal, request: Request) -> IScheduler:
    """The scheduler, with the acts of this request recorded."""
    return scheduler if audit is None else Audited(scheduler, audit, sender_of(request, str(principal)))


def audited_tokens(tokens: ITokens, audit: Audit | None, principal: Principal, request: Request) -> ITokens:
    """The tokens, with those that this request makes or revokes recorded."""
    return tokens if audit is None else AuditedTokens(tokens, audit, sender_of(request, str(principal)))


def record_reads(
    scheduler: IScheduler, audit: Audit | None, principal: Principal, request: Request, jobs: Iterable[Job]
) -> None:
    """Record that output of these jobs is part of the answer, where it was not read by way of ``audited``."""
    if audit is not None:
        reader = Audited(scheduler, audit, sender_of(request, str(principal)))
        for job in jobs:
            reader.note_read(job.id)


def record_refusal(audit: Audit | None, request: Request, who: str, result: str) -> None:
    """Record that a request was refused, with its method and path, but without its query."""
    if audit is not None:
        asked = f"{request.method.decode('latin-1')} {request.path.decode('latin-1')}"
        audit.refused(sender_of(request, who), asked, result)


@frozen
class RecordingDoor(Door):
    """A door that has refusals recorded."""

    _audit: Audit | None

    def admit(self, request: Request, scope: Scope) -> Principal | None:
        try:
            return Door.admit(self, request, scope)
        except Unauthenticated:
            record_refusal(self._audit, request, "", "unauthenticated")
            raise
        except ScopeNeeded as error:
            record_refusal(self._audit, request, error.principal, "scope-needed")
            raise
