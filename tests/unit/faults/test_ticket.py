"""Requests of the fault harness's clients, and their record in the history."""

from __future__ import annotations

import base64
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import job
from tests.faults.mix import USUAL
from tests.faults.ticket import Desk, Ticket


class TicketTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.desk = Desk(folder, USUAL)
        self.desk.make_folders()

    def draw(self, own: bool = False) -> list[Ticket]:
        random = Random(1)
        return [self.desk.draw(random, f"t{number}", 1.0 if own else None, None, None, own) for number in range(600)]

    def test_terms(self) -> None:
        """The history records a request's terms, and every kind of job is requested."""
        tickets = self.draw()
        for ticket in tickets:
            body, fields = ticket.body, ticket.fields
            self.assertEqual(
                (body.get("timeout"), body.get("output_limit")), (fields["timeout"], fields["output_limit"])
            )
            self.assertEqual(body.get("retry", {}).get("attempts", 0), fields["attempts"])
            stdin = base64.b64decode(body.get("stdin_base64", ""))
            self.assertEqual(stdin, job.stdin(ticket.seed, fields["stdin"]))
            self.assertEqual("script" in body, "command" not in body)
        for kind in ("timeout", "output_limit", "attempts", "stdin"):
            self.assertTrue(any(ticket.fields[kind] for ticket in tickets), kind)
        self.assertTrue(any("script" in ticket.body for ticket in tickets))

    def test_limits(self) -> None:
        """Some jobs with an ``output_limit`` print more than it, and some do not."""
        tickets = [ticket for ticket in self.draw() if ticket.output_limit is not None]
        printed = [
            len(job.output(ticket.seed, ticket.lines)) + len(job.error_output(ticket.seed, ticket.lines))
            for ticket in tickets
        ]
        over = {size > (ticket.output_limit or 0) for ticket, size in zip(tickets, printed, strict=True)}
        self.assertEqual(over, {True, False})

    def test_own(self) -> None:
        """A job that belongs to one client has no such terms: it runs for the given time."""
        for ticket in self.draw(own=True):
            self.assertEqual((ticket.timeout, ticket.output_limit, ticket.attempts), (None, None, 0))
            self.assertEqual(ticket.seconds, 1.0)


class AttemptTests(SynchronousTestCase):
    """A retried job of the load finds out which attempt it is."""

    def test_attempt(self) -> None:
        """Earlier attempts count once each, whatever else they recorded."""
        file = Path(self.mktemp())
        file.write_text("run a 42 1\nin a 42 2 e3\nend a 42 3 7\nrun b 43 4\nrun b 44 5\nrun c 45 6\n")
        attempts = [job.attempt_of(str(file), name) for name in "abc"]
        self.assertEqual(attempts, [1, 2, 3])

    def test_code(self) -> None:
        """Attempts before the good one fail, even if the seed is that of a successful job."""
        good = next(seed for seed in range(99) if job.exit_code(seed) == 0)
        self.assertEqual([job.code_of_attempt(good, attempt, 2) for attempt in (1, 2, 3)], [1, 0, 0])
