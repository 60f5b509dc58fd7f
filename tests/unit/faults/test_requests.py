"""The checker finds violations of requests about jobs: removals, signals, answers, attendance."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from tests.faults import job
from tests.faults.evidence import Run
from tests.unit.faults.story import BAD, CODE, ERRORS, LINES, SIZE, Story, StoryCase, tail


class RemovalTests(StoryCase):
    """P6: a removed job is gone, and nothing else."""

    def setUp(self) -> None:
        super().setUp()
        self.start = self.story.start(key="k")
        self.story.see("failed")

    def remove(self, status: int | None = 204) -> int:
        return self.story.add("remove", job="j", status=status)

    def missing(self, op: str = "see") -> int:
        return self.story.add(op, job="j", status=404, via="get")

    def test_removed(self) -> None:
        """A removed job that is not seen afterwards is no violation, nor is any job whose removal was not answered."""
        self.remove(None)
        kept, self.story.spool = self.story.spool, None
        self.missing("last")
        self.violations()
        self.remove(404)
        self.missing("output")
        self.story.start(410)
        self.violations()
        self.story.spool = kept
        del self.story.events[3:]
        self.story.see("failed", "last")
        self.violations()

    def test_seen_again(self) -> None:
        """A removed job is listed, or shown, after the acknowledgement. An overlapping request may still see it."""
        self.story.spool = None
        removed = self.remove()
        self.story.see("failed", began=removed - 0.1)
        self.missing("last")
        self.violations()
        again = self.story.see("failed")
        self.violations(("P6", (removed, again)))

    def test_output_again(self) -> None:
        """A removed job's output is answered, or followed, after the acknowledgement."""
        self.story.spool = None
        removed = self.remove()
        self.missing("last")
        output = self.story.add("output", job="j", status=200)
        follower = self.story.add("attend", job="j", via="raw")
        self.violations(("P6", (removed, output)), ("P6", (removed, follower)))

    def test_key_again(self) -> None:
        """A removed job's key gets another answer than that the job was removed."""
        self.story.spool = None
        removed = self.remove()
        again = self.story.start(201, key="k")
        self.missing("last")
        self.assertEqual(self.story.found(), [("P6", "j", (removed, again))])

    def test_output_on_the_disk(self) -> None:
        """A removed job's output is still on its worker."""
        removed = self.remove()
        self.missing("last")
        self.assertIn(("P6", "j", (removed,)), self.story.found())

    def test_not_carried_out(self) -> None:
        """A removal was promised, or recorded, and the job is there at the end."""
        asked = self.remove(202)
        last = self.story.see("failed", "last")
        self.violations(("P6", (asked,)))
        self.story.events[asked - 1] = evolve(self.story.events[asked - 1], status=None)
        self.violations()
        seen = self.story.seen("failed", remove_requested_at="then")
        self.story.events[last - 1] = evolve(self.story.events[last - 1], seen=seen)
        self.violations(("P6", (asked, last)))

    def test_refused_and_gone(self) -> None:
        """A job is gone though every removal was refused, or before any was requested."""
        asked = self.remove(409)
        self.story.spool = None
        self.missing("last")
        self.violations(("P6", (asked,)))
        self.story.events[asked - 1] = evolve(self.story.events[asked - 1], status=404)
        self.violations(("P6", (asked,)))

    def test_not_found_before(self) -> None:
        """P1: a job was not found before a removal was requested. P6: its key reports a removal that was never
        requested.
        """
        missing = self.missing()
        gone = self.story.start(410, key="k")
        self.story.see("failed", "last")
        self.violations(("P1", (self.start, missing)), ("P6", (gone,)))

    def test_vanished(self) -> None:
        """P1: a job that was seen at its end, but never answered for, is gone at the end of the run."""
        self.story.events[0] = evolve(self.story.events[0], status=None, job=None)
        self.story.spool = None
        self.story.add("last", job="other", status=200, seen=self.story.seen("failed"))
        self.assertIn(("P1", "j", (2,)), self.story.found())


