"""The content of log lines."""

import errno
import io
import json
import os
from contextvars import copy_context
from pathlib import Path
from typing import Any

from twisted.application.service import Application, Service
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import log as older
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from scheduler.daemon.logs import REQUEST_ID, LoggingService, from_level, observer

CONTROLS = "\x00\x07\x1b[2J\r\n\t\x7f\x85\u2028\u202e\udc80"


class LineCase(SynchronousTestCase):
    """Logs into a buffer."""

    json = False

    def setUp(self) -> None:
        self.out = io.StringIO()
        self.write = observer(self.out, self.json)
        self.log = Logger("some.place", observer=lambda event: self.write({**event, "log_time": 1_000_000_000.9876}))

    def line(self) -> str:
        """The only line."""
        written = self.out.getvalue()
        self.assertEqual((written[-1], written.count("\n")), ("\n", 1))
        return written[:-1]


class TextTests(LineCase):
    """Lines of text for people."""

    def message(self) -> str:
        """The line without time, level and namespace."""
        return self.line().split(": ", 1)[1]

    def test_line(self) -> None:
        """A line has the time in UTC, level, namespace and message."""
        self.log.warn("worker {name} is gone", name="w1")
        self.assertEqual(self.line(), "2001-09-09T01:46:40.987Z warn     some.place: worker w1 is gone")

    def test_fields(self) -> None:
        """Fields that the message does not contain are appended, quoted if necessary."""
        self.log.info(
            "{name}: {labels[a]}", name="w", labels={"a": 1}, slots=4, none="", two="a b", equal="a=b", quote='"\\'
        )
        self.assertEqual(self.message(), r'w: 1 slots=4 none="" two="a b" equal="a=b" quote="\"\\"')

    def test_request_id(self) -> None:
        """A line that is logged for a request has its id."""

        def serve() -> None:
            REQUEST_ID.set("r1")
            self.log.info("served")

        copy_context().run(serve)
        self.assertEqual(self.message(), "served request_id=r1")

    def test_control_characters(self) -> None:
        """No value can end the line, erase it, or reverse it, in any field."""
        self.log.info("shown {value}", value=CONTROLS, other=CONTROLS)
        escaped = r"\x00\x07\x1b[2J\r\n\t\x7f\x85\u2028\u202e\udc80"
        self.assertEqual(self.message(), f'shown {escaped} other="{escaped}"')

    def test_letters(self) -> None:
        """Letters of any script are kept if the output's encoding has them."""
        self.log.info("größe {value}", value="漢字")
        self.assertEqual(self.message(), "größe 漢字")

    def test_output_without_letters(self) -> None:
        """A character that the output lacks is written as its number."""
        raw = io.BytesIO()
        terminal = io.TextIOWrapper(raw, encoding="ascii")
        Logger(observer=observer(terminal, False)).info("{v}", v="é")
        self.assertIn(rb": \xe9", raw.getvalue())

    def test_not_a_format(self) -> None:
        """A value with braces is shown, not evaluated."""
        self.log.info("ran {command}", command="{log_source.__class__} {0!r}", path="{name}")
        self.assertEqual(self.message(), "ran {log_source.__class__} {0!r} path={name}")

    def test_traceback(self) -> None:
        """A failure has its traceback in indented lines, and its text can't add other lines."""
        try:
            raise RuntimeError(f"first{CONTROLS}2001-09-09T01:46:40.987Z info forged")
        except RuntimeError:
            self.log.failure("it went wrong", job_id="j1")
        first, *others = self.out.getvalue().removesuffix("\n").split("\n")
        self.assertIn("critical some.place: it went wrong job_id=j1", first)
        self.assertGreater(len(others), 3)
        for line in others:
            self.assertTrue(line.startswith("    "), line)
            self.assertTrue(line.isprintable(), line)
        self.assertIn("RuntimeError: first", self.out.getvalue())

    def test_shortage(self) -> None:
        """A lack of resources is an error with its reason, and no bug. Another system error may be one."""
        for number, where, reason in (
            (errno.EMFILE, "/a\nb", "Too many open files: /a\\nb"),
            (errno.ENOSPC, None, "No space left on device"),
        ):
            self.out.truncate(self.out.seek(0))
            self.log.failure("not read", Failure(OSError(number, os.strerror(number), where)), job_id="j1")
            self.assertEqual(self.line(), f"2001-09-09T01:46:40.987Z error    some.place: not read: {reason} job_id=j1")
        self.out.truncate(self.out.seek(0))
        self.log.failure("not read", Failure(FileNotFoundError(errno.ENOENT, "none", "/a")))
        self.assertIn("critical some.place: not read\n    Traceback", self.out.getvalue())

    def test_value_that_fails(self) -> None:
        """A value that can't be shown does not lose the line."""

        class Bad:
            def __str__(self) -> str:
                raise RuntimeError("no")

        self.log.info("have it", bad=Bad())
        self.assertIn("have it bad=", self.line())

    def test_failure_that_fails(self) -> None:
        """An exception that can't be shown does not lose the line."""

        class Bad(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        self.log.failure("went wrong", Failure(Bad()))
        self.assertIn("went wrong", self.out.getvalue())

    def test_unformattable(self) -> None:
        """A format without its field still makes a line."""
        self.log.info("{missing}", given=1)
        self.assertIn("missing", self.line())


class OlderLogTests(LineCase):
    """Messages of Twisted through twisted.python.log."""

    def setUp(self) -> None:
        super().setUp()
        globalLogPublisher.addObserver(self.write)
        self.addCleanup(globalLogPublisher.removeObserver, self.write)

    def test_message(self) -> None:
        """A message is no format, and its system is the namespace."""
        older.msg("{braces} \r", system="HTTPChannel")
        self.assertRegex(self.line(), r"Z info     HTTPChannel: \{braces\} \\r$")

    def test_failure(self) -> None:
        """An error has its reason in the line and its traceback below."""
        older.err(Failure(RuntimeError("no")), "writing went wrong")
        self.flushLoggedErrors(RuntimeError)
        self.assertRegex(
            self.out.getvalue(), r"Z critical -: writing went wrong\n    .*\n(    .*\n)*    .*Error: no\n$"
        )


class JsonTests(LineCase):
    json = True

    def record(self) -> dict[str, Any]:
        return json.loads(self.line())

    def test_line(self) -> None:
        """An event is an object: time, level, namespace, message and every field, in its JSON type if it has one."""
        self.log.info("worker {name}", name="w1", slots=4, labels={"a": [1, None]}, share=float("nan"), raw=Path("x"))
        self.assertEqual(
            self.record(),
            {
                "time": "2001-09-09T01:46:40.987Z",
                "level": "info",
                "namespace": "some.place",
                "message": "worker w1",
                "name": "w1",
                "slots": 4,
                "labels": {"a": [1, None]},
                "share": "nan",
                "raw": "x",
            },
        )

    def test_control_characters(self) -> None:
        """Every value is kept, in a printable line."""
        self.log.info("{value}", value=CONTROLS)
        self.assertTrue(self.line().isascii() and self.line().isprintable())
        self.assertEqual(self.record()["value"], CONTROLS)

    def test_taken_name(self) -> None:
        """A field does not replace a standard key."""
        self.log.info("said", namespace="mine", why="because")
        record = self.record()
        self.assertEqual(record["why"], "because")
        self.assertEqual((record["namespace"], record["namespace_"]), ("some.place", "mine"))

    def test_request_id(self) -> None:
        """A line that is logged for a request has its id."""
        context = copy_context()
        context.run(REQUEST_ID.set, "r1")
        context.run(self.log.info, "served")
        self.assertEqual(self.record()["request_id"], "r1")

    def test_traceback(self) -> None:
        """A failure has its traceback as a separate value."""
        self.log.failure("it went wrong", Failure(RuntimeError("no")))
        record = self.record()
        self.assertEqual((record["level"], record["message"]), ("critical", "it went wrong"))
        self.assertIn("RuntimeError: no", record["traceback"])

    def test_shortage(self) -> None:
        """A lack of resources has no traceback."""
        self.log.failure("not read", Failure(OSError(errno.EMFILE, "no files", "/a")))
        record = self.record()
        self.assertEqual((record["level"], record["message"]), ("error", "not read: Too many open files: /a"))
        self.assertNotIn("traceback", record)


class LoggingServiceTests(SynchronousTestCase):
    """The observer that twistd finds on its application."""

    def installed(self, log_level: str = "info", **options: object) -> ILogObserver | None:
        twistd = {"logger": None, "syslog": 0, "logfile": None, "nodaemon": True, **options}
        application = Application("test")
        LoggingService(MemoryReactorClock(), twistd, "json", log_level).setServiceParent(application)
        return application.getComponent(ILogObserver, None)

    def test_ours(self) -> None:
        """The observer is ours, unless twistd's options say otherwise."""
        verifyObject(ILogObserver, self.installed())

    def test_level(self) -> None:
        """Events below the level are left out, but no failure is. Twisted's own reports are debug."""
        problems, warnings = ["failed to set uid", "no descriptor"], ["its warning", "warn"]
        errors = ["error", "bug", "older bug"]
        for level, expected in (
            ("debug", ["debug", "info", "older", "its own", *problems, *warnings, *errors]),
            ("info", ["info", *problems, *warnings, *errors]),
            ("warn", [*warnings, *errors]),
            ("error", errors),
        ):
            file = self.mktemp()
            ours = self.installed(level, logfile=file)
            assert ours is not None
            globalLogPublisher.addObserver(ours)
            log = Logger("some.place")
            log.debug("debug")
            log.info("info")
            older.msg("older")
            Logger("twisted.some.place").info("its own")
            older.msg("failed to set uid")
            Logger("twisted.internet.tcp").info("no descriptor")
            Logger("twisted.some.place").warn("its warning")
            log.warn("warn")
            log.error("error")
            log.failure("bug", Failure(RuntimeError("no")))
            older.err(Failure(RuntimeError("no")), "older bug")
            globalLogPublisher.removeObserver(ours)
            self.flushLoggedErrors(RuntimeError)
            lines = Path(file).read_text(encoding="utf-8").splitlines()
            self.assertEqual([json.loads(line)["message"] for line in lines], expected)

    def test_without_a_level(self) -> None:
        """An event without a level counts as info."""
        out = io.StringIO()
        for level, lines in (("warn", 0), ("info", 1)):
            from_level(observer(out, False), level)({"log_format": "said"})
            self.assertEqual(out.getvalue().count("\n"), lines)

    def test_syslog(self) -> None:
        """With --syslog twistd uses its own observer."""
        self.assertIsNone(self.installed(syslog=1))

    def test_logger(self) -> None:
        """With --logger twistd uses that observer."""
        self.assertIsNone(self.installed(logger=list))

    def test_without_twistd(self) -> None:
        """Without twistd it is an ordinary service, and starts its children."""
        root, child = LoggingService(MemoryReactorClock(), None, "text"), Service()
        child.setServiceParent(root)
        root.startService()
        self.assertTrue(child.running)

    def test_daemon_to_stdout(self) -> None:
        """A daemon can't log to stdout."""
        refused = self.assertRaises(SystemExit, self.installed, logfile="-", nodaemon=False)
        self.assertIn("--logfile -: a daemon can't log to stdout", refused.code)

    def test_unwritable(self) -> None:
        """A log file that can't be written is refused in a line that names it."""
        name = self.mktemp() + "/no/such.log"
        refused = self.assertRaises(SystemExit, self.installed, logfile=name)
        self.assertEqual(refused.code, f"--logfile {name}: can't be written: No such file or directory")
