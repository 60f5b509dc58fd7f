"""The reading of the kernel's answers about sockets."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.security.socket_owners import SocketOwners, is_loopback

LOCAL, PEER = ("127.0.0.1", 3000), ("127.0.0.1", 40000)

ESTABLISHED, TIME_WAIT, CLOSE_WAIT, LISTEN = 1, 6, 8, 10

#: The kernel's address, and that of some process.
KERNEL, PROCESS = (0, 0), (4711, 0)


def ipv4(host: str) -> bytes:
    return socket.inet_aton(host).ljust(16, b"\0")


def found(
    state: int = ESTABLISHED, user: int = 1000, inode: int = 7, port: int = PEER[1], host: str = PEER[0]
) -> bytes:
    """A ``struct inet_diag_msg``."""
    ends = struct.pack("!HH", port, LOCAL[1]) + ipv4(host) + ipv4(LOCAL[0])
    return bytes((socket.AF_INET, state, 0, 0)) + ends + bytes(12) + struct.pack("=IIIII", 0, 0, 0, user, inode)


def message(number: int, kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, number, 0) + body


def error(code: int) -> bytes:
    return struct.pack("=i", -code) + bytes(16)


class Kernel:
    """Answers in place of a netlink socket."""

    def __init__(self, *answers: Any) -> None:
        """Each answer is (kind, body), with a third value added to the number of the question, or an exception."""
        self.answers = list(answers)
        self.opened = self.closed = 0
        self.asked: list[bytes] = []

    def open(self) -> Any:
        self.opened += 1
        return self

    def close(self) -> None:
        self.closed += 1

    def send(self, question: bytes) -> None:
        self.asked.append(question)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        kind, body, *more = answer
        number = struct.unpack_from("=I", self.asked[-1], 8)[0] + (more[0] if more else 0)
        return message(number, kind, body), more[1] if len(more) > 1 else KERNEL


class AnswerTests(SynchronousTestCase):
    def owner(self, *answers: Any) -> int | None:
        self.kernel = Kernel(*answers)
        self.owners = SocketOwners(self.kernel.open)
        return self.owners.owner_of(LOCAL, PEER)

    def test_identifies_nobody(self) -> None:
        """Only a connected socket that a process has identifies its owner, and only the very socket asked for."""
        for body in (
            found(TIME_WAIT, 0, 0),
            found(ESTABLISHED, 0, 0),
            found(ESTABLISHED, 1000, 0),
            found(TIME_WAIT),
            found(LISTEN),
            found(0),
            found(port=40001),
            found(host="127.0.0.2"),
        ):
            self.assertIsNone(self.owner((20, body)))

    def test_identifies(self) -> None:
        self.assertEqual(self.owner((20, found())), 1000)
        self.assertEqual(self.owner((20, found(CLOSE_WAIT, 0))), 0)

    def test_no_such_socket(self) -> None:
        """An answer that there is no such socket is no failure: the socket to the kernel stays open."""
        self.assertIsNone(self.owner((2, error(errno.ENOENT))))
        self.assertEqual((self.kernel.opened, self.kernel.closed), (1, 0))

    def test_other_messages(self) -> None:
        """Answers to earlier questions, and messages of other processes, are skipped."""
        root = found(user=0)
        self.assertEqual(self.owner((20, root, -1), (20, root, 0, PROCESS), (2, error(1), 5), (20, found())), 1000)

    def test_flood(self) -> None:
        """Messages of others without end identify nobody."""
        self.assertIsNone(self.owner(*[(20, found(user=0), 0, PROCESS)] * 16, (20, found())))

    def test_failures(self) -> None:
        """After a failure nobody is identified, and the next question has a new socket."""
        for failure in (
            BlockingIOError(errno.EAGAIN, "timed out"),
            (2, error(errno.EPERM)),
            (2, error(errno.EINVAL)),
            (2, b""),
            (20, found()[:71]),
            (20, b""),
            (3, b""),
        ):
            self.assertIsNone(self.owner(failure), failure)
            self.kernel.answers.append((20, found()))
            self.assertEqual(self.owners.owner_of(LOCAL, PEER), 1000)
            self.assertEqual((self.kernel.opened, self.kernel.closed), (2, 1))

    def test_question(self) -> None:
        """The question is for one socket, whose source is the peer, and for two states."""
        self.owner((20, found()))
        (asked,) = self.kernel.asked
        length, kind, flags, _, _, family, protocol, _, _, states = struct.unpack_from("=IHHIIBBBBI", asked)
        self.assertEqual((length, kind, flags), (len(asked), 20, 1))
        self.assertEqual((family, protocol, states), (socket.AF_INET, socket.IPPROTO_TCP, 1 << 1 | 1 << 8))
        self.assertEqual(
            struct.unpack_from("!HH16s16s", asked, 24), (40000, 3000, ipv4("127.0.0.1"), ipv4("127.0.0.1"))
        )
        self.assertEqual(asked[60:], struct.pack("=III", 0, 2**32 - 1, 2**32 - 1))


class LoopbackTests(SynchronousTestCase):
    def test_loopback(self) -> None:
        for host in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"):
            self.assertTrue(is_loopback(host), host)
        for host in (
            "10.0.0.1",
            "::",
            "::ffff:10.0.0.1",
            "fe80::1%lo",
            "2001:db8::7f00:1",
            "",
            "localhost",
            "128.0.0.1",
        ):
            self.assertFalse(is_loopback(host), host)
