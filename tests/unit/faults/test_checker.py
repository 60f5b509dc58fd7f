"""The checker of the fault harness finds each violation in a doctored history, and nothing else."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.faults import job
from tests.faults.evidence import Run
from tests.unit.faults.story import BAD, CODE, ERRORS, SIZE, USAGE, StartedCase, StoryCase


class CleanTests(StartedCase):
    """A correct history has no violation."""

    def test_clean(self) -> None:
        """A correct history has no violation."""
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
        self.story.see("failed")
        self.story.see("running", began=1.2)
        self.story.see("failed", "last")
        self.violations()


class KeptTests(StartedCase):
    """P1: an acknowledged job is kept, and has an end."""

    def test_forgotten(self) -> None:
        """P1: an acknowledged job is not there at the end."""
        self.story.spool = None
        self.violations(("P1", (self.start,)))

    def test_forgotten_for_a_while(self) -> None:
        """P1: an acknowledged job is not found, even if it is back later."""
        missing = self.story.add("see", job="j", status=404, via="get")
        self.story.see("failed", "last")
        self.violations(("P1", (self.start, missing)))

    def test_set_back(self) -> None:
        """P1 and P4: after the database was set back and both sides agree, every answered job is known again."""
        first = self.story.see("failed")
        fault = self.story.add("fault", what="a backup is restored", set_back=True)
        self.story.see("running")
        self.story.add("see", job="j", status=404, via="get")
        self.story.add("agree", seconds=1.0, limit=5.0)
        self.story.see("failed", "last")
        self.violations()
        self.story.events[fault - 1] = evolve(self.story.events[fault - 1], set_back=None)
        self.violations(("P1", (self.start, fault + 2)), ("P4", (first, fault + 1)))

    def test_lost(self) -> None:
        """P1: an acknowledged job is lost though nothing destroyed it. After a fault that may have, this is no
        violation.
        """
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit={"state": "lost", "exit_code": None, "signal": None})
        last = self.story.see("lost", "last", reason="no record")
        self.violations(("P1", (self.start, last)))
        self.story.add("fault", what="kill -9 shim", jobs=("j",))
        self.violations()

    def test_never_run(self) -> None:
        """P1: an acknowledged job failed before it ran."""
        self.story.runs, self.story.spool = [], None
        last = self.story.see("failed", "last", exit_code=None, usage=None, reason="not started")
        self.violations(("P1", (self.start, last)))

    def test_told_that_it_never_ran(self) -> None:
        """An answer that shows that the job never ran promises nothing."""
        self.story.runs, self.story.spool = [], None
        never: dict[str, Any] = {"exit_code": None, "usage": None, "reason": "never started"}
        self.story.see("failed", began=self.story.events[self.start - 1].began, **never)
        self.story.see("failed", "last", **never)
        self.violations()

    def test_open_at_the_end(self) -> None:
        """P1: the outcome of an acknowledged job is not known at the end."""
        self.story.runs, self.story.spool = [], None
        last = self.story.see("unknown", "last")
        self.violations(("P1", (self.start, last)))


class OnceTests(StartedCase):
    """P2: a job, and a request, run once."""

    def test_ran_twice(self) -> None:
        """P2: a job has two processes by its own account."""
        self.story.runs.append(Run("t1", "j", 43, CODE))
        self.story.see("failed", "last")
        self.violations(("P2", ()))

    def test_request_ran_twice(self) -> None:
        """P2: one request made two jobs, whether the second was answered or only seen to run."""
        self.story.see("failed", "last")
        self.story.runs.append(Run("t1", "k", 43, CODE))
        self.violations(("P2", (self.start,)))
        self.story.runs.pop()
        second = self.story.start(job="k", key="a")
        self.story.add("last", job="k", status=200, seen=self.story.events[1].seen)
        self.assertIn(("P2", "j", (self.start, second)), self.story.found())


class OutputTests(StartedCase):
    """P3: output is that of the job."""

    def test_read(self) -> None:
        """P3: a reader misses bytes, gets some again, gets others, or is told too early that this is all."""
        for begins, offset, size, more in (
            (True, 101, 50, {}),
            (True, 64, 50, {}),
            (False, 64, 64, {"data": job.line(BAD, 2)}),
            (False, 0, 100, {"end": True}),
        ):
            self.setUp()
            if begins:
                self.story.read(0, 100)
            read = self.story.read(offset, size, **more)
            self.story.see("failed", "last")
            self.violations(("P3", (read,)))

    def test_cut_and_ended(self) -> None:
        """P3: a raw body ended properly though the output was cut. An event stream ends with a job that says so."""
        read = self.story.read(0, SIZE, end=True)
        self.story.see("failed", "last", output_error="stdout: No space left on device")
        self.violations()
        self.story.events[read - 1] = evolve(self.story.events[read - 1], via="raw")
        self.violations(("P3", (read,)))

    def test_ended_before_what_is_told(self) -> None:
        """P3: a body ended properly before the shown length of the output."""
        self.story.runs, self.story.spool = [Run("t1", "j", 42)], None
        read = self.story.read(0, 100, end=True)
        self.story.see("succeeded", "last", exit_code=CODE, stdout_bytes=SIZE)
        self.assertIn(("P3", "j", (read,)), self.story.found())

    def test_spool_is_short(self) -> None:
        """P3: the spool lacks a part of the output, and of the length that is shown."""
        last = self.story.see("failed", "last")
        self.story.spool = evolve(self.story.spool, size=100, good=100)
        self.violations(("P3", ()), ("P3", (last,)))

    def test_spool_is_wrong(self) -> None:
        """P3: the spool has output that the job did not print."""
        self.story.see("failed", "last")
        self.story.spool = evolve(self.story.spool, good=100)
        self.violations(("P3", ()))

    def test_gave_up(self) -> None:
        """P3: a reader can't reach the end."""
        self.story.read(0, 100)
        self.story.see("failed", "last")
        late = self.story.read(100, 0)
        self.story.events[-1] = evolve(self.story.events[-1], error="no end")
        self.violations(("P3", (late,)))


