"""Jobs that mount something in their folders: what is mounted is never touched, counted or waited for."""

import ctypes
import os
import stat

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher

from scheduler.errors import Unavailable
from scheduler.model import JobSpec, JobState
from scheduler.worker import clearing, mounts, trees
from scheduler.worker.clearing import Clearing
from scheduler.worker.shim import beneath
from tests.integration.running import RunningCase, later
from tests.namespaces import INSIDE, TIMEOUT, mount, mounted, namespaced

libc = ctypes.CDLL(None, use_errno=True)

SIZE = 3_000_000

#: Mounts a folder, and a file, and does as much for a folder in a folder.
MOUNTS = """
mkdir d e e/f; touch g
mount --bind {0} d
mount --bind {0} e/f
mount --bind {0}/file g
"""


class MountCase(RunningCase):
    """Has a folder with data, of which a job mounts something."""

    timeout = TIMEOUT

    async def setUp(self) -> None:
        if INSIDE:
            await super().setUp()
            self.data = os.path.join(self.state_dir, "data")
            os.makedirs(os.path.join(self.data, "sub"))
            for name in ("file", "sub/file"):
                with open(os.path.join(self.data, name), "wb") as file:
                    file.write(bytes(SIZE))

    def assertUntouched(self) -> None:
        for name in ("file", "sub/file"):
            self.assertEqual(os.path.getsize(os.path.join(self.data, name)), SIZE)

    async def mounts(self, script: str = MOUNTS) -> str:
        """The id of a job that has mounted the data, and was acknowledged."""
        status = await self.worker.run("sh", "-ec", script.format(self.data))
        self.assertIs(status.state, JobState.SUCCEEDED)
        self.worker.jobs.acknowledge([status.job_id])
        return status.job_id

    async def empty(self) -> None:
        """Once there is no folder of a job any more."""
        while os.listdir(self.worker.jobs_dir):
            await later(0.02)


