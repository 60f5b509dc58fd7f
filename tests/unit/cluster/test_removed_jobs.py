"""Removed jobs: the fact that they were removed is kept, and their keys."""

from __future__ import annotations

from attrs import evolve

from scheduler.errors import JobRemoved
from scheduler.messages import JobStatus
from scheduler.model import JobState, RemovedJob
from scheduler.request_keys import RequestKey
from scheduler.terms import NO_WAITING
from tests.unit.cluster.case import ECHO, W1
from tests.unit.cluster.removals_case import ENDED, RUNNING, RemovalCase
from tests.unit.cluster.values import a_job

KEY = RequestKey("k", "f" * 64)


class KeyTests(RemovalCase):
    def test_across_a_restart(self) -> None:
        """A request whose job was removed runs nothing again, whatever is restarted."""
        submission = self.house.submit(ECHO, W1, NO_WAITING, KEY)
        start = self.take("start_job")
        job_id = start.args[0].id
        start.answer.callback(JobStatus(job_id, JobState.SUCCEEDED, started_at=1000.0, finished_at=1000.5))
        self.successResultOf(submission)
        removal = self.cluster.remove(job_id)
        self.take("remove_job").answer.callback(None)
        self.assertTrue(self.successResultOf(removal))
        for _ in range(2):
            error = self.failureResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY), JobRemoved).value
            self.assertEqual(error.job_id, job_id)
            self.begin()
            self.online()
        self.assertEqual(self.held(), [])

    def test_removed_once_more(self) -> None:
        """Its key stays when a removed job turns out to run, and is removed once more."""
        self.add(evolve(self.cluster.job("j-1"), key=KEY))
        self.removed()
        self.beat(running=("j-1",))
        self.beat(running=("j-1",), described=(RUNNING,))
        self.beat(ended=(ENDED,))
        self.removed()
        self.begin()
        self.online()
        self.failureResultOf(self.house.submit(ECHO, W1, NO_WAITING, KEY), JobRemoved)

    def test_rest(self) -> None:
        """A removed job leaves the fact that it was removed, and when."""
        self.removed()
        self.assertEqual(self.successResultOf(self.store.load()).removed, (RemovedJob("j-1", 1000.0),))

    def test_limit(self) -> None:
        """As many are kept as finished jobs are, those of the jobs that were removed last."""
        self.house.limits["keep_finished"] = 3
        self.begin()
        for number in range(5):
            self.add(evolve(a_job(f"l-{number}", JobState.LOST), worker_id="w-gone"))
            self.assertTrue(self.successResultOf(self.cluster.remove(f"l-{number}")))
        kept = list(self.ledger.registry.removed)
        self.assertEqual(kept, ["l-2", "l-3", "l-4"])
        self.assertEqual({each.job_id for each in self.successResultOf(self.store.load()).removed}, set(kept))
        self.begin()
        self.assertEqual(list(self.ledger.registry.removed), kept)
        self.assertNotIn("l-1", self.ledger.registry.removed)
