"""The folder of a job: what its records hold."""

import os

from twisted.trial.unittest import SynchronousTestCase

from scheduler.worker.spool import RECORD_ROOM, Spool, exit_record


class ExitRecordTests(SynchronousTestCase):
    """How a job ended, on a disk that may be full."""

    def setUp(self) -> None:
        self.spool = Spool(self.mktemp())
        os.mkdir(self.spool.folder)

    def test_room(self) -> None:
        """The longest record there can be fits in the room that was taken for it."""
        self.spool.reserve()
        text = "\N{GRINNING FACE}" * 100_000
        self.spool.write_exit(
            exit_record(
                "failed",
                text,
                1e10,
                (2**63, 2**63),
                255,
                "SIGRTMIN+1",
                1e10,
                "killed",
                tuple(range(2**22, 2**22 + 9999)),
            )
        )
        self.assertLessEqual(os.stat(self.spool.exit).st_size, RECORD_ROOM)

    def test_unknown_format(self) -> None:
        """A record of another format is refused, not guessed at."""
        with open(self.spool.exit, "w", encoding="utf-8") as file:
            file.write('{"format": 3, "state": "succeeded"}')
        self.assertRaises(ValueError, self.spool.read_exit)


class StartRecordTests(SynchronousTestCase):
    """That a job was started; nobody waits until it is on the disk."""

    def setUp(self) -> None:
        self.spool = Spool(self.mktemp())
        os.mkdir(self.spool.folder)

    def test_whole(self) -> None:
        """It is read as it was written."""
        self.assertIsNone(self.spool.read_start())
        self.spool.write_start({"pid": 7})
        self.assertEqual(self.spool.read_start()["pid"], 7)

    def test_power_cut(self) -> None:
        """One that a power cut left empty, or as zeros, is none."""
        for left in (b"", bytes(100)):
            with open(self.spool.start, "wb") as file:
                file.write(left)
            self.assertIsNone(self.spool.read_start())
