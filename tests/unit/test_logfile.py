"""The log file of a daemon."""

import os
import stat
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon import logfile
from scheduler.daemon.logfile import LogFile


class LogFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "a.log"

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    def test_appends(self) -> None:
        """Lines are appended, or written at the beginning of a file that was truncated."""
        self.path.write_text("old\n")
        file = LogFile(str(self.path))
        file.write("new\n")
        self.assertEqual(self.path.read_text(), "old\nnew\n")
        os.truncate(self.path, 0)
        file.write("newer ü\n")
        self.assertEqual(self.path.read_text(), "newer ü\n")

    def test_rotates_by_size(self) -> None:
        """A large file is rotated before the next line; the newest rotated file is number 1."""
        self.patch(logfile, "ROTATE_BYTES", 10)
        file = LogFile(str(self.path))
        for line in ("0123456789\n", "second.....\n", "third\n"):
            file.write(line)
        self.assertEqual(self.names(), {"a.log", "a.log.1", "a.log.2"})
        self.assertEqual(Path(f"{self.path}.2").read_text(), "0123456789\n")
        self.assertEqual(self.path.read_text(), "third\n")

    def test_large_by_others(self) -> None:
        """A file that was truncated meanwhile is not rotated for its former size."""
        self.patch(logfile, "ROTATE_BYTES", 10)
        file = LogFile(str(self.path))
        file.write("0123456789\n")
        os.truncate(self.path, 0)
        file.write("a\n")
        self.assertEqual(self.names(), {"a.log"})

    def test_limited_number(self) -> None:
        """The oldest files are removed, including those of an earlier version, which kept all. Other files stay."""
        for name in ("a.log.17", "a.log.9", "a.log.1.gz", "a.log.x", "a.log.007", "b.log.99"):
            (self.folder / name).touch()
        file = LogFile(str(self.path))
        for number in range(12):
            file.write(f"{number}\n")
            file.rotate()
        kept = {f"a.log.{number}" for number in range(1, 11)}
        self.assertEqual(self.names(), kept | {"a.log", "a.log.1.gz", "a.log.x", "a.log.007", "b.log.99"})
        self.assertEqual(Path(f"{self.path}.10").read_text(), "2\n")

    def test_mode(self) -> None:
        """A new file has the mode of the previous one."""
        self.path.touch()
        self.path.chmod(0o640)
        file = LogFile(str(self.path))
        file.rotate()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        self.path.rename(self.folder / "moved")
        self.path.touch(mode=0o600)  # like logrotate
        file.reopen()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_cannot_rotate(self) -> None:
        """If a rotation fails, nothing is lost, and it is not repeated for each line."""
        self.patch(logfile, "ROTATE_BYTES", 10)
        file = LogFile(str(self.path))
        (self.folder / "a.log.1").mkdir()
        (self.folder / "a.log.2").write_text("in the way")
        self.patch(os, "rename", self.refuse)
        for _ in range(3):
            file.write("0123456789\n")
        self.assertEqual(self.path.read_text(), "0123456789\n" * 3)
        self.assertEqual(self.refused, 2)

    refused = 0

    def refuse(self, *_: object) -> None:
        self.refused += 1
        raise PermissionError

    def test_cannot_reopen(self) -> None:
        """If the new file can't be opened, the old one stays in use."""
        file = LogFile(str(self.path))
        moved = self.folder.with_name("moved")
        self.folder.rename(moved)
        file.reopen()
        file.write("here\n")
        self.assertEqual((moved / "a.log").read_text(), "here\n")

    def test_no_file(self) -> None:
        """A file that is not a regular one is not renamed."""
        os.mkfifo(self.path)
        self.addCleanup(os.close, os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))
        LogFile(str(self.path)).rotate()
        self.assertEqual(self.names(), {"a.log"})

    def test_from_threads(self) -> None:
        """All lines of all threads are complete, across rotations."""
        self.patch(logfile, "ROTATE_BYTES", 20_000)
        file = LogFile(str(self.path))
        threads = [
            threading.Thread(target=lambda name=name: [file.write(f"{name * 30}\n") for _ in range(1000)])
            for name in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = "".join(path.read_text() for path in self.folder.iterdir()).splitlines()
        self.assertEqual(sorted(lines), sorted(name * 30 for name in "abc" for _ in range(1000)))
