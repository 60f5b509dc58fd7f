"""Jobs and workers in words and figures."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.ps import STATES
from scheduler.cli.wording import (
    STATE_COLOURS,
    UNFINISHED,
    clock_time,
    command_line,
    ending,
    labels,
    moment,
    printable,
    run_time,
    short_id,
    size,
    span,
)
from scheduler.model import JobState, WorkerState


class WordingTests(SynchronousTestCase):
    """Values in tables and sentences."""

    def test_span(self) -> None:
        """A duration has about two digits, and no unit of zero."""
        for seconds, text in (
            (-3, "0.0s"),
            (0.44, "0.4s"),
            (9.94, "9.9s"),
            (9.96, "10s"),
            (59.4, "59s"),
            (59.6, "1m"),
            (63, "1m 3s"),
            (3600, "1h"),
            (7500, "2h 5m"),
            (86399.6, "1d"),
            (273600, "3d 4h"),
        ):
            self.assertEqual(span(seconds), text)

    def test_size(self) -> None:
        """A number of bytes has three digits, in units of a thousand."""
        for count, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (1234567, "1.23 MB"),
            (999_499, "999 kB"),
            (999_999, "1 MB"),
            (81_000_000_000, "81 GB"),
            (2**60, "1153 PB"),
        ):
            self.assertEqual(size(count), text)

    def test_printable(self) -> None:
        """No text of a job controls the terminal or breaks a line: such characters are escaped."""
        self.assertEqual(printable("a\nb\t\x1b[31m\x9b\u202e\ud800"), r"a\nb\t\x1b[31m\x9b\u202e\ud800")
        self.assertEqual(printable("Müller 日本"), "Müller 日本")

    def test_command_line(self) -> None:
        """A command is shown as typed in a shell, a shell line as it is, and a script by its first line."""
        self.assertEqual(command_line({"command": "make", "args": ["a b", "c"]}), "make 'a b' c")
        self.assertEqual(command_line({"command": "sh", "path": "x.sh", "args": []}), "sh x.sh")
        self.assertEqual(command_line({"command": "sh", "args": None}), "sh")
        self.assertEqual(command_line({"command": "/bin/sh", "args": ["-c", "echo hi && ls"]}), "echo hi && ls")
        self.assertEqual(command_line({"command": "/bin/sh", "args": ["-c", "a", "b"]}), "/bin/sh -c a b")
        script = {"script": {"bytes": 812, "first_line": "#!/bin/sh"}, "command": None, "args": []}
        self.assertEqual(command_line(script), "#!/bin/sh (812 B script)")

    def test_times(self) -> None:
        """Times are those of the API; a job that did not start has not run."""
        job = {"started_at": "2026-01-01T00:00:00.500000Z", "finished_at": "2026-01-01T00:00:03Z"}
        self.assertEqual(run_time(job, 0), 2.5)
        self.assertIsNone(run_time({"started_at": None, "finished_at": None}, 0))
        started = moment("2026-01-01T00:00:00Z")
        assert started is not None
        self.assertEqual(run_time({"started_at": "2026-01-01T00:00:00Z", "finished_at": None}, started + 7), 7)
        self.assertIsNone(moment("yesterday"))
        self.assertEqual(clock_time(None), "")
        self.assertRegex(clock_time("2026-01-01T12:00:00Z"), r"^202[56]-\d\d-\d\d \d\d:\d\d:00 [+-]\d{4}$")

    def test_ending(self) -> None:
        """An exit is shown by its signal, or its code, or not at all."""
        self.assertEqual(ending({"signal": "SIGKILL", "exit_code": None}), "SIGKILL")
        self.assertEqual(ending({"signal": None, "exit_code": 0}), "0")
        self.assertEqual(ending({"signal": None, "exit_code": None}), "")

    def test_short(self) -> None:
        """Ids are short, and labels sorted."""
        self.assertEqual(short_id({"id": "5f3a9c21-0000-4000"}), "5f3a9c21")
        self.assertEqual(labels({"labels": {"b": "2", "a": "1"}}), "a=1,b=2")
        self.assertEqual(labels({}), "")


class StateTests(SynchronousTestCase):
    """The CLI lists the states itself, because it does not import the model."""

    def test_jobs(self) -> None:
        """All states of jobs are known to ``ps``, and those without an end as unfinished."""
        self.assertCountEqual(STATES, [state.value for state in JobState])
        self.assertCountEqual(UNFINISHED, [state.value for state in JobState if not state.final])

    def test_colours(self) -> None:
        """Each state of a job or a worker has a colour, and nothing else has."""
        self.assertCountEqual(STATE_COLOURS, [state.value for state in (*JobState, *WorkerState)])
