"""The table from exceptions to problem documents."""

import inspect
import json

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scheduler import errors
from scheduler.api.errors import PROBLEMS, Problem, ProblemError, problem_of
from scheduler.errors import (
    Busy,
    DeadlineExceeded,
    Invalid,
    NoFreeSlot,
    OffsetBeyondEnd,
    SchedulerError,
    StartUnanswered,
    StoreFailed,
)


class ProblemTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """The table has every exception of the domain, and nothing else."""
        every = {
            error
            for _, error in inspect.getmembers(errors, inspect.isclass)
            if issubclass(error, SchedulerError) and error is not SchedulerError
        }
        self.assertEqual(set(PROBLEMS), every)

    def test_retry_after(self) -> None:
        """``Retry-After`` is in whole seconds, at least one."""
        self.assertEqual(problem_of(Failure(Busy("calls", 4))).headers["Retry-After"], "1")
        self.assertEqual(problem_of(Failure(NoFreeSlot("full", 20))).headers["Retry-After"], "20")
        self.assertEqual(problem_of(Failure(NoFreeSlot("full", 0))).headers["Retry-After"], "1")

    def test_members(self) -> None:
        """The wrong field and the id of a job that may run are members of the document."""
        self.assertEqual(problem_of(Failure(Invalid("args", "no"))).members, {"field": "args"})
        self.assertEqual(problem_of(Failure(StartUnanswered("w", "j1"))).members, {"job_id": "j1"})
        self.assertEqual(problem_of(Failure(DeadlineExceeded("start", 10, "j2"))).members, {"job_id": "j2"})
        self.assertEqual(problem_of(Failure(DeadlineExceeded("query", 10))).members, {})

    def test_store(self) -> None:
        """A failure of the store is named as such: the database's own text could be about anything."""
        problem = problem_of(Failure(StoreFailed("database or disk is full")))
        self.assertEqual((problem.status, problem.detail), (503, "database unavailable: database or disk is full"))

    def test_size(self) -> None:
        """An offset past the end is answered with the size, as for a range."""
        self.assertEqual(problem_of(Failure(OffsetBeyondEnd(9, 5))).headers, {"Content-Range": "bytes */5"})

    def test_document(self) -> None:
        """The document is RFC 9457; only the core routes have the text as ``error``, too."""
        problem = Problem(404, "no such thing", members={"x": 1}, type="route-unknown")
        facts = {
            "type": "/problems/route-unknown",
            "title": "Not Found",
            "status": 404,
            "detail": "no such thing",
            "x": 1,
        }
        for path in (b"/start", b"/stop", b"/query"):
            self.assertEqual(json.loads(problem.document(path)), {**facts, "error": "no such thing"})
        for path in (b"/v1/jobs", b"/v1/jobs/stop", b"/healthz", b"/", b"/query/"):
            self.assertEqual(json.loads(problem.document(path)), facts)

    def test_own(self) -> None:
        """A refusal by the rules of HTTP is answered unchanged."""
        kind = "unsupported-media-type"
        refusal = ProblemError(415, "no", {"X": "y"}, type=kind)
        self.assertEqual(problem_of(Failure(refusal)), Problem(415, "no", {"X": "y"}, type=kind))

    def test_bug(self) -> None:
        """A bug is answered with an incident id alone, and the log has the rest under that id."""
        problem = problem_of(Failure(RuntimeError("secret")))
        self.assertEqual(problem.status, 500)
        self.assertNotIn("secret", problem.document(b"/start").decode())
        self.assertIn(problem.members["incident"], problem.detail)
        self.assertEqual([str(failure.value) for failure in self.flushLoggedErrors(RuntimeError)], ["secret"])

    def test_unknown_of_the_domain(self) -> None:
        """An exception that is not in the table is a bug."""
        self.assertEqual(problem_of(Failure(SchedulerError("x"))).status, 500)
        self.flushLoggedErrors(SchedulerError)
