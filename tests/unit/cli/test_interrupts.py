"""Interrupts while a job is watched."""

import os
import signal
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.interrupts import SAME_INTERRUPT_SECONDS, Interrupts, Left
from scheduler.cli.status import Status


class InterruptsTests(SynchronousTestCase):
    """``Interrupts``, before the job has an id."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        status = Status(self.said.append, lambda: None, self.clock.seconds, updates=False)
        self.interrupts = Interrupts(status, cast(Any, self.fail), self.clock.seconds)

    def test_one_interrupt_of_several_signals(self) -> None:
        """Signals right after the first one belong to the same interrupt, whichever they are."""
        with self.interrupts:
            self.assertFalse(self.interrupts.stopping)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
                self.clock.advance(SAME_INTERRUPT_SECONDS / 4)
            self.assertTrue(self.interrupts.stopping)
        self.assertEqual(len(self.said), 1)
        self.assertIn("press Ctrl-C again", self.said[0])

    def test_second_interrupt(self) -> None:
        """A later signal leaves the job running, even if others came between."""
        with self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            self.clock.advance(SAME_INTERRUPT_SECONDS * 0.9)
            os.kill(os.getpid(), signal.SIGINT)
            self.clock.advance(SAME_INTERRUPT_SECONDS * 0.2)
            with self.assertRaises(Left):
                os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(len(self.said), 1)
