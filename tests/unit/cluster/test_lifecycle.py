from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster import lifecycle
from scheduler.messages import JobReport, JobStatus
from scheduler.model import FINAL, TRANSITIONS, JobSpec, JobState, Usage
from scheduler.terms import QueueTerms, Retry
from tests.unit.cluster.values import a_job, a_worker

RUNNING = JobStatus(job_id="j-1", state=JobState.RUNNING, started_at=1000.5)
FAILED = JobStatus(
    job_id="j-1", state=JobState.FAILED, reason="exit status 3", started_at=1000.5, finished_at=1002.0, exit_code=3
)
ALL = [a_job(state=state) for state in JobState]


class LifecycleTests(SynchronousTestCase):
    def test_final_never_changes(self) -> None:
        """No event changes a job that has ended."""
        for state in FINAL:
            job = a_job(state=state, reason="as it was")
            for after in (
                lifecycle.reported(job, RUNNING, 2000),
                lifecycle.reported(job, FAILED, 2000),
                lifecycle.reported_by_core(evolve(job, stop_requested_at=1500), FAILED, 2000),
                lifecycle.running(job, 2000),
                lifecycle.unknown(job, "why", 2000),
                lifecycle.lost(job, "why", 2000),
                lifecycle.failed(job, "why", 2000),
            ):
                self.assertEqual((after.state, after.reason, after.finished_at), (state, "as it was", 1001.0))

    def test_only_legal_transitions(self) -> None:
        """Every event takes a started job to a state that the table of transitions allows."""
        for job in ALL:
            if job.state is JobState.QUEUED:
                continue
            for after in (
                lifecycle.reported(job, RUNNING, 2000),
                lifecycle.reported(job, FAILED, 2000),
                lifecycle.running(job, 2000),
                lifecycle.unknown(job, "why", 2000),
                lifecycle.lost(job, "why", 2000),
            ):
                if after.state is not job.state:
                    self.assertIn(after.state, TRANSITIONS[job.state])

    def test_reported_end(self) -> None:
        """A reported end brings reason, exit code, the worker's time of it and what the job took."""
        took = Usage(max_rss=9_000_000, cpu_seconds=1.5)
        after = lifecycle.reported(a_job(), evolve(FAILED, usage=took), now=2000)
        self.assertEqual(after.usage, took)
        self.assertEqual(
            (after.state, after.reason, after.exit_code, after.finished_at),
            (JobState.FAILED, "exit status 3", 3, 1002.0),
        )

    def test_reported_end_without_a_time(self) -> None:
        """An end whose time the worker does not know counts from when it was heard of."""
        self.assertEqual(lifecycle.reported(a_job(), evolve(FAILED, finished_at=None), now=2000).finished_at, 2000)

    def test_left_running(self) -> None:
        """Processes that could not be ended are named, and are the reason where there is no other."""
        left = evolve(FAILED, state=JobState.SUCCEEDED, reason="", leftover=(12, 13))
        after = lifecycle.reported(a_job(), left, now=2000)
        self.assertEqual((after.leftover, after.reason), ((12, 13), "2 processes could not be ended: 12, 13"))
        self.assertEqual(lifecycle.reported(a_job(), evolve(left, reason="why"), now=2000).reason, "why")

    def test_stopped_by_the_scheduler(self) -> None:
        """A job that the scheduler had stopped says why, whatever its worker calls that; any other end is its own."""
        job = lifecycle.asked_to_stop(a_job(), 1500.0, "nobody wants it")
        self.assertEqual((job.stop_requested_at, job.stop_reason), (1500.0, "nobody wants it"))
        killed = evolve(FAILED, state=JobState.STOPPED, reason="signal: killed", exit_code=None, signal="SIGKILL")
        left = evolve(killed, reason="1 process could not be ended: 7; signal: killed", leftover=(7,))
        old = evolve(killed, state=JobState.FAILED)
        for after, reason in (
            (lifecycle.reported(job, killed, 2000), "nobody wants it"),
            (lifecycle.reported(job, left, 2000), "1 process could not be ended: 7; nobody wants it"),
            (lifecycle.reported_by_core(job, old, 2000), "nobody wants it"),
            (lifecycle.withdrawn(job, 2000), "nobody wants it"),
            (lifecycle.absent(evolve(job, state=JobState.UNKNOWN), 2000), "nobody wants it"),
            (lifecycle.reported(job, FAILED, 2000), "exit status 3"),
            (lifecycle.reported(lifecycle.unknown(job, "gone", 1600), killed, 2000), "nobody wants it"),
            (lifecycle.reported(job, RUNNING, 2000), None),
        ):
            self.assertEqual(after.reason, reason)

    def test_the_first_to_ask(self) -> None:
        """A job is asked to stop once, and why is what the first one said."""
        for first, second in ((None, "why"), ("why", None), ("why", "why else")):
            once = lifecycle.asked_to_stop(a_job(), 1500.0, first)
            self.assertEqual(lifecycle.asked_to_stop(once, 1600.0, second), once)
            self.assertEqual(once.stop_reason, first)

    def test_linked(self) -> None:
        """Attempts that an earlier version kept are linked by what they tell of the ones before them."""
        terms = QueueTerms(retry=Retry(2))
        jobs = [
            a_job("c", JobState.QUEUED, terms=terms, retry_of="b"),
            a_job("b", JobState.FAILED, terms=terms, retry_of="a"),
            a_job("a", JobState.FAILED, terms=terms),
            a_job("other"),
            a_job("y", JobState.FAILED, terms=terms, retry_of="gone", group_id="g", retried_by="z"),
        ]
        found = {job.id: (job.group_id, job.retried_by) for job in lifecycle.linked(jobs)}
        expected = {"a": ("a", "b"), "b": ("a", "c"), "c": ("a", None), "other": (None, None), "y": ("g", "z")}
        self.assertEqual(found, expected)
        linked = lifecycle.linked(jobs)
        self.assertEqual(lifecycle.linked(linked), linked)

    def test_unknown_and_back(self) -> None:
        """Unknown says since when and why; a report ends both."""
        lost_sight = lifecycle.unknown(a_job(), "worker 'w-1' can't be reached", now=1500)
        self.assertEqual((lost_sight.state, lost_sight.unknown_since), (JobState.UNKNOWN, 1500))
        for back in (lifecycle.running(lost_sight, 1600), lifecycle.reported(lost_sight, RUNNING, now=1600)):
            self.assertEqual((back.state, back.unknown_since, back.reason), (JobState.RUNNING, None, None))

    def test_unknown_keeps_its_beginning(self) -> None:
        """A job that is unknown already keeps since when."""
        once = lifecycle.unknown(a_job(), "why", now=1500)
        self.assertEqual(lifecycle.unknown(once, "why else", now=1700), once)

    def test_stopped_on_a_core_worker(self) -> None:
        """A core worker reports a stopped job as failed, or as succeeded where it caught the signal."""
        asked = a_job(stop_requested_at=1500.0)
        killed = evolve(FAILED, reason="signal: terminated", exit_code=None)
        self.assertIs(lifecycle.reported_by_core(asked, killed, 2000).state, JobState.STOPPED)
        self.assertIs(lifecycle.reported_by_core(a_job(), killed, 2000).state, JobState.FAILED)
        caught = JobStatus("j-1", JobState.SUCCEEDED, exit_code=0)
        after = lifecycle.reported_by_core(asked, caught, 2000)
        self.assertEqual((after.state, after.exit_code, after.reason), (JobState.STOPPED, 0, "stopped"))
        self.assertIs(lifecycle.reported_by_core(a_job(), caught, 2000).state, JobState.SUCCEEDED)

    def test_times_to_come(self) -> None:
        """Times of a worker whose clock is ahead are clamped to now, and do not change with each report."""
        ahead = evolve(RUNNING, started_at=5000.0)
        job = lifecycle.reported(a_job(), ahead, 2000)
        self.assertEqual(job.started_at, 2000)
        self.assertEqual(lifecycle.reported(job, ahead, 2010), job)
        ended = lifecycle.reported(job, evolve(FAILED, started_at=5000.0, finished_at=5060.0), 2060)
        self.assertEqual((ended.started_at, ended.finished_at), (2000, 2060))

    def test_a_clock_that_was_set_back(self) -> None:
        """Where the scheduler's clock is before the time when the job was made, it ended no earlier than that."""
        job = lifecycle.reported(a_job(created_at=3000.0), evolve(FAILED, finished_at=3060.0), 2000)
        self.assertEqual(job.finished_at, 3000.0)

    def test_a_clock_that_stepped_back(self) -> None:
        """No job ends before it began."""
        job = lifecycle.reported(a_job(), evolve(FAILED, started_at=1500.0, finished_at=1100.0), 2000)
        self.assertEqual((job.started_at, job.finished_at), (1500.0, 1500.0))

    def test_adopted(self) -> None:
        """A job first heard of from its worker has the spec and the times the worker tells."""
        spec = JobSpec(command="sleep", args=("9",))
        job = lifecycle.adopted(JobReport(RUNNING, spec, created_at=999.0), a_worker(), now=2000)
        self.assertEqual((job.id, job.spec, job.state), ("j-1", spec, JobState.RUNNING))
        self.assertEqual(
            (job.created_at, job.started_at, job.worker_id, job.worker_name), (999.0, 1000.5, "w-1", "w-1")
        )
