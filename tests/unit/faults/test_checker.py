"""The checker of the fault harness, on histories that were doctored: it must find each violation, and nothing else."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.faults import job
from tests.faults.evidence import Run
from tests.unit.faults.story import BAD, CODE, ERRORS, SIZE, USAGE, Story


class CheckerTests(SynchronousTestCase):
    """One doctored history each."""

    def setUp(self) -> None:
        self.story = Story()

    def violations(self, *expected: tuple[str, tuple[int, ...]]) -> None:
        self.assertEqual(self.story.found(), [(promise, "j", lines) for promise, lines in expected])

    def test_clean(self) -> None:
        """A history in which all is well has no violation."""
        self.story.start()
        self.story.see("running")
        self.story.read(0, 100)
        self.story.add("fault", what="kill -9 scheduler")
        self.story.read(100, SIZE - 100, end=True)
        self.story.see("failed")
        self.story.add("agree", seconds=1.0, limit=5.0)
        self.story.see("failed", "last")
        self.violations()

    def test_overlapping_requests(self) -> None:
        """A request that began before another saw the end may still see the job run."""
        self.story.start()
        self.story.see("failed")
        self.story.see("running", began=1.2)
        self.story.see("failed", "last")
        self.violations()

    def test_forgotten(self) -> None:
        """P1: an acknowledged job is not there at the end."""
        start = self.story.start()
        self.story.spool = None
        self.violations(("P1", (start,)))

    def test_forgotten_for_a_while(self) -> None:
        """P1: an acknowledged job is not found, even if it is back later."""
        start = self.story.start()
        missing = self.story.add("see", job="j", status=404, via="get")
        self.story.see("failed", "last")
        self.violations(("P1", (start, missing)))

    def test_set_back(self) -> None:
        """P1 and P4: what was answered is known again when both sides agree after the database was set back."""
        start = self.story.start()
        first = self.story.see("failed")
        fault = self.story.add("fault", what="a backup is restored", set_back=True)
        self.story.see("running")
        self.story.add("see", job="j", status=404, via="get")
        self.story.add("agree", seconds=1.0, limit=5.0)
        last = self.story.see("failed", "last")
        self.violations()
        self.story.events[fault - 1] = evolve(self.story.events[fault - 1], set_back=None)
        self.violations(("P1", (start, fault + 2)), ("P4", (first, fault + 1)))
        self.assertEqual(last, len(self.story.events))

    def test_known_to_nobody(self) -> None:
        """P1: a job may be forgotten, and made anew, of which nobody could know when the database was set back."""
        self.story.start(job="k", key="a")
        self.story.add("fault", what="a backup is restored", set_back=True, unknown=("k",))
        self.story.start(key="a")
        self.story.see("failed", "last")
        self.violations()

    def test_lost(self) -> None:
        """P1: an acknowledged job is lost though nothing destroyed it; after a fault that may have, it may be."""
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit={"state": "lost", "exit_code": None, "signal": None})
        start = self.story.start()
        last = self.story.see("lost", "last", reason="no record")
        self.violations(("P1", (start, last)))
        self.story.add("fault", what="kill -9 shim", jobs=("j",))
        self.violations()

    def test_never_run(self) -> None:
        """P1: an acknowledged job failed before it ran."""
        self.story.runs, self.story.spool = [], None
        start = self.story.start()
        last = self.story.see("failed", "last", exit_code=None, usage=None, reason="not started")
        self.violations(("P1", (start, last)))

    def test_open_at_the_end(self) -> None:
        """P1: nobody knows at the end what became of an acknowledged job."""
        self.story.runs, self.story.spool = [], None
        start = self.story.start()
        last = self.story.see("unknown", "last")
        self.violations(("P1", (start, last)))

    def test_ran_twice(self) -> None:
        """P2: a job has two processes by its own account."""
        self.story.start()
        self.story.runs.append(Run("t1", "j", 43, CODE))
        self.story.see("failed", "last")
        self.violations(("P2", ()))

    def test_request_ran_twice(self) -> None:
        """P2: one request made two jobs, be the second one answered or only seen to run."""
        first = self.story.start()
        self.story.see("failed", "last")
        self.story.runs.append(Run("t1", "k", 43, CODE))
        self.violations(("P2", (first,)))
        self.story.runs.pop()
        second = self.story.start(job="k", key="a")
        self.story.add("last", job="k", status=200, seen=self.story.events[1].seen)
        self.assertIn(("P2", "j", (first, second)), self.story.found())

    def test_adopted_attempt(self) -> None:
        """A further attempt that was adopted is not known to be one any more; more of them than may be are told."""
        first = self.story.start(attempts=1)
        self.story.see("failed", "last")
        self.story.runs.append(Run("t1", "k", 43, CODE))
        self.story.add("fault", what="the database is restored", set_back=True, adopted=["k", "l"])
        found = self.story.found()
        self.assertNotIn(("P2", "j", (first,)), found)
        self.story.runs.append(Run("t1", "l", 44, CODE))
        self.assertIn(("P2", "j", (first,)), self.story.found())

    def test_gap(self) -> None:
        """P3: a reader misses bytes."""
        self.story.start()
        self.story.read(0, 100)
        read = self.story.read(101, 50)
        self.story.see("failed", "last")
        self.violations(("P3", (read,)))

    def test_repeat(self) -> None:
        """P3: a reader gets bytes again."""
        self.story.start()
        self.story.read(0, 100)
        read = self.story.read(64, 50)
        self.story.see("failed", "last")
        self.violations(("P3", (read,)))

    def test_wrong_bytes(self) -> None:
        """P3: a reader gets bytes that the job did not write there."""
        self.story.start()
        read = self.story.read(64, 64, data=job.line(BAD, 2))
        self.story.see("failed", "last")
        self.violations(("P3", (read,)))

    def test_early_end(self) -> None:
        """P3: a reader is told that this is all, and it is not."""
        self.story.start()
        read = self.story.read(0, 100, end=True)
        self.story.see("failed", "last")
        self.violations(("P3", (read,)))

    def test_cut_and_ended(self) -> None:
        """P3: a raw body ended properly though the output was cut; events end with a job that says so."""
        self.story.start()
        read = self.story.read(0, SIZE, end=True)
        self.story.see("failed", "last", output_error="stdout: No space left on device")
        self.violations()
        self.story.events[read - 1] = evolve(self.story.events[read - 1], via="raw")
        self.violations(("P3", (read,)))

    def test_told_less_than_written(self) -> None:
        """P3: the job is said to have written less than it says it did; its filter may have been stopped."""
        self.story.start(filtered=True)
        last = self.story.see("failed", "last", stdout_bytes=100)
        self.story.spool = None
        self.violations(("P3", (last,)))
        self.story.add("stop", job="j", status=200)
        self.violations()

    def test_ended_before_what_is_told(self) -> None:
        """P3: a body ended properly before the length that the job is said to have."""
        self.story.runs, self.story.spool = [Run("t1", "j", 42)], None
        self.story.start()
        read = self.story.read(0, 100, end=True)
        self.story.see("succeeded", "last", exit_code=CODE, stdout_bytes=SIZE)
        self.assertIn(("P3", "j", (read,)), self.story.found())

    def test_background(self) -> None:
        """P4: a process that the main process left behind was ended, and nobody says so; a stop may have ended it."""
        self.story.start(background=1)
        last = self.story.see("failed", "last")
        self.violations(("P4", (last,)))
        self.story.add("stop", job="j", status=200)
        self.violations()

    def test_background_of_an_unanswered_start(self) -> None:
        """What a job leaves behind is known of one, too, whose start was never answered: it says whose it is."""
        self.story.start(None, background=1)
        last = self.story.see("failed", "last", background_ended=1)
        self.violations()
        self.story.events[last - 1] = evolve(
            self.story.events[last - 1], seen={**self.story.events[-1].seen, "background_ended": 0}
        )
        self.violations(("P4", (last,)))

    def test_spool_is_short(self) -> None:
        """P3: the spool does not have all that the job printed, nor what it is said to have written."""
        self.story.start()
        last = self.story.see("failed", "last")
        self.story.spool = evolve(self.story.spool, size=100, good=100)
        self.violations(("P3", ()), ("P3", (last,)))

    def test_spool_is_wrong(self) -> None:
        """P3: the spool has what the job did not print."""
        self.story.start()
        self.story.see("failed", "last")
        self.story.spool = evolve(self.story.spool, good=100)
        self.violations(("P3", ()))

    def test_invented_code(self) -> None:
        """P4: an exit code that the job does not know of."""
        self.story.start()
        self.story.runs = [Run("t1", "j", 42)]
        last = self.story.see("failed", "last")
        self.violations(("P4", (last,)))

    def test_wrong_code(self) -> None:
        """P4: another exit code than the job's."""
        self.story.start()
        self.story.spool = evolve(self.story.spool, exit=self.story.spool.exit | {"exit_code": CODE + 1})
        last = self.story.see("failed", "last", exit_code=CODE + 1)
        self.violations(("P4", (last,)))

    def test_success_without_a_code(self) -> None:
        """P4: a job that succeeded, and nobody says with which code."""
        self.story.start()
        self.story.spool = None
        last = self.story.see("succeeded", "last", stdout_bytes=SIZE, stderr_bytes=ERRORS)
        self.violations(("P4", (last,)))

    def test_failed_though_it_ran(self) -> None:
        """P4: a start that was given up, of a job that ran."""
        self.story.start(504)
        self.story.spool = None
        last = self.story.see("failed", "last", exit_code=None, usage=None, reason="not started")
        self.violations(("P4", (last,)))

    def test_no_reason(self) -> None:
        """P4: a job did not succeed, and nobody says why."""
        self.story.start()
        last = self.story.see("failed", "last", reason=None)
        self.violations(("P4", (last,)))

    def test_nobody_stopped_it(self) -> None:
        """P4: a job is stopped and nobody asked for it; it may be when somebody did."""
        self.story.start()
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit={"state": "stopped", "signal": "SIGTERM", "usage": USAGE})
        last = self.story.see("stopped", "last", signal="SIGTERM", usage=USAGE, reason="signal: terminated")
        self.violations(("P4", (last,)))
        self.story.add("stop", job="j", status=200)
        self.violations()

    def test_nobody_killed_it(self) -> None:
        """P4: a job was ended by a signal that no fault sent."""
        self.story.start()
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit={"state": "failed", "signal": "SIGKILL", "usage": USAGE})
        last = self.story.see("failed", "last", exit_code=None, signal="SIGKILL", reason="signal: killed")
        self.violations(("P4", (last,)))
        self.story.add("fault", what="kill -9 job", jobs=("j",))
        self.violations()

    def test_gave_up(self) -> None:
        """P3: a reader can't come to the end."""
        self.story.start()
        self.story.read(0, 100)
        self.story.see("failed", "last")
        late = self.story.read(100, 0)
        self.story.events[-1] = evolve(self.story.events[-1], error="no end")
        self.violations(("P3", (late,)))

    def test_end_changes(self) -> None:
        """P4: one end first, and then another."""
        self.story.start()
        first = self.story.see("failed")
        self.story.add("fault", what="kill -9 shim", jobs=("j",))
        self.story.spool = evolve(self.story.spool, exit={"state": "lost", "exit_code": None, "signal": None})
        last = self.story.see("lost", "last", reason="no record")
        self.violations(("P4", (first, last)))

    def test_end_is_taken_back(self) -> None:
        """P4: a job that had ended runs again."""
        self.story.start()
        first = self.story.see("failed")
        again = self.story.see("unknown")
        self.story.see("failed", "last")
        self.violations(("P4", (first, again)))

    def test_refused_and_run(self) -> None:
        """P4: a request was answered with "there is no job", and there is one; what was not answered may be either."""
        start = self.story.start(503)
        self.story.see("failed", "last")
        self.violations(("P4", (start,)))
        self.story.start(None)
        self.violations()

    def test_output_refused_and_run(self) -> None:
        """A request for a job's output was answered with an error that names the job: that says that it runs."""
        self.story.start(424, job="j", problem="output-unavailable")
        self.story.see("failed", "last")
        self.violations()

    def test_no_agreement(self) -> None:
        """P5: the sides do not agree in time, or never."""
        self.story.start()
        self.story.see("failed", "last")
        late = self.story.add("agree", seconds=6.0, limit=5.0)
        never = self.story.add("agree", limit=5.0, differences=("w1 is unreachable",))
        self.assertEqual(self.story.found(), [("P5", None, (late,)), ("P5", None, (never,))])

    def test_worker_knows_better(self) -> None:
        """P5: when everything is over a worker says something else of a job, or has one nobody knows."""
        start = self.story.start()
        last = self.story.see("running", "last")
        self.story.runs = [Run("t1", "j", 42)]
        self.violations(("P5", (last,)))
        self.story.spool = evolve(self.story.spool, job="k")
        self.assertEqual(self.story.found(), [("P5", "k", ())])
        self.assertEqual(start, 1)


class JobTests(SynchronousTestCase):
    """What the load's job prints and exits with."""

    def test_output(self) -> None:
        """Output has lines of one length, no two alike, and depends on the seed."""
        lines = job.output(1, 50)
        self.assertEqual(len({lines[at : at + job.LINE] for at in range(0, len(lines), job.LINE)}), 50)
        self.assertEqual(lines.count(b"\n"), 50)
        self.assertNotEqual(lines, job.output(2, 50))
