"""The text of a token."""

from __future__ import annotations

import re
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Unauthenticated
from scheduler.security.token_text import digest_of, id_of, new_id, new_text

TEXT = "sched_abcd2345_" + "aB3" * 14 + "x_"


class TextTests(SynchronousTestCase):
    def test_form(self) -> None:
        """A text has an id, 43 letters and digits, and the CRC-32 of what is before it; two texts differ."""
        first, second = new_text("abcd2345"), new_text("abcd2345")
        self.assertRegex(first, re.compile(r"sched_abcd2345_[A-Za-z0-9]{43}_[0-9a-f]{8}\Z"))
        checked, _, checksum = first.rpartition("_")
        self.assertEqual(int(checksum, 16), zlib.crc32(checked.encode()))
        self.assertEqual(id_of(first), "abcd2345")
        self.assertNotEqual(first, second)
        self.assertNotEqual(digest_of(first), digest_of(second))

    def test_id(self) -> None:
        """An id is not one of those in use."""
        used = {new_id(()) for _ in range(100)}
        self.assertEqual(len(used), 100)
        for token_id in used:
            self.assertRegex(token_id, r"^[a-z0-9]{8,}$")
        self.assertNotIn(new_id(used), used)

    def test_digest(self) -> None:
        """The digest is the SHA-256 of the text."""
        self.assertEqual(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

    def refusal(self, text: str) -> str:
        with self.assertRaises(Unauthenticated) as caught:
            id_of(text)
        return str(caught.exception)

    def test_mistyped(self) -> None:
        """A token with one other character is refused by its checksum, and the refusal does not repeat it."""
        text = new_text("abcd2345")
        for place in range(6, len(text)):
            other = "1" if text[place] == "0" else "0"
            problem = self.refusal(text[:place] + other + text[place + 1 :])
            self.assertNotIn(text[20:40], problem)

    def test_near_misses(self) -> None:
        """A text of another form is refused: a part, more, another case, digits of other scripts."""
        good = TEXT + f"{zlib.crc32(TEXT[:-1].encode()):08x}"
        self.assertEqual(id_of(good), "abcd2345")
        for text in ("", good[:-1], good + "0", f" {good}", f"{good}\n", good.upper(), good.replace("2", "\uff12")):
            self.assertIn("form", self.refusal(text), text)

    @given(st.text() | st.from_regex(r"sched_[a-z0-9]{8}_[A-Za-z0-9]{43}_[0-9a-f]{8}", fullmatch=True))
    def test_any_text(self, text: str) -> None:
        """Any text is refused, and nothing but ``Unauthenticated`` is raised."""
        self.refusal(text)
