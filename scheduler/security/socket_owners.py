"""Finds the user who owns the other end of a TCP connection of this machine.

Theory of operation. A connection between two processes of one machine consists of two sockets, and the kernel knows the
user of each. It is asked (``NETLINK_SOCK_DIAG``, see sock_diag(7)) for the socket whose source is the peer's address
and whose destination is ours. It answers with the state of this socket, its user id and its inode.

Only a socket in state ESTABLISHED or CLOSE_WAIT that has an inode identifies its owner. A socket that its process has
closed lives on in the kernel, as user 0 with inode 0: it would make everybody root who writes a request and hangs up.
If the connection is gone, the kernel may also answer with a socket that listens on the port; its state differs.

The answer is true for the moment of the question. If the connection has ended, another process may have the peer's port
by then, even on a new connection to the same server. So the caller checks after the answer that its own end is still
connected (``is_established``): then the kernel has had no place for a second connection between the two addresses.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable
from functools import lru_cache

from twisted.logger import Logger

#: Host and port of one end of a connection.
End = tuple[str, int]

#: The ports and packed addresses of a connection, those of the peer first: of both ports, then of both addresses.
_Ends = tuple[int, int, bytes, bytes]

#: Finds the user id of the socket at ``peer``, the other end of a connection that this process has at ``local``.
#: ``None``: the kernel can't tell.
OwnerOf = Callable[[End, End], int | None]

#: Seconds that the kernel may take. It answers before the question is sent, so this is never used up.
ANSWER_MAX_SECONDS = 0.5

#: Answers to earlier questions that are skipped before the kernel counts as unable to tell.
_MAX_SKIPPED = 16

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h. Ports and addresses are in network order, all else is not.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLM_F_REQUEST, _NLMSG_ERROR = 1, 2
_HEADER, _REQUEST, _SOCKET_ID = struct.Struct("=IHHII"), struct.Struct("=BBBxI"), struct.Struct("!HH16s16s")
_ANY_INTERFACE_AND_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
# ``struct inet_diag_msg`` begins with family and state
_ID_AT, _USER_AT, _USER_AND_INODE, _MESSAGE_BYTES = 4, 64, struct.Struct("=II"), 72

#: The first bytes of an IPv4 address in the form of IPv6.
_MAPPED = b"\0" * 10 + b"\xff\xff"

_LOOPBACK = b"\0" * 15 + b"\1"

# linux/tcp_states.h
_ESTABLISHED, _CLOSE_WAIT = 1, 8
_STATES = 1 << _ESTABLISHED | 1 << _CLOSE_WAIT

#: Errors of a question about a socket that does not exist.
_NOT_FOUND = (errno.ENOENT, errno.ESTALE)

_log = Logger()


class SocketOwners:
    """Asks the kernel. Any thread may call it; one question is under way at a time."""

    def __init__(self, open_netlink: Callable[[], socket.socket] | None = None) -> None:
        """``open_netlink`` opens a socket to the kernel; a test may give one that fails, or that answers otherwise."""
        self._open = open_netlink or _opened
        self._lock = threading.Lock()
        self._netlink: socket.socket | None = None
        self._number = 0
        self._has_complained = False

    def owner_of(self, local: End, peer: End) -> int | None:
        """The user id of the socket at ``peer`` of the connection whose other end is ``local``. Never raises.

        ``None``: no such connection, its peer has closed it or is about to, or the kernel can't tell, which is logged
        once.
        """
        try:
            question, asked = _question(local, peer)
        except (OSError, ValueError, struct.error):  # no addresses of TCP
            return None
        with self._lock:
            try:
                answer = self._ask(question)
            except OSError as error:
                self._close()
                self._complain(error)
                return None
        return _owner(answer, asked)

    def close(self) -> None:
        """Close the socket to the kernel. A further question opens another."""
        with self._lock:
            self._close()

    def _ask(self, question: bytes) -> bytes:
        """The body of the kernel's answer; ``b""``: there is no such socket. Raises ``OSError`` if it can't tell."""
        if self._netlink is None:
            self._netlink = self._open()
        self._number = (self._number + 1) & 0xFFFFFFFF
        size = _HEADER.size + len(question)
        self._netlink.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._number, 0) + question)
        for _ in range(_MAX_SKIPPED):
            message, (port, _groups) = self._netlink.recvfrom(4096)
            if port != 0 or len(message) < _HEADER.size:
                continue  # another process may send here, too; the kernel's port is 0
            length, kind, _, number, _ = _HEADER.unpack_from(message)
            if number != self._number:
                continue
            body = message[_HEADER.size : length]
            if kind == _NLMSG_ERROR and len(body) >= 4:
                (code,) = struct.unpack_from("=i", body)
                if -code in _NOT_FOUND:
                    return b""
                raise OSError(-code, errno.errorcode.get(-code, str(code)))
            if kind == _SOCK_DIAG_BY_FAMILY and len(body) >= _MESSAGE_BYTES:
                return body
            break
        raise OSError(errno.EBADMSG, "unreadable answer")

    def _close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _complain(self, error: OSError) -> None:
        if not self._has_complained:
            self._has_complained = True
            _log.warn(
                "the kernel does not tell the users of connections ({why}), so local users need a token or a "
                "certificate; under systemd RestrictAddressFamilies must include AF_NETLINK",
                why=error.strerror or str(error),
            )


def is_established(connection: socket.socket) -> bool:
    """Whether the connection stands: neither end has closed it, or a part of it."""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
    except OSError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address, also one of IPv4 in the form of IPv6."""
    try:
        packed = _packed(host)
    except OSError:
        return False
    return packed == _LOOPBACK or packed.startswith(_MAPPED + b"\x7f")


