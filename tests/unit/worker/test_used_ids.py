"""Ids that are used up: kept for good, in little room."""

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon import drafts
from scheduler.worker.used_ids import HowUsed, UsedIds


class UsedIdsTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        self.path = os.path.join(folder, "used-ids")
        self.ids = self.opened()

    def opened(self) -> UsedIds:
        ids = UsedIds(self.path)
        self.addCleanup(ids.close)
        return ids

    def test_found(self) -> None:
        """An id is found as what it was added as first, by the next process too, and no other is."""
        self.ids.add_thd(["a", "b"], HowUsed.PRUNED)
        self.ids.add_thd(["b", "c"], HowUsed.SEALED)
        for ids in (self.ids, self.opened()):
            found = [ids.find_thd(job_id) for job_id in ("a", "b", "c", "d")]
            self.assertEqual(found, [HowUsed.PRUNED, HowUsed.PRUNED, HowUsed.SEALED, None])

    def test_durable(self) -> None:
        """Added ids are on the disk when the call returns."""
        real, synced = os.fsync, []
        self.ids.open_thd()
        self.patch(
            os, "fsync", lambda fd: synced.append((os.fstat(fd).st_ino, self.opened().find_thd("b"))) or real(fd)
        )
        self.ids.add_thd(["a", "b"], HowUsed.PRUNED)
        self.assertEqual(synced, [(os.stat(self.path).st_ino, HowUsed.PRUNED)])

    def test_many(self) -> None:
        """Ten thousand are found after the file has grown, a few bytes each."""
        many = [f"job-{number}" for number in range(10_000)]
        self.ids.add_thd(many, HowUsed.PRUNED)
        self.ids.add_thd(["sealed"], HowUsed.SEALED)
        for ids in (self.ids, self.opened()):
            self.assertEqual({ids.find_thd(job_id) for job_id in many}, {HowUsed.PRUNED})
            self.assertEqual(ids.find_thd("sealed"), HowUsed.SEALED)
            self.assertEqual({ids.find_thd(f"other-{number}") for number in range(10_000)}, {None})
        self.assertEqual(os.stat(self.path).st_size, 262_144)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["used-ids"])

    def test_room_is_taken(self) -> None:
        """The file takes no more room for the first three thousand than it has when it is made."""
        self.ids.open_thd()
        before = os.stat(self.path)
        self.ids.add_thd([f"job-{number}" for number in range(3_000)], HowUsed.PRUNED)
        after = os.stat(self.path)
        self.assertEqual((after.st_size, after.st_blocks), (before.st_size, before.st_blocks))

    def test_no_room_to_grow(self) -> None:
        """Where it can't grow all in it stay, others are taken where there is a place, and it grows later."""
        real = drafts.write_all

        def full(fd: int, data: bytes) -> None:
            real(fd, data[:100])
            raise OSError(errno.ENOSPC, "full")

        with open(self.path, "wb") as file:
            file.write(bytes(2 * 4096))
        self.patch(drafts, "write_all", full)
        # Together while there is room everywhere, as each addition is synced; one by one when pages get full.
        taken, refused = [f"job-{number}" for number in range(400)], []
        self.ids.add_thd(taken, HowUsed.PRUNED)
        for number in range(400, 700):
            try:
                self.ids.add_thd([f"job-{number}"], HowUsed.PRUNED)
            except OSError:
                refused.append(number)
                continue
            taken.append(f"job-{number}")
        self.assertTrue(refused and taken[-1] > f"job-{refused[0]}", (refused[:1], taken[-1]))
        self.assertEqual({self.opened().find_thd(job_id) for job_id in taken}, {HowUsed.PRUNED})
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["used-ids"])
        self.patch(drafts, "write_all", real)
        self.ids.add_thd([f"job-{number}" for number in range(1_000)], HowUsed.PRUNED)
        self.assertEqual({self.opened().find_thd(f"job-{number}") for number in range(1_000)}, {HowUsed.PRUNED})

    def test_damaged(self) -> None:
        """A file that was not written here is refused: to begin another would be to forget."""
        for content in (b"", b"x", bytes(3 * 4096)):
            with open(self.path, "wb") as file:
                file.write(content)
            self.assertRaises(ValueError, self.opened().open_thd)

    def test_draft_left(self) -> None:
        """A draft of a larger file that a killed process left does no harm."""
        self.ids.add_thd(["a"], HowUsed.PRUNED)
        with open(f"{self.path}.tmp", "wb") as file:
            file.write(bytes(1_000_000))
        ids = self.opened()
        ids.add_thd([f"job-{number}" for number in range(5_000)], HowUsed.PRUNED)
        self.assertEqual(ids.find_thd("a"), HowUsed.PRUNED)
        self.assertEqual(os.stat(self.path).st_size, 131_072)
