"""Calls to workers that gRPC itself fails to end."""

import math
from types import SimpleNamespace
from typing import Any

import grpc
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Unreachable
from scheduler.pb import worker_pb2
from scheduler.rpc.addressing import Addressee
from scheduler.rpc.worker_calls import ABANDONED_AFTER_SECONDS, start_thd


class UnheardTests(SynchronousTestCase):
    """A start without callbacks."""

    def start(self, future: Any, told: list[str]) -> Unreachable:
        worker = SimpleNamespace(StartJob=SimpleNamespace(future=future))
        stubs: Any = SimpleNamespace(answered=(math.inf, ""), worker=worker)
        request = worker_pb2.StartJobReq(jobID="j")
        error = self.assertRaises(
            Unreachable, start_thd, lambda: told.append("sent"), None, stubs, Addressee("w"), request, 5.0
        )
        assert isinstance(error, Unreachable)
        return error

    def test_no_thread(self) -> None:
        """If gRPC can't start a thread for the answer, the start may have arrived."""

        def no_thread(*_: object, **__: object) -> None:
            raise RuntimeError("can't start new thread")

        told: list[str] = []
        self.assertTrue(self.start(no_thread, told).sent)
        self.assertEqual(told, [])

    def test_no_answer(self) -> None:
        """A start that gRPC does not end by its deadline is abandoned soon after, and may have arrived."""
        waited: list[float] = []

        def result(seconds: float) -> None:
            waited.append(seconds)
            raise grpc.FutureTimeoutError

        told: list[str] = []
        self.assertTrue(self.start(lambda *_, **__: SimpleNamespace(result=result), told).sent)
        self.assertEqual(told, ["sent"])
        (seconds,) = waited
        self.assertTrue(ABANDONED_AFTER_SECONDS < seconds <= 5.0 + ABANDONED_AFTER_SECONDS, seconds)
