"""A job ``j-1`` that runs on worker ``w-1``, for the tests of stops."""

from __future__ import annotations

from scheduler.model import WorkerState
from tests.unit.cluster.case import ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker


class StopTestCase(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(a_job(started_at=900.0))

    def worker_is(self, state: WorkerState) -> None:
        self.add(a_worker(), online=state is WorkerState.ONLINE)
        self.stops.retry()
        self.settle()
