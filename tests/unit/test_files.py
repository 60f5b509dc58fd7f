"""Owners and modes of files: what a process refuses at its start, and what root does for another user."""

import os
import stat
from pathlib import Path

import trustme
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from scheduler.daemon import drafts, files, pidfile
from scheduler.daemon.logs import LoggingService
from scheduler.daemon.startup import SchedulerOptions, WorkerOptions
from tests.unit.start_case import StartCase

NOBODY = 65534
ME = os.geteuid()


def needs_root() -> None:
    """Skip the test for other users."""
    if ME != 0:
        raise SkipTest("only root can give files away, and become another user")


class FilesCase(SynchronousTestCase):
    """Has a folder that belongs to this user, with a file in it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(mode=0o700)
        self.file = self.folder / "file"
        self.file.write_text("x")
        self.file.chmod(0o600)

    def modes(self, problem: object, fine: list[int], refused: list[int], path: Path) -> None:
        """Check which modes are fine; a refusal names the path, the mode and the command that mends it."""
        for mode in fine:
            path.chmod(mode)
            self.assertEqual(problem(path, ME), "", oct(mode))
        for mode in refused:
            path.chmod(mode)
            said = problem(path, ME)
            self.assertIn(f"mode {mode:04o}", said)
            self.assertIn(str(path), said)
            self.assertIn("chmod ", said)


class RefusalTests(FilesCase):
    """State folders, token files and key files."""

    def test_state_dir(self) -> None:
        """A state folder is for its owner alone."""
        self.modes(files.state_dir_problem, [0o700, 0o500], [0o750, 0o701, 0o755, 0o720, 0o777], self.folder)

    def test_token(self) -> None:
        """A token file has the mode 0600 or less, is no link, and need not exist."""
        self.modes(files.token_file_problem, [0o600, 0o400], [0o640, 0o604, 0o700, 0o620], self.file)
        link = self.folder / "link"
        self.assertEqual(files.token_file_problem(link, ME), "")
        self.file.chmod(0o600)
        link.symlink_to(self.file)
        self.assertIn("no link", files.token_file_problem(link, ME))

    def test_own_key(self) -> None:
        """A key of an ordinary process's user has the mode 0600 or less."""
        if ME == 0:
            os.chown(self.file, NOBODY, NOBODY)
        uid = self.file.stat().st_uid
        self.modes(lambda path, _: files.key_file_problem(path, uid), [0o600, 0o400], [0o640, 0o644, 0o610], self.file)

    def test_key_of_root(self) -> None:
        """A key of root's may be readable to a group, and no more."""
        needs_root()
        of_other = lambda path, _: files.key_file_problem(path, NOBODY)  # noqa: E731
        self.modes(of_other, [0o640, 0o440, 0o600, 0o400], [0o644, 0o660, 0o641, 0o650], self.file)
        self.modes(files.key_file_problem, [0o600, 0o640], [0o644], self.file)

    def test_key_behind_a_link(self) -> None:
        """The file that a link leads to counts: other programs replace keys by replacing a link."""
        link = self.folder / "link"
        link.symlink_to(self.file)
        self.assertEqual(files.key_file_problem(link, ME), "")
        self.file.chmod(0o644)
        self.assertIn("0644", files.key_file_problem(link, ME))

    def test_other_owner(self) -> None:
        """The files and folders of another user are refused, whatever their modes."""
        needs_root()
        for path, problem in (
            (self.folder, files.state_dir_problem),
            (self.file, files.token_file_problem),
            (self.file, files.key_file_problem),
        ):
            os.chown(path, NOBODY, NOBODY)
            self.assertRegex(problem(path, ME), f"belongs to {files.user(NOBODY)}.*chown root {path}")


class WritersTests(FilesCase):
    """Paths that only root and one user may write."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.realpath(self.file)

    def problem(self, mode: int, path: Path | None = None) -> str:
        """The problem of the file, once that component of its path, by default itself, has the mode."""
        (path or self.file).chmod(mode)
        return files.writers_problem(self.path, ME)

    def test_each_component(self) -> None:
        """The file and each folder above it count."""
        self.assertEqual(self.problem(0o755), "")
        self.assertIn(f"all users may write {self.path} ", self.problem(0o757))
        self.file.chmod(0o644)
        self.assertIn(f"all users may write {os.path.dirname(self.path)} ", self.problem(0o707, self.folder))
        self.assertEqual(self.problem(0o755, self.folder), "")

    def test_sticky(self) -> None:
        """In a sticky folder, like /tmp, the others can't replace the file, but a sticky file is no folder."""
        self.assertEqual(self.problem(0o1777, self.folder), "")
        self.folder.chmod(0o755)
        self.assertIn("all users may write", self.problem(0o1777))

    def test_group(self) -> None:
        """A group may write if it is root's; another group holds other users."""
        needs_root()
        self.assertEqual(self.problem(0o664), "")
        os.chown(self.file, 0, NOBODY)
        self.assertIn("others may write", self.problem(0o664))

    def test_owner(self) -> None:
        """A file or folder of a third user is refused, whatever its mode."""
        needs_root()
        os.chown(self.folder, NOBODY, -1)
        self.assertEqual(self.problem(0o400), f"{self.folder} belongs to {files.user(NOBODY)}")
        self.assertEqual(files.writers_problem(self.path, NOBODY), "")


