"""The limits on entries that anybody can cause."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.security import flood
from scheduler.security.flood import AGAIN_SECONDS, REFUSALS_OF_ALL, REFUSALS_PER_ADDRESS, Hourly, Refusals


class RefusalsTests(SynchronousTestCase):
    def test_address(self) -> None:
        """An address has a few refusals recorded; the rest is counted until the minute ends."""
        refusals = Refusals()
        recorded = sum(refusals.may_record("10.0.0.1") for _ in range(50))
        self.assertEqual(recorded, REFUSALS_PER_ADDRESS)
        self.assertTrue(refusals.may_record("10.0.0.2"))
        self.assertFalse(refusals.idle)
        self.assertEqual(refusals.end(), {"10.0.0.1": 50 - REFUSALS_PER_ADDRESS})
        self.assertTrue(refusals.idle)
        self.assertTrue(refusals.may_record("10.0.0.1"))
        self.assertEqual(refusals.end(), {})

    def test_many_addresses(self) -> None:
        """Many addresses together have no more recorded than the limit of all, and few are counted by themselves."""
        self.patch(flood, "ADDRESSES_MAX", 3)
        refusals = Refusals()
        recorded = sum(refusals.may_record(f"10.0.{number}") for number in range(REFUSALS_OF_ALL + 10))
        self.assertEqual(recorded, REFUSALS_OF_ALL)
        counted = refusals.end()
        self.assertEqual((len(counted), counted[""], sum(counted.values())), (4, 7, 10))


class HourlyTests(SynchronousTestCase):
    def test_once_an_hour(self) -> None:
        """Reads of one job by one principal are recorded again after an hour."""
        reads = Hourly()
        asked = [("a", "j-1", 0.0), ("a", "j-1", 5.0), ("b", "j-1", 5.0), ("a", "j-2", 5.0), ("a", "j-1", 3599.0)]
        self.assertEqual([reads.may_record(*each) for each in asked], [True, False, True, True, False])
        self.assertTrue(reads.may_record("a", "j-1", AGAIN_SECONDS))
        self.assertFalse(reads.may_record("a", "j-1", AGAIN_SECONDS + 1))

    def test_bounded(self) -> None:
        """Only so many reads are remembered, the last ones."""
        self.patch(flood, "REMEMBERED_MAX", 2)
        reads = Hourly()
        for job_id in ("j-1", "j-2", "j-3"):
            reads.may_record("a", job_id, 0.0)
        self.assertEqual([reads.may_record("a", job_id, 1.0) for job_id in ("j-3", "j-1")], [False, True])
