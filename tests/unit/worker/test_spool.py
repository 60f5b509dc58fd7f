"""The folder of a job: what its records hold."""

import fcntl
import os
import shutil
import stat

from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker.shim import copies
from scheduler.worker.shim.exits import Exit, left_behind
from scheduler.worker.shim.spool import EXIT_RECORD_BYTES, ProcessId, Spool, create


class ExitRecordTests(SynchronousTestCase):
    """The exit record, on a disk that may be full."""

    def setUp(self) -> None:
        self.spool = Spool(self.mktemp())
        create(self.spool.folder, f"{self.spool.folder}.new", {}, None, None)

    def test_room(self) -> None:
        """The longest record there can be fits in the room that was taken for it."""
        text = "\N{GRINNING FACE}" * 100_000
        self.spool.write_exit(
            Exit(
                "failed",
                text,
                1e10,
                2**63,
                2**63,
                255,
                "SIGRTMIN+1",
                1e10,
                "killed",
                tuple(range(2**22, 2**22 + 9999)),
                "stdout: No space left on device; stderr: No space left on device; " + "output limit reached " * 9,
                tuple(range(2**63, 2**63 + 9999)),
                9999,
            ).record()
        )
        self.assertLessEqual(os.stat(self.spool.exit_path).st_size, EXIT_RECORD_BYTES)

    def test_left_behind(self) -> None:
        """The reason names the processes that could not be ended, a hundred at most, and counts them all."""
        self.assertEqual(left_behind([12]), "1 process could not be ended: 12")
        self.assertEqual(left_behind([12, 13]), "2 processes could not be ended: 12, 13")
        many = left_behind(range(4194000, 4194150))
        self.assertTrue(many.startswith("150 processes could not be ended: 4194000, "), many)
        self.assertTrue(many.endswith(", 4194099, and 50 more"), many)
        self.spool.write_exit(Exit("stopped", f"output limit of 1000000000 bytes reached; {many}", 1e9).record())
        self.assertTrue(self.spool.read_exit()["reason"].endswith(", and 50 more"))

    def test_leftover(self) -> None:
        """The first hundred of them are kept, each with its start time."""
        pids, started = tuple(range(1, 201)), tuple(range(1001, 1201))
        self.spool.write_exit(Exit("stopped", "", 1e9, leftover=pids, leftover_started=started).record())
        record = self.spool.read_exit()
        self.assertEqual(record["leftover"], list(pids[:100]))
        self.assertEqual(record["leftover_started"], list(started[:100]))

    def test_unknown_format(self) -> None:
        """A record of another format is refused, not guessed at."""
        with open(self.spool.exit_path, "w", encoding="utf-8") as file:
            file.write('{"format": 3, "state": "succeeded"}')
        self.assertRaises(ValueError, self.spool.read_exit)


class LockTests(SynchronousTestCase):
    """The lock, whose holder decides the outcome of a job."""

    def lock_of_spool_taken_away(self, again: bool) -> int | None:
        """Remove the spool after its lock was opened, and ``again`` make it anew; answers the lock."""
        spool = Spool(self.mktemp())
        create(spool.folder, f"{spool.folder}.new", {}, None, None)

        def flock(fd: int, operation: int) -> None:
            patched.restore()
            os.rename(spool.folder, self.mktemp())
            if again:
                create(spool.folder, f"{spool.folder}.new", {}, None, None)
            fcntl.flock(fd, operation)

        patched = self.patch(fcntl, "flock", flock)
        with spool.locked() as lock:
            return lock

    def test_spool_taken_away(self) -> None:
        """A lock that was opened before its spool was removed, and perhaps made anew, is not held."""
        self.assertIsNone(self.lock_of_spool_taken_away(again=False))
        self.assertIsNone(self.lock_of_spool_taken_away(again=True))


