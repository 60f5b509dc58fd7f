"""Certificates: faults are reported, and changed files are read."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon import certificates
from scheduler.daemon.rotation import READ_AGAIN_SECONDS, Current
from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Invalid
from scheduler.security.authority import issue, make_authority, open_authority
from scheduler.security.identities import Identity, Role

AUTHORITY = trustme.CA()


class CredentialsCase(SynchronousTestCase):
    """Writes files that match."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
        self.put(self.files.ca_file, AUTHORITY.cert_pem.bytes())
        self.issue()

    def put(self, path: Path, content: bytes) -> None:
        """Replace the file atomically, as a careful program does."""
        draft = path.with_suffix(".new")
        draft.write_bytes(content)
        os.replace(draft, path)

    def issue(self) -> None:
        """Write a new pair."""
        self.pair = AUTHORITY.issue_cert("localhost")
        self.put(self.files.crt_file, b"".join(blob.bytes() for blob in self.pair.cert_chain_pems))
        self.put(self.files.key_file, self.pair.private_key_pem.bytes())


class CheckTests(CredentialsCase):
    def complaint(self, field: str) -> str:
        error = self.assertRaises(Invalid, certificates.check, self.files)
        self.assertEqual(error.field, field)
        self.assertIn(str(getattr(self.files, field)), str(error))
        return error.problem

    def test_good(self) -> None:
        """A matching pair is accepted, with an authority or without."""
        certificates.check(self.files)
        certificates.check(TlsFiles(self.files.crt_file, self.files.key_file, None))

    def test_missing(self) -> None:
        """A missing file is named, with the reason."""
        for field in ("key_file", "ca_file", "crt_file"):  # checked in the opposite order
            getattr(self.files, field).unlink()
            self.assertIn("can't be read: No such file", self.complaint(field))

    def test_folder(self) -> None:
        """A folder in place of a file is named, too."""
        self.files.key_file.unlink()
        self.files.key_file.mkdir()
        self.assertIn("can't be read: Is a directory", self.complaint("key_file"))

    def test_no_pem(self) -> None:
        """A file with other content is named, with the required content."""
        for field in ("key_file", "ca_file", "crt_file"):
            self.put(getattr(self.files, field), b"\x30\x82 nonsense")
            self.assertIn("in PEM form", self.complaint(field))

    def test_swapped(self) -> None:
        """A key in place of the certificate is refused."""
        crt, key = self.files.crt_file.read_bytes(), self.files.key_file.read_bytes()
        self.put(self.files.crt_file, key)
        self.put(self.files.key_file, crt)
        self.assertIn("must hold a certificate", self.complaint("crt_file"))

    def test_other_key(self) -> None:
        """A key of another certificate is refused."""
        self.put(self.files.key_file, AUTHORITY.issue_cert("localhost").private_key_pem.bytes())
        self.assertIn("is not the key of the certificate in", self.complaint("key_file"))

    def test_passphrase(self) -> None:
        """A key with a passphrase is refused, with that reason."""
        key = load_pem_private_key(self.files.key_file.read_bytes(), None)
        kind = BestAvailableEncryption(b"secret")
        self.put(self.files.key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kind))
        self.assertIn("without a passphrase", self.complaint("key_file"))


class CurrentTests(CredentialsCase):
    def setUp(self) -> None:
        super().setUp()
        self.made: list[bytes] = []
        #: What happens while the object is made the next time.
        self.on_make: Callable[[], None] = lambda: None
        self.now = 0.0
        self.current = Current(self.files, self.make, lambda: self.now)

    def make(self, files: TlsFiles) -> bytes:
        self.made.append(files.crt_file.read_bytes())
        meanwhile, self.on_make = self.on_make, lambda: None
        meanwhile()
        return self.made[-1]

    def test_unchanged(self) -> None:
        """Unchanged files are read once."""
        self.assertIs(self.current.get(), self.current.get())
        self.assertEqual(len(self.made), 1)

    def test_changed(self) -> None:
        """Changed files are read once."""
        old = self.current.get()
        self.issue()
        new = self.current.get()
        self.assertNotEqual(new, old)
        self.assertIs(self.current.get(), new)
        self.assertEqual(self.made, [old, new])

    def test_half_changed(self) -> None:
        """Halfway through a rotation the old pair stays in use until the other file is there."""
        old, old_key = self.current.get(), self.files.key_file.read_bytes()
        self.issue()
        new_key = self.files.key_file.read_bytes()
        self.put(self.files.key_file, old_key)
        self.assertIs(self.current.get(), old)
        self.put(self.files.key_file, new_key)
        self.assertEqual(self.current.get(), self.files.crt_file.read_bytes())

    def test_gone(self) -> None:
        """If the files vanish, the present object stays in use."""
        old = self.current.get()
        self.files.crt_file.unlink()
        self.assertIs(self.current.get(), old)

    def test_unfit(self) -> None:
        """Unusable files are read, and logged, again only after a while."""
        logged: list[str] = []

        def note(event: dict) -> None:
            if event.get("log_namespace") == "scheduler.daemon.rotation":
                logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        old = self.current.get()
        self.put(self.files.key_file, AUTHORITY.issue_cert("localhost").private_key_pem.bytes())
        for times in (1, 2):
            for _ in range(3):
                self.assertIs(self.current.get(), old)
            self.assertEqual(len(logged), times, logged)
            self.now += READ_AGAIN_SECONDS
        self.assertIn("is not the key", logged[0])

    def test_changes_meanwhile(self) -> None:
        """Files that change while they are read are not used, but read again the next time."""
        old = self.current.get()
        self.issue()
        self.on_make = self.issue
        self.assertIs(self.current.get(), old)
        self.assertEqual(self.current.get(), self.files.crt_file.read_bytes())

    def test_another_identity(self) -> None:
        """A pair that states another identity is not used; the log says that it takes a restart."""
        folder = self.files.crt_file.parent / "lab"
        now = datetime.now(UTC)
        make_authority(folder, "lab", now)
        pair = issue(open_authority(folder), Identity("lab", Role.SCHEDULER), (), now)
        old = self.current.get()
        self.put(self.files.crt_file, pair[0])
        self.put(self.files.key_file, pair[1])
        self.assertIs(self.current.get(), old)
        self.assertIsNone(self.current.identity)
