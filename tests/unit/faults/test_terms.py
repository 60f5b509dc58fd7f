"""The checker finds violations of the terms of jobs: stdin, timeouts, limits, attempts, stops."""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import evolve

from tests.faults import job
from tests.faults.evidence import Run
from tests.unit.faults.story import BAD, CODE, ERRORS, SIZE, USAGE, StoryCase


class TermsTestCase(StoryCase):
    def ended(self, state: str, op: str = "last", **more: Any) -> int:
        """``j`` was ended by SIGTERM, and is shown so."""
        self.story.runs = [evolve(self.story.runs[0], code=None, ended=None)]
        self.story.spool = evolve(
            self.story.spool, exit={"state": state, "exit_code": None, "signal": "SIGTERM", "usage": USAGE}
        )
        how = {"exit_code": None, "signal": "SIGTERM", "reason": "signal: terminated", "usage": USAGE}
        return self.story.see(state, op, **how, stdout_bytes=SIZE, stderr_bytes=ERRORS, **more)


class StdinTests(TermsTestCase):
    """P1: a job gets the stdin that was sent with it."""

    def test_stdin(self) -> None:
        """The job read all of it, or ended before. Anything else is a violation."""
        start = self.story.start(stdin=1000)
        self.story.see("failed", "last")
        right, short = (hashlib.sha256(job.stdin(BAD, size)).hexdigest() for size in (1000, 999))
        for digest in (right, None):
            self.story.runs = [Run("t1", "j", 42, CODE, stdin=digest)]
            self.violations()
        self.story.runs = [Run("t1", "j", 42, CODE, stdin=short)]
        self.violations(("P1", (start,)))


class TimeoutTests(TermsTestCase):
    """P4: a job times out at its ``timeout``, and no other job does."""

    def test_none(self) -> None:
        """A job without a timeout timed out."""
        start = self.story.start()
        last = self.ended("timed_out")
        self.violations(("P4", (start, last)))

    def test_in_time(self) -> None:
        """A job may time out after its time, but not before."""
        start = self.story.start(timeout=1.5)
        self.story.runs = [Run("t1", "j", 42, began=0.4)]
        last = self.ended("timed_out")
        self.violations()
        self.story.runs = [Run("t1", "j", 42, began=1.0)]
        self.violations(("P4", (start, last)))

    def test_late_to_begin(self) -> None:
        """A job that its shim gave all of its time is not early, even if its interpreter took long to start."""
        start = self.story.start(timeout=1.5)
        self.story.runs = [Run("t1", "j", 42, began=1.0)]
        last = self.ended("timed_out")
        record = {**(self.story.spool.exit or {}), "started_at": 100.0, "finished_at": 101.6}
        self.story.spool = evolve(self.story.spool, exit=record)
        self.violations()
        self.story.spool = evolve(self.story.spool, exit=record | {"finished_at": 101.0})
        self.violations(("P4", (start, last)))

    def test_overdue(self) -> None:
        """A job ended by itself long after its timeout."""
        start = self.story.start(timeout=1.0)
        self.story.see("failed", "last")
        self.story.runs = [Run("t1", "j", 42, CODE, began=1.0, ended=6.5)]
        self.violations()
        self.story.runs = [Run("t1", "j", 42, CODE, began=1.0, ended=8.0)]
        self.violations(("P4", (start,)))


class LimitTests(TermsTestCase):
    """P3: output ends at the ``output_limit``, and only there."""

    def reached(self, limit: int, **more: Any) -> int:
        error = f"output limit of {limit} bytes reached"
        return self.ended("failed", output_error=error, **more)

    def test_reached(self) -> None:
        """A job may be ended at its limit."""
        self.story.start(output_limit=SIZE + ERRORS)
        self.reached(SIZE + ERRORS)
        self.violations()

    def test_exceeded(self) -> None:
        """There is more output than the limit."""
        start = self.story.start(output_limit=SIZE)
        self.story.see("failed", "last")
        self.violations(("P3", (start,)))

    def test_too_early(self) -> None:
        """The limit is reported as reached, but is not."""
        start = self.story.start(output_limit=SIZE + ERRORS + 1)
        last = self.reached(SIZE + ERRORS + 1)
        self.violations(("P3", (start, last)))

    def test_none(self) -> None:
        """A job without a limit is reported to have reached it."""
        self.assertIn(("P3", "j", (self.story.start(), self.reached(SIZE))), self.story.found())