class CopyTests(SynchronousTestCase):
    """Which folders are copies, of a job that was made in this boot of the machine."""

    def setUp(self) -> None:
        folder = self.mktemp()
        create(folder, f"{folder}.new", {}, None, None)
        self.spool = Spool(folder)
        self.job = self.spool.read_job()

    def made(self, **fields: object) -> bool:
        """Whether it is a copy, if that is what its record says of the lock."""
        return self.spool.is_copy(self.job | fields)

    def test_original(self) -> None:
        """The folder that was made is none, also under another name."""
        self.assertFalse(self.spool.is_copy(self.job))
        os.rename(self.spool.folder, f"{self.spool.folder}.moved")
        self.assertFalse(Spool(f"{self.spool.folder}.moved").is_copy(self.job))

    def test_copied(self) -> None:
        """A folder with the same files is a copy, and so is one without a lock."""
        self.assertTrue(Spool(shutil.copytree(self.spool.folder, self.mktemp())).is_copy(self.job))
        os.unlink(self.spool.lock_path)
        self.assertTrue(self.spool.is_copy(self.job))

    def test_mounted_again(self) -> None:
        """A file system that was mounted again may have another device number, and its folders are no copies."""
        device, inode = self.job["lock"]
        self.assertFalse(self.made(lock=[device + 1, inode]))
        self.assertFalse(self.made(lock=[device + 1, inode], lock_more=[0, 0]))  # which tells no more of its files

    def test_same_inode_number(self) -> None:
        """A copy on another file system may have the same inode number: its generation or the file system differ."""
        device, inode = self.job["lock"]
        generation, file_system = self.job["lock_more"]
        self.assertTrue(generation or file_system, "this file system tells nothing of its files")
        if generation:
            self.assertTrue(self.made(lock=[device + 1, inode], lock_more=[generation ^ 1, file_system]))
        if file_system:
            self.assertTrue(self.made(lock=[device + 1, inode], lock_more=[generation, file_system ^ 1]))

    def test_file_system_without_id(self) -> None:
        """An id that is the device number changes with that, and is not kept."""
        numbers = os.stat_result((0o100600, 42, 0x701, 1, 0, 0, 0, 0, 0, 0))
        self.patch(os, "fstat", lambda fd: numbers)
        self.patch(os, "fstatvfs", lambda fd: os.statvfs_result((0,) * 10 + (0x701,)))
        device, inode, _, file_system = copies.file_id(self.spool.lock_path)
        self.assertEqual((device, inode, file_system), (0x701, 42, 0))

    def test_earlier_versions(self) -> None:
        """Their records say nothing of the lock, or its device and inode number."""
        job = {name: value for name, value in self.job.items() if name != "lock_more"}
        device, inode = job["lock"]
        for lock, copy in (
            (None, False),
            ([device, inode], False),
            ([device + 1, inode], False),
            ([device, inode + 1], True),
        ):
            self.assertEqual(self.spool.is_copy(job | {"lock": lock}), copy)


class BeginTests(SynchronousTestCase):
    """The trace of the shim that took a job on."""

    def test_begin(self) -> None:
        """At first there is no shim, only room for its identity; then that of the shim, and no more."""
        folder = self.mktemp()
        create(folder, f"{folder}.new", {}, None, None)
        spool = Spool(folder)
        self.assertGreater(os.stat(spool.lock_path).st_blocks, 0)
        self.assertIsNone(spool.begun_by())
        with spool.locked() as lock:
            spool.begin(lock, ProcessId(42, 1000))
        self.assertEqual(spool.begun_by(), ProcessId(42, 1000))
        with open(spool.lock_path, "rb") as file:
            self.assertEqual(file.read(), b"42 1000\n")


class StopTests(SynchronousTestCase):
    """The mark that asks for the stop."""

    def setUp(self) -> None:
        folder = self.mktemp()
        create(folder, f"{folder}.new", {}, None, None)
        self.spool = Spool(folder)

    def test_set(self) -> None:
        """The mark is not set at first, and may be set twice."""
        self.assertFalse(self.spool.stop_asked())
        for _ in range(2):
            self.spool.ask_stop()
            self.assertTrue(self.spool.stop_asked())

    def test_without_a_new_file(self) -> None:
        """The mark is a file that was made with the spool, under another name, so it can be set on a full disk."""
        before = {entry.inode() for entry in os.scandir(self.spool.folder)}
        self.spool.ask_stop()
        self.assertEqual({entry.inode() for entry in os.scandir(self.spool.folder)}, before)

    def test_earlier_version(self) -> None:
        """A spool of an earlier version has no such file."""
        os.unlink(os.path.join(self.spool.folder, "stop.tmp"))
        self.spool.ask_stop()
        self.assertTrue(self.spool.stop_asked())

    def test_ended(self) -> None:
        """A job that has ended keeps no file for it."""
        self.spool.write_exit(Exit("succeeded", "", 1e9).record())
        self.assertFalse([name for name in os.listdir(self.spool.folder) if name.startswith("stop")])


class StartRecordTests(SynchronousTestCase):
    """The record of the start, which is not synced."""

    def setUp(self) -> None:
        self.spool = Spool(self.mktemp())
        os.mkdir(self.spool.folder)

    def test_whole(self) -> None:
        """The record is read as it was written."""
        self.assertIsNone(self.spool.read_start())
        self.spool.write_start({"pid": 7})
        self.assertEqual(self.spool.read_start()["pid"], 7)

    def test_power_cut(self) -> None:
        """A record that a power cut left empty, or as zeros, counts as missing."""
        for left in (b"", bytes(100)):
            with open(self.spool.start_path, "wb") as file:
                file.write(left)
            self.assertIsNone(self.spool.read_start())


class UnlockTests(SynchronousTestCase):
    """A folder whose permissions the job took away."""

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    def test_locked(self) -> None:
        """A folder without permissions gets them back."""
        spool = Spool(self.mktemp())
        os.mkdir(spool.folder)
        for mode in (0o500, 0):
            os.chmod(spool.folder, mode)
            spool.unlock()
            self.assertEqual(self.mode(spool.folder), 0o700)

    def test_link(self) -> None:
        """The target of a link does not get them, and a missing folder is no error."""
        data, spool = self.mktemp(), Spool(self.mktemp())
        os.mkdir(data, 0o500)
        os.symlink(os.path.abspath(data), spool.folder)
        spool.unlock()
        self.assertEqual(self.mode(data), 0o500)
        os.unlink(spool.folder)
        spool.unlock()
