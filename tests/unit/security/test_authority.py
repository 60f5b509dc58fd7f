"""The authority of a cluster: refusals, files, and the contents of its certificates."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Conflict, Invalid
from scheduler.security.authority import Authority, issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role
from scheduler.security.presented import Presented, expires_soon, parse_serials, presented, serial_text

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
BOX = Identity("lab", Role.WORKER, "box")


class AuthorityCase(SynchronousTestCase):
    """Has an authority in a folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        make_authority(self.folder, "lab", NOW)

    def authority(self) -> Authority:
        return open_authority(self.folder)

    def issued(self, identity: Identity = BOX, *hosts: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(issue(self.authority(), identity, hosts, NOW)[0])

    def mode(self, name: str) -> int:
        return stat.S_IMODE((self.folder / name).stat().st_mode)


class RefusalTests(AuthorityCase):
    def test_cluster(self) -> None:
        """A cluster's name that is no DNS label makes no authority."""
        folder = Path(self.mktemp())
        self.assertIn("'My Lab'", str(self.assertRaises(Invalid, make_authority, folder, "My Lab", NOW)))
        self.assertFalse(folder.exists())

    def test_second(self) -> None:
        """An authority is never replaced, even if only one of its files is left, or is a dangling link."""
        before = (self.folder / "ca.key").read_bytes()
        self.assertIn("ca.key", str(self.assertRaises(Conflict, make_authority, self.folder, "lab", NOW)))
        (self.folder / "ca.pem").unlink()
        self.assertRaises(Conflict, make_authority, self.folder, "lab", NOW)
        self.assertEqual((self.folder / "ca.key").read_bytes(), before)
        (self.folder / "ca.key").unlink()
        (self.folder / "ca.key").symlink_to(self.folder / "elsewhere")
        self.assertRaises(Conflict, make_authority, self.folder, "lab", NOW)
        self.assertFalse((self.folder / "elsewhere").exists())

    def test_no_authority(self) -> None:
        """A folder without an authority, or with files that are none, is refused by its name."""
        empty = Path(self.mktemp()).absolute()
        self.assertIn(str(empty), str(self.assertRaises(Invalid, open_authority, empty)))
        (self.folder / "ca.pem").write_text("nonsense")
        self.assertIn("PEM", str(self.assertRaises(Invalid, open_authority, self.folder)))

    def test_other_key(self) -> None:
        """A key of another authority is refused."""
        other = Path(self.mktemp()).absolute()
        make_authority(other, "lab", NOW)
        (other / "ca.key").replace(self.folder / "ca.key")
        self.assertIn("is not the key", str(self.assertRaises(Invalid, open_authority, self.folder)))

    def test_foreign(self) -> None:
        """A certificate without a cluster's name is no authority of ours."""
        write_pair(self.folder, "x", *issue(self.authority(), BOX, (), NOW))
        (self.folder / "x.pem").replace(self.folder / "ca.pem")
        (self.folder / "x.key").replace(self.folder / "ca.key")
        self.assertIn("names no cluster", str(self.assertRaises(Invalid, open_authority, self.folder)))

    def test_hosts(self) -> None:
        """A host that is neither name nor address, or that would state an identity, is refused by its name."""
        for host in ("", "a b", "*", "*.example.com", "a:1", "1.2.3.4.5", "http://a", "-a"):
            self.assertIn(repr(host), str(self.assertRaises(Invalid, self.issued, BOX, host)))
        for host in ("scheduler.lab.internal", "Other.Worker.LAB.internal.", "lab.internal"):
            error = self.assertRaises(Invalid, self.issued, BOX, host)
            self.assertIn(repr(host), str(error))
            self.assertIn("would state an identity", str(error))

    def test_existing_pair(self) -> None:
        """No file of a pair is overwritten or followed, and the refusal names it."""
        pair = issue(self.authority(), BOX, (), NOW)
        for name in ("box.pem", "box.key"):
            path = self.folder / name
            path.symlink_to(self.folder / "elsewhere")
            self.assertIn(name, str(self.assertRaises(Conflict, write_pair, self.folder, "box", *pair)))
            path.unlink()
            self.assertEqual(sorted(os.listdir(self.folder)), ["ca.key", "ca.pem"])

    def test_serials(self) -> None:
        """A line that is no serial is refused, with its number."""
        for line in ("0x1f", "xyz", "1f 2f", "-1f", "12.3", ":"):
            self.assertIn("line 2", str(self.assertRaises(Invalid, parse_serials, f"ab\n{line}\ncd")), line)


class FileTests(AuthorityCase):
    def test_modes(self) -> None:
        """Keys are readable to their owner alone, certificates to all, whatever the umask."""
        for mask in (0, 0o777):
            self.addCleanup(os.umask, os.umask(mask))
            name = f"box{mask}"
            write_pair(self.folder, name, *issue(self.authority(), BOX, (), NOW))
            self.assertEqual((self.mode(f"{name}.key"), self.mode(f"{name}.pem")), (0o600, 0o644))
        self.assertEqual((self.mode("ca.key"), self.mode("ca.pem")), (0o600, 0o644))

    def test_renewal(self) -> None:
        """A renewed pair replaces both files by other files, and leaves no draft."""
        write_pair(self.folder, "box", *issue(self.authority(), BOX, (), NOW))
        before = [(self.folder / name).stat().st_ino for name in ("box.pem", "box.key")]
        certificate, key = issue(self.authority(), BOX, (), NOW)
        with (self.folder / "box.key").open("rb") as held:
            write_pair(self.folder, "box", certificate, key, renew=True)
            self.assertNotEqual(held.read(), key)
        self.assertEqual((self.folder / "box.pem").read_bytes(), certificate)
        self.assertEqual((self.folder / "box.key").read_bytes(), key)
        self.assertEqual(self.mode("box.key"), 0o600)
        self.assertNotEqual([(self.folder / name).stat().st_ino for name in ("box.pem", "box.key")], before)
        self.assertEqual(sorted(os.listdir(self.folder)), ["box.key", "box.pem", "ca.key", "ca.pem"])


class ContentTests(AuthorityCase):
    def test_authority(self) -> None:
        """The authority has a P-256 key, is valid from an hour ago for ten years, and signs only leaves."""
        authority = self.authority()
        certificate = authority.certificate
        self.assertEqual(authority.cluster, "lab")
        self.assertIsInstance(authority.key.curve, ec.SECP256R1)
        self.assertEqual(certificate.not_valid_before_utc, NOW - timedelta(hours=1))
        self.assertEqual(certificate.not_valid_after_utc.date().isoformat(), "2040-01-02")
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.critical)
        self.assertEqual(constraints.value, x509.BasicConstraints(ca=True, path_length=0))
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical)
        self.assertTrue(usage.value.key_cert_sign)

    def test_issued(self) -> None:
        """A pair is signed by the authority, valid for a year, for both roles of TLS, and can't sign."""
        authority = self.authority()
        pem, key = issue(authority, BOX, ("10.0.0.7",), NOW)
        certificate = x509.load_pem_x509_certificate(pem)
        certificate.verify_directly_issued_by(authority.certificate)
        self.assertEqual(load_pem_private_key(key, None).public_key(), certificate.public_key())
        self.assertEqual(certificate.not_valid_before_utc, NOW - timedelta(hours=1))
        self.assertEqual(certificate.not_valid_after_utc, NOW + timedelta(days=365))
        extensions = certificate.extensions
        self.assertFalse(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertFalse(extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign)
        self.assertEqual(
            set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value),
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
        )
        self.assertNotEqual(self.issued().serial_number, certificate.serial_number)

    def test_names(self) -> None:
        """A certificate states its identity by URI and DNS name, and has the hosts once each."""
        certificate = self.issued(BOX, "10.0.0.7", "Box.Example.com", "fe80::1", "[::1]", "10.0.0.7")
        self.assertEqual(
            presented(certificate),
            Presented(
                certificate.serial_number,
                BOX,
                ("box.worker.lab.internal", "box.example.com"),
                ("10.0.0.7", "fe80::1", "::1"),
                NOW - timedelta(hours=1),
                NOW + timedelta(days=365),
            ),
        )
        scheduler = Identity("lab", Role.SCHEDULER)
        facts = presented(self.issued(scheduler))
        self.assertEqual((facts.identity, facts.dns_names), (scheduler, ("scheduler.lab.internal",)))

    def test_common_name(self) -> None:
        """The authority's certificate, whose common name is just a text, states no identity."""
        facts = presented(self.authority().certificate)
        self.assertEqual((facts.identity, facts.dns_names), (None, ()))

    def test_serials(self) -> None:
        """A serial is read in each form in which programs print it."""
        serial = self.issued().serial_number
        text = serial_text(serial)
        colons = ":".join(text[at : at + 2] for at in range(0, len(text), 2))
        for line in (text, text.upper(), colons, f"  {colons.upper()}  # box", f"# stolen\n\n{text}\r\n"):
            self.assertEqual(parse_serials(line), {serial}, line)
        self.assertEqual(parse_serials("# none\n\n"), frozenset())
        self.assertEqual((serial_text(0xABC), parse_serials("0aBc\n1")), ("0abc", {0xABC, 1}))

    def test_expiry(self) -> None:
        """A certificate expires soon if fewer than 30 days are left."""
        self.assertFalse(expires_soon(NOW + timedelta(days=30), NOW))
        self.assertTrue(expires_soon(NOW + timedelta(days=30, seconds=-1), NOW))
        self.assertTrue(expires_soon(NOW - timedelta(days=1), NOW))
