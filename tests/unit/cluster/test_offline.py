"""A worker of ours that deregistered: it stays listed as ``offline``, jobs wait for it, and it comes back as it was."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from scheduler.errors import Conflict, NameTaken, NoFreeSlot, NoMatch, NotFound, StoreFailed, Unreachable
from scheduler.messages import Heartbeat, JobStatus, Registration
from scheduler.model import FEATURES, Disk, Job, JobState, Presence, Stream, WorkerState
from scheduler.terms import NO_WAITING, QueueTerms, Target
from tests.house import HOME, PEER, House
from tests.unit.cluster.case import ECHO, ClusterTestCase
from tests.unit.cluster.values import a_job

WAITS = QueueTerms(queue_timeout=600.0)
BOX = Target(worker="box")


class OfflineTestCase(ClusterTestCase):
    """``w-1`` is named ``box``."""

    def setUp(self) -> None:
        super().setUp()
        self.house.workers.release("answers")
        self.register()

    def register(self, worker_id: str = "w-1", port: int = 30000, **facts: Any) -> str:
        facts = {
            "name": "box",
            "labels": {"gpu": "yes"},
            "slots": 4,
            "boot_id": "boot",
            "features": FEATURES,
            "nonce": "n-1",
        } | facts
        answer = self.house.register(worker_id, f"{HOME}:{port}", **facts)
        self.settle()
        return str(answer.worker_id)

    def deregister(self, worker_id: str = "w-1", nonce: str = "n-1") -> None:
        self.successResultOf(self.membership.deregister(worker_id, nonce, PEER))
        self.settle()

    def state(self, worker_id: str = "w-1") -> WorkerState:
        return self.house.presence(worker_id).state

    def submit(self, target: Target, terms: QueueTerms = WAITS) -> Deferred[Job]:
        return self.house.submit(ECHO, target, terms)

    def queued(self, target: Target) -> Job:
        job: Job = self.successResultOf(self.submit(target))
        self.assertIs(job.state, JobState.QUEUED)
        return job


class ListedTests(OfflineTestCase):
    def test_as_it_was(self) -> None:
        """An offline worker keeps its name, labels, slots and drain, shows since when, and is not counted as online."""
        self.successResultOf(self.cluster.drain("box"))
        self.wall = 1_700_000_000.0
        self.deregister()
        (view,) = self.cluster.workers()
        worker = view.worker
        self.assertEqual((worker.id, worker.name, worker.slots, worker.draining), ("w-1", "box", 4, True))
        self.assertEqual(worker.labels, {"name": "box", "gpu": "yes"})
        self.assertEqual((view.presence.state, view.presence.last_seen), (WorkerState.OFFLINE, self.wall))
        self.assertEqual((view.reason, view.running_jobs), ("it deregistered at 2023-11-14T22:13:20Z", 0))
        self.assertEqual(self.cluster.readiness().workers_online, 0)
        self.assertIn("w-1", self.workers.forgotten)

    def test_the_moment_is_over(self) -> None:
        """Momentary facts that the worker told are not shown any more."""
        self.house.beat("w-1", refusing="no room", disk=Disk(2, 1), sent_at=1.0)
        self.deregister()
        presence = self.house.presence("w-1")
        self.assertEqual((presence.refusing, presence.disk, presence.clock_difference), (None, None, None))

    def test_after_a_restart(self) -> None:
        """A scheduler that is started again lists it in the same way."""
        self.successResultOf(self.cluster.drain("box"))
        self.deregister()
        before = self.cluster.workers()
        self.begin()
        self.assertEqual(self.cluster.workers(), before)

    def test_back(self) -> None:
        """The worker registers under its id, and is online with its drain, also after a scheduler restart."""
        for restarted in (False, True):
            self.successResultOf(self.cluster.drain("box"))
            self.deregister()
            if restarted:
                self.begin()
            self.register()
            worker = self.house.worker("w-1")
            self.assertEqual((self.state(), worker.draining), (WorkerState.ONLINE, True))
            self.assertIsNone(worker.deregistered_at)
        self.begin()
        self.assertIs(self.state(), WorkerState.UNREACHABLE)

    def test_drained_and_resumed(self) -> None:
        """An offline worker can be drained and resumed like any other."""
        self.deregister()
        self.assertTrue(self.successResultOf(self.cluster.drain("box")).worker.draining)
        view = self.successResultOf(self.cluster.resume("box"))
        self.assertEqual((view.presence.state, view.worker.draining), (WorkerState.OFFLINE, False))

    def test_said_twice(self) -> None:
        """A deregistration that is sent again changes nothing; that of another process is not heard."""
        self.deregister()
        before = self.house.worker("w-1")
        self.wall += 50
        self.deregister()
        self.assertEqual(self.house.worker("w-1"), before)
        self.failureResultOf(self.membership.deregister("w-1", "n-0", PEER), NotFound)

    def test_said_twice_while_the_store_fails(self) -> None:
        """A deregistration that can't be saved is not answered with success, however often it is sent."""
        self.house.store.problem = "disk full"
        for _ in range(2):
            self.failureResultOf(self.membership.deregister("w-1", "n-1", PEER), StoreFailed)
        self.house.store.problem = ""
        self.clock.advance(60)
        self.begin()
        self.assertIs(self.state(), WorkerState.OFFLINE)

    def test_core_worker(self) -> None:
        self.register("w-2", 30001, name="", boot_id="", features=())
        self.deregister("w-2", nonce="")
        self.assertEqual([view.worker.id for view in self.cluster.workers()], ["w-1"])


