"""The identity of a state folder: made once, kept, and changed as a whole for a copy."""

import os
import re
import shutil
import stat
from pathlib import Path

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.messages import Registration
from scheduler.worker.folder import StateFolder, open_folder


class FolderCase(SynchronousTestCase):
    """Has a state folder."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()

    def fill(self, worker_id: str = "w-7") -> None:
        """As that of a worker that ran: with jobs, and ids that were used."""
        self.path.joinpath("jobs", "j1").mkdir(parents=True)
        self.path.joinpath("used-ids").write_text("used")
        self.path.joinpath("commit_count").write_text("7\n")
        if worker_id:
            self.path.joinpath("worker_id").write_text(f"{worker_id}\n")

    def content(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def refusal(self, new_id: bool = False) -> str:
        refused = self.assertRaises(Invalid, open_folder, self.path, new_id)
        return str(refused).removeprefix(f"{self.path}/")


class FolderIdTests(FolderCase):
    def test_made_once(self) -> None:
        """The first process makes the id, in a file for its user alone, and all later ones have it."""
        made = open_folder(self.path, new_id=False)
        self.assertRegex(made.folder_id, r"^[0-9a-f]{32}$")
        self.assertEqual(open_folder(self.path, new_id=False), made)
        self.assertEqual(self.content(), ["folder_id"])
        self.assertEqual(self.path.joinpath("folder_id").read_text(), f"{made.folder_id}\n")
        self.assertEqual(stat.S_IMODE(self.path.joinpath("folder_id").stat().st_mode), 0o600)

    def test_another_each(self) -> None:
        """No two folders have one."""
        other = Path(self.mktemp())
        other.mkdir()
        self.assertNotEqual(open_folder(self.path, new_id=False), open_folder(other, new_id=False))

    def test_upgrade(self) -> None:
        """A worker of an earlier version gets one beside the id that it holds, which stays as its jobs do."""
        self.fill()
        open_folder(self.path, new_id=False)
        self.assertEqual(self.content(), ["commit_count", "folder_id", "jobs", "used-ids", "worker_id"])

    def test_killed_while_it_is_made(self) -> None:
        """A half-written file of a killed process is no obstacle."""
        self.path.joinpath("folder_id.tmp").write_text("half")
        open_folder(self.path, new_id=False)
        self.assertEqual(self.content(), ["folder_id"])

    def test_unusable(self) -> None:
        """A file that holds no id is a refusal that says which, and what to do; nothing takes its place by itself."""
        file = self.path / "folder_id"
        for content in (b"", b"\n", b"abc\n", b"g" * 32, b"a" * 33, b"\xff" * 32, b"a" * 32 + b"\nb\n"):
            file.write_bytes(content)
            for _ in range(2):
                self.assertEqual(
                    self.refusal(),
                    "folder_id: must hold the id of this state folder, 32 hexadecimal digits, and does not: restore it "
                    "from a backup of this folder; or remove it, and the worker makes another one and may be given "
                    "another worker id",
                )
            self.assertEqual(file.read_bytes(), content)

    def test_unreadable(self) -> None:
        """A file that can't be read or made is refused."""
        self.path.joinpath("folder_id").mkdir()
        self.assertEqual(self.refusal(), "folder_id: must be a file this process can read and write: Is a directory")
        shutil.rmtree(self.path)
        self.assertIn("folder_id.tmp: must be a file", self.refusal())

    def test_secret(self) -> None:
        """The id is not shown in the text of a registration or of the folder."""
        for shown in (Registration("a:1", folder_id="secret"), StateFolder("secret")):
            self.assertNotIn("secret", repr(shown))


