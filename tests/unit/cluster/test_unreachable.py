"""Why calls to a worker fail, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.liveness import NO_JOB
from scheduler.errors import DeadlineExceeded, Misdirected, NotAWorker, NotFound, Unreachable, Unsupported
from scheduler.model import JobState, Stream
from tests.house import House
from tests.unit.cluster.liveness_case import LEASE, ONLINE, UNREACHABLE, LivenessCase
from tests.unit.cluster.values import a_job, a_worker


class UnreachableTests(LivenessCase):
    def test_another_program(self) -> None:
        """A program that is no worker is unreachable at once, and remains so though it answers probes."""
        self.go_online()
        call: Deferred[None] = Deferred()
        self.liveness.observe("w-1", call).addErrback(lambda _: None)
        call.errback(NotAWorker("w-1", "StartJob"))
        self.assertIs(self.state(), UNREACHABLE)
        why = "calls to it fail: it answers StartJob with UNIMPLEMENTED: it is no worker"
        self.assertEqual((self.ledger.registry.presences.of("w-1").reason, self.probes), (why, []))
        for says_nothing, is_probe in ((succeed(None), True), (fail(Unsupported("w-1", "ReadOutput")), False)):
            self.liveness.observe("w-1", says_nothing, is_probe).addErrback(lambda _: None)
            self.assertIs(self.state(), UNREACHABLE)

    def test_another_program_is_asked(self) -> None:
        """A program that is no worker is asked about an impossible job, not probed, until it answers as a worker."""
        self.go_online()
        self.liveness.observe("w-1", fail(NotAWorker("w-1", "StartJob"))).addErrback(lambda _: None)
        self.workers.hold("query_job")
        for error, state in (
            (NotAWorker("w-1", "QueryJob"), UNREACHABLE),
            (Unreachable("w-1"), UNREACHABLE),
            (DeadlineExceeded("query", 10.0), UNREACHABLE),
            (NotFound("job", NO_JOB), ONLINE),
        ):
            self.clock.advance(LEASE / 6)
            (query,) = self.probes
            self.assertEqual((query.method, query.job_id), ("query_job", NO_JOB))
            self.probes.clear()
            query.answer.errback(error)
            self.assertIs(self.state(), state)

    def test_a_probe_that_was_under_way(self) -> None:
        """The answer to a probe that was sent before does not make the program a worker."""
        self.go_online()
        self.clock.pump([LEASE / 6] * 3)
        (probe,) = self.probes
        self.liveness.observe("w-1", fail(NotAWorker("w-1", "StartJob"))).addErrback(lambda _: None)
        probe.answer.callback(None)
        self.assertIs(self.state(), UNREACHABLE)

    def test_another_program_gives_way(self) -> None:
        """A worker that registers there is probed as any other."""
        self.register()
        self.liveness.observe("w-1", fail(NotAWorker("w-1", "StartJob"))).addErrback(lambda _: None)
        self.probes.clear()
        self.go_online()

    def test_another_process(self) -> None:
        """A call that reached another process shows that calls to the worker fail, without a probe."""
        self.go_online()
        self.liveness.observe("w-1", fail(Misdirected("w-1"))).addErrback(lambda _: None)
        self.assertIs(self.state(), UNREACHABLE)
        why = self.ledger.registry.presences.of("w-1").reason
        self.assertEqual((why, self.probes), ("calls to it fail: another process answers at its address", []))
        self.clock.advance(LEASE / 6)
        self.answer_probe()

    def test_before_it_registered(self) -> None:
        """An error of a call to the process before says nothing of the one that registers."""
        for error in (NotAWorker("w-1", "StartJob"), Misdirected("w-1")):
            self.go_online()
            call: Deferred[None] = Deferred()
            self.liveness.observe("w-1", call).addErrback(lambda _: None)
            self.register()
            self.probes.pop().answer.callback(None)
            call.errback(error)
            self.assertIs(self.state(), ONLINE)

    def test_what_failed_is_shown(self) -> None:
        """Why a call failed may be the word of another program: it is shown printable, and cut."""
        self.register()
        self.probes.pop().answer.errback(Unreachable("w-1", reason="no\n" + "x" * 10_000))
        why = self.ledger.registry.presences.of("w-1").reason
        self.assertTrue(why.startswith("calls to it fail: no\ufffdxxx"))
        self.assertLess(len(why), 1000)

    def test_logged(self) -> None:
        """The log has one line for each change of the reason."""
        lines: list[str] = []

        def log(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(log)
        self.addCleanup(globalLogPublisher.removeObserver, log)
        self.register()
        for reason in ("connection refused", "connection refused", "no route", "connection refused"):
            self.probes.pop().answer.errback(Unreachable("w-1", reason=reason))
            self.clock.advance(LEASE / 6)
        self.probes.pop().answer.callback(None)
        self.liveness.observe("w-1", fail(Unreachable("w-1"))).addErrback(lambda _: None)
        self.probes.pop().answer.errback(Unreachable("w-1", reason="connection refused"))
        self.clock.pump([LEASE / 6] * 20)
        refused, name = "calls to it fail: connection refused", "worker w-1 (w-1) is"
        self.assertEqual(
            [line for line in lines if line.startswith(name)],
            [
                f"{name} unreachable: {refused}",
                f"{name} unreachable: calls to it fail: no route",
                f"{name} unreachable: {refused}",
                f"{name} online",
                f"{name} unreachable: {refused}",
                f"{name} unreachable: no sign of life for 30 s; {refused}",
            ],
        )


class CallTests(SynchronousTestCase):
    """Requests about a job whose worker calls do not reach."""

    def setUp(self) -> None:
        self.house = House(lambda: 1000.0, lease=LEASE)
        self.service, self.workers = self.house.parts.service, self.house.workers
        self.house.add(a_worker(), a_job())
        self.house.runners["w-1"].start("j-1", self.house.job("j-1").spec, 1000.0)
        self.refused = Unreachable("w-1", reason="connection refused")

    def asked(self) -> dict[str, Callable[[], Deferred[Any]]]:
        """Requests by the method of the worker that they call."""
        return {
            "signal_job": lambda: self.service.signal("j-1", "SIGHUP", "main"),
            "query_job": lambda: self.service.query("w-1", "j-1"),
            "read_output": lambda: self.service.read_output("j-1", Stream.STDOUT, 0, 1),
        }

    def test_known_by_a_call(self) -> None:
        """A probe follows any failed call, and its reason is shown with the worker."""
        stop = {"stop_job": lambda: self.service.stop("j-1")}  # it is kept, and delivered when the worker is back
        for method, ask in (self.asked() | stop).items():
            self.workers.fail(method, Unreachable("w-1", sent=True))
            self.workers.fail("probe", self.refused)
            ask().addErrback(lambda reason: reason.trap(Unreachable))
            self.assertEqual(self.service.worker("w-1").reason, "calls to it fail: connection refused", method)
            self.workers.release(method, "probe")
            self.house.find("w-1")
            self.assertIs(self.house.presence("w-1").state, ONLINE)

    def test_why(self) -> None:
        """The known reason is in the errors of all later requests."""
        self.workers.fail("probe", self.refused)
        self.house.lose("w-1")
        for method, ask in self.asked().items():
            error = self.failureResultOf(ask(), Unreachable).value
            self.assertEqual(error.reason, "calls to it fail: connection refused", method)
        self.assertFalse([call for call in self.workers.calls if call.method in self.asked()])

    def test_follower(self) -> None:
        """A follower of the output of an ended job gets the reason, too."""
        self.house.add(a_job("j-2", JobState.SUCCEEDED))
        self.workers.fail("probe", self.refused)
        self.house.lose("w-1")
        with self.assertRaises(Unreachable) as refused:
            self.failureResultOf(self.service.open_output("j-2", Stream.STDOUT, 0).read()).raiseException()
        self.assertEqual(refused.exception.reason, "calls to it fail: connection refused")
