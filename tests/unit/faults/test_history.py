"""The fault harness writes and reads histories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import evidence, job
from tests.faults.evidence import Run
from tests.faults.history import SEEN, History, read


class HistoryTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """Events are read as they were written, in order, with their lines; fields without a value are absent."""
        history = History(Path(self.mktemp()))
        history.add("start", 1.5, ticket="t1", seed=0, lines=3, status=201, job="j")
        shown: dict[str, Any] = dict.fromkeys(SEEN)
        history.see({**shown, "id": "j", "state": "running", "worker_name": "w1"}, 2.5, "get")
        start, sight = read(history.path)
        self.assertEqual((start.number, start.op, start.began, start.seed, start.job), (1, "start", 1.5, 0, "j"))
        self.assertTrue(start.acknowledged)
        self.assertEqual((sight.number, sight.seen["state"], sight.via, sight.ticket), (2, "running", "get", None))

    def test_evidence(self) -> None:
        """Each process of a job is a run with its signals. A run that did not reach its end has no code."""
        folder = Path(self.mktemp())
        folder.mkdir()
        lines = ["run j 42 1500000000", "in j 42 1500000001 e3b0", "usr1 j 42 2000000000", "usr1 j 42 2000000001"]
        lines += ["end j 42 2500000000 7", "run j 43 3000000000"]
        (folder / "t1").write_text("\n".join(lines))
        first = Run("t1", "j", 42, 7, 2, 2.5, 1.5, "e3b0")
        self.assertEqual(evidence.runs(folder), [first, Run("t1", "j", 43, began=3.0)])
        self.assertEqual(evidence.runs_of(folder / "t2"), [])

    def test_log_errors(self) -> None:
        """Unexpected lines of a log are found: tracebacks, errors in one line, and answers with 500."""
        lines = [
            "2026-11-28T20:54:15.121Z info     scheduler.api.request: 10.0.0.7 GET /v1/jobs?limit=500 200 500 B 1.3 ms",
            "2026-11-28T20:54:15.122Z error    scheduler.store.writer.Writer: database unavailable: disk full",
            "2026-11-28T20:54:15.123Z critical scheduler.api.errors: incident 5f",
            "    Traceback (most recent call last):",
            '      File "x.py", line 1, in x',
            "    KeyError: 'x'",
            "2026-11-28T20:54:15.124Z info     scheduler.api.request: 10.0.0.7 GET /v1/jobs/j 500 80 B 1.0 ms",
            "2026-11-28T20:54:15.125Z critical scheduler.changes.Feed: listener failed",
            "Exception ignored in: <function f>",
        ]
        found = list(evidence.log_errors("\n".join(lines)))
        self.assertEqual(found, [f"{lines[2]} ... KeyError: 'x'", lines[6], lines[7], lines[8]])

    def test_spools(self) -> None:
        """For each job, the part of its output that it really printed is known."""
        state = Path(self.mktemp())
        for name in ("good", "bad"):
            folder = state / "jobs" / name
            folder.mkdir(parents=True)
            (folder / "lock").write_text("42 1000")
            (folder / "exit.json").write_text('{"state": "lost"}')
            (folder / "stdout").write_bytes(job.output(1, 3))
        refused = state / "jobs" / "refused"
        refused.mkdir()
        (refused / "lock").write_bytes(bytes(64))
        bad, good = evidence.spools({"w1": state}, {"good": (1, 4), "bad": (2, 3)})
        self.assertEqual(
            (good.job, good.worker, good.exit, good.size, good.good), ("good", "w1", {"state": "lost"}, 192, 192)
        )
        self.assertEqual((bad.job, bad.size, bad.good), ("bad", 192, len("00000000 ")))
