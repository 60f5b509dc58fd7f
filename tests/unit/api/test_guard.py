"""The browser guard: the requests that may pass."""

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from scheduler.api.guard import refusal

ALLOWED = frozenset({"127.0.0.1", "::1", "localhost", "box.example"})


class GuardTests(SynchronousTestCase):
    """The headers ``Host``, ``Origin`` and ``Sec-Fetch-Site``."""

    def status(
        self, *headers: tuple[str, str], allowed: frozenset[str] | None = ALLOWED, came_in_on: str = "127.0.0.1"
    ) -> int | None:
        found = Headers()
        for name, value in headers:
            found.addRawHeader(name, value)
        problem = refusal(found, allowed, came_in_on)
        return problem.status if problem else None

    def test_programs(self) -> None:
        """A program that names the server by one of its names may pass, whatever the port."""
        for host in (
            *("127.0.0.1", "127.0.0.1:3000", "[::1]:80", "[::1]", "[::1%25eth0]:1", "[::1%lo]", "LocalHost:1"),
            "box.example",
        ):
            self.assertIsNone(self.status(("Host", host)), host)

    def test_transfer_encoding(self) -> None:
        """A body comes with a length or in chunks; the coding ``identity``, which the parser skips, is refused."""
        host = ("Host", "localhost")
        self.assertIsNone(self.status(host, ("Transfer-Encoding", "Chunked")))
        for codings in (("identity",), ("Identity",), ("identity", "chunked"), ("chunked", "identity"), ("",)):
            self.assertEqual(self.status(host, *(("Transfer-Encoding", coding) for coding in codings)), 400, codings)

    def test_foreign_host(self) -> None:
        """Any other name, such as a rebound one, is refused."""
        for host in (
            *("evil.example", "127.0.0.1.evil.example", "localhost.", "127.0.0.2", "[::2]:80", "[::2%lo]", "0.0.0.0"),
        ):
            self.assertEqual(self.status(("Host", host)), 403, host)

    def test_default(self) -> None:
        """Unless configured, loopback names are allowed, and the address that the connection came in on."""
        for host, came_in_on in (
            ("localhost:3000", "10.0.0.7"),
            ("127.0.0.1", "10.0.0.7"),
            ("[::1]:3000", "10.0.0.7"),
            ("10.0.0.7:3000", "10.0.0.7"),
            ("10.0.0.7", "::ffff:10.0.0.7"),
            ("[FD00:0::7]:3000", "fd00::7"),
            ("[fe80::7]", "fe80::7%eth0"),
        ):
            self.assertIsNone(self.status(("Host", host), allowed=None, came_in_on=came_in_on), host)
        for host in ("10.0.0.8", "0.0.0.0", "[::]", "box.example", "10.0.0.7.evil.example", "10.7", "167772167"):
            self.assertEqual(self.status(("Host", host), allowed=None, came_in_on="10.0.0.7"), 403, host)

    def test_https(self) -> None:
        """A page of ``http://`` is another site for a server with HTTPS. Without it a proxy may add HTTPS."""
        for origin, over_tls, passes in (
            ("https://localhost:3000", True, True),
            ("http://localhost:3000", True, False),
            ("https://localhost:3000", False, True),
            ("http://localhost:3000", False, True),
            ("https://evil.example", True, False),
        ):
            headers = Headers({"Host": ["localhost:3000"], "Origin": [origin]})
            self.assertEqual(refusal(headers, ALLOWED, over_tls=over_tls) is None, passes, (origin, over_tls))

    def test_configured(self) -> None:
        """If hosts are configured, only these are allowed."""
        self.assertEqual(self.status(("Host", "10.0.0.7"), came_in_on="10.0.0.7"), 403)

    def test_no_host(self) -> None:
        """Requests without a host, with two hosts, or with a malformed host are mistakes."""
        self.assertEqual(self.status(), 400)
        self.assertEqual(self.status(("Host", "localhost"), ("Host", "localhost")), 400)
        for host in (
            *("", "localhost:", "localhost:x", "a@localhost", "localhost/x", "localhost, localhost", "::1", "[%lo]"),
            *("[::1%]", "ä"),
        ):
            self.assertEqual(self.status(("Host", host)), 400, host)

    def test_origin(self) -> None:
        """The server's own pages may pass; pages of another host or port, or of no origin, may not."""
        for own in ("http://localhost:3000", "https://localhost:3000", "HTTP://LOCALHOST:3000"):
            self.assertIsNone(self.status(("Host", "localhost:3000"), ("Origin", own)))
        for origin in (
            *("null", "", "http://localhost", "http://localhost:3001", "http://127.0.0.1:3000", "http://evil.example"),
            *("http://localhost:3000.evil.example", "file://"),
        ):
            self.assertEqual(self.status(("Host", "localhost:3000"), ("Origin", origin)), 403, origin)

    def test_two_origins(self) -> None:
        """A good origin does not make up for a bad one."""
        own = ("Origin", "http://localhost")
        self.assertEqual(self.status(("Host", "localhost"), own, ("Origin", "http://evil.example")), 403)

    def test_site(self) -> None:
        """A request caused by another site is refused, and so is an unknown value."""
        for site, status in (
            ("same-origin", None),
            ("none", None),
            ("cross-site", 403),
            ("same-site", 403),
            ("", 403),
            ("new", 403),
        ):
            self.assertEqual(self.status(("Host", "localhost"), ("Sec-Fetch-Site", site)), status, site)