class LateTests(OfflineTestCase):
    """Messages and answers that arrive when it has deregistered."""

    def test_heartbeat(self) -> None:
        """A late heartbeat, also the last of a process, is that of a worker that has to register."""
        self.deregister()
        for leaving in (False, True):
            late = Heartbeat("w-1", "boot", nonce="n-1", leaving=leaving)
            self.failureResultOf(self.membership.heartbeat(late, PEER), NotFound)
        self.assertIs(self.state(), WorkerState.OFFLINE)

    def test_answer(self) -> None:
        """A call that is answered, or fails, says nothing of it; the same holds for what is known of its silence."""
        self.deregister()
        self.liveness.observe("w-1", succeed(None))
        failing: Deferred[None] = Deferred()
        self.liveness.observe("w-1", failing).addErrback(lambda _: None)
        failing.errback(Unreachable("box"))
        self.liveness.heard("w-1")
        self.liveness.left("w-1", Presence())
        self.liveness.reset("w-1", "gone")
        self.assertIs(self.state(), WorkerState.OFFLINE)
        self.assertTrue(self.liveness.idle)

    def test_start(self) -> None:
        """A start that is answered then is of a job that nobody can tell about, and is asked about when it is back."""
        self.house = House(lambda: 1000.0, lease=30.0)
        self.house.workers.hold("start_job", "query_job")
        self._name_parts()
        self.register()
        answer = self.submit(BOX, NO_WAITING)
        call = self.take("start_job")
        self.deregister()
        call.answer.callback(JobStatus(call.args[0].id, JobState.RUNNING, started_at=1000.0))
        job = self.successResultOf(answer)
        self.clock.pump([5.0] * 2)
        self.assertIs(self.cluster.job(job.id).state, JobState.UNKNOWN)
        self.register()
        self.house.beat("w-1")
        self.take("query_job").answer.errback(NotFound("job", job.id))
        self.assertIs(self.cluster.job(job.id).state, JobState.LOST)

    def test_a_heartbeat_that_waits(self) -> None:
        """Jobs that a heartbeat did not mention are not asked about when it has deregistered, and has to register."""
        self.add(a_job(started_at=900.0), a_job("j-2", started_at=900.0))
        self.store.held = True
        late = self.membership.heartbeat(Heartbeat("w-1", "boot", nonce="n-1"), PEER)
        gone = self.membership.deregister("w-1", "n-1", PEER)
        self.store.commit_all()
        self.failureResultOf(late, NotFound)
        self.successResultOf(gone)
        self.assertEqual(self.held(), [])

    def test_no_calls(self) -> None:
        """An offline worker is never probed."""
        self.house = House(lambda: 1000.0, lease=30.0)
        self._name_parts()
        self.register()
        self.deregister()
        self.house.workers.hold()
        self.clock.pump([5.0] * 100)
        self.assertEqual(self.held(), [])


