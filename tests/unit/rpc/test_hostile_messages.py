"""Messages with hostile values in any field, and addresses as channels get them."""

from random import Random
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid, SchedulerError
from scheduler.net import join_address, split_address
from scheduler.pb import scheduler_pb2, worker_pb2
from scheduler.rpc import convert, heartbeats
from scheduler.rpc.channel import dial_target
from tests.fuzz import values
from tests.fuzz.messages import message

KINDS = (
    (scheduler_pb2.RegisterReq, convert.registration_from_pb),
    (scheduler_pb2.HeartbeatReq, heartbeats.heartbeat_from_pb),
    (worker_pb2.StartJobReq, convert.spec_from_pb),
    (worker_pb2.StartJobReq, convert.created_at_from_pb),
    (worker_pb2.StartJobReq, convert.key_from_pb),
    (scheduler_pb2.JobReport, convert.report_from_pb),
    (scheduler_pb2.HeartbeatRes, heartbeats.answer_from_pb),
    (worker_pb2.JobStatus, convert.status_from_pb),
    (worker_pb2.SignalJobReq, convert.signal_from_pb),
)


class MessageTests(SynchronousTestCase):
    @given(st.sampled_from(KINDS), st.integers(0, 2**64))
    def test_any_message(self, kind: tuple, seed: int) -> None:
        """A message becomes a value, or is refused in one line; nothing else is raised."""
        cls, convert_ = kind
        made = message(Random(seed), cls, {})
        try:
            convert_(cls.FromString(made.SerializeToString()))
        except SchedulerError as error:
            self.assertEqual(len(str(error).splitlines()), 1, error)


class TargetTests(SynchronousTestCase):
    @given(
        st.sampled_from(values.HOSTS)
        | st.sampled_from(("unix", "dns", "ipv4", "xds", "box", "[fe80::1%lo]", "[::1]")).map(lambda host: f"{host}:80")
    )
    def test_scheme(self, text: str) -> None:
        """An address that passes is given to gRPC as a host and a port, even if the host is called like a scheme."""
        try:
            host, port = split_address(text)
        except Invalid:
            return
        self.assertEqual(unquote(dial_target(text).removeprefix("dns:///")), text)
        self.assertTrue(dial_target(join_address(host, port)).startswith("dns:///"))