class DraftTests(FilesCase):
    """Files that are written by a temporary name."""

    def test_planted_link(self) -> None:
        """A link in the place of a draft is replaced, and so is one in the place of the file: neither is followed."""
        victim = self.folder / "victim"
        victim.write_text("precious")
        for name in ("made", "made.tmp"):
            (self.folder / name).symlink_to(victim)
        drafts.replace(str(self.folder / "made"), b"new")
        self.assertEqual((victim.read_text(), (self.folder / "made").read_text()), ("precious", "new"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["file", "made", "victim"])
        self.assertEqual(stat.S_IMODE((self.folder / "made").lstat().st_mode), 0o600)

    def test_create(self) -> None:
        """A new file is never one that is there, nor the target of a link to nowhere."""
        (self.folder / "link").symlink_to(self.folder / "nowhere")
        for name in ("file", "link"):
            self.assertRaises(FileExistsError, drafts.create, str(self.folder / name))
        self.assertFalse((self.folder / "nowhere").exists())

    def test_failure(self) -> None:
        """A file that can't be replaced is as before, and there is no draft."""
        (self.folder / "made").mkdir()
        self.assertRaises(OSError, drafts.replace, str(self.folder / "made"), b"new")
        self.assertEqual(sorted(os.listdir(self.folder)), ["file", "made"])


class StartTests(StartCase):
    """The same faults refuse the start in one line."""

    def refused(self, problem: str) -> None:
        for options in (SchedulerOptions(), WorkerOptions()):
            self.write('[grpc_server]\naddr = "127.0.0.1:0"\n')
            said = self.refusal(options)
            self.assertTrue(said.startswith(f'state_dir = "{self.folder}/state": {problem}'), said)

    def test_open_state_dir(self) -> None:
        (self.folder / "state").mkdir(mode=0o755)
        self.refused(f"is open to others (mode 0755): chmod 700 {self.folder}/state")
        self.assertEqual(os.listdir(self.folder / "state"), [])

    def test_foreign_state_dir(self) -> None:
        needs_root()
        (self.folder / "state").mkdir(mode=0o700)
        os.chown(self.folder / "state", NOBODY, NOBODY)
        self.refused(f"belongs to {files.user(NOBODY)}, not to root")

    def test_open_token(self) -> None:
        (self.folder / "state").mkdir(mode=0o700)
        (self.folder / "state/admin.token").write_text("sched_x")
        (self.folder / "state/admin.token").chmod(0o640)
        self.refused(f"the token file {self.folder}/state/admin.token has the mode 0640, and must have 0600")

    def test_open_key(self) -> None:
        """The refusal of a key names table, key and file; with the right mode the process starts."""
        issued = trustme.CA().issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(self.folder / "server.pem")
        key = self.folder / "server.key"
        issued.private_key_pem.write_to_path(key)
        key.chmod(0o644)
        self.write('[grpc_server]\naddr = "127.0.0.1:0"\nuse_tls = true\n')
        self.assertIn(f'[grpc_server] key_file = "{key}": {key} belongs to', self.refusal(WorkerOptions()))
        self.assertIn(f"chmod 6{'4' if ME == 0 else '0'}0 {key}", self.refusal(WorkerOptions()))
        key.chmod(0o600)
        self.parse(WorkerOptions())


class AnotherUserTests(StartCase):
    """root starts twistd with ``--uid``, and that user has put links where root would write."""

    AS_NOBODY = ("--uid", str(NOBODY), "--gid", str(NOBODY))

    def setUp(self) -> None:
        needs_root()
        super().setUp()
        self.state = self.folder / "state"
        self.victim = self.folder.parent / "victim"
        self.addCleanup(os.chdir, os.getcwd())

    def plant(self, *names: str, target: Path | None = None) -> None:
        """Make the state folder of the user, with links to a file of root's."""
        self.state.mkdir(mode=0o700)
        for name in names:
            (self.state / name).symlink_to(target or self.victim)
            os.chown(self.state / name, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(self.state, NOBODY, NOBODY)

    def test_out_of_reach(self) -> None:
        """A folder that the user can't reach is refused with that reason."""
        self.state.mkdir(mode=0o700)
        os.chown(self.state, NOBODY, NOBODY)
        self.folder.chmod(0o700)
        with self.assertRaises(SystemExit) as refused:
            self.parse(SchedulerOptions(), *self.AS_NOBODY)
        self.assertIn("Permission denied", str(refused.exception))

    def test_lock(self) -> None:
        """A link in the place of the lock is not followed."""
        self.plant("lock")
        with self.assertRaises(SystemExit):
            self.parse(SchedulerOptions(), *self.AS_NOBODY)
        self.assertFalse(self.victim.exists())

    def test_database(self) -> None:
        """A link in the place of the database or its lock creates no file of root's elsewhere."""
        from scheduler.tap import Options  # noqa: PLC0415 - it loads grpc, which no other test here needs

        for name in ("scheduler.db", "scheduler.db.lock"):
            self.plant(name)
            with self.assertRaises(SystemExit):
                self.parse(Options(), *self.AS_NOBODY)
            self.assertFalse(self.victim.exists())
            for each in self.state.iterdir():
                each.unlink()
            self.state.rmdir()

    def test_folder_id(self) -> None:
        """A link in the place of a worker's id is not written through."""
        from scheduler.worker.tap import Options  # noqa: PLC0415 - it loads grpc, which no other test here needs

        self.write('[grpc_server]\naddr = "127.0.0.1:0"\n')
        self.plant("folder_id", "folder_id.tmp")
        self.parse(Options(), *self.AS_NOBODY)
        self.assertFalse(self.victim.exists())
        self.assertEqual((self.state / "folder_id").lstat().st_uid, NOBODY)

    def test_pidfile(self) -> None:
        """The default pidfile is written by the process itself, as the user, in the place of the link."""
        self.victim.write_text("precious")
        self.plant("scheduler.pid", "scheduler.pid.tmp")
        options = SchedulerOptions()
        twistd = self.parse(options, *self.AS_NOBODY)
        self.assertEqual(twistd["pidfile"], "")  # so twistd writes none
        options.pidfile.startService()
        self.assertEqual((self.state / "scheduler.pid").read_text(), f"{os.getpid()}\n")
        self.assertEqual(self.victim.read_text(), "precious")
        options.pidfile.stopService()
        self.assertFalse((self.state / "scheduler.pid").exists())

    def test_named_pidfile(self) -> None:
        """A pidfile that is named must be in a folder that root alone may write."""
        self.plant()
        given = {"uid": NOBODY, "gid": NOBODY, "pidfile": str(self.state / "x.pid")}
        refused = self.assertRaises(SystemExit, pidfile.set_up, given, self.state / "y.pid", True, False)
        self.assertIn(f"--pidfile {self.state}/x.pid: root writes it only where nobody else may", refused.code)
        pidfile.set_up({**given, "pidfile": "/run/x.pid"}, self.state / "y.pid", True, False)

    def test_log(self) -> None:
        """A link in the place of the log refuses the start, and the file that it names stays as it is."""
        self.victim.write_text("precious")
        self.victim.chmod(0o600)
        self.plant("scheduler.log")
        twistd = self.parse(SchedulerOptions(), *self.AS_NOBODY)
        refused = self.assertRaises(SystemExit, LoggingService, None, twistd, "text")
        self.assertIn("can't be written: Permission denied", refused.code)
        self.assertEqual((self.victim.read_text(), self.victim.stat().st_uid), ("precious", 0))

    def test_log_of_root(self) -> None:
        """A log in a folder of root's is made for the user."""
        self.plant()
        log = self.folder / "some.log"
        twistd = self.parse(SchedulerOptions(), *self.AS_NOBODY, "--logfile", str(log))
        LoggingService(None, twistd, "text")
        self.assertEqual(log.stat().st_uid, NOBODY)

    def test_folder_elsewhere(self) -> None:
        """Root makes no folder for a user through a link if a part of the path is the user's."""
        closed = self.folder / "closed"
        closed.mkdir(mode=0o700)
        self.plant("link", target=closed)
        self.write("")
        Path(self.file).write_text(f'state_dir = "{self.state}/link/made"\n[grpc_server]\naddr = "127.0.0.1:0"')
        with self.assertRaises(SystemExit):
            self.parse(WorkerOptions(), *self.AS_NOBODY)
        self.assertEqual(list(closed.iterdir()), [])

    def test_new_folders(self) -> None:
        """The state folder and those above it that root makes belong to the user."""
        Path(self.file).write_text(f'state_dir = "{self.folder}/a/b"\n[grpc_server]\naddr = "127.0.0.1:0"')
        self.parse(WorkerOptions(), *self.AS_NOBODY)
        found = [(self.folder / name).stat() for name in ("a", "a/b", "a/b/lock")]
        self.assertEqual([each.st_uid for each in found], [NOBODY] * 3)
        self.assertEqual([stat.S_IMODE(each.st_mode) for each in found], [0o700, 0o700, 0o600])

    def test_rights_come_back(self) -> None:
        """After all that, the process is root again, with its groups."""
        before = (os.geteuid(), os.getegid(), os.getgroups())
        with files.as_user(NOBODY, NOBODY):
            self.assertEqual((os.geteuid(), os.getegid()), (NOBODY, NOBODY))
            self.assertNotIn(0, os.getgroups())
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)
