"""The rule about output, with doctored deliveries."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import NotFound, OffsetBeyondEnd, OutputGone, OutputPruned
from scheduler.messages import Chunk
from scheduler.model import JobState, Stream
from tests.simulation.follow import Follower
from tests.simulation.machine import LINE, output
from tests.unit.simulation.scene import Scene

WHOLE = output("j1", 10)


class OutputTests(SynchronousTestCase):
    """Delivered output is a prefix of the job's output."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.judge = self.scene.judge
        self.follower = Follower("j1", Stream.STDOUT, 0, 0)
        self.judge.follows(self.follower)
        self.scene.job()
        self.scene.loop.now = 5.0

    def test_bytes(self) -> None:
        """Bytes are delivered from the expected offset on, as the job has written them so far."""
        for expected, offset, data, broken in (
            (0, 0, WHOLE[: 5 * LINE], ""),
            (0, LINE, WHOLE[LINE : 2 * LINE], "P3 in order"),  # a gap
            (LINE, 0, WHOLE[:LINE], "P3 in order"),  # a repeat
            (0, 0, output("j2", 1), "P3 as written"),  # of another job
            (0, 0, WHOLE[: 6 * LINE], "P3 as written"),  # before they are written
        ):
            self.setUp()
            self.scene.runs()
            self.follower.offset = expected
            self.judge.delivered(self.follower, offset, data)
            self.assertEqual(self.scene.broken, broken, (expected, offset))

    def test_end(self) -> None:
        """The end comes once the job has ended and all is delivered. Only the output of a destroyed job is cut."""
        destroyed = {"ended": 5.0, "destroyed": "rebooted"}
        for run, lines, cut, broken in (
            ({}, 5, "", "P3 end"),
            ({"ended": 5.0}, 4, "", "P3 end"),
            ({"ended": 5.0}, 5, "", ""),
            ({"ended": 5.0}, 5, "the job is lost", "P3 end"),
            (destroyed, 5, "", "P3 end"),
            (destroyed, 5, "the job is lost", ""),
        ):
            self.setUp()
            self.scene.runs(**run)
            self.follower.offset = lines * LINE
            self.judge.output_over(self.follower, cut)
            self.assertEqual(self.scene.broken, broken, (run, lines, cut))

    def test_refused(self) -> None:
        """A job that ran has output, unless a client removed it."""
        self.scene.runs()
        self.judge.output_refused(self.follower, NotFound("output of job", "j1"))
        self.assertEqual(self.scene.broken, "P3 there")

    def test_evicted(self) -> None:
        """The worker may have removed the output."""
        self.scene.runs()
        self.scene.world.workers["w1"].folder.used["j1"] = "pruned"
        self.judge.output_refused(self.follower, OutputPruned("j1"))
        self.assertEqual(self.scene.broken, "")

    def test_said_to_be_evicted(self) -> None:
        """The worker still has the output."""
        self.scene.runs()
        self.judge.output_refused(self.follower, OutputPruned("j1"))
        self.assertEqual(self.scene.broken, "P3 there")

    def test_gone(self) -> None:
        """The worker is known, so only the output of a lost job may be gone."""
        for state, broken in ((JobState.RUNNING, "P3 there"), (JobState.LOST, "")):
            self.setUp()
            self.scene.job(state)
            self.judge.output_refused(self.follower, OutputGone("j1", "no record"))
            self.assertEqual(self.scene.broken, broken)

    def test_removed(self) -> None:
        """A client had the job removed."""
        self.scene.runs()
        self.judge.removal_asked("j1")
        self.judge.output_refused(self.follower, NotFound("job", "j1"))
        self.assertEqual(self.scene.broken, "")

    def test_beyond_the_end(self) -> None:
        """An offset that was reached can be read again."""
        self.scene.runs()
        self.follower.offset, self.follower.asked_at = 3 * LINE, 3.0
        self.judge.output_refused(self.follower, OffsetBeyondEnd(3 * LINE, 0))
        self.assertEqual(self.scene.broken, "P3 there")

    def test_never_an_end(self) -> None:
        """A client that reads on has the end when everything is over."""
        self.scene.runs(ended=5.0)
        self.scene.job(JobState.SUCCEEDED)
        self.scene.world.start_scheduler()
        self.judge.ended()
        self.assertEqual(self.scene.broken, "P3 end")


class ReadTests(SynchronousTestCase):
    """A client reads a part of the present output."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.scene.runs()
        self.scene.loop.now = 5.0

    def test_bytes(self) -> None:
        """The requested bytes are delivered as written, without an end, from an output that did not shrink."""
        asked = WHOLE[LINE : 3 * LINE]
        for chunk, broken in (
            (Chunk(asked, LINE, size=5 * LINE), ""),
            (Chunk(WHOLE[: 2 * LINE], LINE, size=5 * LINE), "P3 as written"),
            (Chunk(WHOLE[: 2 * LINE], 0, size=5 * LINE), "P3 in order"),
            (Chunk(asked, LINE, size=3 * LINE), "P3 as written"),
            (Chunk(asked, LINE, end=True, size=5 * LINE), "P3 end"),
        ):
            self.setUp()
            self.scene.reply("read", chunk, detail=(LINE, 2 * LINE, 4))
            self.assertEqual(self.scene.broken, broken, chunk)

    def test_beyond_the_end(self) -> None:
        """The offset existed before."""
        self.scene.reply("read", error=OffsetBeyondEnd(LINE, 0), detail=(LINE, 2 * LINE, 4))
        self.assertEqual(self.scene.broken, "P3 there")