class WaitingTests(OfflineTestCase):
    """An offline worker counts as one that can't take a job now."""

    def setUp(self) -> None:
        super().setUp()
        self.deregister()

    def test_by_selector(self) -> None:
        """A selector that only it matches is a match: without a queue the answer is 503, with one the job waits."""
        gpu = Target(selector={"gpu": "yes"})
        self.failureResultOf(self.submit(gpu, NO_WAITING), NoFreeSlot)
        job = self.queued(gpu)
        self.assertEqual(self.cluster.waiting_for(job).why, "unreachable")
        self.failureResultOf(self.submit(Target(selector={"gpu": "no"})), NoMatch)
        self.register()
        self.assertEqual(self.take("start_job").args[0].id, job.id)

    def test_by_name(self) -> None:
        """A job that names it waits, and is told why; without a queue it can't be reached."""
        self.failureResultOf(self.submit(BOX, NO_WAITING), Unreachable)
        job = self.queued(BOX)
        waiting = self.cluster.waiting_for(job)
        assert waiting is not None
        self.assertEqual((waiting.why, waiting.detail), ("unreachable", "worker 'box' deregistered, and is not back"))
        self.begin()
        self.register()
        self.assertEqual(self.take("start_job").args[0].id, job.id)

    def test_stop(self) -> None:
        """The stop of a job that nobody can tell about is carried out when it is back."""
        self.add(a_job(state=JobState.UNKNOWN, started_at=900.0))
        stopped = self.successResultOf(self.cluster.stop("j-1"))
        self.assertEqual((stopped.state, stopped.stop_requested_at), (JobState.UNKNOWN, self.wall))
        self.register()
        self.take("stop_job")

    def test_removal(self) -> None:
        """A removal waits for it, as it may keep the output."""
        self.add(a_job(state=JobState.SUCCEEDED))
        self.assertFalse(self.successResultOf(self.cluster.remove("j-1")))
        self.begin()
        self.assertEqual([job.id for job in self.jobs()], ["j-1"])
        self.register()
        self.take("remove_job").answer.callback(None)
        self.assertEqual(self.jobs(), [])

    def test_output(self) -> None:
        """The output of its jobs can't be read, and those who follow it wait."""
        self.add(a_job(state=JobState.UNKNOWN, started_at=900.0))
        self.failureResultOf(self.cluster.read_output("j-1", Stream.STDOUT, 0, 10), Unreachable)
        reading = self.cluster.open_output("j-1", Stream.STDOUT, 0).read()
        self.assertNoResult(reading)
        reading.addErrback(lambda _: None)

    def test_forgotten_by_a_client(self) -> None:
        """A client can have it forgotten: its jobs are lost, those that wait for it fail, and removals are over."""
        self.add(a_job(state=JobState.UNKNOWN), a_job("j-2", JobState.SUCCEEDED))
        self.assertFalse(self.successResultOf(self.cluster.remove("j-2")))
        queued = self.queued(BOX)
        self.successResultOf(self.cluster.forget("box"))
        self.assertEqual(self.cluster.workers(), ())
        self.assertIs(self.cluster.job("j-1").state, JobState.LOST)
        self.assertIs(self.cluster.job(queued.id).state, JobState.FAILED)
        self.settle()
        self.assertEqual({job.id for job in self.jobs()}, {"j-1", queued.id})
        self.begin()
        self.assertEqual(self.cluster.workers(), ())


class NameTests(OfflineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.cluster.drain("box"))
        self.deregister()

    def named(self) -> dict[str, str]:
        return {view.worker.id: view.worker.name for view in self.cluster.workers()}

    def test_taken(self) -> None:
        """Another worker may take its name; it goes by its id, in its labels too, and is what it was otherwise."""
        self.register("w-2", 30001)
        for restarted in (False, True):
            if restarted:
                self.begin()
            self.assertEqual(self.named(), {"w-1": "w-1", "w-2": "box"})
            worker = self.house.worker("w-1")
            self.assertEqual(worker.labels, {"name": "w-1", "gpu": "yes"})
            self.assertEqual((self.state(), worker.draining), (WorkerState.OFFLINE, True))
            self.assertEqual(self.cluster.worker("box").worker.id, "w-2")

    def test_while_the_store_fails(self) -> None:
        """The change of its name is saved later."""
        self.house.store.problem = "disk full"
        self.register("w-2", 30001)
        self.house.store.problem = ""
        self.clock.advance(60)
        self.begin()
        self.assertEqual(self.named(), {"w-1": "w-1", "w-2": "box"})

    def test_not_taken_by_one_that_is_refused(self) -> None:
        """A registration that is refused takes nothing."""
        self.register("w-3", 30003, name="other", nonce="n-3")
        self.house.give_id("w-2")
        refused = self.membership.register(Registration(f"{HOME}:30003", "w-2", "box", boot_id="b", nonce="n-2"), PEER)
        self.failureResultOf(refused, Conflict)
        self.assertEqual(self.named()["w-1"], "box")

    def test_waiting_jobs(self) -> None:
        """A job that waits for that name goes to the worker that has it now."""
        self.successResultOf(self.cluster.resume("box"))
        job = self.queued(BOX)
        self.register("w-2", 30001)
        call = self.take("start_job")
        self.assertEqual((call.worker_id, call.args[0].id), ("w-2", job.id))

    def test_back(self) -> None:
        """When it is back it is refused while another worker has its name, and has it again when that is gone."""
        self.register("w-2", 30001, nonce="n-2")
        refused = self.membership.register(Registration(f"{HOME}:30000", "w-1", "box", boot_id="boot"), PEER)
        self.failureResultOf(refused, NameTaken)
        self.deregister("w-2", "n-2")
        self.register()
        self.assertEqual(self.named(), {"w-1": "box", "w-2": "w-2"})
        self.assertTrue(self.house.worker("w-1").draining)

    def test_address(self) -> None:
        """An offline worker does not own its address: a worker that registers there displaces nothing."""
        for nonce in ("n-2", ""):
            self.register("w-2", 30000, name="other", nonce=nonce)
            self.assertIs(self.state(), WorkerState.OFFLINE)
            self.assertEqual(self.cluster.worker("w-1").reason, "it deregistered at 1970-01-01T00:16:40Z")
            self.deregister("w-2", nonce)
