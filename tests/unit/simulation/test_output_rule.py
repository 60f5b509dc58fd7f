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

    def test_a_prefix(self) -> None:
        """The lines written so far are delivered."""
        self.scene.runs()
        self.judge.delivered(self.follower, 0, WHOLE[: 5 * LINE])
        self.assertEqual(self.scene.broken, "")

    def test_a_gap(self) -> None:
        """Bytes after the expected offset are a gap."""
        self.scene.runs()
        self.judge.delivered(self.follower, LINE, WHOLE[LINE : 2 * LINE])
        self.assertEqual(self.scene.broken, "P3 in order")

    def test_a_repeat(self) -> None:
        """Bytes before the expected offset are a repeat."""
        self.scene.runs()
        self.follower.offset = LINE
        self.judge.delivered(self.follower, 0, WHOLE[:LINE])
        self.assertEqual(self.scene.broken, "P3 in order")

    def test_other_bytes(self) -> None:
        """The job wrote other bytes."""
        self.scene.runs()
        self.judge.delivered(self.follower, 0, output("j2", 1))
        self.assertEqual(self.scene.broken, "P3 as written")

    def test_before_they_are_written(self) -> None:
        """Bytes that the job has not written can't be read."""
        self.scene.runs()
        self.judge.delivered(self.follower, 0, WHOLE[: 6 * LINE])
        self.assertEqual(self.scene.broken, "P3 as written")

    def test_an_end_too_early(self) -> None:
        """The output of a running job has no end."""
        self.scene.runs()
        self.follower.offset = 5 * LINE
        self.judge.output_over(self.follower, "")
        self.assertEqual(self.scene.broken, "P3 end")

    def test_an_end_without_all(self) -> None:
        """The end arrives after all output was delivered."""
        self.scene.runs(ended=5.0)
        self.follower.offset = 4 * LINE
        self.judge.output_over(self.follower, "")
        self.assertEqual(self.scene.broken, "P3 end")

    def test_the_end(self) -> None:
        """All output until the end of the job is delivered, and then the end."""
        self.scene.runs(ended=5.0)
        self.follower.offset = 5 * LINE
        self.judge.output_over(self.follower, "")
        self.assertEqual(self.scene.broken, "")

    def test_a_cut_of_nothing(self) -> None:
        """The output of a job that ended by itself is not cut."""
        self.scene.runs(ended=5.0)
        self.follower.offset = 5 * LINE
        self.judge.output_over(self.follower, "the job is lost")
        self.assertEqual(self.scene.broken, "P3 end")

    def test_a_proper_end_of_a_destroyed_job(self) -> None:
        """The output of a destroyed job may be incomplete, so its end must say so."""
        self.scene.runs(ended=5.0, destroyed="rebooted")
        self.follower.offset = 5 * LINE
        self.judge.output_over(self.follower, "")
        self.assertEqual(self.scene.broken, "P3 end")

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

    def read(self, chunk: Chunk, before: int = 4) -> str:
        """The rule that this answer to 2 lines from the second on breaks; ``before``: lines that existed then."""
        self.scene.reply("read", chunk, detail=(LINE, 2 * LINE, before))
        return self.scene.broken

    def test_as_written(self) -> None:
        """The requested bytes are delivered."""
        self.assertEqual(self.read(Chunk(WHOLE[LINE : 3 * LINE], LINE, size=5 * LINE)), "")

    def test_others(self) -> None:
        """Other bytes are delivered."""
        self.assertEqual(self.read(Chunk(WHOLE[: 2 * LINE], LINE, size=5 * LINE)), "P3 as written")

    def test_from_elsewhere(self) -> None:
        """Bytes of another offset are delivered."""
        self.assertEqual(self.read(Chunk(WHOLE[: 2 * LINE], 0, size=5 * LINE)), "P3 in order")

    def test_shrunk(self) -> None:
        """More bytes existed before."""
        self.assertEqual(self.read(Chunk(WHOLE[LINE : 3 * LINE], LINE, size=3 * LINE)), "P3 as written")

    def test_an_end(self) -> None:
        """The job runs, so its output has no end."""
        self.assertEqual(self.read(Chunk(WHOLE[LINE : 3 * LINE], LINE, end=True, size=5 * LINE)), "P3 end")

    def test_beyond_the_end(self) -> None:
        """The offset existed before."""
        self.scene.reply("read", error=OffsetBeyondEnd(LINE, 0), detail=(LINE, 2 * LINE, 4))
        self.assertEqual(self.scene.broken, "P3 there")
