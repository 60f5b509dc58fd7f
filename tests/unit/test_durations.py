"""Durations as people write them."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler import durations


class DurationTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A number with a unit, a bare number and a number of JSON or TOML are seconds."""
        for value, seconds in (
            ("30s", 30.0),
            ("5m", 300.0),
            ("24h", 86_400.0),
            ("7d", 604_800.0),
            ("250ms", 0.25),
            ("1.5h", 5_400.0),
            ("12", 12.0),
            (3, 3.0),
            (0.5, 0.5),
            (0, 0.0),
        ):
            self.assertEqual(durations.parse(value), seconds, value)

    def test_refused(self) -> None:
        """Anything else is refused in words that say what is allowed."""
        for value in (
            *("", "s", "5 m", " 5m", "5M", "-5s", "+5s", "1e3", "5m30s", "1h ", "5m\n", "٣s", "inf", "nan", "0x5"),
            *(-1, True, None, float("inf"), float("nan"), 10**400, [], {}, b"5s"),
        ):
            error = self.assertRaises(ValueError, durations.parse, value)
            self.assertIn("30s, 5m, 24h or 7d", str(error), value)
