"""The file of revoked certificates: which files are read, and when they are read again."""

import os
import resource
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.rpc.revoked import RevokedFile
from tests.integration.identities import replace_lines


class RevokedFileTests(SynchronousTestCase):
    def revoked_file(self, *lines: str) -> RevokedFile:
        self.list = Path(self.mktemp()).absolute()
        self.put(*lines)
        return RevokedFile(self.list)

    def put(self, *lines: str) -> None:
        """Replace the list."""
        replace_lines(self.list, lines)

    def test_no_descriptor(self) -> None:
        """A list that can't be opened for a moment is read again, though it does not change any more."""
        now = 0.0
        self.revoked_file("12")
        listed = RevokedFile(self.list, lambda: now)
        self.put("34")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            self.assertNotIn(0x34, listed)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertIn(0x12, listed)
        now = 2.0
        self.assertIn(0x34, listed)
        self.assertNotIn(0x12, listed)

    def test_other_files(self) -> None:
        """A pipe in place of the list blocks no call, and neither does a huge file; a byte order mark is skipped."""
        listed = self.revoked_file("12")
        for spoil in (os.mkfifo, os.mkdir, lambda path: path.write_bytes(b"34\n" * 2_000_000)):
            self.list.unlink()
            spoil(self.list)
            self.assertIn(0x12, listed)
            self.assertNotIn(0x34, listed)
            if self.list.is_dir():
                self.list.rmdir()
            self.put("12")
        self.put("\ufeff34\r")
        self.assertIn(0x34, listed)

    def test_unusable_list(self) -> None:
        """A list that is unusable from the start is an error that names it."""
        error = self.assertRaises(Invalid, self.revoked_file, "12", "nonsense")
        self.assertEqual(error.field, "revoked")
        self.assertIn(f"{self.list}: line 2, 'nonsense'", error.problem)
        error = self.assertRaises(Invalid, RevokedFile, self.list.with_name("none.txt"))
        self.assertIn("none.txt can't be read", error.problem)
