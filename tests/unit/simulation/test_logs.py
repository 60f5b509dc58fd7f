"""The rule about the log: failures logged during a run are findings."""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.logs import brief, watched
from tests.simulation.network import Endpoint
from tests.unit.simulation.scene_case import SceneCase


class WatchedTests(SynchronousTestCase):
    log = Logger()

    def setUp(self) -> None:
        self.told: list[tuple[str, str]] = []

    def watched(self) -> object:
        return watched(lambda where, what: self.told.append((where, what)))

    def test_failure(self) -> None:
        """A failure is reported with its error and its place, in one line."""
        with self.watched():
            try:
                raise ZeroDivisionError("by 0")
            except ZeroDivisionError:
                self.log.failure("dividing went wrong")
        self.flushLoggedErrors(ZeroDivisionError)
        ((where, what),) = self.told
        self.assertEqual(where, "tests.unit.simulation.test_logs.WatchedTests")
        self.assertTrue(what.startswith("dividing went wrong: ZeroDivisionError: by 0 (in test_failure, test_logs.py:"))

    def test_critical(self) -> None:
        with self.watched():
            self.log.critical("the end")
        self.assertEqual([what for _, what in self.told], ["the end"])

    def test_other_levels(self) -> None:
        """A warning, and an error that was expected, are no findings."""
        with self.watched():
            self.log.warn("careful")
            self.log.error("the store fails")
        self.assertEqual(self.told, [])

    def test_unhandled(self) -> None:
        """An unhandled error is reported at the end, even if its Deferred is part of a cycle."""
        with self.watched():
            deferred: Deferred[None] = fail(ZeroDivisionError("by 0"))
            deferred.itself = deferred  # type: ignore[attr-defined]
            del deferred
            self.assertEqual(self.told, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("ZeroDivisionError: by 0", self.told[0][1])

    def test_after(self) -> None:
        """Later failures are not reported, and garbage is collected as before."""
        enabled = gc.isenabled()
        with self.watched():
            self.assertFalse(gc.isenabled())
        self.assertEqual((gc.isenabled(), gc.get_freeze_count()), (enabled, 0))
        self.log.critical("the end")
        self.assertEqual(self.told, [])

    def test_brief(self) -> None:
        """An error that was not raised has no place."""
        self.assertEqual(brief(Failure(ValueError("x"))), "ValueError: x")


class NoTracebackTests(SceneCase):
    def test_answer(self) -> None:
        """An unexpected error of a server is a finding, whatever its caller does with it."""
        process = self.world.client.process
        self.world.network.listen(7, Endpoint(process, "c", None))
        self.world.network.call(self.world.client, "10.0.0.2:7", "divide", lambda _: 1 / 0, 5.0).answer.addErrback(
            lambda _: None
        )
        self.world.loop.run(1.0)
        self.assert_broken("no traceback", "client: ZeroDivisionError: division by zero")

    def test_run(self) -> None:
        """A failure logged during a run breaks the rule."""
        self.world.loop.at(1.0, lambda: Logger().failure("it went wrong", Failure(ValueError("x"))))
        self.assertEqual(str(self.world.run().violation and self.world.run().violation.rule), "no traceback")
        self.flushLoggedErrors(ValueError)
