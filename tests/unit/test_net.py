from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IResolutionReceiver
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid, Refused
from scheduler.net import Address, DialRule, is_listener, is_local, join_address, resolving, split_address

NAMES = {
    "box.lan": ["10.1.2.3"],
    "localhost": ["127.0.0.1", "::1"],
    "mixed": ["10.1.2.3", "169.254.169.254"],
    "link.lan": ["fe80::3%eth0"],
}


def resolve(name: str) -> Deferred[Sequence[str]]:
    return succeed(NAMES.get(name, []))


class SplitTests(SynchronousTestCase):
    def test_good(self) -> None:
        """Names, IPv4 and bracketed IPv6 with a port are addresses."""
        for text, parts in {
            "box.lan:1": ("box.lan", 1),
            "127.0.0.1:65535": ("127.0.0.1", 65535),
            "[::1]:80": ("::1", 80),
            "[2001:DB8::0001]:80": ("2001:db8::1", 80),
            "a_b-c:80": ("a_b-c", 80),
            "[FE80::1%Eth0.100]:80": ("fe80::1%Eth0.100", 80),
            "[fe80::1%2]:80": ("fe80::1%2", 80),
        }.items():
            self.assertEqual(split_address(text), parts)
            self.assertEqual(split_address(join_address(*parts)), parts)

    def test_bad(self) -> None:
        """Everything else is refused: no port, no host, schemes and lists of gRPC targets, control bytes."""
        for text in (
            *("", ":", "box", "box:", ":80", "box:0", "box:65536", "box:+80", "box: 80", "box:8 0", "box:080808"),
            *("unix:/run/x", "unix:/run/x:80", "unix://x:80", "dns:///box:80", "dns:box:80", "ipv4:1.2.3.4:80"),
            *("1.2.3.4:1,5.6.7.8:2", "::1:80", "[::1]", "[box]:80", "[::1:80", "1.2.3:80", "1.2.3.4.5:80"),
            *("256.1.1.1:80",),
            *("0x7f000001:80.", "2130706433:80", "127.1:80", "-box:80", "box-:80", "bo x:80", "box\n:80", "box:80\n"),
            *("[fe80::1%]:80", "[fe80::1%a b]:80", "[fe80::1%a%b]:80", "[fe80::1%a\n]:80", "[fe80::1%\x00]:80"),
            *(f"[fe80::1%{'a' * 16}]:80", "1.2.3.4%lo:80", "box%lo:80", "[fe80::1%a]]:80"),
            *("box\x00:80", "user@box:80", "box/x:80", "http://box:80", "b\u00f6x:80", "box:\u0661", "a" * 64 + ":80"),
        ):
            self.assertRaises(Invalid, split_address, text)

    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is either refused as invalid or survives the round trip."""
        try:
            host, port = split_address(text)
        except Invalid:
            return
        self.assertEqual(split_address(join_address(host, port)), (host, port))


#: Schemes of gRPC, in and out of forms of its targets.
SCHEMES = st.sampled_from(
    ("unix", "unix-abstract", "dns", "ipv4", "ipv6", "vsock", "xds", "passthrough", "google-c2p", "http", "UNIX", "Dns")
)
PARTS = st.sampled_from(
    (
        *(":", "/", "//", "///", "@", "%", "?", "#", ",", "[", "]", "\0", " ", "\n"),
        "127.0.0.1",
        "::1",
        "80",
        ":80",
        "box",
    )
)


class TargetTests(SynchronousTestCase):
    """Addresses that pass are a host and a port, whatever else gRPC can read in a target."""

    @given(SCHEMES, st.lists(PARTS | st.text(max_size=5), max_size=6).map("".join), st.sampled_from(("", ":80", ":1")))
    def test_schemes(self, scheme: str, rest: str, port: str) -> None:
        """A scheme followed by anything is refused, except as the plain name of a host."""
        text = f"{scheme}:{rest}{port}"
        try:
            host, number = split_address(text)
        except Invalid:
            return
        self.assertEqual((host, text), (scheme, f"{scheme}:{number}"))

    @given(st.lists(SCHEMES | PARTS | st.text(max_size=5), max_size=8).map("".join))
    def test_forms(self, text: str) -> None:
        """A host that passes is an IP address or has the characters of a name; nothing else of the text is left."""
        try:
            host, port = split_address(text)
        except Invalid:
            return
        self.assertRegex(text, rf"^\S+:0*{port}$")
        self.assertTrue(0 < port <= 65535)
        if ":" in host:
            self.assertEqual(ip_address(host).version, 6)
        else:
            self.assertRegex(host, r"\A[A-Za-z0-9_.-]{1,253}\Z")

    @given(st.lists(SCHEMES | PARTS | st.text(max_size=5), max_size=8).map("".join))
    def test_dialled(self, text: str) -> None:
        """Without TLS a worker is dialled at an IP address, and only at one that its caller may name."""
        rule = DialRule([], lambda name: succeed(["127.0.0.1"] if name == "box" else ["10.9.9.9"]), keep_names=False)
        found: list[str] = []
        checked = Deferred.fromCoroutine(rule.check(text, "127.0.0.1"))
        checked.addCallbacks(found.append, lambda failure: failure.trap(Invalid, Refused))
        self.successResultOf(checked)
        for dialled in found:
            self.assertTrue(ip_address(split_address(dialled)[0]).is_loopback)


class DialRuleTests(SynchronousTestCase):
    def check(self, text: str, peer: str, *networks: str, keep_names: bool = False) -> str:
        rule = DialRule([ip_network(network) for network in networks], resolve, keep_names)
        return self.successResultOf(Deferred.fromCoroutine(rule.check(text, peer)))

    def refused(self, text: str, peer: str, *networks: str, error: type[Exception] = Refused) -> None:
        rule = DialRule([ip_network(network) for network in networks], resolve, keep_names=False)
        self.failureResultOf(Deferred.fromCoroutine(rule.check(text, peer)), error)

    def test_the_callers_own(self) -> None:
        """The caller's own address is dialled, even as an IPv4-mapped IPv6 address."""
        self.assertEqual(self.check("10.1.2.3:80", "10.1.2.3"), "10.1.2.3:80")
        self.assertEqual(self.check("10.1.2.3:80", "::ffff:10.1.2.3"), "10.1.2.3:80")

    def test_both_on_loopback(self) -> None:
        """A caller on loopback may name any loopback address; one from elsewhere may not."""
        self.assertEqual(self.check("127.0.0.2:80", "127.0.0.1"), "127.0.0.2:80")
        self.assertEqual(self.check("[::1]:80", "127.0.0.1"), "[::1]:80")
        self.refused("127.0.0.1:80", "10.1.2.3")
        self.refused("[::ffff:127.0.0.1]:80", "10.1.2.3")

    def test_elsewhere(self) -> None:
        """Any other address is refused, unless it is inside an allowed network."""
        self.refused("10.1.2.4:80", "10.1.2.3")
        self.refused("169.254.169.254:80", "127.0.0.1")
        self.assertEqual(self.check("10.1.2.4:80", "10.1.2.3", "10.1.0.0/16"), "10.1.2.4:80")
        self.refused("10.2.2.4:80", "10.1.2.3", "10.1.0.0/16", "fd00::/8")

    def test_zones(self) -> None:
        """The caller's own address gets the zone by which its call came in, whatever zone the text has."""
        for text in ("[fe80::1]:80", "[fe80::1%eth9]:80", "[fe80::1%eth0]:80", "[::]:80"):
            for keep_names in (False, True):
                self.assertEqual(self.check(text, "fe80::1%eth0", keep_names=keep_names), "[fe80::1%eth0]:80")
        self.refused("[fe80::2%eth0]:80", "fe80::1%eth0")
        self.assertEqual(self.check("[fe80::2%eth0]:80", "fe80::1%eth0", "fe80::/10"), "[fe80::2%eth0]:80")
        self.assertEqual(self.check("[fe80::1%eth0]:80", "10.1.2.3", "fe80::/10"), "[fe80::1%eth0]:80")
        self.assertEqual(self.check("link.lan:80", "fe80::3%eth0"), "[fe80::3%eth0]:80")
        self.assertEqual(self.check("link.lan:80", "fe80::3%eth0", keep_names=True), "link.lan:80")

    def test_unspecified_is_the_peers(self) -> None:
        """A worker that listens everywhere is called at the peer address of its call."""
        self.assertEqual(self.check("0.0.0.0:80", "10.1.2.3"), "10.1.2.3:80")
        self.assertEqual(self.check("[::]:80", "::1"), "[::1]:80")

    def test_names(self) -> None:
        """A name is dialled as its resolved address or, if a certificate is checked against it, as itself."""
        self.assertEqual(self.check("box.lan:80", "10.1.2.3"), "10.1.2.3:80")
        self.assertEqual(self.check("box.lan:80", "10.1.2.3", keep_names=True), "box.lan:80")
        self.assertEqual(self.check("localhost:80", "127.0.0.1"), "127.0.0.1:80")

    def test_every_meaning_of_a_name_counts(self) -> None:
        """A name that also resolves to a forbidden address is refused."""
        self.refused("mixed:80", "10.1.2.3")

    def test_unknown_name(self) -> None:
        """An unknown name is invalid."""
        self.refused("nobody.lan:80", "10.1.2.3", error=Invalid)


