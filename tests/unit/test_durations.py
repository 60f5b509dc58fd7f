"""Durations as people write them."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler import durations


class DurationTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A number with a unit, several of them, a bare number and a number of JSON or TOML are seconds."""
        for value, seconds in (
            ("30s", 30.0),
            ("5m", 300.0),
            ("24h", 86_400.0),
            ("7d", 604_800.0),
            ("1w", 604_800.0),
            ("250ms", 0.25),
            ("1.5h", 5_400.0),
            ("1.1h", 3_960.0),
            ("1h30m", 5_400.0),
            ("1h 30m", 5_400.0),
            ("1d 2 h 3 min 4.5s", 93_784.5),
            ("2 h", 7_200.0),
            ("2H", 7_200.0),
            ("5 Minutes", 300.0),
            ("1 hour", 3_600.0),
            ("10 sec", 10.0),
            ("2days", 172_800.0),
            ("12", 12.0),
            ("1.5", 1.5),
            (3, 3.0),
            (0.5, 0.5),
            (0, 0.0),
        ):
            self.assertEqual(durations.parse(value), seconds, value)

    def test_refused(self) -> None:
        """Anything else is refused in words that say what is allowed."""
        for value in (
            *("", "s", " 5m", "5  m", "5M", "-5s", "+5s", "1e3", "1h ", "5m\n", "٣s", "inf", "nan", "0x5", "1_0"),
            *("1,5h", "1h30", "30m1h", "1h1h", "1m2ms3ms", "1h,30m", "1h and 30m", "5y", "5 months", "1h\t30m"),
            *(-1, True, None, float("inf"), float("nan"), 10**400, [], {}, b"5s"),
        ):
            error = self.assertRaises(ValueError, durations.parse, value)
            self.assertIn("30s, 5m, 1h30m or 7d", str(error), value)

    def test_text(self) -> None:
        """A duration is written as people do."""
        for seconds, text in (
            (0.0, "0s"),
            (0.5, "500ms"),
            (0.0005, "0.5ms"),
            (1.5, "1.5s"),
            (60.0, "1m"),
            (90.0, "90s"),
            (119.25, "119.25s"),
            (120.0, "2m"),
            (150.0, "2m30s"),
            (3600.0, "1h"),
            (5400.0, "1h30m"),
            (86_400.0, "1d"),
            (90_061.0, "1d1h1m1s"),
            (3_601.25, "1h1.25s"),
        ):
            self.assertEqual(durations.text(seconds), text)

    @given(st.integers(0, 10**14))
    def test_read_again(self, micros: int) -> None:
        """What is written is read as the same, to the microsecond."""
        self.assertEqual(round(durations.parse(durations.text(micros / 1_000_000)) * 1_000_000), micros)
