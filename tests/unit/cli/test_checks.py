"""The checks of ``schedctl doctor``: from facts to findings."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.x509 import load_pem_x509_certificates
from trustme import CA
from twisted.trial.unittest import SynchronousTestCase

from scheduler import __version__
from scheduler.cli.checks.certificates import check_pair, covers
from scheduler.cli.checks.findings import Finding, Severity
from scheduler.cli.checks.machines import check_clock, check_disk
from scheduler.cli.checks.service import Answer, NoAnswer, check_service
from scheduler.cli.checks.workers import check_workers
from scheduler.cli.contexts import Connection
from scheduler.cli.wording import moment
from scheduler.client import Disk
from scheduler.daemon.certificates import Pair, public_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


def found(findings: Iterable[Finding]) -> dict[str, str]:
    """The sentences and advice of problems, by severity. Every problem must have advice."""
    texts = {}
    for finding in findings:
        if finding.severity.wrong:
            assert finding.advice
        assert not finding.sentence.endswith("."), finding
        assert not finding.advice.endswith("."), finding
        texts[f"{finding.severity.value} {len(texts)}"] = f"{finding.sentence}. {finding.advice}"
    return {key.partition(" ")[0]: text for key, text in texts.items() if not key.startswith("ok")}


class ClockTests(SynchronousTestCase):
    """The clocks of two machines."""

    def test_difference(self) -> None:
        """A difference beyond 5 s and the uncertainty is a warning with its size and direction."""
        for difference, uncertainty in ((0, 0), (4.9, 0), (-5, 0), (7, 2)):
            self.assertIs(check_clock("x", difference, uncertainty).severity, Severity.OK)
        self.assertIn("1m 30s ahead", found([check_clock("x", 90)])["warning"])
        self.assertIn("8.0s behind", found([check_clock("x", -8, 2)])["warning"])
        self.assertIn("NTP", check_clock("x", 90).advice)


class DiskTests(SynchronousTestCase):
    """Free bytes and inodes."""

    def check(self, free: int, inodes_free: int = 500, inodes: int = 1000, least: int = 0) -> dict[str, str]:
        return found(check_disk("x", Disk(1000, free, inodes, inodes_free), least))

    def test_bytes(self) -> None:
        """Little free space is a warning. None, or less than a worker needs, is an error."""
        self.assertEqual(self.check(500), {})
        self.assertEqual(self.check(100), {})
        self.assertIn("Only 99 B of 1 kB are free", self.check(99)["warning"])
        self.assertIn("Free some space", self.check(0)["error"])
        self.assertIn("takes no jobs", self.check(200, least=201)["error"])
        self.assertIn("spool_min_free", self.check(200, least=201)["error"])
        self.assertIn("warning", self.check(220, least=200))
        self.assertEqual(self.check(240, least=200), {})

    def test_inodes(self) -> None:
        """Few free inodes are a problem, too; a file system that does not count them has enough."""
        self.assertEqual(self.check(500, 100), {})
        self.assertIn("9.9% of the inodes", self.check(500, 99)["warning"])
        self.assertIn("4.9% of the inodes", self.check(500, 49)["error"])
        self.assertEqual(self.check(500, 0, 0), {})


class CertificateTests(SynchronousTestCase):
    """A pair, its authority, its hosts and its validity."""

    ca = CA()

    def pair(
        self, *hosts: str, begins: datetime = NOW - YEAR, ends: datetime = NOW + YEAR, ca: CA | None = None, **more: Any
    ) -> Pair:
        issued = self.ca.issue_cert(*(hosts or ("box",)), not_before=begins, not_after=ends)
        chain = load_pem_x509_certificates(b"".join(each.bytes() for each in issued.cert_chain_pems))
        authorities = load_pem_x509_certificates((ca or self.ca).cert_pem.bytes())
        parts = {"chain": chain, "key": public_key(chain[0])}
        return Pair(**{**parts, "authorities": authorities, **more})

    def check(self, pair: Pair, *hosts: str) -> dict[str, str]:
        return found(check_pair("x", pair, hosts, NOW))

    def test_well(self) -> None:
        """A pair that is signed, valid for a year and for the dialled host has no problem."""
        self.assertEqual(self.check(self.pair("box", "10.0.0.1"), "box", "10.0.0.1"), {})
        (only,) = check_pair("x", self.pair(), (), NOW)
        self.assertEqual(only.sentence, "The certificate is valid until 2027-06-01, for 365 days")

    def test_days(self) -> None:
        """An expired or not yet valid certificate is an error; one that expires soon is a warning with the days."""
        self.assertIn("has expired on 2026-05-31", self.check(self.pair(ends=NOW - timedelta(days=1)))["error"])
        self.assertIn("has expired", self.check(self.pair(ends=NOW))["error"])
        self.assertIn("not valid before", self.check(self.pair(begins=NOW + timedelta(days=1)))["error"])
        self.assertIn("in 29 days", self.check(self.pair(ends=NOW + timedelta(days=29, hours=1)))["warning"])
        self.assertIn("in 1 day", self.check(self.pair(ends=NOW + timedelta(days=1, hours=1)))["warning"])
        self.assertEqual(self.check(self.pair(ends=NOW + timedelta(days=30))), {})

    def test_key(self) -> None:
        """A key of another certificate is an error."""
        self.assertIn("not the key", self.check(self.pair(key=self.pair().key))["error"])

    def test_authority(self) -> None:
        """The certificate must be signed by an authority of ca_file, directly or through its chain."""
        self.assertIn("No authority", self.check(self.pair(ca=CA()))["error"])
        self.assertEqual(self.check(self.pair(authorities=())), {})
        issued = self.ca.create_child_ca().issue_cert("box", not_before=NOW - YEAR, not_after=NOW + YEAR)
        chain = load_pem_x509_certificates(b"".join(each.bytes() for each in issued.cert_chain_pems))
        whole = self.pair(chain=chain, key=public_key(chain[0]))
        self.assertEqual(len(chain), 2)
        self.assertEqual(self.check(whole), {})
        self.assertIn("No authority", self.check(self.pair(chain=chain[:1], key=public_key(chain[0])))["error"])

    def test_hosts(self) -> None:
        """The dialled host must be among the alternative names: exactly, by a wildcard, or as an address."""
        self.assertIn("not valid for box2", self.check(self.pair("box"), "box", "box2")["error"])
        self.assertIn("it is for box, 10.0.0.1", self.check(self.pair("box", "10.0.0.1"), "10.0.0.2")["error"])
        own = self.pair("*.example.com", "Box", "::1").chain[0]
        for host, valid in (
            ("a.example.com", True),
            ("a.b.example.com", False),
            ("example.com", False),
            ("BOX.", True),
            ("::1", True),
            ("0:0:0:0:0:0:0:1", True),
            ("127.0.0.1", False),
        ):
            self.assertEqual(covers(own, host), valid, host)


class WorkerTests(SynchronousTestCase):
    """Workers in the scheduler's list."""

    WORKER = {
        "name": "box",
        "address": "10.0.0.7:30000",
        "state": "online",
        "reason": None,
        "draining": False,
        "last_seen": "2026-06-01T00:00:00Z",
        "version": __version__,
        "disk": {"size": 1000, "free": 500, "inodes": 1000, "inodes_free": 500},
        "clock_difference": 0.1,
    }

    def check(self, seconds_ago: float = 0, **changes: Any) -> dict[str, str]:
        seen = moment(self.WORKER["last_seen"])
        assert seen is not None
        return found(check_workers([{**self.WORKER, **changes}], __version__, seen + seconds_ago))

    def test_well(self) -> None:
        """An online worker has no problem, even if the scheduler does not know some facts."""
        self.assertEqual(self.check(), {})
        self.assertEqual(self.check(disk=None, clock_difference=None, version=None), {})
        bare = {key: value for key, value in self.WORKER.items() if key not in ("disk", "clock_difference")}
        self.assertEqual(found(check_workers([bare], __version__, 0)), {})
        self.assertEqual(found(check_workers([{**bare, "version": "9.9"}], None, 0)), {})

    def test_none(self) -> None:
        """Without workers no job can run."""
        self.assertIn("twistd worker", found(check_workers([], __version__, 0))["warning"])

    def test_many(self) -> None:
        """If there are many workers, only those with problems are listed, and all are counted."""
        many = [{**self.WORKER, "name": f"box{number}"} for number in range(21)]
        many[3]["draining"] = True
        many[5]["reason"] = "disk full"
        self.assertEqual(
            [(each.subject, each.sentence.partition(",")[0]) for each in check_workers(many, __version__, 0)],
            [
                ("workers", "20 of 21 workers have nothing wrong"),
                ("worker box3", "It is drained"),
                ("worker box5", "It is online"),
            ],
        )
        self.assertEqual(len(list(check_workers(many[6:], __version__, 0))), 15)

    def test_directions(self) -> None:
        """For an unreachable worker, the failing direction is named, with advice for it."""
        silent = self.check(300, state="unreachable", reason="no sign of life for 300 s")["error"]
        self.assertIn("no sign of life for 300 s", silent)
        self.assertIn("does not hear from it", silent)
        self.assertIn("schedctl forget box", silent)
        deaf = self.check(5, state="unreachable", reason="calls to it fail")["error"]
        self.assertIn("can't call it at 10.0.0.7:30000", deaf)
        self.assertIn("advertise_addr", deaf)
        self.assertIn("does not hear", self.check(0, state="unreachable", last_seen=None)["error"])

    def test_certificates(self) -> None:
        """For a worker that is unreachable because of a certificate, the advice is about certificates, not ports."""
        refused = self.check(5, state="unreachable", reason="calls to it fail: certificate expired")["error"]
        self.assertIn("certificate expired. Check the certificates of both", refused)
        self.assertNotIn("firewall", refused)

    def test_offline(self) -> None:
        """A deregistered worker is only noted, with advice if it does not come back. If all are, no job can run."""
        offline = {**self.WORKER, "state": "offline", "reason": "it deregistered at 2026-11-28T20:49:37Z"}
        notes = found(check_workers([self.WORKER, offline], __version__, 0))
        self.assertEqual(list(notes), ["note"])
        self.assertIn("It is offline: it deregistered at 2026-11-28T20:49:37Z", notes["note"])
        self.assertIn("schedctl forget box", notes["note"])
        self.assertIn("Every worker is offline", found(check_workers([offline], __version__, 0))["warning"])

    def test_refusing(self) -> None:
        """The reason is shown for an online worker that takes no jobs. A drained worker is only noted."""
        self.assertIn("disk full", self.check(reason="disk full")["warning"])
        self.assertEqual(list(self.check(draining=True)), ["note"])

    def test_facts(self) -> None:
        """Another version, a wrong clock and a full disk are problems."""
        self.assertIn("version 9.9", self.check(version="9.9")["warning"])
        self.assertIn("ahead", self.check(clock_difference=30.0)["warning"])
        full = {"size": 1000, "free": 1, "inodes": 1000, "inodes_free": 1}
        self.assertIn("inodes", self.check(disk=full)["error"])
        self.assertIn("Only 1 B", self.check(disk=full)["warning"])


