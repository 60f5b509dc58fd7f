"""The audit of HTTP requests: who sends a request, from where, and the requests that are refused at the door."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.web.server import Request

from scheduler.api.door import Door, user_at_the_other_end
from scheduler.errors import ScopeNeeded, Unauthenticated
from scheduler.interfaces import IScheduler
from scheduler.model import Job
from scheduler.security.audited import Audited
from scheduler.security.audited_tokens import AuditedTokens
from scheduler.security.interfaces import ITokens
from scheduler.security.principals import Principal, Scope
from scheduler.security.trail import Audit


def origin_of(request: Request) -> tuple[str, int | None]:
    """The address that a request came from, and the uid of the local user who sent it; ``None``: it is not known."""
    return getattr(request, "client_address", ""), user_at_the_other_end(request)


def audited(scheduler: IScheduler, audit: Audit | None, principal: Principal | None, request: Request) -> IScheduler:
    """The scheduler, with the acts of this request recorded."""
    return scheduler if audit is None else _audited(scheduler, audit, principal, request)


def audited_tokens(tokens: ITokens, audit: Audit | None, request: Request) -> ITokens:
    """The tokens, with those that this request makes or revokes recorded."""
    if audit is None:
        return tokens
    origin, uid = origin_of(request)
    return AuditedTokens(tokens, audit, origin, uid, _id_of(request))


def record_reads(
    scheduler: IScheduler, audit: Audit | None, principal: Principal | None, request: Request, jobs: Iterable[Job]
) -> None:
    """Record that output of these jobs is part of the answer, where it was not read by way of ``audited``."""
    if audit is not None:
        reader = _audited(scheduler, audit, principal, request)
        for job in jobs:
            reader.note_read(job.id)


def _audited(scheduler: IScheduler, audit: Audit, principal: Principal | None, request: Request) -> Audited:
    origin, uid = origin_of(request)
    return Audited(scheduler, audit, "" if principal is None else str(principal), origin, uid, _id_of(request))


def record_refusal(audit: Audit | None, request: Request, who: str, result: str) -> None:
    """Record that a request was refused, with its method and path, but without its query."""
    if audit is not None:
        origin, uid = origin_of(request)
        asked = f"{request.method.decode('latin-1')} {request.path.decode('latin-1')}"
        audit.refused(who, origin, uid, _id_of(request), asked, result)


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


def _id_of(request: Request) -> str:
    return getattr(request, "request_id", "")