class SignalTests(StoryCase):
    """P7: a signal arrives once, and only at its job."""

    def setUp(self) -> None:
        super().setUp()
        self.story.start()

    def ran(self, signals: int, ended: float | None = 99.0) -> None:
        self.story.runs = [Run("t1", "j", 42, CODE, signals, ended)]
        self.story.see("failed", "last")

    def signal(self, status: int | None) -> int:
        return self.story.add("signal", job="j", status=status)

    def test_arrived(self) -> None:
        """Acknowledged signals arrived once each, and others at most once."""
        for status in (200, None, 504, 409, 200):
            self.signal(status)
        self.ran(4)
        self.violations()
        self.ran(2)
        self.violations()

    def test_twice(self) -> None:
        """A signal without an answer arrived twice."""
        sent = self.signal(None)
        self.ran(2)
        self.violations(("P7", (sent,)))

    def test_refused(self) -> None:
        """A refused signal arrived."""
        sent = self.signal(503)
        self.ran(1)
        self.violations(("P7", (sent,)))

    def test_of_another(self) -> None:
        """A job counted a signal that was not sent to it."""
        self.ran(1)
        self.violations(("P7", ()))

    def test_lost(self) -> None:
        """An acknowledged signal did not arrive. It may be lost if the job counted no more signals when it was
        answered.
        """
        sent = self.signal(200)
        self.ran(0)
        self.violations(("P7", (sent,)))
        self.story.runs = [Run("t1", "j", 42, CODE, 0, sent - 0.1)]
        self.violations()

    def test_after_the_end(self) -> None:
        """A signal was acknowledged for a job that was known to have ended."""
        self.story.see("failed")
        sent = self.signal(200)
        self.ran(0, 1.0)
        self.violations(("P7", (sent,)))


class AnswerTests(StoryCase):
    """P8: an answer agrees with the job."""

    def setUp(self) -> None:
        super().setUp()
        self.story.start()
        self.story.see("failed", "last")

    def wrong(self, *args: Any, **more: Any) -> None:
        answer = self.story.answer(*args, **more)
        self.violations(("P8", (answer,)))
        del self.story.events[answer - 1]

    def test_right(self) -> None:
        """The status is that of the job, and the output is the end of its output."""
        self.story.events.clear()
        self.story.start()
        so_far = {"stdout": tail(64), "stderr": tail(64, "stderr")}
        for via, status, check in (("get", 504, True), ("post", 424, True), ("get", 202, False), ("post", 202, False)):
            problem = "job-not-ended" if check else None
            self.story.answer("running", status, problem, via=via, tails=so_far, asked={"check": check})
        self.story.answer()
        self.story.answer(status=200, problem=None, asked={"check": False})
        self.story.answer(status=201, problem=None, asked={"check": False}, via="post")
        self.story.see("failed", "last")
        self.violations()

    def test_status(self) -> None:
        """A failed job is answered as a success, or a running one as a failure."""
        self.wrong(status=200, problem=None)
        self.wrong(status=424, problem="job-not-ended")
        self.wrong(status=202, problem=None, asked={"check": False})

    def test_too_early(self) -> None:
        """An unfinished job is answered before the wait is over. During a fault this is allowed."""
        self.story.events.clear()
        self.story.start()
        tails = {"stdout": tail(64), "stderr": tail(64, "stderr")}
        early = self.story.answer("running", 504, "job-not-ended", tails=tails, took=0.5)
        self.story.see("failed", "last")
        self.violations(("P8", (early,)))
        fault = self.story.add("fault", what="SIGTERM of a daemon")
        self.story.events[fault - 1] = evolve(self.story.events[fault - 1], t=self.story.events[early - 1].t - 0.1)
        self.violations()

    def test_tail(self) -> None:
        """The output ends too early, is too short, is not the job's, or is wrongly marked as cut or not."""
        errors = tail(ERRORS, "stderr")
        self.wrong(tails={"stdout": tail(SIZE - 1), "stderr": errors})
        self.wrong(tails={"stdout": tail(SIZE, length=50), "stderr": errors})
        self.wrong(tails={"stdout": tail(SIZE, sha256=tail(SIZE - 1)["sha256"]), "stderr": errors})
        self.wrong(tails={"stdout": tail(SIZE, cut=False), "stderr": errors})
        self.wrong(tails={"stdout": tail(SIZE), "stderr": tail(ERRORS, "stderr", length=99)})
        self.wrong(tails={"stderr": errors})

    def test_unavailable(self) -> None:
        """Output is missing without a fault. After a fault it may be, until the sides agree again."""
        tails = {"stdout": {"error": "worker 'w1' can't be reached"}, "stderr": tail(ERRORS, "stderr")}
        self.wrong(tails=tails)
        self.story.add("fault", what="kill -9 w1")
        answer = self.story.answer(tails=tails)
        self.violations()
        self.story.add("agree", seconds=1.0, limit=5.0)
        late = self.story.answer(tails=tails)
        self.violations(("P8", (late,)))
        self.assertGreater(late, answer)

    def test_errors_of_a_start(self) -> None:
        """A start that made a job is answered with an error that makes clients repeat it. 504 with its id is fine."""
        for status, named in ((502, False), (504, False), (503, True), (429, True)):
            self.story = Story()
            start = self.story.start(status, job="j" if named else None)
            self.story.see("failed", "last")
            self.violations(("P8", (start,)))
        self.story = Story()
        self.story.start(504)
        self.story.see("failed", "last")
        self.violations()


