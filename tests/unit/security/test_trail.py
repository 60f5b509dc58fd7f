"""The audit of one scheduler: its lines in the log, refusals, and the context of an act."""

from __future__ import annotations

import io
import json

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.logs import observer
from scheduler.model import JobState, Ref, RemovedJob
from scheduler.security import acts
from scheduler.security.acts import UNDER_WAY, ActUnderWay
from scheduler.security.audit import Act, Anchor, Sender
from scheduler.security.flood import AGAIN_SECONDS, REFUSALS_PER_ADDRESS
from scheduler.security.trail import MINUTE_SECONDS
from tests.house import ECHO, House
from tests.unit.cluster.values import a_job, a_worker


class TrailCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.audit = self.house.parts.audit

    def act(self, number: int = 1, who: str = "token:ci") -> Act:
        return Act(1000.0 + number, who, "drain", "w-1", "w-1", origin="10.0.0.9", uid=7, request_id="r-1")

    def recorded(self) -> list[Act]:
        return [entry.act for entry in self.house.store.audit.values()]

    def head(self) -> Anchor:
        return self.house.store.audit_head()


def lines(logged: list[LogEvent]) -> list[str]:
    """The lines of the audit."""
    return [str(formatEvent(event)) for event in logged if event["log_namespace"] == "scheduler.audit"]


class RefusedCallTests(TrailCase):
    def test_once_an_hour(self) -> None:
        """The same refused call is recorded once an hour; one of another sender, or method, is another one."""
        a, elsewhere = Sender("worker:a", "10.0.0.1"), Sender("worker:a", "10.0.0.2")
        for sender, method in ((a, "S/Beat"), (a, "S/Beat"), (elsewhere, "S/Beat"), (a, "S/Register"), (a, "S/Beat")):
            self.audit.refused_call(sender, method, "refused")
        self.house.settle()
        self.assertEqual(
            [(act.who, act.origin, act.target, act.result) for act in self.recorded()],
            [
                ("worker:a", "10.0.0.1", "gRPC S/Beat", "refused"),
                ("worker:a", "10.0.0.2", "gRPC S/Beat", "refused"),
                ("worker:a", "10.0.0.1", "gRPC S/Register", "refused"),
            ],
        )
        self.house.clock.advance(AGAIN_SECONDS)
        self.audit.refused_call(a, "S/Beat", "refused")
        self.house.settle()
        self.assertEqual(len(self.recorded()), 4)

    def test_users(self) -> None:
        """Each user of the machine has an entry of its own."""
        for uid in (7, 7, 8):
            self.audit.refused_call(Sender("", "127.0.0.1", uid), "S/Beat", "unauthenticated")
        self.house.settle()
        self.assertEqual([act.uid for act in self.recorded()], [7, 8])

    def test_only_counted(self) -> None:
        """A call that was only counted, as its address had too many refusals, is recorded when it is made again."""
        a = Sender("worker:a", "10.0.0.1")
        for number in range(REFUSALS_PER_ADDRESS):
            self.audit.refused(evolve(a, request_id=f"r-{number}"), "GET /v1/jobs", "unauthenticated")
        self.audit.refused_call(a, "S/Beat", "refused")
        self.audit.end_minute()
        self.audit.refused_call(a, "S/Beat", "refused")
        self.house.settle()
        results = [act.result for act in self.recorded()]
        self.assertEqual(results, ["unauthenticated"] * REFUSALS_PER_ADDRESS + ["many", "refused"])


class LogTests(TrailCase):
    def test_line(self) -> None:
        """Each entry is a line once it is committed, with ``-`` for what is empty."""
        self.house.store.held = True
        with capturedLogs() as logged:
            self.audit.record(self.act())
            self.audit.record(Act(2.0, "", "refused", "GET /v1/jobs", result="unauthenticated"))
            self.assertEqual(lines(logged), [])
            self.house.store.commit_all()
        self.assertEqual(
            lines(logged),
            [
                "1 1970-01-01T00:16:41.000Z token:ci 10.0.0.9 7 drain w-1 w-1 ok r-1",
                "2 1970-01-01T00:00:02.000Z - - - refused GET%20/v1/jobs - unauthenticated -",
            ],
        )

    def test_forged(self) -> None:
        """No text of a request makes a second line, as text or as JSON."""
        with capturedLogs() as logged:
            self.audit.record(self.act(who="token:a\n2 1970 token:b \x1b[2K"))
        for as_json in (False, True):
            out = io.StringIO()
            for event in logged:
                observer(out, as_json)(event)
            self.assertEqual(out.getvalue().count("\n"), 1, out.getvalue())
            self.assertNotIn("\x1b", out.getvalue())

    def test_forged_words(self) -> None:
        """No text of a request makes further words of its line, such as another worker and result."""
        with capturedLogs() as logged:
            self.audit.record(evolve(self.act(), target="w-1 w-1 ok r-1", worker="w 1", result="not-found"))
        self.assertEqual(
            lines(logged),
            ["1 1970-01-01T00:16:41.000Z token:ci 10.0.0.9 7 drain w-1%20w-1%20ok%20r-1 w%201 not-found r-1"],
        )

    def test_head(self) -> None:
        """The head is logged at the start, and each minute in which it changed."""
        with capturedLogs() as logged:
            self.house.clock.advance(MINUTE_SECONDS)
            self.audit.record(self.act(1))
            self.audit.record(self.act(2))
            self.house.clock.advance(MINUTE_SECONDS)
            self.house.clock.advance(MINUTE_SECONDS)
            head = self.head()
            self.house.restart()
        heads = [line for line in lines(logged) if line.startswith("audit head")]
        self.assertEqual(heads, [f"audit head 2 {head.hash}"] * 2)