class AttemptTests(TermsTestCase):
    """P1 and P2: a failed job is retried as often as requested, and no more."""

    def setUp(self) -> None:
        super().setUp()
        self.start = self.story.start(attempts=1)
        self.story.runs = [Run("t1", "j", 42, CODE, began=0.2, ended=0.6)]

    def again(self, name: str, before: str, began: float, **more: Any) -> int:
        """Add another attempt, which failed as well."""
        self.story.runs.append(Run("t1", name, 43, CODE, began=began, ended=began + 0.1))
        seen = self.story.seen("failed", retry_of=before, **more)
        return self.story.add("last", job=name, status=200, seen=seen)

    def test_right(self) -> None:
        """All requested attempts failed, one after the other."""
        self.story.see("failed", "last", retried_by="k")
        self.again("k", "j", 1.0)
        self.assertEqual(self.story.found(), [])

    def test_missing(self) -> None:
        """A failed job was not retried, though it was not stopped."""
        last = self.story.see("failed", "last")
        self.violations(("P1", (self.start, last)))
        self.story.add("stop", job="j", status=None)
        self.violations()

    def test_forgotten(self) -> None:
        """If only its worker knows a job after a database was set back, its ``retry`` is not known."""
        last = self.story.see("failed", "last")
        self.story.add("fault", what="restored", set_back=True, adopted=("other",))
        self.violations(("P1", (self.start, last)))
        self.story.add("fault", what="restored", set_back=True, adopted=("j",))
        self.violations()

    def test_too_many(self) -> None:
        """There are more attempts than requested."""
        self.story.see("failed", "last", retried_by="k")
        self.again("k", "j", 1.0, retried_by="l")
        self.again("l", "k", 2.0)
        self.assertEqual(self.story.found(), [("P2", "l", (self.start,))])

    def test_after_success(self) -> None:
        """A job that did not fail was retried."""
        self.story.spool = None
        seen = self.story.see("stopped", "last", exit_code=CODE, usage=USAGE, stdout_bytes=SIZE, stderr_bytes=ERRORS)
        self.story.events[-1] = evolve(
            self.story.events[-1], seen={**self.story.events[-1].seen, "reason": "stopped", "retried_by": "k"}
        )
        self.story.add("stop", job="j", status=None)
        self.again("k", "j", 1.0)
        self.assertEqual(self.story.found(), [("P2", "k", (seen,))])

    def test_at_once(self) -> None:
        """Two attempts run at the same time."""
        self.story.see("failed", "last", retried_by="k")
        self.again("k", "j", 0.5)
        self.assertEqual(self.story.found(), [("P2", "k", ())])


class StopTests(TermsTestCase):
    """P5: a promised stop is carried out."""

    def test_never(self) -> None:
        """A job runs at the end of the run though its stop was answered. One that ends in time is no violation."""
        self.story.start()
        stop = self.story.add("stop", job="j", status=202)
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = evolve(self.story.spool, exit=None)
        last = self.story.see("running", "last")
        self.violations(("P5", (stop,)))
        del self.story.events[last - 1]
        self.ended("stopped")
        self.violations()

    def test_to_its_own_end(self) -> None:
        """A job ended by itself long after its stop, without a fault that could delay the stop."""
        self.story.start()
        stop = self.story.add("stop", job="j", status=202)
        self.story.see("failed", "last")
        self.story.runs = [Run("t1", "j", 42, CODE, ended=8.0)]
        self.violations()
        self.story.runs = [Run("t1", "j", 42, CODE, ended=10.0)]
        self.violations(("P5", (stop,)))
        self.story.add("fault", what="cut off w1")
        self.violations()

    def test_not_carried_out(self) -> None:
        """A stop was answered with 200, but the job runs after that."""
        self.story.start()
        stop = self.story.add("stop", job="j", status=200)
        again = self.story.see("running")
        self.ended("stopped")
        self.violations(("P5", (stop, again)))
        fault = self.story.add("fault", what="a backup is restored", began=1.9, set_back=True)
        self.story.events[fault - 1] = evolve(self.story.events[fault - 1], t=2.4)
        self.violations()  # allowed until both sides agree again
        self.story.events[fault - 1] = evolve(self.story.events[fault - 1], set_back=None)
        self.violations(("P5", (stop, again)))
        self.story.events[stop - 1] = evolve(self.story.events[stop - 1], status=202)
        self.violations()

    def test_tried_again(self) -> None:
        """Another attempt begins long after the previous one was stopped."""
        self.story.start(attempts=1)
        stop = self.story.add("stop", job="j", status=200)
        self.story.see("failed", "last", retried_by="k")
        self.story.runs.append(Run("t1", "k", 43, CODE, began=12.0))
        self.story.add("last", job="k", status=200, seen=self.story.seen("failed", retry_of="j"))
        self.assertEqual(self.story.found(), [("P5", "k", (stop,))])
