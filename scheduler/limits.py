"""Limits on clients of the HTTP API: bytes, seconds and numbers, so that one client can't take what others need.

A limit of one address or principal is answered with 429, a limit of all clients with 503.
"""

from __future__ import annotations

from attrs import frozen

KIB, MIB = 1024, 1024 * 1024

#: Connections at a time, of all clients.
MAX_CONNECTIONS = 10_000

#: Connections over the limit that are answered with 503, and those of one address that are answered with 429. Further
#: connections are closed at once.
MAX_SPARE_CONNECTIONS, MAX_SPARE_CONNECTIONS_PER_ADDRESS = 64, 16

#: The share of this process's descriptors that connections may take.
DESCRIPTORS_SHARE = 0.5

#: Seconds that a connection may be silent between two requests.
IDLE_MAX_SECONDS = 60.0

#: Seconds that a TLS handshake may take, and seconds that a client may take to confirm the end of TLS.
HANDSHAKE_DEADLINE_SECONDS, TLS_END_DEADLINE_SECONDS = 20.0, 5.0

#: Seconds that all headers of a request may take, and seconds that all of its body may take after that.
HEADERS_DEADLINE_SECONDS, BODY_DEADLINE_SECONDS = 20.0, 60.0

#: Bytes of a request's body, at most.
BODY_MAX_BYTES = MIB

#: Bytes at the beginning of each body that do not count towards ``ClientLimits.body_bytes``, so that small requests are
#: answered while others send large bodies.
BODY_FREE_BYTES = 4 * KIB

#: Seconds for which the rest of a refused body is received and thrown away, and bytes of that rest.
LINGER_MAX_SECONDS, LINGER_MAX_BYTES = 30.0, 256 * MIB

#: Bytes held for all clients that read nothing, at most.
HELD_MAX_BYTES = 48 * MIB

#: Seconds for which failed logins of an address count, and addresses that are remembered.
LOGINS_SECONDS, MAX_LOGIN_ADDRESSES = 60.0, 10_000


@frozen
class ClientLimits:
    """The table ``[limits]``."""

    #: Bytes of bodies that have come and are not yet read, of all requests together.
    body_bytes: int = 64 * MIB
    connections_per_address: int = 1024
    #: Streams at a time, and submissions that are answered with one.
    followers_per_principal: int = 4096
    #: Requests of an address with a token that is not valid.
    failed_logins_per_minute: int = 10


def max_connections(descriptors: int) -> int:
    """The number of connections for a process that may have so many ``descriptors``."""
    return min(MAX_CONNECTIONS, int(descriptors * DESCRIPTORS_SHARE))
