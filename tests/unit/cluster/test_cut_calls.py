"""Calls of workers that are cancelled, as their deadline is over, while the store has not answered."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from scheduler.interfaces import Loaded
from scheduler.messages import Heartbeat, JobReport, JobStatus, Registration
from scheduler.model import JobState
from tests.house import HOME, PEER
from tests.unit.cluster.case import ClusterTestCase
from tests.unit.cluster.values import a_job, a_worker

ENDED = JobReport(JobStatus("j-1", JobState.SUCCEEDED, started_at=900.0, finished_at=950.0, exit_code=0))


class CutCallTests(ClusterTestCase):
    """A save that a cancelled call began is completed as soon as possible."""

    def cut(self, call: Deferred[object]) -> None:
        """The call is cancelled, and then the first save fails that it began."""
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.store.fail()

    def stored(self) -> Loaded:
        """The content of the store once it works again."""
        self.store.held = False
        self.clock.advance(1)
        return self.successResultOf(self.store.load())

    def test_end(self) -> None:
        """An end that could not be saved is acknowledged when it is, and not before."""

        def beat() -> Deferred[object]:
            return self.membership.heartbeat(Heartbeat("w-1", "boot", ended=(ENDED,)), PEER)

        self.add(a_job())
        self.store.held = True
        first, second = beat(), beat()
        self.assertIs(self.only_job().state, JobState.RUNNING)
        self.cut(first)
        self.store.commit()
        self.assertEqual(self.successResultOf(second).acknowledged, ())
        self.assertEqual([job.state for job in self.stored().jobs], [JobState.SUCCEEDED])
        self.assertEqual(self.successResultOf(beat()).acknowledged, ("j-1",))

    def test_is_not_shown(self) -> None:
        """An end is not shown because a call that reported it is cancelled."""
        self.add(a_job())
        self.store.held = True
        self.membership.heartbeat(Heartbeat("w-1", "boot", ended=(ENDED,)), PEER).addErrback(lambda _: None).cancel()
        self.assertIs(self.only_job().state, JobState.RUNNING)
        self.store.commit()
        self.assertIs(self.only_job().state, JobState.SUCCEEDED)

    def test_reboot(self) -> None:
        self.store.held = True
        self.cut(self.membership.heartbeat(Heartbeat("w-1", "another boot"), PEER))  # that of the jobs
        self.store.fail()
        self.assertEqual([worker.boot_id for worker in self.stored().workers], ["another boot"])

    def test_registration(self) -> None:
        self.store.held = True
        self.cut(self.membership.register(Registration(f"{HOME}:30001", name="w-2", boot_id="boot"), PEER))
        self.assertEqual([worker.name for worker in self.stored().workers], ["w-1", "w-2"])

    def test_displacement(self) -> None:
        """A cancelled registration still displaces another worker, though it has to be made again."""
        address = f"{HOME}:30009"
        self.add(a_worker("w-2", address=address, boot_id=""), a_job(worker_id="w-2"))
        self.store.held = True
        call = self.membership.register(Registration(address, name="w-3", boot_id="boot", nonce="n"), PEER)
        self.workers.take("answers").answer.callback(False)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.store.commit_all()
        loaded = self.stored()
        self.assertEqual([worker.name for worker in loaded.workers], ["w-1", "w-3"])
        self.assertEqual([job.state for job in loaded.jobs], [JobState.LOST])

    def test_deregistration(self) -> None:
        self.add(a_job(state=JobState.UNKNOWN))
        self.store.held = True
        call = self.membership.deregister("w-1", "", PEER)
        self.store.commit()  # that of the jobs
        self.cut(call)
        self.assertEqual([worker.deregistered_at for worker in self.stored().workers], [1000.0])
