"""Calls to workers that gRPC itself fails to end."""

import math
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Unreachable
from scheduler.pb import worker_pb2
from scheduler.rpc.addressing import Addressee
from scheduler.rpc.worker_calls import start_thd


class UnheardTests(SynchronousTestCase):
    def test_no_thread(self) -> None:
        """A start on a core worker may have arrived if gRPC can't have a thread to listen for its answer."""

        def no_thread(*_: object, **__: object) -> None:
            raise RuntimeError("can't start new thread")

        worker = SimpleNamespace(StartJob=SimpleNamespace(future=no_thread))
        stubs: Any = SimpleNamespace(answered=(math.inf, ""), worker=worker)
        request = worker_pb2.StartJobReq(jobID="j")
        late: list[object] = []
        error = self.assertRaises(Unreachable, start_thd, late.append, stubs, Addressee("w"), request, 5.0)
        assert isinstance(error, Unreachable)
        self.assertTrue(error.sent)
        self.assertEqual(late, [])
