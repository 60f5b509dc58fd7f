from __future__ import annotations

from attrs import evolve

from scheduler.cluster.workers import adoption, refusals
from scheduler.cluster.workers.adoption import (
    ADOPTED_PER_WORKER_MAX,
    DESCRIBED_PER_HEARTBEAT,
    HEARTBEATS_REMEMBERED,
    SPEC_MAX_BYTES,
)
from scheduler.cluster.workers.refusals import Refusals
from scheduler.messages import Heartbeat, HeartbeatAnswer, JobReport, JobStatus
from scheduler.model import Job, JobSpec, JobState, Ref
from scheduler.views import JobFilter
from tests.house import PEER
from tests.unit.cluster.test_membership import MembershipTestCase, ended, running
from tests.unit.cluster.values import a_job

SPEC = JobSpec(command="sleep", args=("9",))


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def described(job_ids: list[str] | tuple[str, ...], spec: JobSpec = SPEC) -> tuple[JobReport, ...]:
    return tuple(JobReport(ended(job_id), spec, 800.0) for job_id in job_ids)


class AdoptionTests(MembershipTestCase):
    """Jobs that workers report and the scheduler does not know."""

    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1")

    def tell_ended(self, job_ids: list[str], worker_id: str = "w-1") -> HeartbeatAnswer:
        return self.beat(worker_id, ended=tuple(JobReport(ended(job_id)) for job_id in job_ids))

    def describe_all(self, asked: tuple[str, ...], worker_id: str = "w-1") -> list[str]:
        """Do as a worker does: describe what is asked for until nothing is; answers what was acknowledged."""
        acknowledged: list[str] = []
        while asked:
            answer = self.beat(worker_id, described=described(asked))
            acknowledged += answer.acknowledged
            asked = answer.describe
        return acknowledged

    def jobs(self, worker_id: str | None = None) -> list[Job]:
        found = self.ledger.registry.jobs.listing.matching(JobFilter())
        return [job for job in found if worker_id is None or job.worker_id == worker_id]

    def test_not_asked_for(self) -> None:
        """A description that was not asked for adopts nothing; the job is asked about, and then adopted."""
        answer = self.beat("w-1", described=described(["j-1"]))
        self.assertEqual((self.jobs(), answer.acknowledged, answer.describe), ([], (), ("j-1",)))
        self.assertEqual(self.beat("w-1", described=described(["j-1"])).acknowledged, ("j-1",))
        self.assertIs(self.state("j-1"), JobState.FAILED)

    def test_another_than_was_asked_for(self) -> None:
        """A worker that was asked about one job can have no other adopted."""
        self.tell_ended(["j-1"])
        answer = self.beat("w-1", described=described(["j-2"]))
        self.assertEqual((self.jobs(), answer.acknowledged, answer.describe), ([], (), ("j-2",)))

    def test_asked_about_more_than_there_is_room_for(self) -> None:
        """However many a worker was asked about before it described one, no more are adopted than there is room for."""
        self.patch(adoption, "ADOPTED_PER_WORKER_MAX", DESCRIBED_PER_HEARTBEAT + 10)
        first, then = self.tell_ended(ids("e", 200)).describe, self.beat("w-1").describe
        self.beat("w-1", described=described(first))
        self.beat("w-1", described=described(then))
        self.assertEqual(len(self.jobs()), DESCRIBED_PER_HEARTBEAT + 10)

    def test_asked_of_another(self) -> None:
        """A job that one worker was asked about is not adopted from another worker."""
        self.online(address="127.0.0.1:30001", worker_id="w-2")
        self.tell_ended(["j-1"])
        self.beat("w-2", described=described(["j-1"]))
        self.assertEqual(self.jobs(), [])

    def test_of_the_process_before(self) -> None:
        """Questions to an earlier process of the worker are asked again."""
        self.tell_ended(["j-1"])
        self.online(worker_id="w-1")
        self.beat("w-1", described=described(["j-1"]))
        self.assertEqual(self.jobs(), [])

    def test_a_few_at_a_time(self) -> None:
        """Each answer asks about a few of many, running or ended, until all are adopted and the ends acknowledged."""
        ends, runs = ids("e", 150), ids("r", 100)
        answer = self.beat("w-1", running=tuple(runs), ended=tuple(JobReport(ended(job_id)) for job_id in ends))
        acknowledged: list[str] = []
        beats = 0
        while answer.describe:
            self.assertLessEqual(len(answer.describe), DESCRIBED_PER_HEARTBEAT)
            reports = tuple(
                JobReport(ended(job_id) if job_id in ends else running(job_id), SPEC, 800.0)
                for job_id in answer.describe
            )
            answer = self.beat("w-1", running=tuple(runs), described=reports)
            acknowledged += answer.acknowledged
            beats += 1
        self.assertEqual((sorted(acknowledged), beats), (sorted(ends), 4))
        self.assertEqual({job.id for job in self.jobs()}, {*ends, *runs})
        self.assertTrue(self.house.parts.reconciler.idle)

    def test_too_many_at_once(self) -> None:
        """A heartbeat has no more jobs adopted than one answer asks about, even if more were asked before."""
        asked = (*self.tell_ended(ids("e", 200)).describe, *self.beat("w-1").describe)
        self.assertEqual(len(asked), 2 * DESCRIBED_PER_HEARTBEAT)
        self.assertEqual(len(self.beat("w-1", described=described(asked)).acknowledged), DESCRIBED_PER_HEARTBEAT)
        self.assertEqual(len(self.jobs()), DESCRIBED_PER_HEARTBEAT)

    def test_of_one_worker(self) -> None:
        """No more than a number of jobs are adopted of one worker; it is not asked about others, and another is."""
        acknowledged = self.describe_all(self.tell_ended(ids("e", ADOPTED_PER_WORKER_MAX + 100)).describe)
        self.assertEqual(len(acknowledged), ADOPTED_PER_WORKER_MAX)
        self.assertEqual(self.tell_ended(["more"]).describe, ())
        self.online(address="127.0.0.1:30001", worker_id="w-2")
        self.assertEqual(self.describe_all(self.tell_ended(["other"], "w-2").describe, "w-2"), ["other"])
        self.ledger.learn(Ref("job", acknowledged[0]))
        self.assertEqual(self.tell_ended(["more"]).describe, ("more",))

    def test_while_they_are_being_saved(self) -> None:
        """Adopted jobs that are not durable yet count, too."""
        self.patch(adoption, "ADOPTED_PER_WORKER_MAX", DESCRIBED_PER_HEARTBEAT)
        asked = self.tell_ended(ids("e", 100)).describe
        self.store.held = True
        saving = self.membership.heartbeat(Heartbeat("w-1", "boot", described=described(asked)), PEER)
        meanwhile = self.membership.heartbeat(Heartbeat("w-1", "boot", running=("r",)), PEER)
        self.assertNoResult(saving)
        self.assertEqual(self.ledger.endings.adopted("w-1"), (DESCRIBED_PER_HEARTBEAT, DESCRIBED_PER_HEARTBEAT))
        self.store.commit()
        self.store.commit()
        self.assertEqual(self.successResultOf(saving).acknowledged, asked)
        self.assertEqual(self.successResultOf(meanwhile).describe, ())

    def test_a_flood_costs_nobody_a_job(self) -> None:
        """However many ends a worker forges, other jobs stay, here and in the store."""
        self.begin(keep_finished=10)
        self.online(worker_id="w-1")
        self.patch(adoption, "ADOPTED_PER_WORKER_MAX", 50)
        placed = [a_job(job_id, JobState.SUCCEEDED, "w-2") for job_id in ids("placed", 10)]
        self.ledger.learn(*placed)
        forged = ids("forged", 5_000)
        answer = self.beat("w-1", ended=tuple(JobReport(ended(each)) for each in forged), described=described(forged))
        self.describe_all(answer.describe)
        for known in (self.jobs(), self.successResultOf(self.store.load()).jobs):
            self.assertEqual({job.id for job in known if not job.is_adopted}, {job.id for job in placed})
            self.assertEqual(sum(job.is_adopted for job in known), 50)

    def test_an_adopted_job_that_ends(self) -> None:
        """The end of a job that was adopted while it ran pushes out no other; that of a placed job does."""
        self.begin(keep_finished=1)
        self.online(worker_id="w-1")
        self.ledger.learn(a_job("old", JobState.SUCCEEDED, "w-2"), a_job("placed"))
        self.beat("w-1", running=("run", "placed"))
        self.beat("w-1", running=("run", "placed"), described=(JobReport(running("run"), SPEC, 800.0),))
        self.tell_ended(["run"])
        self.assertEqual({job.id for job in self.jobs()}, {"old", "placed", "run"})
        self.tell_ended(["placed"])
        self.assertEqual({job.id for job in self.jobs()}, {"placed", "run"})

    def test_in_all(self) -> None:
        """Where as many jobs of all workers are adopted as are kept, no worker is asked."""
        self.patch(adoption, "ADOPTED_MAX", 2)
        self.describe_all(self.tell_ended(ids("e", 3)).describe)
        self.assertEqual(len(self.jobs()), 2)
        self.online(address="127.0.0.1:30001", worker_id="w-2")
        self.assertEqual(self.tell_ended(["other"], "w-2").describe, ())

    def test_after_a_restart(self) -> None:
        """Adopted jobs are known as such after a restart of the scheduler."""
        self.describe_all(self.tell_ended(ids("e", 3)).describe)
        self.house.restart()
        self.assertEqual(self.house.parts.ledger.endings.adopted("w-1"), (3, 3))

    def test_what_is_remembered(self) -> None:
        """The ids that a worker reports are remembered up to a number and for a limited time."""
        known = self.house.parts.reconciler.adoption
        most = 3 * DESCRIBED_PER_HEARTBEAT
        self.patch(adoption, "REMEMBERED_MAX", most)
        self.tell_ended(ids("e", 3 * most))
        for _ in range(3 * most // DESCRIBED_PER_HEARTBEAT):
            self.tell_ended(ids("e", 3 * most))
            self.assertLessEqual(known.most_remembered, most)
        for _ in range(2 * HEARTBEATS_REMEMBERED + 2):
            self.beat("w-1")
        self.assertTrue(known.idle)

    def test_not_running_any_more(self) -> None:
        """A running job that the worker does not report again is not remembered."""
        self.beat("w-1", running=("j-1",))
        self.assertFalse(self.house.parts.reconciler.idle)
        self.beat("w-1")
        self.assertTrue(self.house.parts.reconciler.idle)

    def test_known_jobs_go_first(self) -> None:
        """A known job whose start was not answered is described in any case, and counts among the few."""
        self.ledger.learn(a_job(state=JobState.UNKNOWN))
        answer = self.beat("w-1", running=(*ids("r", 100), "j-1"))
        self.assertEqual((answer.describe[0], len(answer.describe)), ("j-1", DESCRIBED_PER_HEARTBEAT))

    def test_what_no_client_could_ask_for(self) -> None:
        """A job is not adopted whose id is a worker's, or whose description no client could have sent."""
        self.online(address="127.0.0.1:30001", worker_id="w-2", name="box")
        specs = {
            "w-1": SPEC,
            "box": SPEC,
            "nul": JobSpec(command="a\0"),
            "lines": JobSpec(command="a\nb"),
            "path": JobSpec(command="a", cwd="/" + 5_000 * "x"),
            "labels": JobSpec(command="a", labels={"a": "\x1b[2J"}),
            "many": JobSpec(command="a", labels={str(number): "" for number in range(65)}),
            "huge": JobSpec(command="a", args=("x" * SPEC_MAX_BYTES, "y")),
            "good": JobSpec(command="sh", args=("-c", "a\nb"), labels={"a": "b"}),
        }
        self.assertEqual(set(self.tell_ended(list(specs)).describe), set(specs))
        answer = self.beat("w-1", described=tuple(JobReport(ended(each), spec) for each, spec in specs.items()))
        self.assertEqual([job.id for job in self.jobs()], ["good"])
        self.assertEqual(answer.acknowledged, ("good",))


class BelievedTests(MembershipTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.online(worker_id="w-1")

    def test_contradictions(self) -> None:
        """A report that contradicts itself changes nothing and is not acknowledged; those beside it count."""
        self.ledger.learn(a_job("j-1"), a_job("j-2"))
        bad = JobStatus("j-1", JobState.SUCCEEDED, finished_at=950.0, exit_code=7)
        self.assertEqual(self.beat("w-1", ended=(JobReport(bad), JobReport(ended("j-2")))).acknowledged, ("j-2",))
        self.assertEqual((self.state("j-1"), self.state("j-2")), (JobState.RUNNING, JobState.FAILED))

    def test_none_is_adopted(self) -> None:
        """A description that contradicts itself adopts nothing."""
        bad = JobStatus("j-1", JobState.LOST, finished_at=950.0, exit_code=7)
        self.beat("w-1", ended=(JobReport(ended("j-1")),))
        self.beat("w-1", described=(JobReport(bad, SPEC),))
        self.assertEqual(list(self.ledger.registry.jobs.listing.matching(JobFilter())), [])

    def test_times_to_come(self) -> None:
        """No time of a worker is later than now: not of a job that was placed, nor of one that is adopted."""
        self.ledger.learn(a_job("j-1"))
        late = evolve(ended("j-1"), started_at=2e9, finished_at=253402300799.0)
        other = evolve(late, job_id="j-2")
        self.beat("w-1", ended=(JobReport(late), JobReport(other)))
        self.beat("w-1", described=(JobReport(other, SPEC, 3e9),))
        for job_id in ("j-1", "j-2"):
            job = self.ledger.registry.jobs.get(job_id)
            self.assertEqual((job.created_at, job.started_at, job.finished_at), (1000.0, 1000.0, 1000.0))

    def test_one_line_of_log(self) -> None:
        """However much of a heartbeat is not believed, the log has one line of it."""
        self.online(address="127.0.0.1:30001", worker_id="w-2")
        self.ledger.learn(*(a_job(job_id, worker_id="w-2") for job_id in ids("j", 50)))
        lines = self.logged(Refusals)
        self.beat("w-1", running=tuple(ids("j", 25)), ended=tuple(JobReport(ended(each)) for each in ids("j", 50)))
        self.assertEqual(
            lines, ["worker w-1 reports what is not taken: 50 in all, new is j-0: jobID: the job is worker w-2's"]
        )

    def test_log_of_changes(self) -> None:
        """A repeated refusal is logged once, even if heartbeats between do not report the job; a change is logged."""
        lines = self.logged(Refusals)
        self.ledger.learn(*(a_job(job_id) for job_id in ids("j", 3)))
        bad = [JobReport(JobStatus(each, JobState.SUCCEEDED, exit_code=7)) for each in ids("j", 3)]
        for _ in range(3):
            self.beat("w-1", ended=tuple(bad[:2]))
            self.beat("w-1")
        why = "status: a job that ended with exit code 7 did not succeed"
        self.assertEqual(lines, [f"worker w-1 reports what is not taken: 2 in all, new is j-0: {why}"])
        for _ in range(3):
            self.beat("w-1", ended=tuple(bad))
        self.assertEqual(lines[1:], [f"worker w-1 reports what is not taken: 3 in all, new is j-2: {why}"])
        self.beat("w-1", ended=(JobReport(ended("j-2")),))
        self.beat("w-1", ended=(bad[2],))  # which was taken in between
        self.assertEqual(len(lines), 3)
        self.house.parts.reconciler.forget("w-1")  # as for another process
        self.beat("w-1", ended=tuple(bad))
        self.assertEqual(len(lines), 4)

    def test_log_is_bounded(self) -> None:
        """A worker that makes up ever more is logged so often, and not for ever."""
        lines = self.logged(Refusals)
        for number in range(refusals.REMEMBERED_MAX // 1000 + 5):
            self.beat("w-1", refused={f"{number}-{each}": "none" for each in range(1000)})
        self.assertEqual(len(lines), refusals.REMEMBERED_MAX // 1000)

    def test_unreadable(self) -> None:
        """An unreadable part of a heartbeat is logged; its job was mentioned, so the worker is not asked about it."""
        lines = self.logged(Refusals)
        self.ledger.learn(a_job("j-1"), a_job("j-2"))
        answer = self.beat("w-1", ended=(JobReport(ended("j-2")),), refused={"j-1": "outcome: 99 is none"})
        self.assertEqual((answer.acknowledged, answer.describe), (("j-2",), ()))
        self.assertEqual((self.state("j-1"), self.state("j-2")), (JobState.RUNNING, JobState.FAILED))
        self.assertEqual([call.method for call in self.workers.held], [])
        self.assertEqual(lines, ["worker w-1 reports what is not taken: 1 in all, new is j-1: outcome: 99 is none"])
