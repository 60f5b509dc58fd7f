"""The excuses after a setback of the database or the loss of a folder, and their limits."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import NotFound, WorkerOnline
from scheduler.interfaces import Loaded
from scheduler.model import Job, JobState, Presence, RemovedJob, Stream
from scheduler.terms import QueueTerms, Target
from scheduler.views import JobFilter
from tests.simulation.clients import Reply
from tests.simulation.faults.identity import RestoreDatabase
from tests.simulation.follow import Follower
from tests.simulation.machine import Folder, Spool
from tests.simulation.steps import Stop
from tests.simulation.world import World
from tests.unit.simulation.scene_case import SceneCase
from tests.unit.simulation.worlds import a_world, job_of, registry


class SetBackTests(SceneCase):
    """Job ``j1`` has run on ``w1``."""

    def setUp(self) -> None:
        super().setUp()
        self.ran()

    def spool(self) -> None:
        """The worker still has the job."""
        spools = self.world.workers["w1"].folder.spools
        spools["j1"] = Spool("j1", self.job().spec, 0.0, "boot")

    def set_back(self, *jobs: Job, removed: tuple[RemovedJob, ...] = ()) -> None:
        """The database is set back to these jobs, and jobs that were removed."""
        self.judge.set_back(Loaded(jobs, (), removed))
        self.world.loop.now += 1.0

    def reply(
        self, name: str, value: object = None, error: Exception | None = None, asked: float | None = None
    ) -> None:
        now = self.world.loop.now
        self.judge.replied(Reply(name, "j1", now if asked is None else asked, now, value, error, 0.0))

    def not_found(self) -> None:
        self.reply("wait", error=NotFound("job", "j1"))

    def test_not_found(self) -> None:
        """The scheduler may not know a job until its worker reports it; once it has shown the job, it must know it."""
        self.begin()
        self.spool()
        self.show(self.ended())
        self.set_back()
        self.not_found()
        self.assert_kept()
        self.put(self.ended())
        self.not_found()  # asked before that
        self.assert_kept()
        self.world.loop.now += 1.0
        self.not_found()
        self.assert_broken("P1 kept", "not found")

    def test_told_in_time(self) -> None:
        """Workers have reported their jobs when all sides agree. A job that no worker has stays unknown."""
        for spool, rule in ((True, "P1 kept"), (False, None)):
            self.setUp()
            if spool:
                self.spool()
            self.show(self.ended())
            self.set_back()
            self.world.loop.now = self.world.submissions_end + 1.0
            self.not_found()
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)

    def test_output(self) -> None:
        """The output may be unknown for as long as the job."""
        follower = Follower("j1", Stream.STDOUT, 0, 0)
        self.spool()
        self.show(self.ended())
        self.set_back()
        self.judge.output_refused(follower, NotFound("job", "j1"))
        self.assert_kept()
        self.world.loop.now = self.world.submissions_end + 1.0
        self.judge.output_refused(follower, NotFound("job", "j1"))
        self.assert_broken("P3 there")

    def test_as_it_was(self) -> None:
        """A job that the database has in its last shown state has no excuse."""
        self.show(self.ended())
        self.set_back(self.ended())
        self.assertEqual(self.facts.set_back, {})
        self.not_found()
        self.assert_broken("P1 kept")

    def test_late_answers(self) -> None:
        """An answer of the earlier process does not count as shown by the present one."""
        self.spool()
        self.show(self.ended())
        self.set_back()
        self.reply("job", self.ended(), asked=0.0)
        self.acknowledged(self.ended())
        self.assertNotIn("j1", self.facts.shown)
        self.not_found()
        self.assert_kept()

    def test_late_acknowledgement(self) -> None:
        """A late acknowledgement of a job that is lost everywhere promises nothing."""
        self.show(self.ended())
        self.set_back()
        self.acknowledged(self.job())
        self.assertEqual(self.facts.tickets["t1"].acknowledged, "")

    def test_removal(self) -> None:
        """A removal that the database does not know is undone; one that it knows holds."""
        rest = RemovedJob("j1", 1.0)
        for removed, jobs, rule in (((), (), None), ((), (self.ended(),), None), ((rest,), (), "a removal holds")):
            self.setUp()
            self.begin()
            self.judge.removal_asked("j1")
            self.put(self.ended())
            self.reply("remove", True)
            self.set_back(*jobs, removed=removed)
            self.assertIn("j1", self.facts.set_back)
            self.put(self.ended())
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)

    def test_late_removal(self) -> None:
        """A removal answered just before the setback is undone, too, even if the answer arrives later."""
        self.begin()
        self.judge.removal_asked("j1")
        self.put(self.ended())
        self.set_back()
        self.reply("remove", True, asked=0.0)
        self.put(self.ended())
        self.assert_kept()

    def test_stop(self) -> None:
        """A stop that the database does not know is undone."""
        stopped = self.ended(state=JobState.STOPPED, exit_code=0)
        for database, rule in ((self.job(state=JobState.QUEUED), None), (stopped, "a stop holds")):
            self.setUp()
            self.judge.stop_asked("j1")
            self.show(stopped)
            self.reply("stop", stopped)
            self.set_back(database)
            self.facts.runs.clear()
            self.running()
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)

    def test_stop_of_a_chain(self) -> None:
        """The stop of its next attempts is undone, too."""
        self.begin()
        self.put(self.job())
        self.reply("stop", self.job(retried_by="j2"))
        self.set_back()
        self.put(self.job("j2", retry_of="j1", group_id="j1"))
        self.assert_kept()

    def test_last_attempt(self) -> None:
        """The answer that a job was the last attempt is undone, too."""
        self.begin()
        self.put(self.ended())
        self.reply("wait_for_attempts", self.ended())
        self.set_back()
        self.put(self.job("j2", retry_of="j1", group_id="j1"))
        self.assert_kept()

    def test_promise(self) -> None:
        """A promise that the database does not know is undone if the job never arrived at its worker."""
        for promised, spool, kept in ((False, False, False), (True, False, True), (False, True, True)):
            self.setUp()
            self.facts.runs.clear()
            queued = self.job(state=JobState.QUEUED, worker_id=None, promised=True)
            self.begin()
            if spool:
                self.spool()
            self.judge.submitting("t1")
            self.put(queued)
            self.acknowledged(queued)
            self.set_back(self.job(state=JobState.STARTING, promised=promised))
            self.assertEqual(self.facts.tickets["t1"].acknowledged, "j1" if kept else "")

    def test_core_worker(self) -> None:
        """A job without a record may run on a core worker; a job that a worker has must be known."""
        for spool, rule in ((False, None), (True, "P5 agreement")):
            self.setUp()
            self.begin()
            self.facts.runs.clear()
            self.running()
            if spool:
                self.spool()
            self.show(self.ended(exit_code=None, state=JobState.LOST, reason="forgotten"))
            self.judge.violation = None
            self.set_back()
            self.judge.agreed()
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)

    def test_key(self) -> None:
        """A key without a record starts another job, unless a worker has the key's job."""
        for spool, rule in ((False, None), (True, "one job for each key")):
            self.setUp()
            if spool:
                self.spool()
            self.show(self.ended())
            self.set_back()
            now = self.world.loop.now
            self.judge.replied(Reply("resubmit", "j1", now, now, self.job("j2"), detail=True))
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)

    def test_attempt(self) -> None:
        """A later attempt that only its worker reports is no second job of the request."""
        self.begin()
        self.judge.submitting("t1")
        self.put(self.job(), self.job("j2", retry_of="j1", group_id="j1"))
        self.set_back()
        self.put(self.job(), self.job("j2", target=None))
        self.assert_kept()

    def test_unattended(self) -> None:
        """A worker may have stopped a job as unattended, which is then shown without its terms."""
        for seconds, rule in ((5.0, None), (None, "P4 true")):
            self.setUp()
            self.show(self.ended(terms=QueueTerms(unattended_timeout=seconds)))
            self.set_back()
            self.begin()
            self.put(self.ended(state=JobState.STOPPED, exit_code=0, target=None, terms=QueueTerms()))
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)

    def test_chain_that_was_stopped(self) -> None:
        """A stop of an attempt counts for the next one, even if the first one is not shown any more."""
        self.judge.stop_asked("j1")
        self.show(self.ended("j1"))
        self.set_back()
        self.assertTrue(self.facts.stop_was_asked(self.job("j2", retry_of="j1")))


