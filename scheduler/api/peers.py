"""Whether anybody is still at the other end of a TCP connection.

Theory of operation. A peer whose machine or network is gone says nothing. On a
connection with nothing under way the kernel finds out by keepalive probes. On one
with bytes that are not acknowledged it sends these again and again, for a quarter
of an hour, and makes no probes; TCP_USER_TIMEOUT would end that sooner, but also
the connection of a live client that takes nothing for a while. So the kernel is
asked, now and then, how long it has heard nothing: a live peer answers each probe
and each repetition, a paused one too, and neither lets several in a row go by.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.interfaces import ITCPTransport

#: Seconds without an acknowledgement, and repetitions unanswered in a row, after which nobody is there.
SILENCE_MAX_SECONDS, MAX_REPETITIONS = 45.0, 3

#: Seconds between looks. With SILENCE_MAX_SECONDS, less than the minute that a connection is held at most.
CHECK_INTERVAL_SECONDS = 10.0

#: Seconds until the first probe of a silent connection, from that to the next, and how many: 50 s in all.
_PROBES = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 2))

# struct tcp_info of linux/tcp.h, as far as it is wanted
_TCP_INFO = struct.Struct("=8B13I")
_RETRANSMITS, _PROBES_OUT, _LAST_ACK_RECV = 2, 3, 20


def keep_alive(transport: Any) -> None:
    """Have the kernel ask for a sign of life on a connection with nothing under way."""
    if not ITCPTransport.providedBy(transport):
        return
    transport.setTcpKeepAlive(True)
    handle = _handle(transport)
    if handle is not None:
        for option, value in _PROBES:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)


def gone(transport: Any) -> bool:
    """Whether bytes are under way to somebody who has not been heard of for ``SILENCE_MAX_SECONDS``."""
    handle = _handle(transport)
    if handle is None:
        return False
    try:
        return silent(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except OSError:  # closed meanwhile
        return False


def silent(info: bytes) -> bool:
    """The same of the kernel's ``tcp_info``."""
    fields = _TCP_INFO.unpack(info)
    repeated: int = max(fields[_RETRANSMITS], fields[_PROBES_OUT])
    last_answer: int = fields[_LAST_ACK_RECV]
    return repeated >= MAX_REPETITIONS and last_answer >= SILENCE_MAX_SECONDS * 1000


def _handle(transport: Any) -> socket.socket | None:
    """The socket; ``None``: it has none, as in a test."""
    get = getattr(transport, "getHandle", None)
    handle = None if get is None else get()
    return handle if isinstance(handle, socket.socket) else None
