"""The requests of ``schedctl run``, and its reading of stdin."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli import streams
from scheduler.cli.contexts import Connection
from scheduler.cli.failures import Failure
from scheduler.cli.options import DURATION, KEY, SIZE, KeyValue, seconds
from scheduler.cli.run import Run, command, fields_of
from scheduler.cli.session import Session
from scheduler.cli.status import Status
from scheduler.client import ApiProblem, Ended, Event, Job
from scheduler.client.errors import Started


def fields(*arguments: str, **environ: str) -> dict[str, Any]:
    """The fields for a command line."""
    given = dict(command.make_context("run", list(arguments)).params)
    for name in ("key", "patience", "detach", "no_stdin"):
        given.pop(name)
    return fields_of(given.pop("command"), given, environ)


class FieldsTests(SynchronousTestCase):
    def refused(self, *arguments: str) -> Failure:
        with self.assertRaises(Failure) as caught:
            fields(*arguments)
        self.assertEqual(caught.exception.code, 125)
        self.assertTrue(caught.exception.next_step)
        return caught.exception

    def test_least(self) -> None:
        """A command alone goes to any worker, without other fields."""
        self.assertEqual(fields("make", "-j4"), {"command": ["make", "-j4"], "selector": {}})

    def test_where(self) -> None:
        """The target is a worker or labels, not both."""
        self.assertEqual(fields("--on", "box", "make"), {"command": ["make"], "worker": "box"})
        self.assertEqual(fields("-l", "a=1", "-l", "b=2=3", "make")["selector"], {"a": "1", "b": "2=3"})
        self.assertIn("together", self.refused("--on", "box", "-l", "a=1", "make").message)

    def test_what(self) -> None:
        """A job runs a command, a shell line or a script; a script may have arguments."""
        self.assertEqual(fields("-s", "echo $HOME && ls"), {"shell": "echo $HOME && ls", "selector": {}})
        file = Path(self.mktemp())
        file.write_text("#!/bin/sh\n")
        asked = {"script": "#!/bin/sh\n", "args": ["-x"], "selector": {}}
        self.assertEqual(fields("--script", str(file), "--", "-x"), asked)
        self.assertEqual(fields("--script", "-", "--", "-x"), {"args": ["-x"], "selector": {}})
        for arguments in ((), ("-s", "ls", "make"), ("-s", "ls", "--script", "x")):
            self.assertIn("exactly one of", self.refused(*arguments).message)
        self.assertIn("can't be read", self.refused("--script", "/no/such").message)
        file.write_bytes(b"#!/bin/sh\n\xff")
        self.assertIn("not UTF-8", self.refused("--script", str(file)).message)

    def test_environment(self) -> None:
        """``K=V`` sets a variable; ``K`` alone passes on its value here."""
        asked = fields("-e", "A=b=c", "--env", "B", "-e", "C=", "make", B="here")
        self.assertEqual(asked["env"], {"A": "b=c", "B": "here", "C": ""})
        self.assertIn("no such variable", self.refused("-e", "B", "make").message)

    def test_the_rest(self) -> None:
        """Every other option is a field of the same name; durations are passed on as written."""
        asked = fields(
            *("--cwd", "/d", "--timeout", "5m", "--queue-timeout", "0", "--priority", "-3", "--label", "team=web"),
            *(
                "--stop-grace",
                "1.5",
                "--stop-signal",
                "SIGINT",
                "--stop-mode",
                "main",
                "--linger",
                "0",
                "--umask",
                "027",
            ),
            *("--merge-stderr", "--output-limit", "1GB", "--unattended-timeout", "1h", "--retry", "3", "make"),
        )
        self.assertEqual(
            asked,
            {
                "command": ["make"],
                "selector": {},
                "cwd": "/d",
                "timeout": "5m",
                "queue_timeout": "0",
                "priority": -3,
                "labels": {"team": "web"},
                "stop_grace": "1.5",
                "stop_signal": "SIGINT",
                "stop_mode": "main",
                "linger": "0",
                "umask": "027",
                "merge_stderr": True,
                "output_limit": "1GB",
                "unattended_timeout": "1h",
                "retry": {"attempts": 3},
            },
        )

    def test_retry(self) -> None:
        """A retry delay needs a number of attempts."""
        retry = fields("--retry", "2", "--retry-delay", "1m", "make")["retry"]
        self.assertEqual(retry, {"attempts": 2, "delay": "1m"})
        self.assertIn("--retry", self.refused("--retry-delay", "1m", "make").message)

    def test_not_utf8(self) -> None:
        """Text that JSON can't carry is refused before anything is sent."""
        self.assertIn("not UTF-8", self.refused("echo", os.fsdecode(b"\xff")).message)

    def test_values(self) -> None:
        """An invalid value is refused, with the allowed values."""
        for kind, good, bad in (
            (DURATION, ("30s", "5m", "0", "1.5"), ("", "soon", "-1", "nan", "inf")),
            (SIZE, ("1", "100MB", "4GiB"), ("", "0", "much", "-1")),
            (KeyValue(), ("a=", "a=b"), ("", "a", "=b")),
            (KEY, ("k", "a key"), ("", "a\nb", "é", "\udcff")),
        ):
            for text in good:
                kind.convert(text, None, None)
            for text in bad:
                self.assertRaises(click.BadParameter, kind.convert, text, None, None)
        self.assertEqual([seconds(text) for text in ("2m", "90", "0.5")], [120, 90, 0.5])