class ResolvingTests(SynchronousTestCase):
    def test_zones(self) -> None:
        """A resolved link-local address has its zone."""
        lo = socket.if_nametoindex("lo")

        class Resolver:
            def resolveHostName(self, receiver: IResolutionReceiver, name: str) -> None:
                for found in (
                    IPv4Address("TCP", "10.1.2.3", 0),
                    IPv6Address("TCP", "fd00::1", 0),
                    IPv6Address("TCP", "fe80::1", 0, 0, lo),
                    IPv6Address("TCP", "fe80::2%lo", 0, 0, lo),
                ):
                    receiver.addressResolved(found)
                receiver.resolutionComplete()

        found = self.successResultOf(resolving(Resolver())("box"))  # type: ignore[arg-type]
        self.assertEqual(found, ["10.1.2.3", "fd00::1", "fe80::1%lo", "fe80::2%lo"])


class ListenerTests(SynchronousTestCase):
    def test_local(self) -> None:
        """An address is local if a socket can be bound to it."""
        self.assertTrue(is_local("127.0.0.1"))
        self.assertFalse(is_local("192.0.2.1"))  # from the block for documentation
        self.assertFalse(is_local("fe80::1%no-such"))

    def test_who_listens(self) -> None:
        """The port must be the same, and so must the address, unless all addresses are bound."""
        for dialled, bound, reached in (
            ("127.0.0.1:5", Address("127.0.0.1", 5), True),
            ("127.0.0.1:6", Address("127.0.0.1", 5), False),
            ("127.0.0.2:5", Address("127.0.0.1", 5), False),
            ("127.0.0.1:5", Address("0.0.0.0", 5), True),
            ("192.0.2.1:5", Address("0.0.0.0", 5), False),
            ("127.0.0.1:5", Address("localhost", 5), True),
            ("box.lan:5", Address("0.0.0.0", 5), False),
            ("[fe80::1%lo]:5", Address("fe80::1%lo", 5), True),
            (f"[fe80::1%{socket.if_nametoindex('lo')}]:5", Address("fe80::1%lo", 5), True),
            ("[fe80::1%eth0]:5", Address("fe80::1%lo", 5), False),
        ):
            self.assertIs(is_listener(dialled, bound), reached, (dialled, bound))