class StoppedAgainTests(SynchronousTestCase):
    def test_stop(self) -> None:
        """The client repeats a stop that the database does not know."""
        waits = evolve(
            job_of(2000.0, 2.0, "w1"),
            target=Target(selector={}),
            terms=QueueTerms(queue_timeout=600.0),
            then=(Stop(4.0),),
        )
        acts = (job_of(12.0, 1.0, "w1", "t1"), job_of(12.0, 1.0, "w1", "t2"), waits)
        world = World(1, a_world(RestoreDatabase(5.0, 5.0, 1.0), acts=acts, workers=("w1",)).plan)
        self.assertIsNone(world.run().violation)
        job = next(
            job for job in registry(world).jobs.listing.matching(JobFilter()) if job.spec.labels["ticket"] == "t"
        )
        self.assertEqual((job.state, job.started_at is None), (JobState.STOPPED, False))

    def test_without_terms(self) -> None:
        """An endless job that only its worker reports is stopped once all sides agree."""
        attended = evolve(job_of(2000.0, 7.0, "w1"), terms=QueueTerms(unattended_timeout=30.0))
        world = a_world(RestoreDatabase(5.0, 5.0, 1.0), acts=(attended,), workers=("w1",))
        world = World(1, world.plan)
        self.assertIsNone(world.run().violation)
        (job,) = registry(world).jobs.listing.matching(JobFilter())
        self.assertEqual((job.state, job.target), (JobState.STOPPED, None))


