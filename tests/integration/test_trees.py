"""Removing and measuring what jobs leave, whatever it is."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from scheduler.worker import trees
from scheduler.worker.shim import beneath
from scheduler.worker.trees import Left

#: More levels than a process may have descriptors, or a recursion calls.
DEPTH = 3000

NOBODY = 65534

MAKE_DEEP = f"""
import os
for _ in range({DEPTH}):
    os.mkdir("folder")
    os.chdir("folder")
open("file", "w").write("x" * 10000)
"""

#: Removes a folder, as somebody who is not root, and tells what is left of it; or tells how many entries it has.
REMOVE = f"""
import json, os, sys
from scheduler.worker import trees
if not os.getuid():
    os.setgid({NOBODY})
    os.setuid({NOBODY})
base, task = sys.argv[1:]
if task == "remove":
    answer = trees.remove(base, "j")
else:
    answer = sum(amount.entries for amount in trees.measure(base, "j", unlock=True).values())
print(json.dumps(answer))
"""


def _lowest_free() -> int:
    """The descriptor that is opened next."""
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    return fd


class TreeCase(SynchronousTestCase):
    """Has a folder with the folder ``j`` in it."""

    def setUp(self) -> None:
        self.base = os.path.abspath(self.mktemp())
        os.makedirs(self.path())
        self.addCleanup(subprocess.run, ["rm", "-rf", self.base], check=False)

    def path(self, *names: str) -> str:
        return os.path.join(self.base, "j", *names)

    def make(self, *names: str) -> str:
        """A file."""
        path = self.path(*names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(bytes(5000))
        return path

    def deep(self) -> None:
        subprocess.run([sys.executable, "-c", MAKE_DEEP], cwd=self.path(), check=True)

    def remove(self, **settings: object) -> Left | None:
        return trees.remove(self.base, "j", **settings)


class RemoveTests(TreeCase):
    def test_too_few_descriptors(self) -> None:
        """A removal that lacks descriptors is unfinished; its entries don't count as resisting."""
        self.make("file")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for more in (0, 1):
            resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free() + more, hard))
            left = self.remove()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.assertEqual((left.why, left.unfinished), ("Too many open files", True))
        self.assertIsNone(self.remove())

    def test_deep(self) -> None:
        """Folders in folders are measured and removed with few descriptors, however many they are."""
        self.deep()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + trees.HELD_DESCRIPTORS + 10, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(sum(amount.entries for amount in trees.measure(self.base, "j").values()), DEPTH + 2)
        self.assertIsNone(self.remove())
        self.assertEqual((os.listdir(self.base), len(os.listdir("/proc/self/fd"))), ([], used))

    def test_deep_on_an_old_kernel(self) -> None:
        """The same walks on a kernel without ``openat2``."""
        self.patch(beneath, "has_openat2", lambda: False)
        self.test_deep()

    def test_links(self) -> None:
        """Links are removed and not followed, also where the folder to be removed is one."""
        outside = os.path.join(self.base, "outside")
        os.mkdir(outside)
        shutil.copy(self.make("file"), outside)
        os.symlink(outside, self.path("link"))
        os.symlink("no such file", self.path("dangling"))
        os.mkfifo(self.path("pipe"))
        self.assertIsNone(self.remove())
        os.symlink(outside, self.path())
        self.assertEqual(trees.measure(self.base, "j"), {})
        self.assertIsNone(self.remove())
        self.assertEqual((os.listdir(self.base), os.listdir(outside)), (["outside"], ["file"]))

    def test_link_on_the_way(self) -> None:
        """A link on the way to what is to be removed is not followed either."""
        outside = os.path.join(self.base, "outside", "work")
        os.makedirs(outside)
        os.rmdir(self.path())
        os.symlink("outside", self.path())
        self.assertEqual(trees.remove(self.base, "j/work").path, "'j/work'")
        self.assertTrue(os.path.exists(outside))

    def test_many(self) -> None:
        """A folder with more subfolders than are remembered at once is removed."""
        for number in range(2500):
            os.mkdir(self.path(str(number)))
        self.assertIsNone(self.remove())

    def test_seconds(self) -> None:
        """A removal whose time is over goes on with the next."""
        for number in range(10):
            self.make(str(number), "file")
        self.assertTrue(self.remove(seconds=0).unfinished)
        self.assertIsNone(self.remove(seconds=60))

    def test_written_to_meanwhile(self) -> None:
        """A folder in which somebody goes on writing is not fought for without end."""
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    os.mkdir(self.path(str(number)))
                except FileNotFoundError:
                    return

        writer = threading.Thread(target=write)
        writer.start()
        self.addCleanup(stop.set)
        self.remove(seconds=1)
        stop.set()
        writer.join()
        self.assertIsNone(self.remove())

    def test_measured_in_part(self) -> None:
        """No more entries are looked at than told."""
        for number in range(20):
            self.make(str(number))
        self.assertEqual(sum(amount.entries for amount in trees.measure(self.base, "j", most=5).values()), 6)

    def test_immutable(self) -> None:
        """A file that not even root may remove is named, with the reason, and all else goes."""
        kept = self.make("folder", "kept")
        self.make("folder", "other")
        self.make("z")
        if subprocess.run(["chattr", "+i", kept], capture_output=True, check=False).returncode:
            raise SkipTest("chattr +i is not possible here")
        self.addCleanup(subprocess.run, ["chattr", "-i", kept], check=False, capture_output=True)
        self.assertEqual(self.remove(), Left("'j/folder/kept'", "Operation not permitted"))
        found = [name for _, folders, files in os.walk(self.base) for name in [*folders, *files]]
        self.assertEqual(found, ["j", "folder", "kept"])
        subprocess.run(["chattr", "-i", kept], check=True)
        self.assertIsNone(self.remove())


