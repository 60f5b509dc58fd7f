"""Checks whether a server can listen at an address, before the process becomes a daemon.

Theory of operation. The probe binds like the real servers, with ``SO_REUSEADDR``, so ended connections of these servers
(``TIME_WAIT``) do not block it. Ended connections of programs without that option block a port for a minute. Such a
program is another server that used the port before, or a client that got this port as its local port, as happens to
ports in ``net.ipv4.ip_local_port_range``. No process holds such a port, so the check waits until it is free.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable

from scheduler.net import Address

#: Seconds within which the kernel frees the port of an ended connection, and seconds between two attempts.
WAIT_MAX_SECONDS, LOOK_INTERVAL_SECONDS = 65.0, 0.5

#: Columns of ``/proc/net/tcp``: the local address, and the socket's inode, which is 0 once no process has the socket.
_LOCAL, _INODE = 1, 9


def why_not_listen(
    address: Address, say: Callable[[str], object], sleep: Callable[[float], object] = time.sleep
) -> str:
    """Why this process can't listen at ``address``, ``""`` if it can. ``say`` is called with a text before it waits."""
    code, problem = _bind(address)
    if code == errno.EADDRINUSE and _left_behind(address.port):
        say("waiting for connections that have ended to give the port back, a minute at most")
        until = WAIT_MAX_SECONDS
        while code == errno.EADDRINUSE and until > 0 and _left_behind(address.port):
            sleep(LOOK_INTERVAL_SECONDS)
            until -= LOOK_INTERVAL_SECONDS
            code, problem = _bind(address)
    return problem


def _bind(address: Address) -> tuple[int, str]:
    """Try to bind. Returns the errno and its meaning, or 0 and ``""``."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # It does not hide a port in use.
            probe.bind(where)
    except socket.gaierror as error:
        return 0, f"must be an address of this machine; the name does not resolve: {error.strerror}"
    except OSError as error:
        code = error.errno or 0
        return code, {
            errno.EADDRINUSE: "the port is taken; allowed is a free one, or 0 for any",
            errno.EADDRNOTAVAIL: "must be an address of this machine",
            errno.EACCES: f"port {address.port} is for root, or with the capability net_bind_service",
        }.get(code, f"can't listen there: {error.strerror}")
    return 0, ""


def _left_behind(port: int) -> bool:
    """Whether sockets use the port, and no process has any of them."""
    inodes: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="utf-8") as lines:
            fields = (line.split() for line in lines)
            inodes += (each[_INODE] for each in fields if each[_LOCAL].endswith(f":{port:04X}"))
    return bool(inodes) and set(inodes) == {"0"}
