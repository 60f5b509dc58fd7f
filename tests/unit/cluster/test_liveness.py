from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from scheduler.daemon.sweep import SLICE_SECONDS
from scheduler.errors import Busy, DeadlineExceeded, NotFound, Unreachable
from scheduler.model import JobState, Presence, Ref
from tests.doubles.workers import Call
from tests.unit.cluster.liveness_case import LEASE, ONLINE, UNREACHABLE, LivenessCase
from tests.unit.cluster.values import a_job, a_worker


class LivenessTests(LivenessCase):
    def test_registering_is_half(self) -> None:
        """A worker that registered is online once a call to it succeeded, not before."""
        self.register()
        self.assertIs(self.state(), UNREACHABLE)
        self.assertEqual(len(self.probes), 1)
        self.probes[0].answer.callback(None)
        self.assertIs(self.state(), ONLINE)

    def test_registering_again(self) -> None:
        """An answer of the process before says nothing of the one that registers; its jobs stay as they are."""
        self.go_online()
        self.ledger.learn(a_job())
        call: Deferred[None] = Deferred()
        self.liveness.observe("w-1", call)
        self.ledger.learn(a_worker())
        self.register()
        self.assertIs(self.state(), UNREACHABLE)
        call.callback(None)
        self.assertIs(self.state(), UNREACHABLE)
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.RUNNING)
        self.answer_probe()

    def test_a_worker_that_can_only_call(self) -> None:
        """A worker whose heartbeats arrive but that can't be called is never online."""
        self.register()
        for _ in range(10):
            for probe in self.probes:
                probe.answer.errback(Unreachable("w-1"))
            self.probes.clear()
            self.liveness.heard("w-1")
            self.assertIs(self.state(), UNREACHABLE)
            self.clock.advance(LEASE / 6)
        self.assertTrue(self.probes)

    def test_what_it_calls_about_runs_until_it_is_silent(self) -> None:
        """A job that a worker lists which can't be called itself runs, and is unknown a lease after the last sign."""
        self.register()
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.ledger.learn(a_job())
        for _ in range(6):
            self.clock.advance(LEASE / 6)
            self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.RUNNING)
        self.clock.advance(LEASE / 6)
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.UNKNOWN)

    def test_a_job_of_nobody(self) -> None:
        """A job that turns out to run on a worker that has gone meanwhile is unknown at the next look."""
        self.ledger.learn(a_job(worker_id="w-gone"))
        self.clock.advance(LEASE / 6)
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.UNKNOWN)

    def test_nothing_is_kept_of_one_that_has_gone(self) -> None:
        """The end of a call to a worker that was removed leaves nothing behind."""
        self.ledger.learn(Ref("worker", "w-1"))
        self.liveness.forget("w-1")
        self.liveness.heard("w-1")
        self.failureResultOf(self.liveness.observe("w-1", fail(Unreachable("w-1"))), Unreachable)
        self.assertEqual((self.liveness.idle, self.probes), (True, []))

    def test_silence(self) -> None:
        """A lease without a heartbeat makes a worker unreachable, and its running jobs unknown since then."""
        self.go_online()
        self.ledger.learn(a_job())
        self.clock.pump([LEASE / 6] * 6)
        for probe in self.probes:
            probe.answer.callback(None)  # calls still succeed: that alone is not enough
        self.assertIs(self.state(), ONLINE)
        self.clock.advance(LEASE / 6)
        self.assertIs(self.state(), UNREACHABLE)
        job = self.ledger.registry.jobs.get("j-1")
        self.assertEqual((job.state, job.unknown_since), (JobState.UNKNOWN, 1000.0))

    def test_a_start_is_left_to_its_answer(self) -> None:
        """A job that is starting when its worker drops out of sight is decided by the answer of its start."""
        self.go_online()
        self.ledger.learn(a_job(state=JobState.STARTING))
        self.liveness.reset("w-1", "another listens there")
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.STARTING)

    def test_a_failed_call_asks_a_failed_probe_decides(self) -> None:
        """A failed call proves nothing, but causes a probe; if that fails, the worker is unreachable."""
        self.go_online()
        call: Deferred[None] = Deferred()
        observed = self.liveness.observe("w-1", call)
        call.errback(DeadlineExceeded("query", 10))
        self.failureResultOf(observed, DeadlineExceeded)
        self.assertIs(self.state(), ONLINE)
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.assertIs(self.state(), UNREACHABLE)

    def test_any_answer_counts(self) -> None:
        """An error that the worker itself answered shows that calls to it succeed; a limit of ours shows nothing."""
        self.register()
        self.probes.pop().answer.errback(Unreachable("w-1"))
        for error, state in ((Busy("calls", 4), UNREACHABLE), (NotFound("job", "x"), ONLINE)):
            call: Deferred[None] = Deferred()
            observed = self.liveness.observe("w-1", call)
            call.errback(error)
            self.failureResultOf(observed, type(error))
            self.assertIs(self.state(), state)

    def test_back_again(self) -> None:
        """After the fault heals the next probe brings the worker back."""
        self.go_online()
        self.liveness.observe("w-1", _failed(Unreachable("w-1"))).addErrback(lambda _: None)
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.clock.advance(LEASE / 6)
        self.answer_probe()

    def test_probed_while_idle(self) -> None:
        """A worker nobody calls is probed about every half lease, one probe at a time."""
        self.go_online()
        for _ in range(12):
            self.clock.advance(LEASE / 6)
            self.liveness.heard("w-1")
        self.assertEqual(len(self.probes), 1)

    def test_known_from_before(self) -> None:
        """A worker that the scheduler knows from before its restart is online one heartbeat and one answer later."""
        self.assertEqual(self.probes, [])
        self.liveness.heard("w-1")
        self.liveness.heard("w-1")
        self.answer_probe()

    def test_heard_again(self) -> None:
        """A worker that could not be called is probed as soon as it calls, not at the next look."""
        self.go_online()
        self.liveness.observe("w-1", _failed(Unreachable("w-1"))).addErrback(lambda _: None)
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.liveness.heard("w-1")
        self.answer_probe()

    def test_this_process_was_stopped(self) -> None:
        """After a pause of this process a worker has its lease, or what was left of it, to be heard again."""
        self.go_online()
        self.ledger.learn(a_job())
        self.clock.advance(LEASE / 6)
        self.clock.advance(10 * LEASE)
        self.assertIs(self.state(), ONLINE)
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.RUNNING)
        for _ in range(5):
            self.clock.advance(LEASE / 6)
            for probe in self.probes:
                probe.answer.callback(None)
            self.probes.clear()
        self.assertIs(self.state(), UNREACHABLE)

    def test_time_of_pauses(self) -> None:
        """However often this process did not run, silence is measured in the time in which it did."""
        self.go_online()
        for _ in range(3):
            self.clock.advance(LEASE / 6)
            self.clock.advance(10 * LEASE)  # the look that was due in a sixth of a lease is that late
        self.assertIs(self.state(), ONLINE)
        self.clock.pump([LEASE / 6] * 4)
        self.assertIs(self.state(), UNREACHABLE)
        why = self.ledger.registry.presences.of("w-1").reason
        self.assertEqual(why, f"no sign of life for {LEASE / 6 * (3 * 2 + 4):.0f} s")

    def test_what_is_first_after_a_pause(self) -> None:
        """A pause is noticed also if something else than the look happens first after it."""
        self.go_online()
        self.ledger.learn(a_worker("w-2"))
        self.register("w-2")
        self.clock.rightNow += 10 * LEASE
        self.liveness.observe("w-1", _failed(NotFound("job", "j-1"))).addErrback(lambda _: None)
        self.assertIs(self.state(), ONLINE)
        self.clock.advance(0)
        self.assertIs(self.state(), ONLINE)

    def test_a_probe_that_was_under_way_in_a_pause(self) -> None:
        """A probe whose time ran out while this process was stopped proves nothing, and is made again."""
        self.go_online()
        self.clock.pump([LEASE / 6] * 3)
        self.clock.rightNow += 10 * LEASE
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.assertIs(self.state(), ONLINE)
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.assertIs(self.state(), UNREACHABLE)

    def test_an_old_probe_says_nothing_of_the_new_process(self) -> None:
        """The failure of a probe sent before the worker registered anew is ignored."""
        self.register()
        self.register()
        old, new = self.probes
        new.answer.callback(None)
        old.answer.errback(Unreachable("w-1"))
        self.assertIs(self.state(), ONLINE)

    def test_an_old_probe_says_nothing_of_one_that_left(self) -> None:
        """The answer to a probe sent before the worker left does not bring it back."""
        self.go_online()
        self.clock.pump([LEASE / 6] * 3)
        (probe,) = self.probes
        self.liveness.left("w-1", Presence())
        self.assertIs(self.state(), UNREACHABLE)
        probe.answer.callback(None)
        self.assertIs(self.state(), UNREACHABLE)

    def test_left_while_it_could_not_be_called(self) -> None:
        """The jobs of a worker that could only call are unknown, too, once it left."""
        self.register()
        self.ledger.learn(a_job())
        self.liveness.left("w-1", Presence())
        self.assertIs(self.ledger.registry.jobs.get("j-1").state, JobState.UNKNOWN)

    def test_why(self) -> None:
        """Why a worker is unreachable follows what is known of it, until it is heard of again."""

        def why() -> str:
            return self.ledger.registry.presences.of("w-1").reason

        self.clock.advance(LEASE / 6)
        self.assertEqual(why(), "it has not called since the scheduler was started")
        self.go_online()
        self.liveness.left("w-1", Presence())
        self.assertEqual(why(), "it was stopped, and left its jobs running")
        self.liveness.heard("w-1")
        self.assertEqual(why(), "no call to it has succeeded yet")
        self.probes.pop().answer.errback(Unreachable("w-1"))
        self.assertEqual(why(), "calls to it fail")
        self.liveness.reset("w-1", "another worker registered at its address")
        self.assertEqual(why(), "another worker registered at its address")
        self.register()
        self.clock.pump([LEASE / 6] * 7)
        self.assertEqual(why(), f"no sign of life for {LEASE / 6 * 7:.0f} s")

    def test_many(self) -> None:
        """Many workers are looked at a few at a time, with what else is due in between; a stop ends that."""
        events: list[str] = []

        def probed(call: Call) -> None:
            events.append(call.worker_id)
            self.clock.rightNow += 0.6 * SLICE_SECONDS

        self.workers.on_call = probed
        self.liveness.stopService()
        for number in range(5):
            self.ledger.learn(a_worker(f"old-{number}", boot_id=""))
            self.liveness.reset(f"old-{number}", "its first call is over")
        self.clock.callLater(0, lambda: self.clock.callLater(0, events.append, "another turn"))
        self.liveness.startService()
        self.assertEqual(events, ["old-0", "old-1"])
        self.clock.advance(0)
        self.assertEqual(events, ["old-0", "old-1", "old-2", "old-3", "another turn", "old-4"])

    def test_stop(self) -> None:
        """A stop ends the look at the workers, and the next start begins it anew."""
        self.liveness.stopService()
        for number in range(5):
            self.ledger.learn(a_worker(f"old-{number}", boot_id=""))
            self.liveness.reset(f"old-{number}", "its first call is over")

        def probed(call: Call) -> None:
            self.clock.rightNow += 0.6 * SLICE_SECONDS

        self.workers.on_call = probed
        self.liveness.startService()
        self.liveness.stopService()
        self.house.settle()
        self.assertEqual([call.worker_id for call in self.probes], ["old-0", "old-1"])

    def test_core_worker(self) -> None:
        """A worker without heartbeats is kept online, and seen, by the calls it answers."""
        self.ledger.learn(a_worker(boot_id=""))
        self.register()
        for _ in range(5):
            self.answer_probe()
            self.clock.pump([LEASE / 6] * 3)
        self.clock.pump([LEASE / 6] * 4)
        self.assertIs(self.state(), UNREACHABLE)


def _failed(error: Exception) -> Deferred[None]:
    call: Deferred[None] = Deferred()
    call.errback(error)
    return call
