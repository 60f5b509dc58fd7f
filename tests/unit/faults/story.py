"""A history that tests doctor."""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.faults import job
from tests.faults.case import FINAL
from tests.faults.checker import check
from tests.faults.evidence import Evidence, Run, Spool
from tests.faults.history import SEEN, Event

LINES = 10
SIZE = LINES * job.LINE
ERRORS = len(job.error_output(0, LINES))
#: A seed whose job fails, and one whose job succeeds.
BAD, GOOD = (next(seed for seed in range(99) if bool(job.exit_code(seed)) is fails) for fails in (True, False))
CODE = job.exit_code(BAD)
USAGE = {"max_rss": 12_000_000, "cpu_seconds": 0.1}


class Story:
    """The history and evidence of job ``j``, which ran once on ``w1`` and failed: without violations until it is
    doctored.
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self.events: list[Event] = []
        self.runs = [Run("t1", "j", 42, CODE)]
        record = {"state": "failed", "exit_code": CODE, "signal": None, "usage": USAGE}
        self.spool = Spool("j", "w1", record, SIZE, SIZE, ERRORS, ERRORS)
        #: Whether ``w1`` keeps spools. If not, a spool may be missing.
        self.keeps_spools = False
        self.errors: list[tuple[str, str]] = []

    def add(self, op: str, began: float | None = None, **fields: Any) -> int:
        """Add an event, and return its line."""
        self.clock += 1
        event = Event(op=op, began=self.clock - 0.5 if began is None else began, t=self.clock, **fields)
        self.events.append(evolve(event, number=len(self.events) + 1))
        return len(self.events)

    def start(self, status: int | None = 201, **more: Any) -> int:
        fields = {"ticket": "t1", "seed": BAD, "lines": LINES, "job": None if status in (None, 503) else "j"}
        return self.add("start", status=status, **fields | more)

    @staticmethod
    def seen(state: str = "running", **more: Any) -> dict[str, Any]:
        """The job as it was shown."""
        seen: dict[str, Any] = {**dict.fromkeys(SEEN), "state": state, "background_ended": 0, "worker_name": "w1"}
        if state in FINAL:
            seen["finished_at"] = "then"
        if state == "failed":
            seen |= {"reason": f"exit status {CODE}", "exit_code": CODE, "usage": USAGE}
            seen |= {"stdout_bytes": SIZE, "stderr_bytes": ERRORS}
        return seen | more

    def see(self, state: str = "running", op: str = "see", began: float | None = None, **more: Any) -> int:
        return self.add(op, began, job="j", status=200, seen=self.seen(state, **more), via="get")

    def answer(self, state: str = "failed", status: int = 424, problem: str | None = "job-failed", **more: Any) -> int:
        """The answer to a GET that waited for a second and wanted 100 bytes, which it has."""
        tails = more.pop("tails", {"stdout": tail(SIZE), "stderr": tail(ERRORS, "stderr")})
        asked = {"wait": 1.0, "output": 100, "check": True} | more.pop("asked", {})
        began = self.clock + 1 - more.pop("took", 1.0)
        fields = {"via": "get", "seen": self.seen(state), "asked": asked, "tails": tails} | more
        return self.add("answer", began, job="j", status=status, problem=problem, **fields)

    def read(self, offset: int, length: int, end: bool = False, data: bytes | None = None, **more: Any) -> int:
        printed = job.error_output if more.get("stream") == "stderr" else job.output
        data = printed(BAD, LINES)[offset : offset + length] if data is None else data
        digest = hashlib.sha256(data).hexdigest()
        fields = {"begin": offset, "offset": offset, "length": length, "sha256": digest, "end": end}
        return self.add("read", job="j", reader="r1", **fields | more)

    def found(self) -> list[tuple[str, str | None, tuple[int, ...]]]:
        """The promise, job and lines of each violation."""
        evidence = Evidence(tuple(self.runs), (self.spool,) if self.spool else (), tuple(self.errors))
        events = list(self.events)
        if not self.keeps_spools:
            events.append(Event(op="keeps", began=self.clock, t=self.clock, worker="w1", seconds=1.0))
        return [(v.promise, v.job, v.lines) for v in check(events, evidence)]


def tail(reached: int, stream: str = "stdout", length: int = 100, **more: Any) -> dict[str, Any]:
    """The end of the job's output, up to that byte."""
    printed = (job.output if stream == "stdout" else job.error_output)(BAD, LINES)
    data = printed[max(0, reached - length) : reached]
    digest, offset = hashlib.sha256(data).hexdigest(), reached - len(data)
    return {"offset": offset, "length": len(data), "sha256": digest, "cut": offset > 0} | more


class StoryCase(SynchronousTestCase):
    """Doctors a history in each test."""

    def setUp(self) -> None:
        self.story = Story()

    def violations(self, *expected: tuple[str, tuple[int, ...]]) -> None:
        """The violations, all of job ``j``, by promise and lines."""
        self.assertEqual(self.story.found(), [(promise, "j", lines) for promise, lines in expected])


class StartedCase(StoryCase):
    """A history that begins with an acknowledged start. Each test doctors it."""

    def setUp(self) -> None:
        super().setUp()
        self.start = self.story.start()
