"""Warnings before the certificates of a process expire."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.expiry import LOG_INTERVAL_SECONDS, NOTES_VALID_SECONDS, ExpiryWatch
from scheduler.daemon.servers import TlsFiles
from scheduler.security.authority import issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role

ISSUED = datetime(2030, 1, 1, tzinfo=UTC)
DAY = 24 * 3600.0


class ExpiryTests(SynchronousTestCase):
    """A pair of 2030, which is valid for 365 days."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        make_authority(self.folder, "lab", ISSUED)
        self.files = TlsFiles(*self.issue(ISSUED), self.folder / "ca.pem")
        self.clock, self.wall = Clock(), ISSUED.timestamp()
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict) -> None:
        if event.get("log_namespace") == "scheduler.daemon.expiry.ExpiryWatch":
            self.logged.append(event["log_format"].format(**event))

    def issue(self, now: datetime) -> tuple[Path, Path]:
        pair = issue(open_authority(self.folder), Identity("lab", Role.SCHEDULER), (), now)
        return write_pair(self.folder, "scheduler", *pair, renew=True)

    def watch(self, files: TlsFiles | None) -> ExpiryWatch:
        watch = ExpiryWatch(self.clock, lambda: self.wall, files)
        watch.startService()
        self.addCleanup(watch.stopService)
        return watch

    def test_soon(self) -> None:
        """Less than 30 days before the end the log warns at the start and daily, and there is a note."""
        self.wall += 336 * DAY
        watch = self.watch(self.files)
        (note,) = watch.notes()
        self.assertEqual(note, f"the certificate in {self.files.crt_file} expires on 2031-01-01 00:00 UTC")
        self.assertEqual(len(self.logged), 1)
        self.assertIn(note, self.logged[0])
        self.clock.advance(LOG_INTERVAL_SECONDS)
        self.assertEqual(len(self.logged), 2)

    def test_shared(self) -> None:
        """A certificate that two servers have is noted once."""
        self.wall += 336 * DAY
        watch = ExpiryWatch(self.clock, lambda: self.wall, self.files, evolve(self.files, ca_file=None))
        self.assertEqual(len(watch.notes()), 1)

    def test_expired(self) -> None:
        """An expired certificate is named as such; so is the authority."""
        self.wall += 3660 * DAY
        own, authority = self.watch(self.files).notes()
        self.assertIn("has expired on 2031-01-01", own)
        self.assertIn(f"the authority in {self.files.ca_file} has expired on 2040-01-01", authority)

    def test_not_soon(self) -> None:
        """There is no warning earlier, nor without TLS."""
        self.wall += 335 * DAY
        self.assertEqual(self.watch(self.files).notes(), ())
        self.wall += 10 * 365 * DAY
        self.assertEqual(self.watch(None).notes(), ())
        self.assertEqual(self.logged, [])

    def test_renewed(self) -> None:
        """The note goes soon after the pair is renewed, and comes while the process runs."""
        watch = self.watch(self.files)
        self.assertEqual(watch.notes(), ())
        self.wall += 350 * DAY
        self.clock.advance(NOTES_VALID_SECONDS)
        self.assertEqual(len(watch.notes()), 1)
        self.issue(ISSUED + timedelta(days=350))
        self.clock.advance(NOTES_VALID_SECONDS)
        self.assertEqual(watch.notes(), ())

    def test_vanished(self) -> None:
        """Files that can't be read now are left to those that use them."""
        watch = self.watch(self.files)
        self.files.key_file.unlink()
        self.assertEqual(watch.notes(), ())