def _opened() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    try:
        seconds, fraction = divmod(ANSWER_MAX_SECONDS, 1)
        # A timeout of Python's would make the socket non-blocking, and poll before each answer.
        timeout = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        opened.connect((0, 0))
    except BaseException:
        opened.close()
        raise
    return opened


def _packed(host: str) -> bytes:
    """The 16 bytes of an IP address, without its zone; IPv4 in the form of IPv6. Raises ``OSError`` for other hosts."""
    try:
        return _MAPPED + socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])


@lru_cache(256)
def _question(local: End, peer: End) -> tuple[bytes, _Ends]:
    """A ``struct inet_diag_req_v2`` for the peer's socket, and the ends that it asks for.

    Raises ``OSError`` if a host is no IP address, or the hosts are not of one family. The question depends on nothing
    but the ends, and a connection of gRPC makes many calls, so questions are remembered. Answers never are.
    """
    source, destination = _packed(peer[0]), _packed(local[0])
    is_mapped = source.startswith(_MAPPED)
    if is_mapped != destination.startswith(_MAPPED):
        raise OSError(errno.EAFNOSUPPORT, "the hosts are of two families")
    family, skipped = (socket.AF_INET, len(_MAPPED)) if is_mapped else (socket.AF_INET6, 0)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _STATES)
    sockets = _SOCKET_ID.pack(peer[1], local[1], source[skipped:], destination[skipped:])
    return request + sockets + _ANY_INTERFACE_AND_COOKIE, (peer[1], local[1], source, destination)


def _owner(answer: bytes, asked: _Ends) -> int | None:
    """The user id in a ``struct inet_diag_msg``, if this is the socket asked for, and it identifies its owner."""
    if not answer:
        return None
    family, state = answer[0], answer[1]
    source_port, destination_port, source, destination = _SOCKET_ID.unpack_from(answer, _ID_AT)
    if family == socket.AF_INET:  # a socket of IPv6 may be connected by IPv4, too
        source, destination = _MAPPED + source[:4], _MAPPED + destination[:4]
    if (source_port, destination_port, source, destination) != asked or state not in (_ESTABLISHED, _CLOSE_WAIT):
        return None
    user, inode = _USER_AND_INODE.unpack_from(answer, _USER_AT)
    return int(user) if inode != 0 else None
