"""Workers that report a job after it was removed."""

from __future__ import annotations

from attrs import evolve

from scheduler.errors import JobNotEnded, Unreachable, Unsupported
from scheduler.model import JobSpec, JobState
from tests.unit.cluster.removals_case import ENDED, RUNNING, RemovalCase


class ReportTests(RemovalCase):
    """Reports of a worker about a job that was removed."""

    def setUp(self) -> None:
        super().setUp()
        self.removed()

    def check_told_again(self) -> None:
        """The worker is told to remove it, and the job is none."""
        self.assertEqual(self.take("remove_job").args, ("j-1",))
        self.assertEqual((self.known(), self.stored()), ([], None))

    def test_ended(self) -> None:
        """Its end is acknowledged, and the worker told once more; also after a restart."""
        for restart in (False, True):
            if restart:
                self.begin()
                self.online()
            for report in (ENDED, evolve(ENDED, spec=JobSpec(command="true"), created_at=900.0)):
                answer = self.beat(ended=(report,))
                self.assertEqual((answer.acknowledged, answer.describe), (("j-1",), ()))
                self.check_told_again()
            answer = self.beat(described=(evolve(ENDED, spec=JobSpec(command="true")),))
            self.assertEqual((answer.acknowledged, answer.describe), (("j-1",), ()))
            self.check_told_again()

    def test_not_told(self) -> None:
        """A worker that can't be told of a removal keeps the job as long as any other."""
        for error in (Unreachable("w-1"), Unsupported("w-1", "RemoveJob"), JobNotEnded("j-1", "running")):
            self.beat(ended=(ENDED,))
            self.take("remove_job").answer.errback(error)
        self.assertEqual(self.known(), [])

    def test_report_from_before(self) -> None:
        """A description that left the worker before the job ended makes no job."""
        answer = self.beat(running=("j-1",), described=(RUNNING,))
        self.assertEqual((answer.describe, self.known()), ((), []))
        answer = self.beat(running=())
        self.assertEqual((answer.describe, self.known(), self.held()), ((), [], []))

    def test_it_runs(self) -> None:
        """A job that really runs was lost, and is shown as an orphan: nothing runs that nobody can see."""
        self.assertEqual((self.beat(running=("j-1",)).describe, self.known()), (("j-1",), []))
        self.beat(running=("j-1",), described=(RUNNING,))
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.reason, job.orphan), (JobState.LOST, "forgotten", True))
        self.assertEqual(self.beat(ended=(ENDED,)).acknowledged, ("j-1",))
        job = self.cluster.job("j-1")
        self.assertEqual((job.state, job.reason, job.orphan), (JobState.LOST, "forgotten", False))
        self.online()
        self.removed()
