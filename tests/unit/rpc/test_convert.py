"""Conversion between messages and values loses nothing, and refuses invalid input."""

import math
import string

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.messages import (
    Chunk,
    Heartbeat,
    HeartbeatAnswer,
    JobReport,
    JobStatus,
    Registered,
    Registration,
    contradiction,
)
from scheduler.model import MAX_LEFTOVER, STOP_MODES, STOP_SIGNALS, Disk, JobSpec, JobState, Stream, Usage
from scheduler.pb import scheduler_pb2, worker_pb2
from scheduler.rpc import convert, heartbeats
from scheduler.texts import TEXT_MAX_BYTES, bounded_text

INT64 = st.integers(0, 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.dictionaries(st.text(), st.text(), max_size=4)
IDS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
SIZES = st.integers(0, 2**63 - 1)
TIMES = st.none() | st.floats(0.001, convert.END_OF_TIME)
SECONDS = st.floats(0, allow_nan=False, allow_infinity=False)

SPECS = st.builds(
    JobSpec,
    command=st.text(),
    args=st.lists(st.text()).map(tuple),
    path=st.text(),
    env=TEXTS,
    cwd=st.text(),
    stdin=st.none() | st.binary(),
    script=st.none() | st.binary(),
    timeout=st.none() | SECONDS,
    stop_grace=SECONDS,
    labels=TEXTS,
    merge_stderr=st.booleans(),
    output_limit=st.none() | st.integers(0, 2**63 - 1),
    linger=SECONDS,
    stop_signal=st.sampled_from(STOP_SIGNALS),
    stop_mode=st.sampled_from(STOP_MODES),
    umask=st.none() | st.integers(0, 0o777),
)
SHOWN = st.text(max_size=300).map(bounded_text)
ANY_STATUSES = st.builds(
    JobStatus,
    job_id=IDS,
    state=st.sampled_from([JobState.RUNNING, *(state for state in JobState if state.final)]),
    reason=SHOWN,
    started_at=TIMES,
    finished_at=TIMES,
    exit_code=st.none() | INT32,
    signal=st.none() | st.text(min_size=1, max_size=20).map(bounded_text),
    stdout_bytes=st.none() | INT64,
    stderr_bytes=st.none() | INT64,
    tree=SHOWN,
    leftover=st.lists(INT32).map(tuple),
    output_error=SHOWN,
    background_ended=st.integers(0, 2**31 - 1),
    usage=st.none() | st.builds(Usage, max_rss=SIZES, cpu_seconds=SECONDS),
)
STATUSES = ANY_STATUSES.filter(lambda status: not contradiction(status))
REPORTS = st.builds(JobReport, ANY_STATUSES) | st.builds(JobReport, ANY_STATUSES, SPECS, TIMES)
REGISTRATIONS = st.builds(
    Registration,
    address=st.text(),
    worker_id=st.text(),
    name=st.text(),
    labels=TEXTS,
    slots=st.none() | st.integers(0, 2**32 - 1),
    boot_id=st.text(),
    version=st.text(),
    features=st.lists(st.text()).map(tuple),
)
FEW_REPORTS = st.lists(REPORTS, max_size=2, unique_by=lambda report: report.status.job_id).map(tuple)

NO_SECONDS = (math.nan, math.inf, -math.inf, -1.0)
NO_TIMES = (*NO_SECONDS, 1e300)
NO_IDS = ("", "a/b", "..", "x" * 65, "a\n", "ä")


def sent(message):
    """The message after it was serialized and parsed."""
    return type(message).FromString(message.SerializeToString())


class RoundTrip(SynchronousTestCase):
    """A value survives the conversion to a message and back."""

    @given(IDS | st.just(""), SPECS, TIMES)
    def test_start(self, job_id: str, spec: JobSpec, created_at: float | None) -> None:
        """A job's spec, with the scheduler's id and time."""
        message = sent(convert.start_to_pb(job_id, spec, created_at))
        self.assertEqual(message.jobID, job_id)
        self.assertEqual(convert.spec_from_pb(message), spec)
        self.assertEqual(convert.created_at_from_pb(message), created_at)

    @given(STATUSES)
    def test_status(self, status: JobStatus) -> None:
        """The status of a job, also as the answer to a query, whose core fields agree with it."""
        self.assertEqual(convert.status_from_pb(sent(convert.status_to_pb(status))), status)
        message = sent(convert.query_to_pb(status))
        self.assertEqual(convert.query_from_pb(status.job_id, message), status)
        self.assertEqual(message.done, status.state.final)
        self.assertEqual(message.error, status.state.final and status.state is not JobState.SUCCEEDED)
        self.assertEqual(bool(message.errorText), message.error)

    @given(
        st.builds(
            Heartbeat,
            worker_id=IDS,
            boot_id=st.text(min_size=1),
            running=st.lists(IDS, unique=True).map(tuple),
            ended=FEW_REPORTS,
            described=FEW_REPORTS,
            leaving=st.booleans(),
            refusing=st.text(),
            sent_at=TIMES,
            disk=st.none() | st.builds(Disk, SIZES, SIZES, SIZES, SIZES),
        )
    )
    def test_heartbeat(self, heartbeat: Heartbeat) -> None:
        self.assertEqual(heartbeats.heartbeat_from_pb(sent(heartbeats.heartbeat_to_pb(heartbeat))), heartbeat)

    @given(SECONDS, st.lists(IDS).map(tuple), st.lists(IDS).map(tuple))
    def test_answer(self, lease: float, acknowledged: tuple, describe: tuple) -> None:
        answer = HeartbeatAnswer(lease, acknowledged, describe)
        self.assertEqual(heartbeats.answer_from_pb(sent(heartbeats.answer_to_pb(answer))), answer)

    @given(REGISTRATIONS)
    def test_registration(self, registration: Registration) -> None:
        self.assertEqual(convert.registration_from_pb(sent(convert.registration_to_pb(registration))), registration)

    @given(IDS, st.floats(0.001, 1e9))
    def test_registered(self, worker_id: str, lease: float) -> None:
        """The answer to a registration."""
        registered = Registered(worker_id, lease)
        self.assertEqual(convert.registered_from_pb(sent(convert.registered_to_pb(registered)), 30), registered)

    def test_streams(self) -> None:
        """The names of the two streams."""
        for stream in Stream:
            self.assertIs(convert.stream_from_pb(worker_pb2.Stream.Value(stream.name)), stream)


class Untrusted(SynchronousTestCase):
    """Impossible values are refused by their name in the message."""

    def refused(self, field: str, read, *args: object) -> None:
        self.assertEqual(self.assertRaises(Invalid, read, *args).field, field)

    def test_seconds(self) -> None:
        """Seconds are finite and not negative."""
        for bad in NO_SECONDS:
            self.refused("timeout", convert.spec_from_pb, worker_pb2.StartJobReq(timeout=bad))
            self.refused("stopGrace", convert.spec_from_pb, worker_pb2.StartJobReq(stopGrace=bad))
            self.refused("lease", heartbeats.answer_from_pb, scheduler_pb2.HeartbeatRes(lease=bad))
            message = scheduler_pb2.RegisterRes(success=True, workerID="w", lease=bad)
            self.refused("lease", convert.registered_from_pb, message, 30.0)

    def test_times(self) -> None:
        """Times must be valid dates."""
        for bad in NO_TIMES:
            self.refused("createdAt", convert.created_at_from_pb, worker_pb2.StartJobReq(createdAt=bad))
            for field in ("startedAt", "finishedAt"):
                message = worker_pb2.JobStatus(jobID="j", **{field: bad})
                self.refused(field, convert.status_from_pb, message)

    def test_sizes(self) -> None:
        """Numbers of bytes are not negative."""
        for field in ("stdoutBytes", "stderrBytes"):
            self.refused(field, convert.status_from_pb, worker_pb2.JobStatus(jobID="j", **{field: -1}))
        self.refused("max", convert.checked_size, "max", -1)

    def test_what_is_only_shown(self) -> None:
        """An impossible clock or disk counts as unknown, and the rest of the heartbeat is accepted."""
        for bad in NO_TIMES:
            message = scheduler_pb2.HeartbeatReq(workerID="w", bootID="boot", sentAt=bad)
            self.assertIsNone(heartbeats.heartbeat_from_pb(message).sent_at)
        for field in ("size", "free", "inodes", "inodesFree"):
            disk = scheduler_pb2.Disk(**{field: -1})
            message = scheduler_pb2.HeartbeatReq(workerID="w", bootID="boot", disk=disk)
            self.assertIsNone(heartbeats.heartbeat_from_pb(message).disk)
        huge = Heartbeat("w", "boot", disk=Disk(2**64, 2**63, 2**64 - 1, 7))
        most = 2**63 - 1
        self.assertEqual(
            heartbeats.heartbeat_from_pb(sent(heartbeats.heartbeat_to_pb(huge))).disk, Disk(most, most, most, 7)
        )

    def test_texts(self) -> None:
        """Texts of a worker are cut, and unprintable characters are replaced."""
        told = "\x1b[2J" + "\u00e4" * 10_000
        shown = "\ufffd[2J" + "\u00e4" * ((TEXT_MAX_BYTES - 6) // 2)
        fields = {"reason": "reason", "signal": "signal", "tree": "tree", "output_error": "outputError"}
        message = worker_pb2.JobStatus(jobID="j", outcome=worker_pb2.FAILED, **dict.fromkeys(fields.values(), told))
        for status in (
            convert.status_from_pb(message),
            convert.report_from_pb(scheduler_pb2.JobReport(status=message)).status,
            convert.query_from_pb("j", worker_pb2.QueryJobRes(done=True, error=True, status=message)),
        ):
            self.assertEqual([getattr(status, field) for field in fields], [shown] * len(fields))
        core = worker_pb2.QueryJobRes(done=True, error=True, errorText=told)
        self.assertEqual(convert.query_from_pb("j", core).reason, shown)
        self.assertEqual(convert.chunk_from_stream(worker_pb2.StreamJobRes(end=True, cut=told)).cut, shown)
        self.assertEqual(convert.chunk_from_read(worker_pb2.ReadOutputRes(end=True, cut=told), 0, 1).cut, shown)

    def test_contradictions(self) -> None:
        """A contradictory answer is refused here; a contradictory report is left to the cluster."""
        for facts in (
            {"outcome": worker_pb2.SUCCEEDED, "exitCode": 7},
            {"outcome": worker_pb2.SUCCEEDED, "signal": "SIGKILL"},
            {"outcome": worker_pb2.FAILED, "exitCode": 0},
            {"outcome": worker_pb2.FAILED, "exitCode": 1, "signal": "SIGKILL"},
            {"outcome": worker_pb2.LOST, "exitCode": 0},
            {"outcome": worker_pb2.LOST, "signal": "SIGKILL"},
            {"outcome": worker_pb2.RUNNING, "exitCode": 0},
            {"outcome": worker_pb2.RUNNING, "signal": "SIGKILL"},
            {"outcome": worker_pb2.RUNNING, "finishedAt": 1000.0},
        ):
            message = worker_pb2.JobStatus(jobID="j", **facts)
            self.refused("status", convert.status_from_pb, message)
            self.refused("status", convert.query_from_pb, "j", worker_pb2.QueryJobRes(done=True, status=message))
            self.assertTrue(contradiction(convert.report_from_pb(scheduler_pb2.JobReport(status=message)).status))

    def test_no_contradiction(self) -> None:
        """Every status that a worker of this version can report is accepted: a stop, a limit or leftovers, with any
        end.
        """
        for facts in (
            {"outcome": worker_pb2.SUCCEEDED},
            {"outcome": worker_pb2.SUCCEEDED, "exitCode": 0, "leftover": [7]},
            {"outcome": worker_pb2.FAILED},
            {"outcome": worker_pb2.FAILED, "exitCode": 0, "outputError": "output limit of 9 bytes reached"},
            {"outcome": worker_pb2.STOPPED, "exitCode": 0},
            {"outcome": worker_pb2.TIMED_OUT, "exitCode": 3},
            {"outcome": worker_pb2.STOPPED, "signal": "SIGTERM"},
            {"outcome": worker_pb2.LOST, "finishedAt": 1000.0},
        ):
            convert.status_from_pb(worker_pb2.JobStatus(jobID="j", **facts))

    def test_ids(self) -> None:
        """Every field with an id is checked."""
        for bad in NO_IDS:
            self.refused("jobID", convert.status_from_pb, worker_pb2.JobStatus(jobID=bad))
            self.refused("jobID", convert.checked_id, "jobID", bad)

    def test_ids_of_core_programs(self) -> None:
        """Ids of core programs are printable texts of bounded length. A refused id is not repeated in the error."""
        for good in ("core-b0.5-1", "host:5", "\u00e4 / ..", " ", "x" * 1024):
            message = sent(scheduler_pb2.RegisterRes(workerID=good))
            self.assertEqual(convert.registered_from_pb(message, 30.0).worker_id, good)
            self.assertEqual(convert.checked_core_id("jobID", good), good)
        for bad in ("", "a\n", "\x1b[2J", "x" * 1025):
            message = scheduler_pb2.RegisterRes(success=True, workerID=bad)
            error = self.assertRaises(Invalid, convert.registered_from_pb, message, 30.0)
            self.assertEqual(str(error), "workerID: is not 1 to 1024 printable characters")
            self.refused("jobID", convert.checked_core_id, "jobID", bad)

    def test_ending(self) -> None:
        """An unknown stop signal or stop mode is refused."""
        self.refused("stopSignal", convert.spec_from_pb, worker_pb2.StartJobReq(stopSignal="SIGKILL"))
        self.refused("stopMode", convert.spec_from_pb, worker_pb2.StartJobReq(stopMode="all"))
        self.refused("umask", convert.spec_from_pb, worker_pb2.StartJobReq(umask=0o1000))
        self.refused("linger", convert.spec_from_pb, worker_pb2.StartJobReq(linger=-1))
        self.refused("backgroundEnded", convert.status_from_pb, worker_pb2.JobStatus(jobID="j", backgroundEnded=-1))

    def test_of_an_earlier_version(self) -> None:
        """Fields that an earlier version does not send have defaults that were true for it."""
        self.assertEqual(convert.spec_from_pb(worker_pb2.StartJobReq(jobID="j", command="a")), JobSpec(command="a"))
        status = convert.status_from_pb(worker_pb2.JobStatus(jobID="j", outcome=worker_pb2.RUNNING))
        self.assertEqual(status, JobStatus("j", JobState.RUNNING))
        registration = scheduler_pb2.RegisterReq(address="a:1", bootID="boot")
        self.assertEqual(convert.registration_from_pb(registration).features, ())
        heartbeat = scheduler_pb2.HeartbeatReq(workerID="w", bootID="boot")
        self.assertEqual(heartbeats.heartbeat_from_pb(heartbeat).refusing, "")

    def test_most_leftover(self) -> None:
        """No more leftover processes are kept than a worker of ours would list."""
        message = worker_pb2.JobStatus(jobID="j", outcome=worker_pb2.FAILED, leftover=range(1, 1000))
        self.assertEqual(convert.status_from_pb(message).leftover, tuple(range(1, MAX_LEFTOVER + 1)))

    def test_unknown(self) -> None:
        """An unknown outcome, of a later version, an unknown stream, and an answer about another job are refused."""
        self.refused("outcome", convert.status_from_pb, worker_pb2.JobStatus(jobID="j", outcome=99))
        self.refused("stream", convert.stream_from_pb, 2)
        self.refused("jobID", convert.query_from_pb, "j", convert.query_to_pb(JobStatus("other", JobState.RUNNING)))

    def test_other_bytes(self) -> None:
        """Bytes that were not requested are refused."""
        good = worker_pb2.ReadOutputRes(output=b"abc", offset=5, size=8)
        self.assertEqual(convert.chunk_from_read(good, 5, 3), Chunk(b"abc", 5, False, 8))
        self.refused("output", convert.chunk_from_read, good, 4, 3)
        self.refused("output", convert.chunk_from_read, good, 5, 2)
        self.refused("output", convert.chunk_from_read, worker_pb2.ReadOutputRes(output=b"abc", offset=5, size=7), 5, 3)
