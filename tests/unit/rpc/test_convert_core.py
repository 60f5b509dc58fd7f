"""Conversion of the messages of the core protocol."""

import signal

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid, Refused
from scheduler.messages import JobStatus, Registered, Registration
from scheduler.model import JobSpec, JobState
from scheduler.pb import scheduler_pb2, worker_pb2
from scheduler.rpc import convert


class CoreProtocolTests(SynchronousTestCase):
    """Messages of programs that know only the core protocol."""

    def test_start(self) -> None:
        """A core worker is sent only the core fields."""
        message = convert.core_start_to_pb(JobSpec(command="sh", path="a.sh", stop_grace=3))
        self.assertEqual(
            [(field.name, value) for field, value in message.ListFields()], [("command", "sh"), ("path", "a.sh")]
        )

    def test_spec(self) -> None:
        """A start from a core scheduler becomes a job with every default."""
        self.assertEqual(
            convert.spec_from_pb(worker_pb2.StartJobReq(command="sh", path="a.sh")), JobSpec(command="sh", path="a.sh")
        )

    def test_registration(self) -> None:
        """A core worker has no slots, no name and no boot id."""
        self.assertEqual(
            convert.registration_from_pb(scheduler_pb2.RegisterReq(address="h:1")), Registration(address="h:1")
        )

    def test_registered(self) -> None:
        """A core scheduler sends no lease, so the default is used. It may leave ``success`` unset."""
        for success in (True, False):
            message = scheduler_pb2.RegisterRes(success=success, workerID="w")
            self.assertEqual(convert.registered_from_pb(message, 30.0), Registered("w", 30.0))

    def test_not_registered(self) -> None:
        """An answer without an id is no registration, whatever ``success`` says."""
        self.assertRaises(Refused, convert.registered_from_pb, scheduler_pb2.RegisterRes(), 30.0)
        self.assertRaises(Invalid, convert.registered_from_pb, scheduler_pb2.RegisterRes(success=True), 30.0)

    def query(self, **answer: object) -> JobStatus:
        return convert.query_from_pb("j", worker_pb2.QueryJobRes(**answer))

    def test_without_an_error(self) -> None:
        """A job that is not done is running, whatever the other fields say; a job done without an error has code 0."""
        self.assertEqual(self.query(error=True, errorText="exit status 1"), JobStatus("j", JobState.RUNNING))
        self.assertEqual(self.query(done=True), JobStatus("j", JobState.SUCCEEDED, exit_code=0))

    def test_exit_status(self) -> None:
        """A text that is exactly an exit status gives the exit code."""
        for text, code in (
            ("exit status 3", 3),
            ("exit status 255", 255),
            ("exit status -1", None),
            ("exit status ٣", None),
            ("exit status ", None),
            ("exit status 3 ", None),
            ("the exit status 3", None),
            ("exit status " + "9" * 4000, None),
            ("no such file", None),
        ):
            status = self.query(done=True, error=True, errorText=text)
            self.assertEqual(status, JobStatus("j", JobState.FAILED, reason=text, exit_code=code))

    def test_signal(self) -> None:
        """The description of a signal gives its name."""
        for text, name in (
            ("signal: killed", "SIGKILL"),
            ("signal: terminated", "SIGTERM"),
            ("signal: segmentation fault", "SIGSEGV"),
            ("signal: nonsense", None),
            ("killed", None),
        ):
            status = self.query(done=True, error=True, errorText=text)
            self.assertEqual((status.state, status.reason, status.signal), (JobState.FAILED, text, name))
            self.assertIsNone(status.exit_code)
            if name is not None:
                self.assertIn(name, signal.Signals.__members__)

    def test_no_text(self) -> None:
        """An error without a text is still an error."""
        status = self.query(done=True, error=True)
        self.assertEqual((status.state, status.reason), (JobState.FAILED, "error"))
