"""The notes in the answer of ``/readyz``."""

import json
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.answers import Answer
from scheduler.api.process import readyz
from scheduler.views import Readiness
from tests.doubles.authentication import TESTER
from tests.house import House


class NoteTests(SynchronousTestCase):
    def answered(self, readiness: Readiness) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        call: Any = SimpleNamespace(principal=TESTER, scheduler=SimpleNamespace(readiness=lambda: readiness))
        reply = self.successResultOf(Deferred.fromCoroutine(readyz(call)))
        assert isinstance(reply, Answer)
        body = reply.body if reply.problem is None else reply.problem.document("/readyz")
        return reply.status, json.loads(body)

    def test_ready(self) -> None:
        """A scheduler with notes is ready; without any, the answer has no such member."""
        ready = {"ready": True, "workers_online": 2}
        self.assertEqual(self.answered(Readiness((), 2, ("it expires",))), (200, {**ready, "notes": ["it expires"]}))
        self.assertEqual(self.answered(Readiness((), 2)), (200, ready))

    def test_not_ready(self) -> None:
        """A scheduler that is not ready has its notes beside its reasons."""
        status, body = self.answered(Readiness(("shutting down",), 0, ("it expires",)))
        self.assertEqual((status, body["reasons"], body["notes"]), (503, ["shutting down"], ["it expires"]))

    def test_made(self) -> None:
        """The notes are made anew for each question."""
        notes = ["one"]
        service = House(notes=lambda: tuple(notes)).parts.service
        self.assertEqual(service.readiness().notes, ("one",))
        notes.clear()
        self.assertEqual(service.readiness().notes, ())
