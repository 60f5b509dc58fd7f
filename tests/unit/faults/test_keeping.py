"""The checker finds violations in kept data, counts and logs, and jobs that contradict themselves."""

from __future__ import annotations

from attrs import evolve

from tests.faults import job
from tests.faults.evidence import Run
from tests.unit.faults.story import BAD, CODE, ERRORS, SIZE, USAGE, StartedCase


class ContradictionTests(StartedCase):
    """P4: no job is shown with contradictory fields."""

    def shown(self, state: str, **more: object) -> None:
        """Showing the job like that is a violation."""
        self.story.events = self.story.events[: self.start]
        self.story.spool = None
        shown = self.story.see(state, **more)
        self.story.add("fault", what="anything", jobs=("j",))
        self.assertIn(("P4", "j", (shown,)), self.story.found())

    def test_codes(self) -> None:
        """A state that contradicts the code or the signal."""
        self.shown("succeeded", exit_code=CODE, usage=USAGE)
        self.shown("succeeded", exit_code=None, signal="SIGKILL", usage=USAGE)
        self.story.runs = [Run("t1", "j", 42, 0)]
        self.shown("failed", exit_code=0)
        self.story.runs = [Run("t1", "j", 42, CODE)]
        self.shown("lost", exit_code=CODE, reason="no record", usage=USAGE)
        self.shown("failed", exit_code=CODE, signal="SIGKILL")

    def test_times(self) -> None:
        """An end without a time, or a time, a code or a signal without an end."""
        self.shown("failed", finished_at=None)
        self.shown("running", finished_at="then")
        self.shown("unknown", exit_code=0)
        self.shown("starting", signal="SIGTERM")

    def test_failed_with_0(self) -> None:
        """A job that exited with 0 may have failed only if its output was cut, or processes were left."""
        self.story.runs = [Run("t1", "j", 42, 0)]
        self.story.spool = evolve(self.story.spool, exit=self.story.spool.exit | {"exit_code": 0})
        self.story.see("failed", "last", exit_code=0, leftover=(42,))
        self.violations()


class StderrTests(StartedCase):
    """P3: stderr is judged like stdout."""

    def test_followed(self) -> None:
        """A reader of stderr gets all of it, and nothing else, with offsets of its own."""
        self.story.read(0, 100)
        self.story.read(0, ERRORS, stream="stderr", end=True)
        self.story.read(100, SIZE - 100, end=True)
        self.story.see("failed", "last")
        self.violations()
        wrong = self.story.read(ERRORS, 64, stream="stderr", data=job.line(BAD, 0))
        self.violations(("P3", (wrong,)))

    def test_ended_early(self) -> None:
        """A reader of stderr is told the end too early."""
        read = self.story.read(0, 64, stream="stderr", end=True)
        self.story.see("failed", "last")
        self.violations(("P3", (read,)))

    def test_spool_is_short(self) -> None:
        """The spool lacks a part of stderr."""
        last = self.story.see("failed", "last")
        self.story.spool = evolve(self.story.spool, error_size=64, error_good=64)
        self.violations(("P3", ()), ("P3", (last,)))


class FirstOffsetTests(StartedCase):
    """P3: a stream begins at the requested offset."""

    def test_elsewhere(self) -> None:
        """The first bytes of a reader are from another offset, before or after the requested one."""
        self.story.see("failed", "last")
        for begin in (0, 128):
            read = self.story.read(64, 64, begin=begin)
            self.violations(("P3", (read,)))
            del self.story.events[read - 1]
        self.story.read(64, 64, begin=64)
        self.violations()


