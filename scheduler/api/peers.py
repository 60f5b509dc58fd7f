"""Finds TCP connections whose other end is gone.

Theory of operation. A peer whose machine or network is gone sends nothing. On an idle connection the kernel notices by
keepalive probes. On a connection with unacknowledged bytes the kernel sends these again and again, for a quarter of an
hour, and makes no probes. TCP_USER_TIMEOUT would end that sooner, but it would also end the connection of a live client
that reads nothing for a while. So the kernel is asked from time to time for how long it has received nothing. A live
peer, even a paused one, answers each probe and each repetition; it never misses several in a row.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol

#: A peer is gone after so many seconds without an acknowledgement, if so many repetitions in a row are unanswered.
SILENCE_MAX_SECONDS, MAX_REPETITIONS = 45.0, 3

#: Seconds between checks. With SILENCE_MAX_SECONDS, a gone peer is noticed within a minute.
CHECK_INTERVAL_SECONDS = 10.0

#: Keepalive of the kernel: seconds until the first probe, seconds between probes, number of probes. 50 s in all.
_PROBES = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 2))

# the first fields of struct tcp_info in linux/tcp.h
_TCP_INFO = struct.Struct("=8B13I")
_RETRANSMITS, _PROBES_OUT, _LAST_ACK_RECV = 2, 3, 20


def keep_alive(transport: Any) -> None:
    """Have the kernel probe the connection while it is idle. The peer of a Unix socket can't vanish unnoticed."""
    handle = _handle(transport)
    if not ITCPTransport.providedBy(transport) or (handle is not None and handle.family == socket.AF_UNIX):
        return
    transport.setTcpKeepAlive(True)
    if handle is not None:
        for option, value in _PROBES:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)


def gone(transport: Any) -> bool:
    """Whether bytes are on their way to a peer that has not answered for ``SILENCE_MAX_SECONDS``."""
    handle = _handle(transport)
    if handle is None:
        return False
    try:
        return silent(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except OSError:  # it was closed meanwhile
        return False


def silent(info: bytes) -> bool:
    """Whether a ``tcp_info`` of the kernel (bytes) shows that the peer is gone."""
    fields = _TCP_INFO.unpack(info)
    repeated: int = max(fields[_RETRANSMITS], fields[_PROBES_OUT])
    last_answer: int = fields[_LAST_ACK_RECV]
    return repeated >= MAX_REPETITIONS and last_answer >= SILENCE_MAX_SECONDS * 1000


def _handle(transport: Any) -> socket.socket | None:
    """The socket of a transport; ``None`` for a transport without one, as in tests."""
    tcp = transport.transport if isinstance(transport, TLSMemoryBIOProtocol) else transport
    get = getattr(tcp, "getHandle", None)
    handle = None if get is None else get()
    return handle if isinstance(handle, socket.socket) else None
