"""Permissions: the rule for workers, jobs and targets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import NoMatch, NotFound, Refused
from scheduler.model import Job, JobState, Worker
from scheduler.security.permissions import Permissions
from scheduler.security.principals import Principal, Scope
from scheduler.terms import Target
from tests.unit.cluster.values import a_job, a_worker

#: Workers by id: within the reach of the principal, and beyond, by one label or another.
WORKERS = {
    worker.id: worker
    for worker in (
        a_worker("both", labels={"zone": "a", "gpu": "yes", "name": "both"}),
        a_worker("other", labels={"zone": "b", "gpu": "yes"}),
        a_worker("one", labels={"zone": "a"}),
        a_worker("none", labels={}),
    )
}
LABELS = {"zone": "a", "gpu": "yes"}
CI = Principal("token", "ci", Scope.RUN, LABELS)


def find(name: str) -> Worker:
    """The worker with that id; its name is the same with a capital letter."""
    if name.lower() not in WORKERS:
        raise NotFound("worker", name)
    return WORKERS[name.lower()]


class PermissionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.permissions = Permissions(CI, find)
        self.everywhere = Permissions(Principal("token", "all", Scope.RUN), find)

    def has(self, *jobs: Job) -> list[bool]:
        self.assertEqual([self.everywhere.covers_job(job) for job in jobs], [True] * len(jobs))
        return [self.permissions.covers_job(job) for job in jobs]

    def test_workers(self) -> None:
        """A worker is within reach if it has all the labels."""
        self.assertEqual([name for name in WORKERS if self.permissions.covers_worker(WORKERS[name])], ["both"])
        self.assertEqual([name for name in WORKERS if self.everywhere.covers_worker(WORKERS[name])], list(WORKERS))
        self.assertEqual((self.permissions.is_limited, self.everywhere.is_limited), (True, False))
        self.permissions.check_worker("both")
        self.assertRaises(NotFound, self.permissions.check_worker, "nope")
        error = self.assertRaises(Refused, self.permissions.check_worker, "one")
        self.assertEqual(str(error), "worker 'one' is beyond the reach of token:ci")

    def test_job_of_a_worker(self) -> None:
        """The worker of a job decides, whoever submitted it and with whatever selector."""
        for name in WORKERS:
            jobs = [
                a_job(worker_id=name, created_by=by, target=target)
                for by in ("token:ci", "token:other", None)
                for target in (None, Target(worker=name), Target(selector=LABELS), Target(selector={}))
            ]
            self.assertEqual(self.has(*jobs), [name == "both"] * len(jobs), name)

    def test_queued_job(self) -> None:
        """A job without a worker is within reach if it can run nowhere else."""
        for target, expected in (
            (Target(worker="both"), True),
            (Target(worker="one"), False),
            (Target(selector=LABELS), True),
            (Target(selector={**LABELS, "more": "x"}), True),
            (Target(selector={"zone": "a"}), False),
            (Target(selector={"zone": "b", "gpu": "yes"}), False),
            (Target(selector={}), False),
        ):
            for by in ("token:ci", "token:other", None):
                job = a_job(state=JobState.QUEUED, worker_id=None, target=target, created_by=by)
                self.assertEqual(self.has(job), [expected], target)

    def test_job_of_a_forgotten_worker(self) -> None:
        """If its worker is not known, a job is within reach by its selector, or if the same principal submitted it."""
        for target, expected in ((None, False), (Target(worker="gone"), False), (Target(selector={}), False)):
            mine, other = (a_job(worker_id="gone", target=target, created_by=by) for by in ("token:ci", "token:other"))
            self.assertEqual(self.has(mine, other), [True, expected])
        self.assertEqual(self.has(a_job(worker_id="gone", target=Target(selector=LABELS), created_by="x")), [True])
        waiting = [
            a_job(state=JobState.QUEUED, worker_id=None, target=Target(worker="gone"), created_by=by)
            for by in ("token:ci", "token:other", None)
        ]
        self.assertEqual(self.has(*waiting), [True, False, False])
        self.assertEqual(self.has(a_job(worker_id=None, target=None)), [False])

    def test_check_job(self) -> None:
        """A job beyond reach is like one that does not exist."""
        job = a_job(worker_id="both")
        self.assertIs(self.permissions.check_job(job), job)
        error = self.assertRaises(NotFound, self.permissions.check_job, a_job("j-2", worker_id="one"))
        self.assertEqual(str(error), str(NotFound("job", "j-2")))

    def test_targets(self) -> None:
        """A selector gets the labels of the reach; one that contradicts them matches nothing."""
        for selector in ({}, {"zone": "a"}, LABELS):
            self.assertEqual(self.permissions.limited(Target(selector=selector)), Target(selector=LABELS))
        more = {"more": "x"}
        self.assertEqual(self.permissions.limited(Target(selector=more)), Target(selector={**LABELS, **more}))
        self.assertEqual(self.everywhere.limited(Target(selector=more)), Target(selector=more))
        error = self.assertRaises(NoMatch, self.permissions.limited, Target(selector={"zone": "b"}))
        self.assertIn("zone=b", str(error))
        self.assertEqual(self.permissions.limited(Target(worker="Both")), Target(worker="both", selector=LABELS))
        self.assertEqual(self.everywhere.limited(Target(worker="Both")), Target(worker="Both"))
        self.assertRaises(Refused, self.permissions.limited, Target(worker="other"))
        self.assertRaises(NotFound, self.permissions.limited, Target(worker="nope"))