class FolderTests(SceneCase):
    def test_output(self) -> None:
        """The output of a job is gone if its folder is lost; any other output is there."""
        for lost, rule in ((True, None), (False, "P3 end")):
            self.setUp()
            self.world.start_scheduler()
            folder = Folder()
            self.judge.registered("w-1", folder)
            self.judge.follows(Follower("j1", Stream.STDOUT, 0, 0))
            self.ran()
            self.show(self.ended())
            if lost:
                self.judge.folder_lost(folder)
            self.judge.ended()
            self.assertEqual(self.judge.violation and self.judge.violation.rule, rule)


class ForgottenTests(SceneCase):
    """A client asks for ``w1`` to be forgotten, after it was told that it is drained."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.judge.drained("w1", self.worker_id)

    def shown(self) -> str:
        """The rule that is broken if the worker is shown as not drained."""
        self.scheduler.parts.ledger.see(self.registry.workers.get("w1").id, Presence(refusing="no room"))
        return "" if self.judge.violation is None else self.judge.violation.rule

    def refuse(self, worker: str) -> None:
        """The request is refused, as the worker is online."""
        now = self.world.loop.now
        self.judge.replied(Reply("forget", "", now, now, error=WorkerOnline(worker), detail=worker))

    def test_not_asked(self) -> None:
        self.assertEqual(self.shown(), "a drain stays")

    def test_asked(self) -> None:
        """The drain is forgotten with the worker, requested by name or id, even if the answer comes later."""
        for worker in ("w1", self.worker_id):
            self.setUp()
            self.judge.forget_asked(worker)
            self.judge.drained("w1", self.worker_id)
            self.assertEqual(self.shown(), "")

    def test_another(self) -> None:
        self.judge.forget_asked("w2")
        self.assertEqual(self.shown(), "a drain stays")

    def test_refused(self) -> None:
        """The worker is still drained, unless a client has asked for its resumption since."""
        for resumed, rule in ((False, "a drain stays"), (True, "")):
            self.setUp()
            self.judge.forget_asked(self.worker_id)
            if resumed:
                self.world.loop.now += 1.0
                self.judge.resume_asked("w1")
                self.world.loop.now -= 1.0
            self.refuse(self.worker_id)
            self.assertEqual(self.shown(), rule)
