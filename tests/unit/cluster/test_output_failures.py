"""Failures of reading output, as values."""

from __future__ import annotations

from math import inf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.output.failures import (
    FAILING_MAX_SECONDS,
    FAULTS_MAX_SECONDS,
    RETRY_FIRST_SECONDS,
    RETRY_MAX_SECONDS,
    Retries,
    gives_up,
)
from scheduler.errors import Busy, DeadlineExceeded, NotFound, OutputPruned, Unavailable, Unreachable, WorkerFault

BUSY, FAULT, LATE = Busy("streams", 1), WorkerFault("w", "oh"), DeadlineExceeded("ReadOutput", 10.0)
NEVER = inf


class GivesUpTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Each failure ends a follower after its time, which depends on the job and on what was read before."""
        for error, running_fresh, running, over_fresh, over in (
            (BUSY, 0, NEVER, 0, FAILING_MAX_SECONDS),
            (FAULT, FAULTS_MAX_SECONDS, FAULTS_MAX_SECONDS, FAULTS_MAX_SECONDS, FAULTS_MAX_SECONDS),
            (NotFound("job", "j"), NEVER, NEVER, 0, 0),
            (Unreachable("w"), NEVER, NEVER, 0, FAILING_MAX_SECONDS),
            (Unavailable("later"), NEVER, NEVER, 0, FAILING_MAX_SECONDS),
            (LATE, NEVER, NEVER, 0, FAILING_MAX_SECONDS),
            (OutputPruned("j"), 0, 0, 0, 0),
            (ZeroDivisionError(), 0, 0, 0, 0),
        ):
            for is_over, fresh, after in (
                (False, True, running_fresh),
                (False, False, running),
                (True, True, over_fresh),
                (True, False, over),
            ):
                for seconds in (0, 1, FAULTS_MAX_SECONDS, FAILING_MAX_SECONDS, 86400.0):
                    verdict = gives_up(error, is_over, fresh, seconds)
                    self.assertEqual(verdict, seconds >= after, (error, is_over, fresh, seconds))


class RetriesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tried: list[float] = []
        self.retries = Retries(self.clock, lambda: self.tried.append(self.clock.seconds()))

    def test_delays_grow(self) -> None:
        """Each delay is twice the one before, up to the longest, until something succeeds."""
        delays = []
        for _ in range(8):
            began = self.clock.seconds()
            self.retries.failed(FAULT)
            while self.retries.pending:
                self.clock.advance(0.05)
            delays.append(round(self.clock.seconds() - began, 1))
        self.assertEqual(delays, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
        self.assertEqual(RETRY_MAX_SECONDS, 5.0)
        self.retries.succeeded()
        self.retries.failed(FAULT)
        self.clock.advance(RETRY_FIRST_SECONDS)
        self.assertFalse(self.retries.pending)
        self.assertEqual(len(self.tried), 9)

    def test_kinds_are_apart(self) -> None:
        """The time since the first failure is kept for each kind of error."""
        self.retries.failed(FAULT)
        self.clock.advance(2)
        self.retries.failed(LATE)
        self.clock.advance(1)
        self.assertEqual([self.retries.failing_for(error) for error in (FAULT, LATE, BUSY)], [3, 1, 0])

    def test_now(self) -> None:
        """A retry may be made early, and is then not made again."""
        self.retries.failed(FAULT)
        self.retries.now()
        self.clock.advance(RETRY_MAX_SECONDS)
        self.assertEqual(self.tried, [0.0])