@namespaced
class RemovedTests(MountCase):
    """Folders of jobs are removed, and what is mounted there is not."""

    async def expire(self, script: str = MOUNTS) -> None:
        await self.restart(keep_spool=0.1)
        await self.mounts(script)
        await self.empty()
        self.assertEqual(mounted(self.worker.jobs_dir), [])
        self.assertUntouched()

    async def test_expired(self) -> None:
        """The folder of a job that mounted data goes after ``keep_spool``; the mounts go, the data stays."""
        await self.expire()

    async def test_mounts_in_what_is_mounted(self) -> None:
        """A mount in the data stays mounted there, although mounts are shared."""
        mount("--make-rshared", "/")
        mount("-t", "tmpfs", "none", os.path.join(self.data, "sub"))
        with open(os.path.join(self.data, "sub", "file"), "wb") as file:
            file.write(bytes(SIZE))
        await self.expire("mkdir d; mount --rbind {0} d")
        self.assertEqual(mounted(self.data), [os.path.join(self.data, "sub")])

    async def test_on_top_of_each_other(self) -> None:
        """Two mounts at the same place are both detached, and names may have any characters."""
        await self.expire('mkdir "a b\n\\c"; cd "a b\n\\c"; mkdir d; mount -t tmpfs n d; mount --bind {0} d')

    async def test_hidden_by_another(self) -> None:
        """A mount over a folder with a mount inside is detached first, as it hides that one."""
        await self.expire(
            "mkdir -p d/e/f; mount --bind {0} d/e/f; mount -t tmpfs n d/e; mount -t tmpfs n d;"
            "mkdir -p d/e; mount --bind {0} d/e"
        )

    async def test_unfinished_removal(self) -> None:
        """A worker that takes over a removal that was cut short takes care as well."""
        job = await self.mounts()
        await self.worker.drop()
        os.rename(self.worker.spool(job).folder, os.path.join(self.worker.jobs_dir, f".gone-{job}"))
        self.worker = await self.next_life()
        await self.empty()
        self.assertUntouched()

    async def test_over_the_folder_itself(self) -> None:
        """A folder that is a mount point itself is removed, too."""
        status = await self.worker.run("true")
        spool = self.worker.spool(status.job_id)
        mount("--bind", self.data, spool.folder)
        self.assertIsNone(Clearing(self.worker.jobs_dir).move_away(status.job_id))
        self.assertEqual(os.listdir(self.worker.jobs_dir), [])
        self.assertUntouched()

    async def test_a_mount_that_hangs(self) -> None:
        """A file system that answers nothing hinders neither the look at a job nor its removal."""
        await self.restart(keep_spool=2.0)
        job = (await self.worker.run("mkdir", "d")).job_id
        fd = os.open("/dev/fuse", os.O_RDWR)
        self.addCleanup(os.close, fd)
        options = f"fd={fd},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0".encode()
        point = os.path.join(self.worker.spool(job).work, "d")
        if libc.mount(b"hangs", os.fsencode(point), b"fuse", 0, options):
            self.skipTest(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
        self.worker.jobs.acknowledge([job])
        await self.empty()


@namespaced
class KeptTests(MountCase):
    """Mounts don't belong to the job."""

    async def test_size(self) -> None:
        """A mount does not count for the job, so it does not push out its output."""
        await self.restart(spool_max="1MB")
        job = await self.mounts(MOUNTS + "echo written")
        await self.worker.pool.run(lambda: None)
        await self.worker.jobs.retention.make_room()
        self.assertEqual(self.worker.output(job), b"written\n")
        self.assertLess(self.worker.jobs.retention.ended.size, 200_000)
        self.assertUntouched()

    async def test_not_permitted(self) -> None:
        """Where mounts can't be detached they stay, which is said once, and goes on when they can be."""

        def refuse(*_: object) -> bool:
            raise PermissionError(1, "Operation not permitted")

        detach = self.patch(mounts, "detach", refuse)
        await self.restart(keep_spool=0.1)
        told: list[dict] = []
        observer = told.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        job = await self.mounts()
        while not (events := [event for event in told if event["log_level"] is LogLevel.error]):
            await later(0.02)
        (event,) = events
        self.assertEqual(event["job_id"], job)
        self.assertIn(f".gone-{job}/work/", event["path"])
        self.assertIn("can't be detached: Operation not permitted", event["why"])
        self.assertEqual(os.listdir(self.worker.jobs_dir), [f".gone-{job}"])
        self.assertEqual(len(mounted(self.worker.jobs_dir)), 3)
        await self.worker.drop()
        detach.restore()
        self.worker = await self.next_life()
        await self.empty()
        self.assertUntouched()


@namespaced
class WalkTests(MountCase):
    """The walk itself, with ``openat2`` and without."""

    async def test_old_kernel(self) -> None:
        """Without ``openat2`` no mount point is crossed either."""
        self.patch(beneath, "has_openat2", lambda: False)
        work = os.path.join(self.state_dir, "w")
        os.makedirs(os.path.join(work, "a", "b"))
        mount("--bind", self.data, os.path.join(work, "a", "b"))
        with open(os.path.join(work, "file"), "xb"):
            pass
        found = trees.measure(self.state_dir, "w")
        self.assertEqual({name: amount.entries for name, amount in found.items()}, {"": 2, "file": 1})
        left = trees.remove(self.state_dir, "w")
        self.assertIn("w/a/b", left.path)
        self.assertTrue(left.mounted)
        self.assertTrue(mounts.detach(self.state_dir, "w"))
        self.assertIsNone(trees.remove(self.state_dir, "w"))
        self.assertUntouched()


@namespaced
class FewInodesTests(RunningCase):
    """A disk with 200 inodes."""

    timeout = TIMEOUT

    async def setUp(self) -> None:
        if INSIDE:
            await super().setUp()
            await self.worker.drop()
            mount("-t", "tmpfs", "-o", "nr_inodes=200", "none", self.worker.jobs_dir)
            self.worker = await self.next_life()

    async def acknowledged(self, job: str) -> None:
        """Once that is written down, and known to who makes room."""
        known: Deferred[None] = Deferred()
        ended = self.worker.jobs.retention.ended
        acknowledged = ended.acknowledged
        patched = self.patch(ended, "acknowledged", lambda *args: (acknowledged(*args), known.callback(None)))
        self.worker.jobs.acknowledge([job])
        await known
        patched.restore()

    async def test_acknowledged(self) -> None:
        """Jobs that were acknowledged make room, so no start is refused."""
        for number in range(60):
            status = await self.worker.run("true")
            self.assertIs(status.state, JobState.SUCCEEDED, number)
            await self.acknowledged(status.job_id)
        self.assertEqual(self.worker.jobs.refusing(), "")

    async def test_refusing(self) -> None:
        """Unacknowledged jobs stay, and starts are refused with the reason, which is reported, until there is room."""
        told: list[str] = []
        self.worker.jobs.on_end(lambda: told.append(self.worker.jobs.refusing()))
        jobs = []
        with self.assertRaises(Unavailable) as refused:
            for _ in range(60):
                jobs.append((await self.worker.run("true")).job_id)
        self.assertIn("inodes free, less than the 64 that a start needs", str(refused.exception))
        self.assertEqual(self.worker.jobs.refusing(), str(refused.exception))
        self.assertEqual(told[-1], str(refused.exception))
        self.worker.jobs.acknowledge(jobs)
        while self.worker.jobs.refusing():
            await later(0.05)
        self.assertEqual(told[-1], "")
        self.assertIs((await self.worker.run("true")).state, JobState.SUCCEEDED)

    async def test_refused_by_the_disk(self) -> None:
        """A disk that refuses although it looks empty enough has room made, and the start comes again."""
        self.patch(clearing.Clearing, "discard", lambda *_: None)
        job = (await self.worker.run("true")).job_id
        await self.acknowledged(job)
        real, tries = self.worker.starter.make_thd, []

        def full_once(*args: object) -> object:
            tries.append(os.listdir(self.worker.jobs_dir))
            if len(tries) == 1:
                raise OSError(122, "Disk quota exceeded")
            return real(*args)

        self.worker.starter.make_thd = full_once
        late = await self.worker.runner.start("late", JobSpec(command="true"), None)
        self.assertEqual(late.job_id, "late")
        await self.worker.ended("late")
        self.assertEqual(tries, [[job], []])