class NotRootTests(TreeCase):
    def as_nobody(self, task: str) -> object:
        """Run ``REMOVE``; answers its output."""
        if not os.getuid():
            subprocess.run(["chown", "-R", f"{NOBODY}", self.base], check=True)
            for each in self.foreign:
                os.chown(each, 0, 0)
        command = [sys.executable, "-c", REMOVE, self.base, task]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
        self.assertEqual(done.stderr, "")
        return json.loads(done.stdout)

    def setUp(self) -> None:
        super().setUp()
        self.base = tempfile.mkdtemp()  # trial's own folders are closed to others
        self.addCleanup(subprocess.run, ["rm", "-rf", self.base], check=False)
        os.mkdir(self.path())
        self.foreign: list[str] = []

    def lock(self) -> None:
        """Folders without permissions, the first as Go's module cache has them."""
        for number, mode in enumerate((0o555, 0o000, 0o111, 0o444)):
            self.make(str(number), "inner", "file")
            os.chmod(self.path(str(number), "inner", "file"), 0o444)
            os.chmod(self.path(str(number), "inner"), mode)
            os.chmod(self.path(str(number)), mode)
        os.chmod(self.path(), 0o000)

    def test_without_permission(self) -> None:
        """Folders without permissions are removed."""
        self.lock()
        self.assertIsNone(self.as_nobody("remove"))
        self.assertEqual(os.listdir(self.base), [])

    def test_measured_without_permission(self) -> None:
        self.lock()
        self.assertEqual(self.as_nobody("measure"), 13)

    def test_deep(self) -> None:
        """Three thousand folders in each other are no matter for anybody."""
        self.deep()
        self.assertEqual(self.as_nobody("measure"), DEPTH + 2)
        self.assertIsNone(self.as_nobody("remove"))

    def test_another_user(self) -> None:
        """An entry of another user is named, with the reason, and all others are removed."""
        if os.getuid():
            raise SkipTest("only root can make files of another user")
        self.make("a", "theirs")
        self.make("a", "z")
        self.make("b")
        self.foreign = [self.path("a"), self.path("a", "theirs")]
        self.assertEqual(self.as_nobody("measure"), 5)
        left = self.as_nobody("remove")
        self.assertIn(left[0], ("'j/a/theirs'", "'j/a/z'"))
        self.assertEqual(left[1], "Permission denied")
        self.assertEqual(sorted(os.listdir(self.path())), ["a"])