class ByteCountTests(StartedCase):
    """P3: the shown length of output is that of the worker's spool."""

    def test_stopped(self) -> None:
        """The lengths are judged even if the job did not end by itself."""
        self.story.add("stop", job="j", status=200)
        self.story.runs = [Run("t1", "j", 42)]
        record = {"state": "stopped", "exit_code": None, "signal": "SIGTERM", "usage": USAGE}
        self.story.spool = evolve(self.story.spool, exit=record)
        how = {"signal": "SIGTERM", "usage": USAGE, "reason": "signal: terminated"}
        self.story.see("stopped", "last", stdout_bytes=SIZE, stderr_bytes=ERRORS, **how)
        self.violations()
        self.story.events.pop()
        last = self.story.see("stopped", "last", stdout_bytes=SIZE, stderr_bytes=ERRORS - 1, **how)
        self.violations(("P3", (last,)))

    def test_cut(self) -> None:
        """The lengths are judged even if output was cut."""
        last = self.story.see("failed", "last", output_error="stdout: No space left on device", stdout_bytes=SIZE + 1)
        self.violations(("P3", (last,)))

    def test_unsaid(self) -> None:
        """No length is shown for a job that ended by itself."""
        last = self.story.see("failed", "last", stderr_bytes=None)
        self.violations(("P3", (last,)))


class KeptTests(StartedCase):
    """P6: data that was not removed is kept for the promised time."""

    def setUp(self) -> None:
        super().setUp()
        self.last = self.story.see("failed", "last")
        self.story.keeps_spools = True

    def test_spool(self) -> None:
        """The spool of a job is gone without a removal or a destructive fault."""
        self.violations()
        self.story.spool = None
        self.violations(("P6", (self.last,)))
        self.story.add("fault", what="w1 loses its folder", outputs=("j",))
        self.violations()
        self.story.events.pop()
        self.story.keeps_spools = False
        self.violations()

    def test_refused(self) -> None:
        """Output is reported as no longer kept, but was not removed."""
        output = self.story.add("output", job="j", status=410, problem="output-pruned")
        self.violations(("P6", (output,)))
        self.story.add("fault", what="the disk is full", outputs=("j",))
        self.violations()

    def test_cut(self) -> None:
        """Output is reported as cut, but the job does not say so."""
        output = self.story.add("output", job="j", status=410, problem="output-cut")
        self.violations(("P3", (output,)))
        seen = self.story.seen("failed", output_error="stdout: No space left on device")
        self.story.events[self.last - 1] = evolve(self.story.events[self.last - 1], seen=seen)
        self.violations()

    def test_beyond(self) -> None:
        """An offset is reported as beyond the output, but is not."""
        self.story.add("output", job="j", status=416, begin=SIZE + 1)
        self.violations()
        fields = {"status": 416, "begin": ERRORS, "stream": "stderr"}
        self.story.add("output", began=self.last - 0.1, job="j", **fields)  # the output may have been shorter then
        self.violations()
        output = self.story.add("output", job="j", **fields)
        self.violations(("P3", (output,)))

    def test_beyond_of_events(self) -> None:
        """For two streams, one offset must be beyond the end if that is reported."""
        fields = {"job": "j", "status": 416, "begin": SIZE, "stream": "stdout"}
        self.story.add("output", **fields, offset=ERRORS + 1)
        self.violations()
        output = self.story.add("output", **fields, offset=ERRORS)
        self.violations(("P3", (output,)))


class InternalTests(StartedCase):
    """P8: no answer is an internal error, and no log has one."""

    def setUp(self) -> None:
        super().setUp()
        self.story.see("failed", "last")

    def found(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(promise, lines) for promise, _, lines in self.story.found()]

    def test_500(self) -> None:
        """Any answer with 500 is a violation, whatever the request."""
        stop = self.story.add("stop", job="j", status=500)
        other = self.story.add("odd", what="GET /v1/workers", error="500")
        self.assertEqual(self.found(), [("P8", (stop,)), ("P8", (other,))])

    def test_garbled(self) -> None:
        """An answer that is no JSON is a violation."""
        odd = self.story.add("odd", what="GET /v1/jobs", error="no JSON: '{'")
        self.assertEqual(self.found(), [("P8", (odd,))])

    def test_logged(self) -> None:
        """An unexpected error in a daemon's log is a violation."""
        self.story.errors = [("w1", "critical ... KeyError: 'x'")]
        self.assertEqual(self.story.found(), [("P8", None, ())])
