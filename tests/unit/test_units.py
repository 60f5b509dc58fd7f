"""Durations and sizes in human-readable form."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler import units
from scheduler.units import Share


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
            self.assertEqual(units.parse_duration(value), seconds, value)

    def test_moment(self) -> None:
        """A moment is shown in UTC, to the second."""
        self.assertEqual(units.format_moment(1_700_000_000.9), "2023-11-14T22:13:20Z")

    def test_refused(self) -> None:
        """Anything else is refused in words that say what is allowed."""
        for value in (
            *("", "s", " 5m", "5  m", "5M", "-5s", "+5s", "1e3", "1h ", "5m\n", "٣s", "inf", "nan", "0x5", "1_0"),
            *("1,5h", "1h30", "30m1h", "1h1h", "1m2ms3ms", "1h,30m", "1h and 30m", "5y", "5 months", "1h\t30m"),
            *(-1, True, None, float("inf"), float("nan"), 10**400, [], {}, b"5s"),
        ):
            error = self.assertRaises(ValueError, units.parse_duration, value)
            self.assertIn("30s, 5m, 1h30m or 7d", str(error), value)

    def test_text(self) -> None:
        """A duration is formatted in human-readable form."""
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
            self.assertEqual(units.format_duration(seconds), text)

    @given(st.integers(0, 10**14))
    def test_read_again(self, micros: int) -> None:
        """A formatted duration is read as the same, to the microsecond."""
        self.assertEqual(round(units.parse_duration(units.format_duration(micros / 1_000_000)) * 1_000_000), micros)


class SizeTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        """With B units are decimal, alone or with an i binary, in any case; a number alone is bytes."""
        for text, size in (
            (0, 0),
            (512, 512),
            ("512", 512),
            ("7B", 7),
            ("1KB", 1000),
            ("1 KiB", 1024),
            ("1.5GB", 1_500_000_000),
            ("0.5KiB", 512),
            ("100MB", 100_000_000),
            ("2TiB", 2 * 1024**4),
            ("1.000000001GB", 1_000_000_001),
            ("64KiB", 65_536),
            ("64kib", 65_536),
            ("64k", 65_536),
            ("64K", 65_536),
            ("64kb", 64_000),
            ("64KB", 64_000),
            ("64 Kb", 64_000),
            ("2m", 2 * 1024**2),
            ("1G", 1024**3),
            ("1.5 GB", 1_500_000_000),
            ("1.5g", 1024**3 * 3 // 2),
            ("1t", 1024**4),
            ("7 b", 7),
        ):
            self.assertEqual(units.parse_size(text), size, text)

    def test_no_sizes(self) -> None:
        """Anything else is refused with what is allowed."""
        for text in (
            *("", "MB", "-1", -1, "1 MB ", "1  MB", "1e6", "1i", "1KBi", "1bit", "1\u212a", "१MB", "10%"),
            *(1.0, True, None, "9999PB", 2**60 + 1),
        ):
            with self.assertRaises(ValueError, msg=repr(text)) as raised:
                units.parse_size(text)
            self.assertIn("64KiB, 100MB", str(raised.exception))

    def test_a_bound(self) -> None:
        """A size below the minimum is refused like an invalid size, with the minimum; the minimum is accepted."""
        self.assertEqual(units.parse_size("1B", least=1), 1)
        for value in (0, "0KB", -1, "x"):
            with self.assertRaises(ValueError, msg=repr(value)) as raised:
                units.parse_size(value, least=1)
            self.assertTrue(str(raised.exception).endswith("4GiB, at least 1"), value)

    def test_shares(self) -> None:
        """A share is a percentage of the whole, or a number of bytes whatever the whole is."""
        self.assertEqual(units.parse_share("10%").of(2000), 200)
        self.assertEqual(units.parse_share("2.5 %").of(1000), 25)
        self.assertEqual(units.parse_share("0%").of(1000), 0)
        self.assertEqual(units.parse_share("100%").of(1000), 1000)
        self.assertEqual(units.parse_share("1KB").of(5), 1000)
        self.assertEqual([str(Share(percent=2.5)), str(Share(1000))], ["2.5%", "1000 bytes"])

    def test_no_shares(self) -> None:
        """More than the whole, or an invalid size, is refused."""
        for text in ("101%", "%", "-1%", "1000%", "x", None):
            with self.assertRaises(ValueError, msg=repr(text)) as raised:
                units.parse_share(text)
            self.assertIn("10%", str(raised.exception))
