"""Ids, names of workers, labels and names of variables: any text is refused, or harmless wherever it is used."""

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.names import env_name_problem, is_id, label_problem, name_problem, nearest
from scheduler.reading import check_label, printable, shown
from scheduler.texts import CORE_ID_MAX_CHARACTERS, TEXT_MAX_BYTES, bounded_text, is_core_id

#: Texts that are almost right, and any others.
ALMOST = st.lists(
    st.sampled_from(
        ("a", "Z", "0", "-", "_", ".", "/", "..", " ", "\0", "\n", "\r", "=", "%", "é", "\u0661", "\ud800", "\x7f")
    )
    | st.characters(),
    max_size=8,
).map("".join)
TEXTS = ALMOST | st.text() | st.builds(lambda text, count: text * count, ALMOST, st.integers(0, 300))


class NameTests(SynchronousTestCase):
    """Properties of whatever passes."""

    @given(TEXTS)
    def test_ids(self, text: str) -> None:
        """An id is a single component of a path and a URL, of at most 64 characters of ASCII."""
        if is_id(text):
            self.assertRegex(text, r"\A[\x21-\x7e]{1,64}\Z")
            self.assertEqual(os.path.basename(text), text)
            self.assertNotIn(text, (".", ".."))
            self.assertFalse(set(text) & set("/%?#&=:;\"'\\<>"))

    @given(TEXTS)
    def test_core_ids(self, text: str) -> None:
        """An id of the core protocol is short and printable, so it can't forge a line of a log."""
        if is_core_id(text):
            self.assertEqual(bounded_text(text, 4 * CORE_ID_MAX_CHARACTERS), text)
            self.assertEqual(text.splitlines(), [text])

    @given(TEXTS)
    def test_names(self, text: str) -> None:
        """A worker's name is a component of a path and a URL, and begins with a letter or digit."""
        if name_problem(text) is None:
            self.assertRegex(text, r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
            self.assertEqual(os.path.basename(text), text)

    @given(TEXTS, TEXTS)
    def test_labels(self, key: str, value: str) -> None:
        """A label's key has no separator, and its value is one printable line; a refusal is one line, too."""
        try:
            found = check_label("labels", key, value)
        except Invalid as error:
            self.assertEqual(len(str(error).splitlines()), 1)
            str(error).encode()
            return
        self.assertEqual(found, value)
        self.assertFalse(set(key) & set("=,:; \n\"'"))
        self.assertIsNone(label_problem(value))
        self.assertLessEqual(len(value.splitlines()), 1)
        value.encode()

    @given(TEXTS)
    def test_env_names(self, text: str) -> None:
        """A variable's name is an identifier of ASCII, and none of those by which the worker tells a job who it is."""
        if env_name_problem(text) is None:
            self.assertTrue(text.isascii() and text.isidentifier())
            self.assertFalse(text.startswith("SCHEDULER_"))
            self.assertNotEqual(text, "NOTIFY_SOCKET")
        for reserved in ("SCHEDULER_", "NOTIFY_SOCKET"):
            self.assertIsNotNone(env_name_problem(reserved if reserved[-1] != "_" else reserved + text))


class ShownTests(SynchronousTestCase):
    """Texts that are refused are shown in one line, whatever they are."""

    @given(TEXTS | st.integers() | st.floats() | st.lists(TEXTS) | st.dictionaries(TEXTS, TEXTS))
    def test_shown(self, value: object) -> None:
        self.assertRegex(shown(value), r"\A[\x20-\x7e]{1,80}\Z")

    @given(TEXTS)
    def test_printable(self, text: str) -> None:
        self.assertRegex(printable(text), r"\A[\x20-\x7e]{0,80}\Z")

    @given(TEXTS, st.integers(0, 2 * TEXT_MAX_BYTES))
    def test_bounded(self, text: str, most: int) -> None:
        """A text of another program has no more bytes than allowed, and is printable."""
        found = bounded_text(text, most)
        self.assertLessEqual(len(found.encode()), most)
        self.assertTrue(found.isprintable())

    @given(TEXTS, st.lists(TEXTS, max_size=5))
    def test_nearest(self, text: str, known: list[str]) -> None:
        """A correction is one of the known names."""
        self.assertIn(nearest(text, known, 0.6), (None, *known))
