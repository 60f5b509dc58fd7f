"""The user of this machine at the other end of an HTTP connection.

A connection over a Unix socket has the user who made it. A TCP connection over loopback has the owner of the peer's
socket, as it is when the connection is accepted. A connection with TLS, or from elsewhere, has none: certificates and
tokens are for these. Nor has a request with a header of proxies. It came from somewhere else than the process at the
other end, which may be a proxy that runs as root.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.web.http_headers import Headers

from scheduler.security.socket_owners import OwnerOf, is_established, is_loopback

#: Headers that proxies add, in lower case, and the beginning of others.
_OF_PROXIES, _OF_PROXIES_PREFIX = frozenset({b"forwarded", b"via", b"x-real-ip"}), b"x-forwarded"

# struct ucred of unix(7): the process, user and group that connected
_CREDENTIALS = struct.Struct("=iII")

#: The user id of sockets that have no credentials.
_NO_USER = 2**32 - 1


def uid_of(transport: Any, owner_of: OwnerOf) -> int | None:
    """The user at the other end of a new connection; ``None`` if there is none, or it can't be told."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if not isinstance(handle, socket.socket) or ISSLTransport.providedBy(transport):
        return None
    if handle.family == socket.AF_UNIX:
        return _uid_of_unix(handle)
    try:
        local, peer = handle.getsockname(), handle.getpeername()
    except OSError:
        return None
    if not is_loopback(peer[0]):
        return None
    uid = owner_of(local[:2], peer[:2])
    return uid if is_established(handle) else None  # asked last: see socket_owners


def is_unix(transport: Any) -> bool:
    """Whether the transport is a connection over a Unix socket."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    return isinstance(handle, socket.socket) and handle.family == socket.AF_UNIX


def came_through_proxy(headers: Headers) -> bool:
    """Whether a request has a header that proxies add."""
    for given, _ in headers.getAllRawHeaders():
        name = given.lower()
        if name in _OF_PROXIES or name.startswith(_OF_PROXIES_PREFIX):
            return True
    return False


def _uid_of_unix(handle: socket.socket) -> int | None:
    try:
        _, uid, _ = _CREDENTIALS.unpack(handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return None
    return int(uid) if uid != _NO_USER else None