class AttendanceTests(StoryCase):
    """P9: a job is stopped for lack of attendance if, and only if, no client attends it."""

    def setUp(self) -> None:
        super().setUp()
        self.story.runs = [Run("t1", "j", 42)]
        self.story.spool = None
        self.story.start(unattended=3.0)

    def attended(self, since: float, until: float) -> int:
        line = self.story.add("attend", since, job="j", via="raw")
        self.story.events[line - 1] = evolve(self.story.events[line - 1], t=until)
        return line

    def stopped(self, ended: float) -> int:
        reason = "stopped: no client followed it or waited for it for 3 s"
        return self.story.see("stopped", "last", reason=reason, ended=ended)

    def test_in_time(self) -> None:
        """No client attended the job for its time, from the beginning or since the last client left."""
        self.stopped(4.0)
        self.violations()
        self.story.events.pop()
        self.attended(2.0, 10.0)
        self.stopped(13.0)
        self.violations()

    def test_asked_again(self) -> None:
        """Its time begins with the first request for it, not with one that was repeated after its removal."""
        self.stopped(4.0)
        self.story.add("remove", job="j", status=204)
        self.story.start(410, unattended=3.0)
        self.violations()

    def test_attended(self) -> None:
        """A job was stopped though no client was away for so long, or a client was back in time after a restart."""
        first, second = self.attended(1.5, 10.0), self.attended(14.0, 20.0)
        self.stopped(20.0)
        self.violations()
        self.story.add("heal", 12.0, what="scheduler serves")
        self.violations(("P9", (1, first, second)))

    def test_too_early(self) -> None:
        """An unattended job was stopped before its time."""
        self.stopped(2.0)
        self.violations(("P9", (1,)))

    def test_reason_not_saved(self) -> None:
        """A job stopped for lack of attendance has that reason, even if the scheduler was killed meanwhile."""
        self.story.add("fault", 2.5, what="kill -9 scheduler")
        self.story.see("stopped", "last", reason="signal: terminated", ended=4.0)
        self.violations(("P4", (3,)))

    def test_went_on(self) -> None:
        """An unattended job continued far beyond its time. During a fault this is allowed."""
        last = self.stopped(12.0)
        self.violations(("P9", (1, last)))
        for op, at in (("fault", 3.0), ("heal", 6.0)):
            line = self.story.add(op, what="kill -9 scheduler")
            self.story.events[line - 1] = evolve(self.story.events[line - 1], t=at)
        self.violations()

    def test_never_stopped(self) -> None:
        """An unattended job still runs at the end of the run."""
        self.story.see("running", "last")
        self.violations(("P9", (1,)))


class EventStreamTests(StoryCase):
    """P4: the job in a stream of events."""

    def stream(self, *states: str, first: str = "job") -> int:
        return self.story.add("attend", job="j", via="events", first=first, states=states)

    def test_states(self) -> None:
        """A stream begins with the job, and each state may follow the one before."""
        self.story.start()
        self.stream("queued", "running", "unknown", "running", "failed", "failed")
        self.stream()
        self.story.see("failed", "last")
        self.violations()
        wrong = [self.stream("running", "queued"), self.stream("failed", "running"), self.stream(first="output")]
        self.violations(*(("P4", (line,)) for line in wrong))

    def test_usage(self) -> None:
        """The usage of a job is shown for every one that ran, and does not change."""
        self.story.start()
        last = self.story.see("failed", "last", usage=None)
        self.story.spool = None
        self.violations(("P4", (last,)))
        self.story = Story()
        self.story.start()
        first = self.story.see("failed", usage={"max_rss": 1, "cpu_seconds": 0.0})
        last = self.story.see("failed", "last")
        self.violations(("P4", (first, last)))

    def test_stderr(self) -> None:
        """P3: the worker's stderr differs from the job's, or from the shown length."""
        self.story.start()
        last = self.story.see("failed", "last", stderr_bytes=3)
        self.story.spool = evolve(self.story.spool, error_good=64)
        self.violations(("P3", ()), ("P3", (last,)))

    def test_error_lines(self) -> None:
        """The job prints other lines to stderr than to stdout."""
        lines = job.error_output(BAD, LINES)
        self.assertEqual(len(lines), 3 * job.LINE)
        self.assertNotIn(lines[: job.LINE], job.output(BAD, LINES))
