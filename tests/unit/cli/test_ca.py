"""``schedctl ca``: refusals, files, and the texts that it prints."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.x509 import load_pem_x509_certificate

from scheduler.security.authority import issue, open_authority, write_pair
from scheduler.security.identities import Identity, Role
from scheduler.security.presented import Presented, parse_serials, presented
from tests.unit.cli.client import Case


class CaCase(Case):
    """Has an authority, made by the command."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.out("ca", "init", "--cluster", "lab", "--dir", str(self.folder))

    def ca(self, *arguments: str) -> str:
        """The output of a command for the authority's folder."""
        return self.out("ca", *arguments, "--dir", str(self.folder))

    def ca_refused(self, *arguments: str) -> str:
        before = sorted((path.name, path.read_bytes()) for path in self.folder.iterdir())
        said = self.refused("ca", *arguments, "--dir", str(self.folder))
        self.assertEqual(sorted((path.name, path.read_bytes()) for path in self.folder.iterdir()), before)
        return said

    def facts(self, name: str) -> Presented:
        return presented(load_pem_x509_certificate((self.folder / name).read_bytes()))


class RefusalTests(CaCase):
    def test_names(self) -> None:
        """A name that is no DNS label, or that of another file, is refused by its name, and nothing is written."""
        for name in ("Box", "a.b", "", "a/../b", "ca", "scheduler"):
            self.assertIn(repr(name), self.ca_refused("issue", "worker", name))
        self.assertIn("'My Lab'", self.refused("ca", "init", "--cluster", "My Lab", "--dir", str(self.folder / "x")))
        self.assertFalse((self.folder / "x").exists())

    def test_hosts(self) -> None:
        """A host that is none, or that would state an identity, is refused."""
        for host in ("a b", "*.example.com", "box.worker.lab.internal"):
            self.assertIn(repr(host), self.ca_refused("issue", "scheduler", "--host", host))

    def test_existing(self) -> None:
        """An authority is never replaced, and a pair only on request."""
        self.assertIn("ca.key exists", self.ca_refused("init", "--cluster", "lab"))
        self.ca("issue", "worker", "box")
        said = self.ca_refused("issue", "worker", "box")
        self.assertIn("box.pem exists", said)
        self.assertIn("--renew", said)

    def test_nothing_to_renew(self) -> None:
        """A pair that is not there, or is not of that identity, can't be renewed."""
        self.assertIn("box.pem can't be read", self.ca_refused("issue", "worker", "box", "--renew"))
        self.ca("issue", "worker", "other")
        (self.folder / "other.pem").replace(self.folder / "box.pem")
        self.assertIn(
            "is the certificate of scheduler://lab/worker/other", self.ca_refused("issue", "worker", "box", "--renew")
        )

    def test_no_authority(self) -> None:
        """Without an authority nothing is issued, and the command that makes one is named."""
        for name in ("ca.key", "ca.pem"):
            (self.folder / name).unlink()
            said = self.ca_refused("issue", "scheduler")
            self.assertIn(f"{name} can't be read", said)
            self.assertIn("schedctl ca init", said)

    def test_show(self) -> None:
        """Files that are no certificates, and a folder without any, are refused."""
        self.assertIn("no/such.pem can't be read", self.refused("ca", "show", "no/such.pem"))
        self.assertIn("holds no certificate", self.refused("ca", "show", str(self.folder / "ca.key")))
        self.assertIn("has no *.pem", self.refused("ca", "show", "--dir", "no/such"))


class IssueTests(CaCase):
    def test_pairs(self) -> None:
        """The pairs are in the folder, with private keys, identities and hosts."""
        said = self.ca("issue", "scheduler", "--host", "10.0.0.1", "--host", "scheduler.example.com")
        self.assertIn("scheduler://lab/scheduler", said)
        self.ca("issue", "worker", "box-7")
        scheduler, box = self.facts("scheduler.pem"), self.facts("box-7.pem")
        self.assertEqual(scheduler.identity, Identity("lab", Role.SCHEDULER))
        self.assertEqual(scheduler.dns_names, ("scheduler.lab.internal", "scheduler.example.com"))
        self.assertEqual(scheduler.addresses, ("10.0.0.1",))
        self.assertEqual(box.identity, Identity("lab", Role.WORKER, "box-7"))
        for name in ("ca.key", "scheduler.key", "box-7.key"):
            self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), 0o600)

    def test_renewal(self) -> None:
        """A renewed pair is a new one with the same hosts, unless others are given; the old serial is named."""
        self.ca("issue", "worker", "box", "--host", "10.0.0.7", "--host", "box.example.com")
        before = self.facts("box.pem")
        said = self.ca("issue", "worker", "box", "--renew")
        after = self.facts("box.pem")
        self.assertNotEqual(after.serial, before.serial)
        self.assertEqual((after.dns_names, after.addresses), (before.dns_names, before.addresses))
        self.assertIn(f"{before.serial:x}", said)
        self.ca("issue", "worker", "box", "--renew", "--host", "10.0.0.8")
        self.assertEqual(self.facts("box.pem").addresses, ("10.0.0.8",))


class ShowTests(CaCase):
    def test_folder(self) -> None:
        """Identity, hosts, serial and validity of each certificate are shown, the serial as a line to revoke it."""
        self.ca("issue", "worker", "box", "--host", "10.0.0.7")
        box, authority = self.ca("show").split(f"{self.folder}/ca.pem\n")
        self.assertIn("identity  scheduler://lab/worker/box\n", box)
        self.assertIn("hosts     box.worker.lab.internal, 10.0.0.7\n", box)
        self.assertIn("364 days left", box)
        self.assertIn("none: an authority", authority)
        (serial,) = [line.split()[1] for line in box.splitlines() if line.startswith("  serial ")]
        self.assertEqual(parse_serials(serial), {self.facts("box.pem").serial})
        self.assertEqual(self.out("ca", "show", str(self.folder / "box.pem")), box)

    def test_foreign(self) -> None:
        """A certificate of another authority states no identity."""
        path = self.folder / "foreign.pem"
        trustme.CA().issue_cert("a.example.com").cert_chain_pems[0].write_to_path(str(path))
        self.assertIn("identity  none\n", self.out("ca", "show", str(path)))

    def test_expiry(self) -> None:
        """Within 30 days of its end, and after it, a certificate is warned of."""
        for age, said in ((334, ""), (336, "expires soon"), (366, "has expired")):
            made = issue(
                open_authority(self.folder),
                Identity("lab", Role.WORKER, "box"),
                (),
                datetime.now(UTC) - timedelta(days=age),
            )
            written, _ = write_pair(self.folder, "box", *made, renew=True)
            code, out, err = self.run_cli("ca", "show", os.fspath(written))
            self.assertEqual(code, 0)
            self.assertIn("expired" if age == 366 else "days left", out)
            self.assertIn(said, err)
            self.assertEqual(bool(said), bool(err))
