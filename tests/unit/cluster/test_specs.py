"""Large arguments and variables of jobs that have ended: the store has them."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster import lifecycle
from scheduler.errors import StoreFailed
from scheduler.messages import JobReport, JobStatus
from scheduler.model import SPEC_KEPT_MAX_CHARACTERS, Job, JobSpec, JobState, Ref
from scheduler.request_keys import RequestKey
from scheduler.terms import QueueTerms, Retry, Target
from tests.unit.cluster.case import W1, ClusterTestCase
from tests.unit.cluster.test_membership import MembershipTestCase, ended
from tests.unit.cluster.values import a_job

LARGE = JobSpec(command="x", args=("a" * SPEC_KEPT_MAX_CHARACTERS,), env={"E": "e"}, labels={"l": "v"}, stdin=b"in")
WHOLE = LARGE.without_input()
KEY = RequestKey("k", "f" * 64)


class TrimmedTests(SynchronousTestCase):
    def test_small(self) -> None:
        """Small arguments and variables stay in memory."""
        spec = JobSpec(command="x", args=("a" * 4000,), env={"E": "e"})
        self.assertIs(spec.trimmed(), spec)

    def test_many(self) -> None:
        """Many arguments are large however short each is; and so are variables."""
        for spec in (JobSpec(args=("",) * 5000), JobSpec(env={"E": "e" * 5000})):
            light = spec.trimmed()
            self.assertEqual((light.args, dict(light.env)), ((), {}))
            self.assertGreater(light.stored, SPEC_KEPT_MAX_CHARACTERS)
            self.assertIs(light.trimmed(), light)

    def test_the_rest_stays(self) -> None:
        light = LARGE.trimmed()
        self.assertEqual((light.command, dict(light.labels), light.stdin), ("x", {"l": "v"}, None))


class SpecTests(ClusterTestCase):
    def run_one(self, **facts: Any) -> Job:
        answer = self.house.submit(LARGE, W1, key=KEY, **facts)
        call = self.take("start_job")
        self.assertEqual(call.args[0].spec, LARGE)
        call.answer.callback(JobStatus(call.args[0].id, JobState.RUNNING))
        return self.successResultOf(answer)

    def end(self, job: Job) -> None:
        current = self.cluster.job(job.id)
        self.successResultOf(self.ledger.learn(evolve(current, state=JobState.FAILED, finished_at=self.wall)))
        self.settle()

    def filled(self, *jobs: Job) -> list[JobSpec]:
        return [job.spec for job in self.successResultOf(self.cluster.with_specs(jobs))]

    def test_ended(self) -> None:
        """A job gives them up at its end, also for waiting clients; they are read from the store."""
        job = self.run_one()
        waiting = self.cluster.wait(job.id, 30)
        self.assertEqual(self.cluster.job(job.id).spec, LARGE)
        self.end(job)
        for found in (self.cluster.job(job.id), self.successResultOf(waiting)):
            self.assertEqual((found.spec.args, bool(found.spec.stored)), ((), True))
        small = a_job("small", JobState.FAILED)
        self.assertEqual(self.filled(self.cluster.job(job.id), small), [WHOLE, small.spec])

    def test_answer_to_a_key(self) -> None:
        """The answer to a request sent again has them while the job runs, and then the store."""
        job = self.run_one()
        self.assertEqual(self.successResultOf(self.house.submit(LARGE, W1, key=KEY)).spec, LARGE)
        self.end(job)
        again = self.successResultOf(self.house.submit(LARGE, W1, key=KEY))
        self.assertEqual((again.spec.args, self.filled(again)), ((), [WHOLE]))

    def test_next_attempt(self) -> None:
        job = self.run_one(terms=QueueTerms(retry=Retry(1)))
        self.end(job)
        self.settle()
        self.assertEqual(self.take("start_job").args[0].spec, LARGE)

    def test_the_store_fails(self) -> None:
        """They can't be had while the store fails; the end of a job that is held for it has them."""
        job = self.run_one()
        self.end(job)
        self.store.problem = "disk full"
        self.failureResultOf(self.cluster.with_specs([self.cluster.job(job.id)]), StoreFailed)
        self.assertEqual(self.filled(), [])

    def test_removed(self) -> None:
        """The arguments of a job that was removed meanwhile are gone."""
        job = self.run_one()
        self.end(job)
        light = self.cluster.job(job.id)
        self.ledger.learn(Ref("job", job.id))
        self.assertEqual(self.filled(light), [light.spec])
        self.assertEqual(self.successResultOf(self.cluster.with_specs([light])), (light,))

    def test_after_a_restart(self) -> None:
        """The next process does not load them either."""
        job = self.run_one()
        self.end(job)
        self.begin()
        light = self.cluster.job(job.id)
        self.assertTrue(light.spec.stored)
        self.assertEqual(self.filled(light), [WHOLE])


class AdoptedTests(MembershipTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1")

    def test_adopted(self) -> None:
        """A job that had ended when it was first heard of is saved as its worker describes it, and kept light."""
        self.beat("w-1", ended=(JobReport(ended()),))
        self.beat("w-1", described=(JobReport(ended(), WHOLE, 800.0),))
        light = self.cluster.job("j-1")
        self.assertEqual((light.state, light.spec.args), (JobState.FAILED, ()))
        self.assertEqual(self.successResultOf(self.cluster.with_specs([light]))[0].spec, WHOLE)

    def test_while_the_store_fails(self) -> None:
        """A job whose first save failed is not kept; its worker tells of it again."""
        self.beat("w-1", ended=(JobReport(ended()),))
        self.store.problem = "disk full"
        self.beat("w-1", described=(JobReport(ended(), WHOLE, 800.0),))
        self.assertIsNone(self.ledger.registry.jobs.find("j-1"))
        self.store.problem = ""
        self.clock.advance(10)
        self.beat("w-1", ended=(JobReport(ended()),))
        self.beat("w-1", described=(JobReport(ended(), WHOLE, 800.0),))
        light = self.cluster.job("j-1")
        self.assertEqual(self.successResultOf(self.cluster.with_specs([light]))[0].spec, WHOLE)


class ToldAttemptsTests(SynchronousTestCase):
    def test_after_one_that_is_known_in_part(self) -> None:
        """The attempt after one that has ended, and is known in part alone, has all that the first one has."""
        terms = QueueTerms(retry=Retry(2))
        first = a_job(spec=LARGE, target=Target(worker="w-1"), terms=terms)
        ending = evolve(first, state=JobState.FAILED, finished_at=5.0)
        second_id = lifecycle.followed(ending, 5.0)[1].id  # type: ignore[union-attr]
        second = a_job(second_id, JobState.FAILED, spec=LARGE, target=None).trimmed()
        known = {first.id: first, second.id: second}
        nobody = lambda _: None  # noqa: E731
        never = lambda _: False  # noqa: E731
        told = lifecycle.told_attempts([ending], known.get, nobody, never, never, 6.0)
        specs = {job.id: job.spec for job in told}
        (third,) = specs.keys() - known.keys()
        self.assertEqual((specs[third].args, specs[third].stdin), (LARGE.args, b"in"))
