"""Messages of a waiting command."""

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli import status as status_module
from scheduler.cli.status import Status, terminal_width


class StatusTests(SynchronousTestCase):
    """Lines on a terminal of some width, or in a file."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []

    def status(self, width: int | None) -> Status:
        return Status(self.said.append, lambda: width, self.clock.seconds, updates=False)

    def said_now(self) -> str:
        said = "".join(self.said)
        self.said.clear()
        return said

    def said_after(self, seconds: float, status: Status) -> str:
        """The output of an update, so much later."""
        self.clock.advance(seconds)
        status.update()
        return self.said_now()

    def test_file(self) -> None:
        """In a file a wait is one line, once it has taken so long."""
        status = self.status(None)
        status.waiting("it is queued", 1.0, self.clock.seconds())
        self.assertEqual(self.said_after(0.9, status), "")
        self.clock.advance(0.1)
        for _ in range(3):
            status.update()
            self.clock.advance(5)
        self.assertEqual(self.said_now(), "schedctl: it is queued (1.0s)\n")
        self.assertTrue(status.done())
        self.assertEqual(self.said_now(), "")

    def test_terminal(self) -> None:
        """On a terminal the line is updated in place, and disappears."""
        status = self.status(80)
        status.waiting("it is queued", 1.0, self.clock.seconds())
        self.assertEqual(self.said_after(1, status), "\r\x1b[Kschedctl: it is queued (1.0s)")
        self.assertEqual(self.said_after(59, status), "\r\x1b[Kschedctl: it is queued (1m)")
        self.assertTrue(status.done())
        self.assertEqual(self.said_now(), "\r\x1b[K")
        status.update()
        self.assertEqual(self.said_now(), "")

    def test_short(self) -> None:
        """A short wait is not shown at all."""
        for width in (80, None):
            status = self.status(width)
            status.waiting("it is queued", 1.0, self.clock.seconds())
            self.clock.advance(0.5)
            status.update()
            self.assertFalse(status.done())
            self.assertEqual(self.said_after(5, status), "")

    def test_another(self) -> None:
        """A wait with another start is a new wait; the same wait may be described differently."""
        status = self.status(None)
        status.waiting("a", 1.0, 0.0)
        self.clock.advance(1)
        status.update()
        status.waiting("b", 1.0, 0.0)
        status.reword("c")
        status.update()
        self.assertEqual(self.said_now(), "schedctl: a (1.0s)\n")
        status.waiting("d", 1.0, 0.5)
        status.update()
        self.assertEqual(self.said_now(), "")
        self.assertEqual(self.said_after(1, status), "schedctl: d (1.5s)\n")

    def test_note(self) -> None:
        """A note is printed above the line that is updated. Before that line is due, it is not redrawn."""
        status = self.status(80)
        status.waiting("w", 1.0, 0.0)
        status.note("early")
        self.assertEqual(self.said_now(), "schedctl: early\n")
        self.clock.advance(1)
        status.update()
        self.said.clear()
        status.note("late\x1b[2J\n")
        self.assertEqual(self.said_now(), "\r\x1b[Kschedctl: late\\x1b[2J\\n\n\r\x1b[Kschedctl: w (1.0s)")

    def test_narrow(self) -> None:
        """The line never wraps: the time is kept, and the text is cut."""
        status = self.status(30)
        status.waiting("a text that is much longer than that", 0.0, 0.0)
        status.update()
        line = self.said_now().removeprefix("\r\x1b[K")
        self.assertEqual(len(line), 29)
        self.assertTrue(line.endswith("… (0.0s)"), line)

    def test_dumb(self) -> None:
        """A terminal that can't redraw lines is treated like a file."""
        self.patch(status_module.os, "isatty", lambda _: True)
        self.patch(status_module.os, "get_terminal_size", lambda _: os.terminal_size((70, 24)))
        for kind, width in (("xterm", 70), ("dumb", None)):
            self.patch(status_module.os, "environ", {"TERM": kind})
            self.assertEqual(terminal_width(), width)
