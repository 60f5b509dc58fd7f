"""Heartbeats of workers that are of another version, broken or hostile: the valid parts count."""

import math

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid, NotFound
from scheduler.messages import Heartbeat, JobReport, JobStatus
from scheduler.model import JobState
from scheduler.pb import scheduler_pb2, worker_pb2
from scheduler.rpc.convert import report_to_pb
from scheduler.rpc.heartbeats import REPORTS_MAX, RUNNING_MAX, heartbeat_from_pb
from scheduler.worker import reports
from scheduler.worker.reports import MessageBudget

END = JobReport(JobStatus("good", JobState.FAILED, exit_code=3))


def read(**fields: object) -> Heartbeat:
    return heartbeat_from_pb(scheduler_pb2.HeartbeatReq(**{"workerID": "w", "bootID": "b"} | fields))


def reported(job_id: str = "bad", start: dict[str, object] | None = None, **status: object) -> scheduler_pb2.JobReport:
    status = {"outcome": worker_pb2.FAILED} | status
    message = scheduler_pb2.JobReport(status=worker_pb2.JobStatus(jobID=job_id, **status))
    if start is not None:
        message.start.CopyFrom(worker_pb2.StartJobReq(**start))
    return message


class AloneTests(SynchronousTestCase):
    """Unreadable parts are refused alone."""

    def test_reports(self) -> None:
        """An unreadable report affects no other: of a later version, with a damaged record, or of no job."""
        good = report_to_pb(END)
        for bad, why in (
            (reported(outcome=99), "outcome: 99 is none that is known here"),
            (reported(finishedAt=1e300), "finishedAt: 1e+300 is not a POSIX time"),
            (reported(startedAt=math.nan), "startedAt: nan is not a POSIX time"),
            (reported(stdoutBytes=-1), "stdoutBytes: -1 is negative"),
            (reported(usage=worker_pb2.Usage(cpuSeconds=-1)), "cpuSeconds: -1.0 is not a finite number of seconds of"),
            (reported(start={"stopSignal": "SIGNEW"}), "stopSignal: 'SIGNEW' is none of"),
            (reported(start={"requestKey": "a", "requestFingerprint": "no"}), "requestKey: is no key of a request"),
            (
                reported(start={"requestKey": "a", "requestFingerprint": "f" * 64, "requestPrincipal": "a\n"}),
                "requestPrincipal: is no name of a principal",
            ),
        ):
            for field in ("ended", "described"):
                heartbeat = read(running=["other"], **{field: [bad, good]})
                self.assertEqual((getattr(heartbeat, field), heartbeat.running), ((END,), ("other",)))
                self.assertEqual(list(heartbeat.refused), ["bad"])
                self.assertTrue(heartbeat.refused["bad"].startswith(why), heartbeat.refused)
                self.assertEqual(heartbeat.mentioned, {"bad", "good", "other"})

    def test_ids(self) -> None:
        """An invalid id is refused, and shown cut and printable."""
        for bad, shown in (("a/b", "a/b"), ("", ""), ("x" * 999, "x" * 80), ("\x1b", "\ufffd")):
            heartbeat = read(running=["a", bad, "b"], ended=[reported(bad), report_to_pb(END)])
            self.assertEqual((heartbeat.running, heartbeat.ended), (("a", "b"), (END,)))
            self.assertEqual(list(heartbeat.refused), [shown])

    def test_whole(self) -> None:
        """A heartbeat without a boot id is refused, and a worker with an id of another origin must register."""
        self.assertEqual(self.assertRaises(Invalid, read, bootID="").field, "bootID")
        for other in ("core-b0.5-1", "", "x" * 4000):
            self.assertLess(len(str(self.assertRaises(NotFound, read, workerID=other))), 200)


class BoundTests(SynchronousTestCase):
    """Limits on the cost of one heartbeat."""

    def test_once(self) -> None:
        """Only the first report of each job counts."""
        several = [reported("j", exitCode=number) for number in range(3)]
        heartbeat = read(running=["r", "s", "r", "r"], ended=[*several, report_to_pb(END)], described=several)
        self.assertEqual(heartbeat.running, ("r", "s"))
        self.assertEqual(
            [(each.status.job_id, each.status.exit_code) for each in heartbeat.ended], [("j", 0), ("good", 3)]
        )
        self.assertEqual([each.status.exit_code for each in heartbeat.described], [0])
        self.assertEqual(heartbeat.refused, {})

    def test_too_many(self) -> None:
        """If there are too many reports, the first count. The rest is refused, so nothing of it is acknowledged."""
        many = [reported(f"j-{number}") for number in range(REPORTS_MAX + 5)]
        for field in ("ended", "described"):
            heartbeat = read(**{field: many})
            taken = [each.status.job_id for each in getattr(heartbeat, field)]
            self.assertEqual(taken, [f"j-{number}" for number in range(REPORTS_MAX)])
            self.assertEqual(heartbeat.refused, {f"field {field}": "has 2053 entries; the first 2048 are taken"})
        heartbeat = read(running=[f"j-{number}" for number in range(RUNNING_MAX + 1)])
        self.assertEqual(heartbeat.running, tuple(f"j-{number}" for number in range(RUNNING_MAX)))
        self.assertEqual(heartbeat.refused, {"field running": "has 20001 entries; the first 20000 are taken"})
        self.assertFalse(
            read(running=[f"j-{number}" for number in range(RUNNING_MAX)], ended=many[:REPORTS_MAX]).refused
        )

    def test_all_of_ours(self) -> None:
        """A worker of ours never sends more reports than are accepted."""
        budget = MessageBudget(reports.REPORTS_MAX_BYTES)
        smallest = (JobReport(JobStatus(f"{number}", JobState.LOST)) for number in range(REPORTS_MAX + 1))
        self.assertLess(len(list(budget.fill(smallest, set()))), REPORTS_MAX)
