"""The callers that a gRPC server without client certificates admits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.servers import GrpcServerSettings, TlsFiles
from scheduler.daemon.users import User
from scheduler.errors import Unauthenticated
from scheduler.net import Address
from scheduler.rpc.local_callers import LocalCallers

ALICE, OWN, STRANGER = 4_000_001, 4_000_002, 4_000_003

BOUND = Address("127.0.0.1", 50000)


class Context:
    """A call."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:40000", is_active: bool = True) -> None:
        self._peer = peer
        self._is_active = is_active

    def peer(self) -> str:
        return self._peer

    def is_active(self) -> bool:
        return self._is_active


class LocalCallersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[object, object]] = []

    def callers(self, owner: int | None, bound: Address | None = BOUND, **settings: Any) -> LocalCallers:
        given = {
            "addr": BOUND,
            "tls": None,
            "allow_insecure": False,
            "local_users": (User(ALICE, "alice"),),
            "unknown_users": (),
            "peer_names": None,
            "revoked": None,
        }

        def owner_of(local: tuple[str, int], peer: tuple[str, int]) -> int | None:
            self.asked.append((local, peer))
            return owner

        return LocalCallers(GrpcServerSettings(**(given | settings)), owner_of, lambda: bound, lambda: OWN)

    def refused(self, callers: LocalCallers, context: Any = None) -> None:
        self.assertRaises(Unauthenticated, callers.check_thd, context or Context())

    def test_stranger(self) -> None:
        self.refused(self.callers(STRANGER))

    def test_unknown(self) -> None:
        """A caller of whom the kernel tells nothing is refused, even where root may call."""
        self.refused(self.callers(None))

    def test_ended(self) -> None:
        """A call whose connection has ended is refused: the port may be another user's by now."""
        self.refused(self.callers(0), Context(is_active=False))

    def test_no_address(self) -> None:
        """A peer without an address, or a server without one, identifies nobody."""
        for peer in ("unix:/run/x", "unix:", "", "ipv4:127.0.0.1", "ipv4:127.0.0.1:x", "vsock:2:1"):
            self.refused(self.callers(0), Context(peer))
        self.refused(self.callers(0, bound=None))
        self.assertEqual(self.asked, [])

    def test_one_sided_tls(self) -> None:
        """TLS without certificates of callers identifies nobody, so the user is looked up."""
        tls = TlsFiles(Path("server.pem"), Path("server.key"), None)
        self.refused(self.callers(STRANGER, tls=tls))
        self.callers(ALICE, tls=tls).check_thd(Context())  # type: ignore[arg-type]

    def test_admitted(self) -> None:
        """Root, the process's own user, and those who are named may call."""
        for owner in (0, OWN, ALICE):
            self.callers(owner).check_thd(Context())  # type: ignore[arg-type]

    def test_question(self) -> None:
        """The question is about the connection between the server's address and the peer's."""
        for peer, address in (
            ("ipv4:127.0.0.1:40000", ("127.0.0.1", 40000)),
            ("ipv6:%5B::1%5D:40000", ("::1", 40000)),
            ("ipv6:[::1]:40000", ("::1", 40000)),
        ):
            self.callers(0).check_thd(Context(peer))  # type: ignore[arg-type]
            self.assertEqual(self.asked.pop(), (("127.0.0.1", 50000), address))

    def test_not_asked(self) -> None:
        """No user is looked up where certificates are checked, or nothing is."""
        tls = TlsFiles(Path("server.pem"), Path("server.key"), Path("ca.pem"))
        for settings in ({"tls": tls}, {"allow_insecure": True}):
            self.callers(STRANGER, **settings).check_thd(Context())  # type: ignore[arg-type]
        self.assertEqual(self.asked, [])