class NewIdTests(FolderCase):
    """A copy that becomes a worker of its own."""

    def test_new_id(self) -> None:
        """A copy gets another id, has no worker id, and its copied jobs get another name."""
        self.fill()
        original = open_folder(self.path, new_id=False)
        made = open_folder(self.path, new_id=True)
        self.assertNotEqual(made.folder_id, original.folder_id)
        self.assertEqual(made.set_aside, f"{self.path}/jobs-of-w-7")
        self.assertEqual(self.content(), ["folder_id", "jobs-of-w-7", "used-ids-of-w-7"])
        self.assertEqual(os.listdir(self.path / "jobs-of-w-7"), ["j1"])
        self.assertEqual(open_folder(self.path, new_id=False), StateFolder(made.folder_id))

    def test_told(self) -> None:
        """The log tells where the jobs were set aside."""
        told: list[str] = []

        def note(event: dict) -> None:
            told.append(formatEvent(event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        self.fill()
        for new_id in (False, True):
            open_folder(self.path, new_id).announce()
        (line,) = told
        self.assertIn(f"set aside in {self.path}/jobs-of-w-7,", line)

    def test_copy_of_a_copy(self) -> None:
        """Folders that were set aside before stay as they are."""
        self.fill()
        open_folder(self.path, new_id=True)
        self.fill()
        open_folder(self.path, new_id=True)
        self.assertEqual(
            self.content(), ["folder_id", "jobs-of-w-7", "jobs-of-w-7.2", "used-ids-of-w-7", "used-ids-of-w-7.2"]
        )

    def test_no_worker_id(self) -> None:
        """A worker id that is none gives no name to a folder, nor does one that is not there."""
        for worker_id in ("", "../../etc", "\xff"):
            self.fill(worker_id)
            self.assertEqual(open_folder(self.path, new_id=True).set_aside, f"{self.path}/jobs-of-no-worker")
            shutil.rmtree(self.path)
            self.path.mkdir()

    def test_nothing_to_set_aside(self) -> None:
        """A folder without jobs just gets its id, whatever is there as its id now."""
        self.path.joinpath("folder_id").write_text("broken")
        self.assertEqual((open_folder(self.path, new_id=True).set_aside, self.content()), ("", ["folder_id"]))

    def test_killed(self) -> None:
        """Killed after any step it is finished by the next process, with the option or without, before all else."""

        def written() -> None:
            self.path.joinpath("folder_id.next").write_text("b" * 32 + "\n")

        def used_ids_moved() -> None:
            self.path.joinpath("used-ids").rename(self.path / "used-ids-of-w-7")

        def jobs_moved() -> None:
            self.path.joinpath("jobs").rename(self.path / "jobs-of-w-7")

        def id_dropped() -> None:
            self.path.joinpath("worker_id").unlink()

        steps = (written, used_ids_moved, jobs_moved, id_dropped)
        for count in range(1, len(steps) + 1):
            for new_id in (False, True):
                self.fill()
                self.path.joinpath("folder_id").write_text("a" * 32 + "\n")
                for step in steps[:count]:
                    step()
                self.assertEqual(open_folder(self.path, new_id).folder_id, "b" * 32)
                self.assertEqual(self.content(), ["folder_id", "jobs-of-w-7", "used-ids-of-w-7"])
                shutil.rmtree(self.path)
                self.path.mkdir()

    def test_damaged_halfway(self) -> None:
        """Where the id to be is damaged the copy does not start, least of all as the original; --new-id finishes it."""
        self.fill()
        self.path.joinpath("folder_id").write_text("a" * 32 + "\n")
        self.path.joinpath("folder_id.next").write_bytes(b"")
        self.path.joinpath("jobs").rename(self.path / "jobs-of-w-7")
        before = self.content()
        self.assertEqual(
            self.refusal(),
            "folder_id.next: must hold the id that this copy of a state folder is to have, 32 hexadecimal digits, and "
            "does not: start the worker once with --new-id, which writes another one; do not remove it, or the copy is "
            "the original, without the jobs of that",
        )
        self.assertEqual(self.content(), before)
        self.assertNotIn(open_folder(self.path, new_id=True).folder_id, ("", "a" * 32))
        self.assertEqual(self.content(), ["folder_id", "jobs-of-w-7", "used-ids-of-w-7"])

    def test_killed_before(self) -> None:
        """Killed before the new id was there it is the copy that it was."""
        self.fill()
        original = open_folder(self.path, new_id=False)
        self.path.joinpath("folder_id.next.tmp").write_text("half")
        self.assertEqual(open_folder(self.path, new_id=False), original)
        self.assertTrue(self.path.joinpath("jobs", "j1").exists())
        self.assertTrue(re.fullmatch("[0-9a-f]{32}", open_folder(self.path, new_id=True).folder_id))
        self.assertEqual(self.content(), ["folder_id", "jobs-of-w-7", "used-ids-of-w-7"])
