"""The query string and the filters of jobs."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.parameters import FILTERS, Query, pairs_of, read_pairs
from scheduler.errors import Invalid
from scheduler.model import JobState, Stream
from scheduler.views import JobFilter

NOW = 1_700_000_000.0

PARAMETERS = (*FILTERS, "wait", "limit", "cursor", "stream", "follow", "offset")


def query(text: bytes) -> Query:
    return Query(read_pairs(text), PARAMETERS)


class QueryTests(SynchronousTestCase):
    def refused(self, field: str, text: bytes) -> str:
        def read() -> None:
            found = query(text)
            found.filter(NOW)
            found.wait()
            found.flag("follow")
            found.stream()
            found.number("limit", 1, 1000)
            found.text("cursor")

        error = self.assertRaises(Invalid, read)
        self.assertEqual(error.field, field, text)
        return str(error)

    def test_unknown_and_repeated(self) -> None:
        """A parameter that the route does not have, or that is given twice, is a mistake."""
        complaint = self.refused("stat", b"stat=running")
        self.assertIn("did you mean state?", complaint)
        self.assertIn("created_by", complaint)
        self.refused("wait", b"wait=1&wait=1")
        self.assertRaises(Invalid, Query, [("a", "b")], ())

    def test_encoding(self) -> None:
        """Percent-encoded UTF-8 is read; other bytes and NULs are refused."""
        self.assertEqual(query(b"worker=%C3%A4+b").text("worker"), "ä b")
        self.refused("query", b"worker=%ff")
        self.refused("query", b"worker=\x80")
        self.refused("worker", b"worker=%00")

    def test_wait(self) -> None:
        """``wait`` is a duration of up to 300 seconds."""
        for text, seconds in (
            (b"", None),
            (b"wait=0", 0),
            (b"wait=30", 30),
            (b"wait=5m", 300),
            (b"wait=1m+30s", 90),
            (b"wait=1.5%20min", 90),
        ):
            self.assertEqual(query(text).wait(), seconds, text)
        for wrong in (b"wait=", b"wait=301", b"wait=-1", b"wait=x", b"wait=1h", b"wait=nan", b"wait=1e1"):
            self.refused("wait", wrong)

    def test_flag(self) -> None:
        """A flag is 1 or 0."""
        self.assertEqual([query(text).flag("follow") for text in (b"", b"follow=0", b"follow=1")], [False, False, True])
        for wrong in (b"follow=", b"follow=yes", b"follow=2"):
            self.refused("follow", wrong)

    def test_number(self) -> None:
        """A number is within its bounds."""
        self.assertEqual(query(b"limit=1000").number("limit", 1, 1000), 1000)
        for wrong in (b"0", b"1001", b"", b"x", b"-1", b"1.5", b"%D9%A1", b"9" * 30):
            self.refused("limit", b"limit=" + wrong)

    def test_stream(self) -> None:
        """A stream is stdout or stderr."""
        self.assertIs(query(b"").stream(), Stream.STDOUT)
        self.assertIs(query(b"stream=stderr").stream(), Stream.STDERR)
        self.refused("stream", b"stream=stdin")
        self.refused("stream", b"stream=")

    def test_empty(self) -> None:
        """An empty value is a mistake."""
        for name in ("worker", "state", "created_by", "created_after", "cursor"):
            self.refused(name, name.encode() + b"=")

    def test_filters(self) -> None:
        found = query(
            b"worker=w1&state=running,%20unknown&label=a=1&label=b=x=y&label=a=1&created_by=me"
            b"&created_after=24h&created_before=2023-11-14T22:13:20Z"
            b"&finished_after=2023-11-14T23:13:20.5%2B01:00&finished_before=2023-11-14t22:13:20.123456789-00:30"
        ).filter(NOW)
        self.assertEqual(
            found,
            JobFilter(
                worker="w1",
                states=frozenset({JobState.RUNNING, JobState.UNKNOWN}),
                labels={"a": "1", "b": "x=y"},
                created_by="me",
                created_after=NOW - 86400,
                created_before=NOW,
                finished_after=NOW + 0.5,
                finished_before=NOW + 1800.123456,
            ),
        )

    def test_id_prefix(self) -> None:
        """A prefix of ids has at least six characters that an id may have."""
        self.assertEqual(query(b"id_prefix=3f2a9c").filter(NOW).id_prefix, "3f2a9c")
        for wrong in (b"", b"3f2a9", b"3f2a9%20", b"3f2a9c/", b"a" * 65):
            self.refused("id_prefix", b"id_prefix=" + wrong)
        self.assertEqual(Query(pairs_of({"id_prefix": 123456}), FILTERS).filter(NOW).id_prefix, "123456")

    def test_plus(self) -> None:
        """A UTC offset whose plus sign was not escaped is understood."""
        self.assertEqual(query(b"created_after=2023-11-14T23:13:20+01:00").filter(NOW).created_after, NOW)

    def test_times_refused(self) -> None:
        """A text that is no time, has no zone, or is ambiguous is refused."""
        for wrong in (
            *(b"yesterday", b"2023-11-14", b"2023-11-14T22:13:20", b"2023-13-14T22:13:20Z", b"2023-11-14T25:13:20Z"),
            *(b"0001-01-01T00:00:00%2B23:59", b"1700000000", b"-1h", b"1y", b"..h"),
        ):
            self.refused("created_after", b"created_after=" + wrong)

    def test_several_labels_in_one(self) -> None:
        """Labels joined by commas are refused with the right form; a value may have commas."""
        for wrong in (b"label=a=1,b=2", b"label=a=1,%20b/c.d=", b"label=a=1%2Cb=2"):
            self.assertIn("label=a=1&label=b", self.refused("label", wrong))
        self.assertEqual(query(b"label=a=1,2&label=b=x,(y=z)").filter(NOW).labels, {"a": "1,2", "b": "x,(y=z)"})

    def test_ago(self) -> None:
        """A time may be a duration ago, in one unit or several."""
        for text, seconds in ((b"1h30m", 5400), (b"2%20d", 172_800), (b"1h+30m", 5400), (b"1w", 604_800)):
            self.assertEqual(query(b"created_after=" + text).filter(NOW).created_after, NOW - seconds)

    def test_labels_refused(self) -> None:
        """A label is key=value, and one key has one value."""
        for wrong in (b"label=a", b"label==a", b"label=", b"label=a=1&label=a=2", b"label=a%0Ab=1", b"label=a=b%0A"):
            self.assertTrue(self.refused("label.a" if wrong.endswith(b"%0A") else "label", wrong))

    def test_states_refused(self) -> None:
        """An unknown state is refused with the known states."""
        self.assertIn("timed_out", self.refused("state", b"state=running,dead"))


class BodyTests(SynchronousTestCase):
    """Filters in a JSON body."""

    def test_same(self) -> None:
        """Strings are as in the query. States and labels may be lists, and labels an object."""
        for body in (
            {"state": "running,unknown", "label": ["a=1", "b=2"]},
            {"state": ["running", "unknown"], "label": {"a": "1", "b": "2"}},
        ):
            found = Query(pairs_of(body), FILTERS).filter(NOW)
            self.assertEqual(found.states, {JobState.RUNNING, JobState.UNKNOWN})
            self.assertEqual(found.labels, {"a": "1", "b": "2"})
        self.assertEqual(Query(pairs_of({"label": "a=1"}), FILTERS).filter(NOW).labels, {"a": "1"})

    def test_numbers_and_booleans(self) -> None:
        """Numbers and booleans stand for their text in a query."""
        for given, orphan in ((True, True), (False, False), (1, True), (0, False), ("1", True), ("false", False)):
            self.assertEqual(Query(pairs_of({"orphan": given}), FILTERS).filter(NOW).orphan, orphan, given)
        found = Query(pairs_of({"worker": 7, "label": {"build": 12, "x": True}}), FILTERS).filter(NOW)
        self.assertEqual((found.worker, found.labels), ("7", {"build": "12", "x": "true"}))

    def test_several_labels(self) -> None:
        """An object may have any values; strings and lists follow the rule of the query."""
        self.assertEqual(Query(pairs_of({"label": {"a": "1,b=2"}}), FILTERS).filter(NOW).labels, {"a": "1,b=2"})
        for wrong in ("a=1,b=2", ["a=1,b=2"]):
            self.assertEqual(self.assertRaises(Invalid, pairs_of, {"label": wrong}).field, "label")

    def test_refused(self) -> None:
        """Values of other types, and fields that are no filters, are refused."""
        for name, wrong in (
            ("worker", 1.5),
            ("worker", None),
            ("worker", ["a"]),
            ("state", [1]),
            ("label", None),
            ("label", [1]),
            ("label.a", {"a": 1.0}),
            ("label.a", {"a": None}),
            ("jobs", "all"),
            ("worker", "a\0"),
        ):
            error = self.assertRaises(
                Invalid, lambda name=name, wrong=wrong: Query(pairs_of({name.partition(".")[0]: wrong}), FILTERS)
            )
            self.assertEqual(error.field, name)