class ServiceTests(SynchronousTestCase):
    """The scheduler's HTTP API."""

    @staticmethod
    def answer(status: int = 200, date: float | None = 1000.0, here: float = 1000.5, **document: Any) -> Answer:
        return Answer(status, document, date, here, 0.01)

    def check(self, version: Answer | NoAnswer | None = None, ready: Answer | NoAnswer | None = None) -> dict[str, str]:
        own = self.answer(version=__version__)
        return found(check_service(Connection("http://a:1", source="--url"), version or own, ready or self.answer()))

    def test_well(self) -> None:
        """A scheduler that answers, is ready, has this version and the same time has no problem."""
        self.assertEqual(self.check(), {})

    def test_no_answer(self) -> None:
        """Without an answer the address is named, with its origin."""
        sentence = self.check(NoAnswer("connection refused", "Start it"))["error"]
        self.assertIn("http://a:1 (--url): connection refused. Start it", sentence)
        self.assertIn("/readyz", self.check(ready=NoAnswer("no answer in time", "Wait"))["error"])

    def test_refusals(self) -> None:
        """A missing token, a refused host, and another program are distinguished."""
        self.assertIn("SCHEDULER_TOKEN", self.check(self.answer(401))["error"])
        self.assertIn("allowed_hosts", self.check(self.answer(403, detail="host not allowed"))["error"])
        self.assertIn("is no scheduler", self.check(self.answer(404))["error"])
        self.assertIn("is no scheduler", self.check(self.answer(200, hello=1))["error"])

    def test_not_ready(self) -> None:
        """The reasons of a scheduler that is not ready are shown."""
        sentence = self.check(ready=self.answer(503, reasons=["disk full", "shutting down"]))["error"]
        self.assertIn("disk full; shutting down", sentence)
        self.assertIn("/readyz is 500", self.check(ready=self.answer(500))["error"])

    def test_notes(self) -> None:
        """The notes of a scheduler that is ready are warnings."""
        sentence = self.check(ready=self.answer(200, ready=True, notes=["the certificate expires"]))["warning"]
        self.assertIn("the certificate expires", sentence)

    def test_version(self) -> None:
        """Another version is a warning that names both versions."""
        self.assertIn("9.9", self.check(self.answer(version="9.9"))["warning"])

    def test_clock(self) -> None:
        """The header Date shows the difference of the clocks, within its resolution."""
        self.assertIn("1m ahead", self.check(self.answer(version=__version__, date=1060.0))["warning"])
        self.assertEqual(self.check(self.answer(version=__version__, date=1005.0)), {})
        self.assertEqual(self.check(self.answer(version=__version__, date=None)), {})
