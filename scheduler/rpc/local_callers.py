"""Admits calls by the user of this machine who makes them, on a server that asks for no certificates.

Such a server listens on loopback alone, unless everybody may call it, so every caller is a process of this machine. The
owner of its socket is looked up at each call. Nothing is kept about a connection, since another process may have its
port later.

The server learns of the end of a connection a moment after it happened. So a call counts as its caller's only if the
call is still active after the lookup.

The reflection service is open to all users of the machine. It tells nothing but which services there are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote

import grpc

from scheduler.daemon.servers import GrpcServerSettings
from scheduler.errors import Unauthenticated
from scheduler.net import Address
from scheduler.security.local_users import RefusalLog
from scheduler.security.socket_owners import OwnerOf


class LocalCallers:
    """The users of this machine who may call a server: root, the process's own user, and those in ``local_users``."""

    def __init__(
        self,
        settings: GrpcServerSettings,
        owner_of: OwnerOf,
        bound: Callable[[], Address | None],
        own_uid: Callable[[], int] = os.geteuid,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``bound`` gives the address on which the server listens. ``clock`` gives seconds."""
        self._admits_all = settings.protected
        self._uids = frozenset((0, *(user.uid for user in settings.local_users)))
        self._owner_of = owner_of
        self._bound = bound
        self._own_uid = own_uid
        self._refusals = RefusalLog(clock, "gRPC", "[grpc_server] local_users")

    def uid_thd(self, context: grpc.ServicerContext) -> int | None:
        """The user who makes a call; ``None`` if the system can't tell, or certificates count instead."""
        bound, peer = self._bound(), _end(context.peer())
        if self._admits_all or bound is None or peer is None:
            return None
        uid = self._owner_of((bound.host, bound.port), peer)
        return uid if context.is_active() else None  # asked last: see above

    def check_thd(self, context: grpc.ServicerContext) -> None:
        """Raise ``Unauthenticated`` if the call comes from a user who may not make it."""
        if self._admits_all:  # certificates are checked, or nothing is
            return
        uid = self.uid_thd(context)
        if uid is None:
            raise Unauthenticated(
                "the system can't tell which user of this machine calls; certificates would (use_tls)"
            )
        if uid not in self._uids and uid != self._own_uid():
            self._refusals.note(uid)
            raise Unauthenticated(f"user {uid} is not in local_users of [grpc_server] of the process that was called")


@lru_cache(256)
def _end(peer: str) -> tuple[str, int] | None:
    """Host and port in gRPC's ``ipv4:127.0.0.1:5`` or ``ipv6:[::1]:5``; ``None`` for other texts."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    return (host.strip("[]"), int(port)) if kind in {"ipv4", "ipv6"} and port.isdecimal() else None
