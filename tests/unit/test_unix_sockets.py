"""The places where a Unix socket may be made, and the sockets that are removed."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.unix_sockets import remove_left_behind, why_not_listen
from tests.other_user import NOBODY, SKIP


class PlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())  # the path of a socket is short
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "http.sock"

    def listen(self, path: Path | None = None) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(str(path or self.path))
        server.listen()
        return server

    def test_no_folder(self) -> None:
        """A folder that does not exist, or is none, is refused by name."""
        for path, why in (("none/http.sock", "No such file"), ("file/http.sock", "is none")):
            (self.folder / "file").touch()
            refusal = why_not_listen(self.folder / path)
            self.assertIn(str(self.folder / path.partition("/")[0]), refusal)
            self.assertIn(why, refusal)

    def test_too_long(self) -> None:
        self.assertIn("107 bytes", why_not_listen(self.folder / ("x" * 120)))

    def test_writable_by_others(self) -> None:
        """Others could replace a socket in a folder that they can write, unless it is sticky."""
        for mode, is_refused in ((0o777, True), (0o775, True), (0o1777, False), (0o755, False), (0o700, False)):
            self.folder.chmod(mode)
            self.assertEqual(bool(why_not_listen(self.path)), is_refused, oct(mode))

    def test_folder_of_another(self) -> None:
        """A folder of another user is refused; one of the user that the process will switch to is not."""
        os.chown(self.folder, NOBODY, -1)
        self.assertIn(f"user {NOBODY}", why_not_listen(self.path))
        self.assertEqual(why_not_listen(self.path, NOBODY), "")

    test_folder_of_another.skip = SKIP  # type: ignore[attr-defined]

    def test_something_else(self) -> None:
        """A file, a folder or a link at the path is refused, and never removed."""
        other = self.folder / "other.sock"
        self.listen(other).close()
        for make in (self.path.touch, self.path.mkdir, lambda: self.path.symlink_to(other)):
            make()
            self.assertIn("something else", why_not_listen(self.path))
            remove_left_behind(self.path)
            self.assertTrue(os.path.lexists(self.path))
            self.path.rmdir() if self.path.is_dir() and not self.path.is_symlink() else self.path.unlink()
        self.assertTrue(other.exists())

    def test_taken(self) -> None:
        """A socket where a process listens is refused and not removed, even if no connection fits in any more."""
        server = self.listen()
        for _ in range(200):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(str(self.path))
        self.assertIn("taken", why_not_listen(self.path))
        remove_left_behind(self.path)
        self.assertTrue(self.path.exists())
        server.close()

    def test_left_behind(self) -> None:
        """A socket where nobody listens is no obstacle, and is removed."""
        self.listen().close()
        self.assertEqual(why_not_listen(self.path), "")
        self.assertTrue(self.path.exists())
        remove_left_behind(self.path)
        self.assertFalse(self.path.exists())
        remove_left_behind(self.path)

    def test_free(self) -> None:
        self.assertEqual(why_not_listen(self.path), "")
