"""Workers and the output of their jobs, as clients see them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from scheduler.errors import Conflict, NoFreeSlot, NotFound, StoreFailed, Unreachable
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Disk, Job, JobState, Stream, WorkerState
from scheduler.terms import QueueTerms, Target
from scheduler.views import Readiness
from tests.fleet import W1, FleetTestCase
from tests.house import ECHO, EPOCH


class WorkersTests(FleetTestCase):
    def test_all(self) -> None:
        """All are listed by name, with what they said of themselves."""
        self.fleet.add_worker("b", slots=2, labels={"gpu": "yes"})
        self.fleet.add_worker("a", core=True)
        views = self.scheduler.workers()
        self.assertEqual([view.worker.name for view in views], ["a", "b", "w1"])
        self.assertEqual([view.worker.slots for view in views], [None, 2, None])
        self.assertEqual([view.worker.is_core for view in views], [True, False, False])
        self.assertEqual(views[1].worker.labels, {"name": "b", "gpu": "yes"})
        self.assertEqual({view.presence.state for view in views}, {WorkerState.ONLINE})

    def test_the_machine(self) -> None:
        """A worker is shown with its disk and its clock, once it has told of them."""
        presence = self.scheduler.worker("w1").presence
        self.assertEqual((presence.disk, presence.clock_difference), (None, None))
        self.fleet.says("w1", ahead=-3.25, disk=Disk(1000, 500, 100, 50))
        presence = self.scheduler.worker("w1").presence
        self.assertEqual((presence.disk, presence.clock_difference), (Disk(1000, 500, 100, 50), -3.25))

    def test_running_jobs(self) -> None:
        """A worker is shown with the number of its jobs that have not ended, those unknown too."""
        self.fleet.add_worker("w2")
        self.submit()
        self.submit()
        self.ended()
        self.assertEqual([view.running_jobs for view in self.scheduler.workers()], [2, 0])
        self.fleet.lose("w1")
        view = self.scheduler.worker("w1")
        self.assertEqual((view.presence.state, view.running_jobs), (WorkerState.UNREACHABLE, 2))
        self.assertIn(view, self.scheduler.workers())

    def test_draining_stays(self) -> None:
        """A worker that is drained is still drained when it is back."""
        self.successResultOf(self.scheduler.drain("w1"))
        self.fleet.lose("w1")
        self.fleet.find("w1")
        self.assertTrue(self.scheduler.worker("w1").worker.draining)

    def test_offline(self) -> None:
        """A worker that deregistered is listed with the reason; a selector finds it, and jobs wait for it."""
        self.fleet.add_worker("w2", slots=2, labels={"gpu": "yes"})
        before = self.successResultOf(self.scheduler.drain("w2"))
        self.fleet.deregister("w2")
        view = self.scheduler.worker("w2")
        self.assertEqual((view.presence.state, view.running_jobs), (WorkerState.OFFLINE, 0))
        self.assertRegex(view.reason or "", r"^it deregistered at 20..-..-..T..:..:..Z$")
        for field in ("id", "name", "labels", "slots", "draining"):
            self.assertEqual(getattr(view.worker, field), getattr(before.worker, field))
        self.assertEqual(self.scheduler.readiness(), Readiness((), 1))
        self.successResultOf(self.scheduler.resume("w2"))
        gpu = Target(selector={"gpu": "yes"})
        self.refusal(NoFreeSlot, self.house.submit, ECHO, gpu)
        self.refusal(Unreachable, self.house.submit, ECHO, Target(worker="w2"))
        job = self.successResultOf(self.house.submit(ECHO, gpu, QueueTerms(queue_timeout=600.0)))
        waiting = self.scheduler.waiting_for(job)
        assert waiting is not None
        self.assertEqual((job.state, waiting.why), (JobState.QUEUED, "unreachable"))
        self.fleet.find("w2")
        self.flow()
        self.assertIs(self.state(job), JobState.RUNNING)
        self.assertIs(self.scheduler.worker("w2").presence.state, WorkerState.ONLINE)

    def test_forget(self) -> None:
        """A worker that is online can't be forgotten; another is not listed then, and its jobs that run are lost."""
        ended, job = self.ended(), self.submit()
        self.refusal(Conflict, self.scheduler.forget, "w1")
        wait = self.scheduler.wait(job.id, 30)
        self.fleet.lose("w1")
        self.assertIsNone(self.successResultOf(self.scheduler.forget("w1")))
        self.assertEqual(self.scheduler.workers(), ())
        self.refusal(NotFound, self.scheduler.forget, "w1")
        self.fleet.house.settle()
        lost = self.successResultOf(wait)
        self.assertEqual((lost.state, lost.reason, lost.unknown_since), (JobState.LOST, "forgotten", None))
        self.assertEqual(lost.finished_at, EPOCH + 2)
        self.assertEqual([self.scheduler.job(job.id), self.scheduler.job(ended.id)], [lost, ended])

    def test_not_ready(self) -> None:
        """While the store fails, as the last submission showed, it is not ready, and says why."""
        self.house.store.problem = "disk full"
        self.refusal(StoreFailed, self.house.submit, ECHO, W1)
        readiness = self.scheduler.readiness()
        self.assertFalse(readiness.ready)
        self.assertIn("disk full", " ".join(readiness.reasons))