class Unanswered:
    """A session and its client whose submissions get this problem."""

    def __init__(self, problem: ApiProblem) -> None:
        self._problem = problem

    def client(self, **_: Any) -> Unanswered:
        return self

    @property
    def connection(self) -> Connection:
        return Connection("http://127.0.0.1:9", None, None, "--url")

    def submit(self, **_: Any) -> Job:
        raise self._problem

    def follow(self, job_id: str) -> Iterator[Event]:
        yield Ended(Job.from_json({"id": job_id, "state": "failed", "exit_code": 3}))

    def __enter__(self) -> Unanswered:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class SubmittedTests(SynchronousTestCase):
    """Submissions that were not answered with a job."""

    def run_one(self, kind: str, detach: bool, started: Started) -> tuple[int, str, str]:
        """The exit code, stdout and notes."""
        problem = ApiProblem(504, {"type": f"/problems/{kind}", "detail": "so"}, started=started, job_id="j1")
        notes: list[str] = []
        status = Status(notes.append, lambda: None, updates=False)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = Run(cast(Session, Unanswered(problem)), status, 60.0, {"command": ["make"]}, None, detach).run()
        return code, out.getvalue(), "".join(notes)

    def test_unanswered(self) -> None:
        """A job whose start was not answered is watched. With --detach its id is printed, and the code is 121."""
        code, out, notes = self.run_one("start-unanswered", False, "unknown")
        self.assertEqual((code, out), (3, ""))
        self.assertIn("waiting for what becomes of it", notes)
        code, out, notes = self.run_one("start-unanswered", True, "unknown")
        self.assertEqual((code, out), (121, "j1\n"))
        self.assertNotIn("waiting", notes)

    def test_removed(self) -> None:
        """If the job of the key was removed, there is no job to watch."""
        for detach in (False, True):
            self.assertRaises(ApiProblem, self.run_one, "job-removed", detach, True)


class StdinTests(SynchronousTestCase):
    def pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        return reading, writing

    def test_not_blocking(self) -> None:
        """A pipe that another process made non-blocking is waited for."""
        reading, writing = self.pipe()
        os.set_blocking(reading, False)
        self.patch(streams, "MENTION_AFTER_SECONDS", 0)

        def mention() -> None:
            timer.start()

        def write() -> None:
            os.write(writing, b"late")
            os.close(writing)

        timer = threading.Timer(0.1, write)
        self.assertEqual(streams.read_stdin(10, mention, reading), b"late")

    def test_offered(self) -> None:
        """A pipe, a file and a socket are read; a terminal, a device and a closed descriptor are not."""
        reading, writing = self.pipe()
        self.addCleanup(os.close, writing)
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        with Path(__file__).open("rb") as file, Path(os.devnull).open("rb") as nothing:
            offered = [reading, file.fileno(), near.fileno()]
            not_offered = [nothing.fileno(), slave]
            self.assertEqual([streams.stdin_offered(each) for each in offered], [True] * 3)
            self.assertEqual([streams.stdin_offered(each) for each in not_offered], [False] * 2)
        closed, other = os.pipe()
        os.close(closed)
        os.close(other)
        self.assertFalse(streams.stdin_offered(closed))

    def test_limit(self) -> None:
        """Input up to the limit is read; one more byte is refused."""
        for size, most in ((0, 0), (5, 5), (5, 100)):
            reading, writing = self.pipe()
            os.write(writing, b"x" * size)
            os.close(writing)
            self.assertEqual(streams.read_stdin(most, self.fail, reading), b"x" * size)
        reading, writing = self.pipe()
        os.write(writing, b"x" * 6)
        self.addCleanup(os.close, writing)
        with self.assertRaises(Failure) as caught:
            streams.read_stdin(5, self.fail, reading)
        self.assertIn("more than the 5 bytes", caught.exception.message)

    def test_room(self) -> None:
        """The other fields of a request reduce the room for input, which is never negative."""
        empty = streams.room_for({})
        self.assertGreater(empty, 750_000)
        self.assertLess(streams.room_for({"script": "é" * 1000}), empty - 4000)
        self.assertEqual(streams.room_for({"script": "x" * 2_000_000}), 0)
