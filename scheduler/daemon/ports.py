"""Whether a server could listen at an address, found out before the process becomes a daemon.

Theory of operation. The probe binds as the real servers do, with ``SO_REUSEADDR``, so
connections of theirs that have ended (``TIME_WAIT``) are not in the way. Those of a
program that did not set it are, for a minute: of another server that was there before,
or of a client that was given this very port for its end, which happens to ports that are
among ``net.ipv4.ip_local_port_range``. No process holds such a port, so it is waited for.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable

from scheduler.net import Address

#: Seconds after which the kernel has given back the port of a connection that has ended, and between looks.
WAIT_MAX_SECONDS, LOOK_INTERVAL_SECONDS = 65.0, 0.5

#: In ``/proc/net/tcp``: the local address, and the socket's inode, which is 0 once no process has it.
_LOCAL, _INODE = 1, 9


def why_not_listen(
    address: Address, say: Callable[[str], object], sleep: Callable[[float], object] = time.sleep
) -> str:
    """What keeps this process from listening there, ``""`` for nothing; ``say`` is told of a wait that begins."""
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
    """An errno and what it means, 0 and ``""`` if it works."""
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
    """Whether there are sockets with that port, and no process has any of them."""
    inodes: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            fields = (line.split() for line in lines)
            inodes += (each[_INODE] for each in fields if each[_LOCAL].endswith(f":{port:04X}"))
    return bool(inodes) and set(inodes) == {"0"}