class TruthTests(StartedCase):
    """P4: what is shown of a job is true."""

    def test_invented_code(self) -> None:
        """P4: an exit code is shown that the job did not record."""
        self.story.runs = [Run("t1", "j", 42)]
        last = self.story.see("failed", "last")
        self.violations(("P4", (last,)))

    def test_wrong_code(self) -> None:
        """P4: another exit code than the job's is shown."""
        self.story.spool = evolve(self.story.spool, exit=self.story.spool.exit | {"exit_code": CODE + 1})
        last = self.story.see("failed", "last", exit_code=CODE + 1)
        self.violations(("P4", (last,)))

    def test_success_without_a_code(self) -> None:
        """P4: a job succeeded, and no exit code is shown."""
        self.story.spool = None
        last = self.story.see("succeeded", "last", stdout_bytes=SIZE, stderr_bytes=ERRORS)
        self.violations(("P4", (last,)))

    def test_no_reason(self) -> None:
        """P4: a job did not succeed, and no reason is shown."""
        last = self.story.see("failed", "last", reason=None)
        self.violations(("P4", (last,)))

    def test_nobody_stopped_it(self) -> None:
        """P4: a job is stopped without a request. With one this is no violation."""
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit={"state": "stopped", "signal": "SIGTERM", "usage": USAGE})
        last = self.story.see("stopped", "last", signal="SIGTERM", usage=USAGE, reason="signal: terminated")
        self.violations(("P4", (last,)))
        self.story.add("stop", job="j", status=200)
        self.violations()

    def test_nobody_killed_it(self) -> None:
        """P4: a signal ended a job, and no fault sent it."""
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit={"state": "failed", "signal": "SIGKILL", "usage": USAGE})
        last = self.story.see("failed", "last", exit_code=None, signal="SIGKILL", reason="signal: killed")
        self.violations(("P4", (last,)))
        self.story.add("fault", what="kill -9 job", jobs=("j",))
        self.violations()

    def test_end_changes(self) -> None:
        """P4: a job has one end first, and then another."""
        first = self.story.see("failed")
        self.story.add("fault", what="kill -9 shim", jobs=("j",))
        self.story.spool = evolve(self.story.spool, exit={"state": "lost", "exit_code": None, "signal": None})
        last = self.story.see("lost", "last", reason="no record")
        self.violations(("P4", (first, last)))

    def test_end_is_taken_back(self) -> None:
        """P4: a job that had ended runs again."""
        first = self.story.see("failed")
        again = self.story.see("unknown")
        self.story.see("failed", "last")
        self.violations(("P4", (first, again)))