class FollowingTests(FleetTestCase):
    def open(self, job: Job, offset: int = 0, stream: Stream = Stream.STDOUT) -> IOutputReader:
        return self.scheduler.open_output(job.id, stream, offset)

    def read(self, reader: IOutputReader) -> Deferred[Chunk]:
        """The result of a read, after a while."""
        reading: Deferred[Chunk] = reader.read()
        self.flow()
        return reading

    def assert_reads(self, reader: IOutputReader, data: bytes, end: bool = False) -> None:
        """Chunks that follow each other give exactly that; only the last one may be the end."""
        start, got, ended = reader.offset, b"", False
        while len(got) < len(data) or (end and not ended):
            self.assertFalse(ended)
            chunk = self.successResultOf(self.read(reader))
            self.assertEqual(chunk.offset, start + len(got))
            got += chunk.data
            ended = chunk.end
            self.assertEqual(reader.offset, start + len(got))
        self.assertEqual((got, ended), (data, end))

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IOutputReader, self.open(self.submit())))

    def test_live(self) -> None:
        """A reader gets what is there, then what comes, of its stream alone, and an end."""
        job = self.submit()
        self.fleet.write(job.id, b"before")
        reader = self.open(job)
        self.assert_reads(reader, b"before")
        for data in (b"\0\xff", b"\n", b"more"):
            reading = self.read(reader)
            self.assertNoResult(reading)
            self.fleet.write(job.id, b"other", Stream.STDERR)
            self.flow()
            self.assertNoResult(reading)
            self.fleet.write(job.id, data)
            self.flow()
            self.assertEqual(self.successResultOf(reading).data, data)
        self.fleet.end(job.id)
        self.assert_reads(reader, b"", end=True)
        errors = self.open(job, 0, Stream.STDERR)
        self.assert_reads(errors, b"other" * 3, end=True)
        for ended in (reader, errors):
            ended.close()
        self.assertEqual(len(self.house.workers.running()), 0)

    def test_worker_away(self) -> None:
        """A reader of a job that has not ended waits for its worker, however long, and goes on where it was."""
        job = self.submit()
        self.fleet.write(job.id, b"one")
        reader = self.open(job)
        self.assert_reads(reader, b"one")
        reading = self.read(reader)
        self.fleet.lose("w1")
        late = self.read(self.open(job, 1))
        self.clock.pump([60.0] * 10)
        self.assertNoResult(reading)
        self.fleet.find("w1")
        self.fleet.write(job.id, b"two")
        self.flow()
        for waited, offset, data in ((reading, 3, b"two"), (late, 1, b"netwo")):
            chunk = self.successResultOf(waited)
            self.assertEqual(chunk.offset, offset)
            self.assertTrue(chunk.data and data.startswith(chunk.data), chunk)

    def test_orphan(self) -> None:
        """The output of an orphan is read on, and comes to its end with it."""
        job = self.submit()
        self.fleet.write(job.id, b"one")
        self.fleet.lose("w1")
        self.successResultOf(self.scheduler.forget("w1"))
        self.fleet.come_back("w1")
        reader = self.open(job)
        first = self.successResultOf(self.read(reader))
        self.assertEqual((first.data, first.end), (b"one", False))
        self.fleet.write(job.id, b"two")
        self.flow()
        second = self.successResultOf(self.read(reader))
        self.assertEqual((second.data, second.offset), (b"two", 3))
        self.successResultOf(self.scheduler.stop(job.id))
        self.flow()
        self.assertTrue(self.successResultOf(self.read(reader)).end)
