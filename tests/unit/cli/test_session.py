"""Clients of commands, and their messages about trouble."""

import contextlib
import io
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import scheduler.client
from scheduler.cli.session import ANSWER_PATIENCE, ANSWER_TIMEOUT, TROUBLE_SHOWN_AFTER_SECONDS, Session, Trouble


class TroubleTests(SynchronousTestCase):
    def test_told(self) -> None:
        """A request that is repeated for long is reported once, and again only after a recovery."""
        clock = Clock()
        trouble = Trouble(clock.seconds)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            trouble("worker 'a' can't be reached")
            trouble(None)
            clock.advance(TROUBLE_SHOWN_AFTER_SECONDS)
            trouble("short")
            clock.advance(TROUBLE_SHOWN_AFTER_SECONDS / 2)
            trouble("short")
            self.assertEqual(err.getvalue(), "")
            clock.advance(TROUBLE_SHOWN_AFTER_SECONDS / 2)
            for _ in range(3):
                trouble("a \x1b[2J")
                clock.advance(1.0)
            self.assertEqual(err.getvalue(), "schedctl: a \\x1b[2J; trying again\n")
            trouble(None)
            trouble("b")
            clock.advance(TROUBLE_SHOWN_AFTER_SECONDS)
            trouble("c")
        self.assertEqual(err.getvalue().count("\n"), 2)


class ClientTests(SynchronousTestCase):
    def test_options(self) -> None:
        """A lasting command is as patient as any client, a quick one gives up sooner, and both report trouble."""
        made: list[dict[str, Any]] = []
        self.patch(scheduler.client, "Client", lambda _, **options: made.append(options))
        session = Session("http://a", None, None, None, {})
        session.client()
        session.client(waits=True)
        session.client(waits=True, patience=600.0, on_trouble=None)
        self.assertEqual((made[0]["timeout"], made[0]["patience"]), (ANSWER_TIMEOUT, ANSWER_PATIENCE))
        self.assertEqual(made[1].keys() & {"timeout", "patience"}, set())
        for options in made[:2]:
            self.assertIsInstance(options["on_trouble"], Trouble)
        self.assertEqual((made[2]["patience"], made[2]["on_trouble"]), (600.0, None))
