"""Exceptions of the client can be copied, and sent to another process."""

from __future__ import annotations

import copy
import pickle

from twisted.trial.unittest import SynchronousTestCase

from scheduler.client import ApiProblem, ClientError, ConnectionFailed, Job, JobFailed, OutputLost, Result, WaitTimedOut

JOB = Job.from_json({"id": "j1", "state": "failed", "exit_code": 3, "labels": {"a": "b"}})
RESULT = Result(JOB, b"out", b"err")


class ErrorTests(SynchronousTestCase):
    def test_copies(self) -> None:
        """A copy has the same text and attributes."""
        for error in (
            ClientError("m", started="unknown", job_id="j1"),
            ConnectionFailed("m", started=False),
            ApiProblem(503, {"type": "/problems/busy", "detail": "d"}, started=False, job_id="j1"),
            JobFailed(RESULT),
            OutputLost("m", started=True, job_id="j1", result=RESULT),
            WaitTimedOut(JOB, 1.5),
        ):
            for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
                self.assertIs(type(made), type(error))
                self.assertEqual((str(made), vars(made)), (str(error), vars(error)))
