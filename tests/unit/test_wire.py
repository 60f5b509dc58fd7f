"""JSON <-> model: bodies of the core routes and of signals, and the JSON of jobs and workers."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler import wire
from scheduler.errors import Invalid
from scheduler.model import SIGNAL_NAMES, Job, JobSpec, JobState, Presence, Worker, WorkerState
from scheduler.reading import Object
from scheduler.terms import QueueTerms, Retry, Target
from scheduler.views import WaitingFor, WorkerView

NO_TEXTS: tuple[Any, ...] = (None, 1, 1.5, True, [], {}, ["a"])


class LoadTests(SynchronousTestCase):
    def test_objects(self) -> None:
        """An object is read; an empty body is an empty object."""
        self.assertEqual(wire.load(b'{"a": [1, "\xc3\xa4"]}'), {"a": [1, "ä"]})
        self.assertEqual(wire.load(b""), {})

    def test_not_json(self) -> None:
        """Broken, repeated, non-finite, too deep and too long JSON, and any other type, are refused."""
        for broken in (
            b"{",
            b"[]",
            b"1",
            b'"a"',
            b"null",
            b"{'a': 1}",
            b'{"a": 1,}',
            b'{"a": NaN}',
            b'{"a": -Infinity}',
            b"\xff{}",
            b"\xff\xfe{\0}\0",
            b"[" * 500_000,
            b'{"a":' * 200_000,
            b'{"a": ' + b"9" * 5000 + b"}",
        ):
            error = self.assertRaises(Invalid, wire.load, broken)
            self.assertEqual(error.field, "body")
            self.assertLess(len(str(error)), 300)

    def test_repeated(self) -> None:
        """A field given twice is named, at any depth."""
        for text in (b'{"a": 1, "a": 1}', b'{"b": {"a": 1, "a": 2}}'):
            self.assertEqual(self.assertRaises(Invalid, wire.load, text).field, "a")


class CoreTests(SynchronousTestCase):
    def test_start(self) -> None:
        """The path may be empty or left out."""
        expected = (JobSpec(command="echo"), Target(worker="w1"))
        self.assertEqual(wire.read_start({"worker_id": "w1", "command": "echo", "path": ""}), expected)
        self.assertEqual(wire.read_start({"worker_id": "w1", "command": "echo"}), expected)

    def test_start_refused(self) -> None:
        """Each field is required and is text of one line; there are no other fields."""
        right = {"worker_id": "w1", "command": "echo", "path": "p"}
        for name in right:
            for wrong in (*NO_TEXTS, "a\0", "a\nb", "\ud800"):
                self.assertEqual(self.assertRaises(Invalid, wire.read_start, {**right, name: wrong}).field, name)
        for name in ("worker_id", "command"):
            for wrong in ({**right, name: ""}, {key: value for key, value in right.items() if key != name}):
                self.assertEqual(self.assertRaises(Invalid, wire.read_start, wrong).field, name)
        self.assertRaises(Invalid, wire.read_start, {**right, "args": []})

    def test_worker_and_job(self) -> None:
        """Both fields are required."""
        self.assertEqual(wire.read_worker_and_job({"worker_id": "w", "job_id": "j"}), ("w", "j"))
        for wrong in ({"worker_id": "w"}, {"job_id": "j"}, {"worker_id": "w", "job_id": "j", "x": 1}):
            self.assertRaises(Invalid, wire.read_worker_and_job, wrong)

    def test_query(self) -> None:
        """A job that is done and did not succeed has an error with its reason; before that there is none."""

        def answer(state: JobState, reason: str | None = None) -> Object:
            return wire.query_json(Job("j", JobSpec(), state, 0.0, reason=reason))

        self.assertEqual(answer(JobState.RUNNING), {"done": False, "error": False, "error_text": ""})
        self.assertEqual(answer(JobState.UNKNOWN, "gone"), {"done": False, "error": False, "error_text": ""})
        self.assertEqual(answer(JobState.SUCCEEDED), {"done": True, "error": False, "error_text": ""})
        self.assertEqual(
            answer(JobState.FAILED, "exit status 3"), {"done": True, "error": True, "error_text": "exit status 3"}
        )
        self.assertEqual(answer(JobState.LOST), {"done": True, "error": True, "error_text": "lost"})


class SignalTests(SynchronousTestCase):
    """Bodies of ``POST /v1/jobs/{id}/signal``."""

    def test_names(self) -> None:
        """A signal is named in any case, with or without SIG; it goes to the main process by default."""
        for name in ("SIGUSR1", "USR1", "usr1", "SigUsr1"):
            self.assertEqual(wire.read_signal({"signal": name}), ("SIGUSR1", "main"))
        for name in ("SIGKILL", "SIGSTOP", "SIGCONT", "SIGTERM", "SIGWINCH"):
            self.assertEqual(wire.read_signal({"signal": name, "to": "tree"}), (name, "tree"))

    def test_refused(self) -> None:
        """Any other text is refused with the allowed names. So is a number, which means another signal elsewhere."""
        for wrong in (*NO_TEXTS, "", "9", "SIG", "SIGSIGUSR1", "SIGRTMIN", "SIGRTMIN+1", "USR1\n", "\ud800"):
            self.assertEqual(self.assertRaises(Invalid, wire.read_signal, {"signal": wrong}).field, "signal")
        error = self.assertRaises(Invalid, wire.read_signal, {"signal": "SIGUSR3"})
        for name in SIGNAL_NAMES:
            self.assertIn(name, str(error))
        for wrong in ({"to": "group"}, {"to": ["main"]}, {"x": 1}):
            self.assertRaises(Invalid, wire.read_signal, {"signal": "HUP", **wrong})
        self.assertRaises(Invalid, wire.read_signal, {})


class WriteTests(SynchronousTestCase):
    def test_job(self) -> None:
        """All fields are there, times are RFC 3339, and an absent value is null."""
        job = Job("j1", JobSpec(command="echo", args=("a",), labels={"x": "y"}), JobState.RUNNING, 1700000000.25)
        self.assertEqual(
            wire.job_json(job),
            {
                "id": "j1",
                "worker_id": None,
                "worker_name": None,
                "state": "running",
                "reason": None,
                "waiting_for": None,
                "command": "echo",
                "args": ["a"],
                "path": None,
                "cwd": None,
                "env": {},
                "labels": {"x": "y"},
                "script": None,
                "timeout": None,
                "linger": 5,
                "stop_grace": 10,
                "stop_signal": "SIGTERM",
                "stop_mode": "tree",
                "umask": None,
                "output_limit": None,
                "created_by": None,
                "created_at": "2023-11-14T22:13:20.250000Z",
                "started_at": None,
                "finished_at": None,
                "exit_code": None,
                "signal": None,
                "stop_requested_at": None,
                "stdout_bytes": None,
                "stderr_bytes": None,
                "output_error": None,
                "leftover": [],
                "background_ended": 0,
                "usage": None,
                "group_id": None,
                "retry_of": None,
                "retried_by": None,
                "orphan": False,
                "remove_requested_at": None,
                "queue_timeout": 0,
                "priority": 0,
                "retry": None,
                "unattended_timeout": None,
            },
        )
        shown = wire.job_json(Job("j1", JobSpec(), JobState.QUEUED, 0.0, terms=QueueTerms(0.5, 7, Retry(2, 60.0))))
        terms = {name: shown[name] for name in ("queue_timeout", "priority", "retry")}
        self.assertEqual(terms, {"queue_timeout": 0.5, "priority": 7, "retry": {"attempts": 2, "delay": 60}})
        waiting = wire.job_json(job, WaitingFor("draining", "all are draining", 3))["waiting_for"]
        self.assertEqual(waiting, {"why": "draining", "detail": "all are draining", "place": 3})

    def test_worker(self) -> None:
        """All fields are there."""
        worker = Worker("i", "n", "h:1", {"a": "b"}, 4, version="1", features=frozenset({"umask", "linger"}))
        self.assertEqual(
            wire.worker_json(WorkerView(worker, Presence(WorkerState.ONLINE, last_seen=0.0), 2, "no room")),
            {
                "id": "i",
                "name": "n",
                "address": "h:1",
                "labels": {"a": "b"},
                "slots": 4,
                "state": "online",
                "reason": "no room",
                "draining": False,
                "last_seen": "1970-01-01T00:00:00.000000Z",
                "running_jobs": 2,
                "version": "1",
                "features": ["linger", "umask"],
                "disk": None,
                "clock_difference": None,
            },
        )

    def test_dump_never_fails(self) -> None:
        """Half a surrogate pair is escaped."""
        self.assertEqual(json.loads(wire.dump({"a": "ä\ud800"})), {"a": "ä\ud800"})