class RefusalTests(TrailCase):
    def refuse(self, origin: str = "10.0.0.9", request_id: str = "r-1") -> None:
        self.audit.refused(Sender("token:ci", origin, None, request_id), "POST /start", "scope-needed")

    def test_recorded(self) -> None:
        """A refusal has an entry: who asked for what, from where."""
        self.refuse()
        (act,) = self.recorded()
        self.assertEqual((act.who, act.origin, act.request_id), ("token:ci", "10.0.0.9", "r-1"))
        self.assertEqual((act.action, act.target, act.result), ("refused", "POST /start", "scope-needed"))

    def test_flood(self) -> None:
        """An address has a few refusals recorded, and at the end of the minute the number of the others."""
        for number in range(1000):
            self.refuse(request_id=f"r-{number}")
        self.refuse("10.0.0.8")
        self.assertEqual(len(self.recorded()), REFUSALS_PER_ADDRESS + 1)
        self.assertFalse(self.audit.idle)
        self.house.clock.advance(MINUTE_SECONDS)
        last = self.recorded()[-1]
        self.assertEqual((last.action, last.origin, last.result), ("refused", "10.0.0.9", "many"))
        self.assertEqual(json.loads(last.details), {"count": 1000 - REFUSALS_PER_ADDRESS})
        self.assertTrue(self.audit.idle)
        self.refuse()
        self.assertEqual(self.recorded()[-1].result, "scope-needed")

    def test_at_the_end(self) -> None:
        """Refusals that were only counted are recorded before the process ends."""
        for _ in range(20):
            self.refuse()
        self.successResultOf(Deferred.fromCoroutine(self.house.stop()))
        self.assertEqual(self.recorded()[-1].result, "many")


class UnderWayTests(TrailCase):
    """An act goes only with a record that it is about."""

    def under_way(self, about: acts.About, of_jobs: bool = False) -> ActUnderWay:
        return ActUnderWay(self.act(), about, of_jobs=of_jobs)

    def test_start(self) -> None:
        """The start of a job does not go with another job, also one of an equal spec."""
        job = a_job(spec=ECHO)
        started = self.under_way(acts.job_with(job.spec), of_jobs=True)
        self.assertEqual(started.take([a_job("j-2"), a_worker(), Ref("job", "j-1")]), [])
        (act,) = started.take([a_job("j-2"), job])
        self.assertEqual((act.target, act.worker), ("j-1", "w-1"))
        self.assertEqual(started.take([job]), [])

    def test_job(self) -> None:
        """An act on a job goes with that job, another attempt of it, or its removal."""
        about = acts.job(a_job(group_id="g"))
        for record in (a_job(), a_job("j-2", group_id="g"), Ref("job", "j-1"), RemovedJob("j-1", 1.0)):
            self.assertEqual(self.under_way(about).take([record]), [self.act()])
        for record in (a_job("j-2"), Ref("job", "j-2"), RemovedJob("j-2", 1.0), a_worker("j-1"), Ref("worker", "j-1")):
            self.assertEqual(self.under_way(about).take([record]), [])
        self.assertEqual(self.under_way(acts.job(a_job())).take([a_job("j-2")]), [])

    def test_stops(self) -> None:
        """A stop of many jobs goes with each job that it stops, once."""
        stops = self.under_way(acts.stopped_since(1000.0), of_jobs=True)
        stopped = [a_job(f"j-{number}", JobState.STOPPED, stop_requested_at=1000.0) for number in (1, 2)]
        self.assertEqual(stops.take([a_job("j-3"), a_job("j-4", stop_requested_at=999.0)]), [])
        self.assertEqual([act.target for act in stops.take(stopped)], ["j-1", "j-2"])
        self.assertEqual(stops.take(stopped), [])

    def test_worker(self) -> None:
        about = acts.worker(a_worker())
        for record in (a_worker(), Ref("worker", "w-1")):
            self.assertEqual(self.under_way(about).take([record]), [self.act()])
        for record in (a_worker("w-2"), Ref("job", "w-1"), a_job("w-1")):
            self.assertEqual(self.under_way(about).take([record]), [])

    def test_over(self) -> None:
        """Nothing is taken after the operation is over, nor for an act that no record shows."""
        self.assertEqual(self.under_way(acts.nothing).take([a_job()]), [])
        over = self.under_way(acts.job(a_job()))
        over.close()
        self.assertEqual(over.take([a_job()]), [])

    def test_context(self) -> None:
        """The act is under way for the operation alone, also for parts of it that come later."""
        going_on: Deferred[None] = Deferred()
        seen: list[bool] = []

        async def operation() -> None:
            seen.append(UNDER_WAY.get() is under_way)
            await going_on
            seen.append(UNDER_WAY.get() is under_way)

        under_way = self.under_way(acts.job(a_job()))
        done = self.audit.carry_out(under_way, lambda: Deferred.fromCoroutine(operation()))
        self.assertIsNone(UNDER_WAY.get())
        going_on.callback(None)
        self.successResultOf(done)
        self.assertEqual((seen, UNDER_WAY.get()), ([True, True], None))
        self.assertEqual(under_way.take([a_job()]), [])
