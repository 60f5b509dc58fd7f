"""Admits calls by the certificate of the caller: its role, its cluster, and whether it is revoked.

Theory of operation. TLS has verified that an authority of ``ca_file`` signed the caller's certificate, and that the
caller has its key. It compares the dates when a connection begins, which may last for months; so they are compared
again at each call. The certificate states a role and a name, in the URI and the DNS names among its subject alternative
names; its common name is never read.

- If this process's own certificate states an identity, the caller's must state the other role, in the same cluster.
- Otherwise the authority is foreign, and ``peer_names`` lists the DNS names of which the caller's certificate must have
  one. Without ``peer_names``, every certificate of the authority is accepted.

A worker's calls may only use the names in its certificate. They are passed on with the call; the cluster compares them
with what the call says.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

import grpc
from attrs import frozen
from cryptography.x509 import load_pem_x509_certificate
from twisted.logger import Logger

from scheduler.daemon.certificates import identity_of
from scheduler.daemon.servers import GrpcServerSettings, TlsFiles
from scheduler.errors import Invalid, Refused
from scheduler.rpc.revoked import RevokedFile
from scheduler.security.identities import Identity, Role
from scheduler.security.presented import Presented, presented, serial_text

#: Certificates whose facts are remembered.
_REMEMBERED_MAX = 4096
#: Seconds for which a refusal is not logged again, and refusals that are remembered for that.
_LOGGED_SECONDS, _LOGGED_MAX = 60.0, 256

_CERTIFICATE_KEY = "x509_pem_cert"


@frozen
class CallerRules:
    """The keys of ``[grpc_server]`` that say who may call."""

    #: DNS names of the processes that may call, for certificates of a foreign authority. ``None``: all may.
    peer_names: tuple[str, ...] | None = None
    revoked: RevokedFile | None = None


ANY_CALLER = CallerRules()


def caller_rules(settings: GrpcServerSettings) -> CallerRules:
    """The rules in the configuration. Raises ``Invalid`` if the file of revoked certificates is unusable."""
    return CallerRules(settings.peer_names, None if settings.revoked is None else RevokedFile(settings.revoked))


class Callers:
    """Decides who may call a server."""

    _log = Logger()

    def __init__(
        self,
        role: Role,
        tls: TlsFiles | None,
        rules: CallerRules,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Only ``role`` may call. Raises ``Invalid`` if the certificate of this process can't be read."""
        self._now = now
        self._role = role
        self._own = identity_of(tls)
        self._rules = rules
        self._checks = self._own is not None or rules != ANY_CALLER
        self._lock = threading.Lock()
        #: When a refusal was logged, oldest first.
        self._logged: dict[str, float] = {}

    def check_thd(self, context: grpc.ServicerContext) -> None:
        """Raise ``Refused`` for a caller that may not call."""
        if not self._checks:
            return
        try:
            self._check(_caller(context))
        except Refused as error:
            self._log_refusal(context.peer(), str(error))
            raise

    def principal_thd(self, context: grpc.ServicerContext) -> str:
        """The principal of a caller, like ``worker:NAME``; ``""`` if its certificate states no identity of our cluster.

        It may be a caller that is refused.
        """
        try:
            identity = _caller(context).identity
        except Refused:
            return ""
        if identity is None or self._own is None or identity.cluster != self._own.cluster:
            return ""
        return identity.principal

    def names_thd(self, context: grpc.ServicerContext) -> tuple[str, ...]:
        """The names of workers that the caller may use; empty: any, as its certificate states none that counts.

        A DNS name of ``peer_names`` stands for the workers with that name or with its first label.
        """
        if not self._checks:
            return ()
        caller = _caller(context)
        if self._own is not None:
            assert caller.identity is not None
            return (caller.identity.name,)
        listed = self._listed(caller)
        return tuple(dict.fromkeys((*(name.partition(".")[0] for name in listed), *listed)))

    def _listed(self, caller: Presented) -> list[str]:
        return [name for name in caller.dns_names if name in (self._rules.peer_names or ())]

    def _check(self, caller: Presented) -> None:
        if caller.ends < self._now():
            raise Refused(f"the certificate has expired, on {caller.ends:%Y-%m-%d %H:%M} UTC")
        if self._rules.revoked is not None and caller.serial in self._rules.revoked:
            raise Refused(f"the certificate with the serial {serial_text(caller.serial)} is revoked")
        if self._own is not None:
            self._check_identity(self._own, caller.identity)
        elif self._rules.peer_names is not None and not self._listed(caller):
            shown = ", ".join(caller.dns_names) or "no host"
            raise Refused(f"the certificate is for {shown}, and none of these is in [grpc_server] peer_names")

    def _check_identity(self, own: Identity, caller: Identity | None) -> None:
        if caller is None:
            raise Refused(f"the certificate states no identity; only a {self._role.value} of {own.cluster} may call")
        if caller.cluster != own.cluster:
            raise Refused(f"{caller} is of another cluster than {own}")
        if caller.role is not self._role:
            raise Refused(f"{caller} may not call {own}: only a {self._role.value} may")

    def _log_refusal(self, peer: str, why: str) -> None:
        """Log a refusal, unless the same was logged a moment ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._logged.get(why, -math.inf) < _LOGGED_SECONDS:
                return
            self._logged.pop(why, None)  # so that the order is that of the times
            self._logged[why] = now
            if len(self._logged) > _LOGGED_MAX:
                del self._logged[next(iter(self._logged))]
        self._log.warn("a call from {peer} is refused: {why}", peer=peer, why=why)


def _caller(context: grpc.ServicerContext) -> Presented:
    """The facts in the caller's certificate. Raises ``Refused`` if it shows none, or a malformed one."""
    shown = context.auth_context().get(_CERTIFICATE_KEY)
    if not shown:
        raise Refused("the caller shows no certificate")
    try:
        return _presented(shown[0])
    except Invalid as error:
        raise Refused(f"the certificate is malformed: {error.problem}") from None


@lru_cache(_REMEMBERED_MAX)
def _presented(pem: bytes) -> Presented:
    try:
        return presented(load_pem_x509_certificate(pem))
    except ValueError as error:
        raise Invalid("certificate", f"it can't be read: {error}") from None
