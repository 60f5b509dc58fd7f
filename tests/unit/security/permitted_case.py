"""A fleet with one worker within the reach of a principal, and one beyond, for tests."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from scheduler.model import Job, Submission
from scheduler.security.permitted import Permitted
from scheduler.security.principals import Principal, Scope
from scheduler.terms import NO_WAITING, QueueTerms, Target
from scheduler.views import JobFilter
from tests.doubles.overridden import Overridden
from tests.fleet import FleetTestCase
from tests.house import ECHO

CI = Principal("token", "ci", Scope.ADMIN, {"zone": "a"})
OTHER = Principal("token", "other", Scope.ADMIN, {"zone": "a"})
ADMIN = Principal("local", "root", Scope.ADMIN)

W1, W2 = Target(worker="w1"), Target(worker="w2")
WAITING = QueueTerms(queue_timeout=60.0)


class PermittedCase(FleetTestCase):
    """``w1`` is within the reach of ``ci``, ``w2`` is beyond."""

    def setUp(self) -> None:
        super().setUp()
        self.fleet.add_worker("w1", labels={"zone": "a"}, slots=2)
        self.fleet.add_worker("w2", labels={"zone": "b"}, slots=2)
        self.calls = Overridden(self.scheduler)
        self.ci, self.other, self.admin = (Permitted(self.calls, who) for who in (CI, OTHER, ADMIN))

    def start(self, who: Permitted, target: Target, terms: QueueTerms = NO_WAITING, key: Any = None) -> Deferred[Job]:
        self.clock.advance(1.0)
        accepted = maybeDeferred(who.submit, Submission(ECHO, target, terms, key))
        return accepted.addCallback(lambda accepted: accepted.answered)

    def started(self, who: Permitted, target: Target, terms: QueueTerms = NO_WAITING, key: Any = None) -> Job:
        job: Job = self.successResultOf(self.start(who, target, terms, key))
        return job

    def listed(self, who: Permitted, **which: Any) -> list[str]:
        return [job.id for job in who.jobs(JobFilter(**which), 100, None).jobs]
