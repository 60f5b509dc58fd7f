"""Numbers of bytes, read."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler import sizes
from scheduler.sizes import Share


class SizeTests(SynchronousTestCase):
    """What is a size, and what is none."""

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
            self.assertEqual(sizes.parse(text), size, text)

    def test_no_sizes(self) -> None:
        """Anything else is refused with what is allowed."""
        for text in (
            *("", "MB", "-1", -1, "1 MB ", "1  MB", "1e6", "1i", "1KBi", "1bit", "1\u212a", "१MB", "10%"),
            *(1.0, True, None, "9999PB", 2**60 + 1),
        ):
            with self.assertRaises(ValueError, msg=repr(text)) as raised:
                sizes.parse(text)
            self.assertIn("64KiB, 100MB", str(raised.exception))

    def test_a_bound(self) -> None:
        """What is less than the least is refused like what is no size, and the bound is told; the least is taken."""
        self.assertEqual(sizes.parse("1B", least=1), 1)
        for value in (0, "0KB", -1, "x"):
            with self.assertRaises(ValueError, msg=repr(value)) as raised:
                sizes.parse(value, least=1)
            self.assertTrue(str(raised.exception).endswith("4GiB, at least 1"), value)

    def test_shares(self) -> None:
        """A share is a percentage of the whole, or so many bytes of it whatever it has."""
        self.assertEqual(sizes.parse_share("10%").of(2000), 200)
        self.assertEqual(sizes.parse_share("2.5 %").of(1000), 25)
        self.assertEqual(sizes.parse_share("0%").of(1000), 0)
        self.assertEqual(sizes.parse_share("100%").of(1000), 1000)
        self.assertEqual(sizes.parse_share("1KB").of(5), 1000)
        self.assertEqual([str(Share(percent=2.5)), str(Share(1000))], ["2.5%", "1000 bytes"])

    def test_no_shares(self) -> None:
        """More than all of it, or what is no size either, is refused."""
        for text in ("101%", "%", "-1%", "1000%", "x", None):
            with self.assertRaises(ValueError, msg=repr(text)) as raised:
                sizes.parse_share(text)
            self.assertIn("10%", str(raised.exception))
