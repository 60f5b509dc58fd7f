"""The address of a client, with proxies in front and without."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from scheduler.api.clients import client_address
from scheduler.net import address_group

PROXIES = tuple(map(ip_network, ("127.0.0.1", "10.0.0.0/8", "fd00::/8")))


def address(peer: str, **headers: str | list[str]) -> str:
    found = Headers()
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            found.addRawHeader(name.replace("_", "-"), value)
    return client_address(peer, found, PROXIES)


class ClientAddressTests(SynchronousTestCase):
    def test_stranger(self) -> None:
        """From any address that is not listed, the headers change nothing."""
        for peer in ("192.0.2.9", "2001:db8::9", "127.0.0.2", "11.0.0.1", "", "nonsense"):
            told = address(peer, x_forwarded_for="198.51.100.1", forwarded="for=198.51.100.1")
            self.assertEqual(told, peer)

    def test_no_proxies(self) -> None:
        """Unless proxies are listed, none is trusted, on loopback neither."""
        headers = Headers({"X-Forwarded-For": ["198.51.100.1"]})
        self.assertEqual(client_address("127.0.0.1", headers, ()), "127.0.0.1")

    def test_rightmost(self) -> None:
        """The client is the rightmost hop that is no trusted proxy; what stands left of it may be invented."""
        for stated, expected in (
            ("198.51.100.1", "198.51.100.1"),
            ("203.0.113.5, 198.51.100.1", "198.51.100.1"),
            ("127.0.0.1, 198.51.100.1", "198.51.100.1"),
            ("203.0.113.5, 198.51.100.1, 10.1.2.3,127.0.0.1", "198.51.100.1"),
            (["203.0.113.5", "198.51.100.1, 10.0.0.9"], "198.51.100.1"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("198.51.100.1:4711", "198.51.100.1"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("198.51.100.1, fd00::1", "198.51.100.1"),
        ):
            self.assertEqual(address("127.0.0.1", x_forwarded_for=stated), expected, stated)
        self.assertEqual(address("::ffff:10.0.0.1", x_forwarded_for="198.51.100.1"), "198.51.100.1")

    def test_unreadable(self) -> None:
        """A hop that is no address ends the chain: the client is the last proxy that could be read."""
        for stated, expected in (
            ("unknown", "127.0.0.1"),
            ("", "127.0.0.1"),
            ("198.51.100.1, unknown", "127.0.0.1"),
            ("198.51.100.1, unknown, 10.0.0.1", "10.0.0.1"),
            ("198.51.100.1,", "127.0.0.1"),
            ("198.51.100.300", "127.0.0.1"),
            ("198.51.100.1:x", "127.0.0.1"),
            ("fe80::1%eth0", "127.0.0.1"),
            ("evil\x1b[2J", "127.0.0.1"),
        ):
            self.assertEqual(address("127.0.0.1", x_forwarded_for=stated), expected, stated)

    def test_forwarded(self) -> None:
        """``Forwarded`` is read if there is no ``X-Forwarded-For``."""
        for stated, expected in (
            ("for=198.51.100.1", "198.51.100.1"),
            ("for=198.51.100.1;proto=https;by=10.0.0.1", "198.51.100.1"),
            ('proto=https; For="198.51.100.1:99"', "198.51.100.1"),
            ('for="[2001:db8::7]:4711"', "2001:db8::7"),
            ("for=203.0.113.5, for=198.51.100.1, for=10.0.0.1", "198.51.100.1"),
            (["for=203.0.113.5", "for=198.51.100.1"], "198.51.100.1"),
            ("for=_hidden", "127.0.0.1"),
            ("for=unknown", "127.0.0.1"),
            ("proto=https", "127.0.0.1"),
            ("for=198.51.100.1, proto=https", "127.0.0.1"),
            ('for="198.51.100.1', "127.0.0.1"),
        ):
            self.assertEqual(address("127.0.0.1", forwarded=stated), expected, stated)
        both = address("127.0.0.1", forwarded="for=203.0.113.5", x_forwarded_for="198.51.100.1")
        self.assertEqual(both, "198.51.100.1")

    @given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")), st.text(max_size=20))
    def test_anything(self, stated: str, end: str) -> None:
        """Any header has an address as its result, and an invented beginning does not change it."""
        for name in ("x_forwarded_for", "forwarded"):
            alone = address("127.0.0.1", **{name: "for=198.51.100.1" if name == "forwarded" else "198.51.100.1"})
            last = ", for=198.51.100.1" if name == "forwarded" else ", 198.51.100.1"
            self.assertEqual(address("127.0.0.1", **{name: stated + last}), alone)
            self.assertRegex(address("127.0.0.1", **{name: stated}), r"^[0-9a-f:.]+$")


class GroupTests(SynchronousTestCase):
    def test_groups(self) -> None:
        """IPv4 counts by address, IPv6 by the 64 bits of its network, anything else by its text."""
        for one, other, same in (
            ("192.0.2.1", "192.0.2.2", False),
            ("192.0.2.1", "::ffff:192.0.2.1", True),
            ("2001:db8::1", "2001:db8::ffff:1", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("fe80::1%eth0", "fe80::1", True),
            ("", "", True),
            ("a", "b", False),
        ):
            self.assertEqual(address_group(one) == address_group(other), same, (one, other))
