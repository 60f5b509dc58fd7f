"""The proxy of the fault harness that makes the two sides look like earlier versions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scheduler.pb import scheduler_pb2 as pb
from tests.faults.older import ADDED, stripped


class StrippedTests(SynchronousTestCase):
    def test_added(self) -> None:
        """The added fields are removed from each message, and the rest passes."""
        registration = pb.RegisterReq(address="a:1", workerID="w", bootID="b", folderID="f", nonce="n", commitCount=7)
        self.assertEqual(stripped(registration), pb.RegisterReq(address="a:1", workerID="w", bootID="b"))
        beat = pb.HeartbeatReq(workerID="w", running=["j"], nonce="n", commitCount=7)
        self.assertEqual(stripped(beat), pb.HeartbeatReq(workerID="w", running=["j"]))
        answer = pb.HeartbeatRes(lease=3.0, registerAgain=True, commitCount=7, reportAll=True)
        self.assertEqual(stripped(answer), pb.HeartbeatRes(lease=3.0))

    def test_newest(self) -> None:
        """The removed fields are those with the highest numbers, so a field that is added later is noticed."""
        for message, names in ADDED.items():
            fields = message.DESCRIPTOR.fields_by_name
            added = {fields[name].number for name in names}
            others = [field.number for name, field in fields.items() if name not in names]
            self.assertGreater(min(added), max(others), message.DESCRIPTOR.name)