class AgreementTests(StartedCase):
    """P5: both sides agree."""

    def test_no_agreement(self) -> None:
        """P5: the sides do not agree in time, or never."""
        self.story.see("failed", "last")
        late = self.story.add("agree", seconds=6.0, limit=5.0)
        never = self.story.add("agree", limit=5.0, differences=("w1 is unreachable",))
        self.assertEqual(self.story.found(), [("P5", None, (late,)), ("P5", None, (never,))])

    def test_worker_knows_better(self) -> None:
        """P5: at the end a worker reports another state of a job, or an unknown job."""
        last = self.story.see("running", "last")
        self.story.runs = [Run("t1", "j", 42)]
        self.violations(("P5", (last,)))
        self.story.spool = evolve(self.story.spool, job="k")
        self.assertEqual(self.story.found(), [("P5", "k", ())])


class StartTests(StoryCase):
    """Starts that are not answered, or made with options."""

    def test_known_to_nobody(self) -> None:
        """P1: a job that no side could know of after the database was set back may be forgotten, and made anew."""
        self.story.start(job="k", key="a")
        self.story.add("fault", what="a backup is restored", set_back=True, unknown=("k",))
        self.story.start(key="a")
        self.story.see("failed", "last")
        self.violations()

    def test_adopted_attempt(self) -> None:
        """A retry that was adopted is not recognised as one any more. More attempts than allowed are still found."""
        first = self.story.start(attempts=1)
        self.story.see("failed", "last")
        self.story.runs.append(Run("t1", "k", 43, CODE))
        self.story.add("fault", what="the database is restored", set_back=True, adopted=["k", "l"])
        self.assertNotIn(("P2", "j", (first,)), self.story.found())
        self.story.runs.append(Run("t1", "l", 44, CODE))
        self.assertIn(("P2", "j", (first,)), self.story.found())

    def test_told_less_than_written(self) -> None:
        """P3: the job is shown with less output than it wrote, unless its filter may have been stopped."""
        self.story.start(filtered=True)
        last = self.story.see("failed", "last", stdout_bytes=100)
        self.story.spool = None
        self.violations(("P3", (last,)))
        self.story.add("stop", job="j", status=200)
        self.violations()

    def test_background(self) -> None:
        """P4: a background process was ended without a mention. After a stop this is no violation."""
        self.story.start(background=1)
        last = self.story.see("failed", "last")
        self.violations(("P4", (last,)))
        self.story.add("stop", job="j", status=200)
        self.violations()

    def test_background_of_an_unanswered_start(self) -> None:
        """A job whose start was never answered reports its background processes, too."""
        self.story.start(None, background=1)
        last = self.story.see("failed", "last", background_ended=1)
        self.violations()
        self.story.events[last - 1] = evolve(
            self.story.events[last - 1], seen={**self.story.events[-1].seen, "background_ended": 0}
        )
        self.violations(("P4", (last,)))

    def test_failed_though_it_ran(self) -> None:
        """P4: a job failed because its start was given up, but it ran."""
        self.story.start(504)
        self.story.spool = None
        last = self.story.see("failed", "last", exit_code=None, usage=None, reason="not started")
        self.violations(("P4", (last,)))

    def test_refused_and_run(self) -> None:
        """P4: a request was answered with "there is no job", but there is one. If it was not answered, both are
        allowed.
        """
        start = self.story.start(503)
        self.story.see("failed", "last")
        self.violations(("P4", (start,)))
        self.story.start(None)
        self.violations()

    def test_output_refused_and_run(self) -> None:
        """An error answer to a request for output that names the job says that the job exists."""
        self.story.start(424, job="j", problem="output-unavailable")
        self.story.see("failed", "last")
        self.violations()


class JobTests(SynchronousTestCase):
    """The output and exit code of the load's job."""

    def test_output(self) -> None:
        """Its lines have one length, all differ, and they depend on the seed."""
        lines = job.output(1, 50)
        self.assertEqual(len({lines[at : at + job.LINE] for at in range(0, len(lines), job.LINE)}), 50)
        self.assertEqual(lines.count(b"\n"), 50)
        self.assertNotEqual(lines, job.output(2, 50))
