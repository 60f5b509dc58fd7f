"""JSON <-> model: what is taken, what is refused and in which words, and what is told."""

import contextlib
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler import wire
from scheduler.errors import Invalid
from scheduler.interfaces import JobPage, Target, WorkerView
from scheduler.model import Job, JobSpec, JobState, Worker, WorkerState

MINIMAL: dict[str, Any] = {"worker": "w1", "command": "true"}

FULL: dict[str, Any] = {
    "selector": {"gpu": "yes"},
    "command": "python3",
    "args": ["-c", "print(1)\nprint(2)", ""],
    "path": "a b.py",
    "env": {"GREETING": "hé\nllo"},
    "cwd": "/tmp",
    "stdin": "a\nb",
    "timeout": "5m",
    "stop_grace": 0,
    "labels": {"team/owner": "me & you"},
    "merge_stderr": True,
}


class BodyTests(SynchronousTestCase):
    """Bytes to an object."""

    def refused(self, body: bytes) -> Invalid:
        error = self.assertRaises(Invalid, wire.load, body)
        self.assertLess(len(str(error)), 300)
        return error

    def test_object(self) -> None:
        """An object comes as it is; no body is an empty object."""
        self.assertEqual(wire.load('{"a": "ü"}'.encode()), {"a": "ü"})
        self.assertEqual(wire.load(b""), {})

    def test_broken(self) -> None:
        """What is no JSON is refused with the place."""
        self.assertIn("line 2 column 1", str(self.refused(b'{"a":\n}')))
        for body in (b"{", b'{"a":1}x', b"'a'", b"\x00", b"\xef\xbb\xbf{}", b"a=1&b=2", b'{"a":"\n"}'):
            self.assertEqual(self.refused(body).field, "body")

    def test_not_an_object(self) -> None:
        """A list, a text, a number or null is no body."""
        for body in (b"[]", b'"a"', b"1", b"null", b"true"):
            self.assertIn("must be a JSON object", str(self.refused(body)))

    def test_duplicates(self) -> None:
        """A field that is there twice is refused at any depth, not chosen from."""
        self.assertIn("twice", str(self.refused(b'{"a":1,"a":1}')))
        self.assertIn("twice", str(self.refused(b'{"env":{"A":"1","A":"2"}}')))

    def test_extremes(self) -> None:
        """Constants that JSON does not have, endless nesting and endless numbers are refused."""
        self.assertIn("NaN", str(self.refused(b'{"a":NaN}')))
        self.assertIn("-Infinity", str(self.refused(b'{"a":-Infinity}')))
        self.assertIn("too deep", str(self.refused(b'{"a":' + b"[" * 100_000)))
        self.assertIn("too deep", str(self.refused(b'{"a":' * 100_000)))
        self.assertIn("limit", str(self.refused(b'{"a":' + b"1" * 5_000 + b"}")))

    def test_encoding(self) -> None:
        """Another encoding than UTF-8 is refused with the place."""
        self.assertIn("byte 2", str(self.refused(b'{"\xff":1}')))

    @given(st.binary(max_size=64))
    def test_anything(self, body: bytes) -> None:
        """Whatever comes is an object or refused."""
        with contextlib.suppress(Invalid):
            self.assertIsInstance(wire.load(body), dict)


class SubmissionTests(SynchronousTestCase):
    """``POST /v1/jobs``."""

    def refused(self, **fields: Any) -> Invalid:
        body = {key: value for key, value in (MINIMAL | fields).items() if value is not ...}
        return self.assertRaises(Invalid, wire.read_submit, body)

    def test_minimal(self) -> None:
        """A worker and a command are enough; all else has its default."""
        self.assertEqual(wire.read_submit(MINIMAL), (JobSpec(command="true"), Target(worker="w1")))

    def test_full(self) -> None:
        """Every field arrives; a newline in an argument is one."""
        spec, target = wire.read_submit(FULL)
        self.assertEqual(target, Target(selector={"gpu": "yes"}))
        self.assertEqual(
            spec,
            JobSpec(
                command="python3",
                args=("-c", "print(1)\nprint(2)", ""),
                path="a b.py",
                env={"GREETING": "hé\nllo"},
                cwd="/tmp",
                stdin=b"a\nb",
                timeout=300.0,
                stop_grace=0.0,
                labels={"team/owner": "me & you"},
                merge_stderr=True,
            ),
        )

    def test_script(self) -> None:
        """A script stands in place of command and path; args may follow it; stdin may be bytes."""
        body = {"selector": {}, "script": "#!/bin/sh\n", "args": ["x"], "stdin_base64": "/wA="}
        spec, target = wire.read_submit(body)
        self.assertEqual(spec, JobSpec(script=b"#!/bin/sh\n", args=("x",), stdin=b"\xff\0"))
        self.assertEqual(target, Target(selector={}))

    def test_exclusive(self) -> None:
        """Of two fields that exclude each other at most one may be there, and one of where and what must."""
        self.assertEqual(self.refused(selector={}).field, "worker")
        self.assertEqual(self.refused(worker=...).field, "worker")
        self.assertEqual(self.refused(script="#!x").field, "command")
        self.assertEqual(self.refused(command=...).field, "command")
        self.assertEqual(self.refused(command=..., script="#!x", path="p").field, "path")
        self.assertEqual(self.refused(stdin="", stdin_base64="").field, "stdin")

    def test_unknown(self) -> None:
        """An unknown field is refused and the known ones are told."""
        error = self.refused(comand="x")
        self.assertEqual(error.field, "comand")
        self.assertIn("merge_stderr", str(error))

    def test_types(self) -> None:
        """A value of another type than the field's is refused by name."""
        wrong: list[Any] = [1, 1.5, True, None, [], {}, "text", [1], [None], {"a": 1}, {"a": None}, {"a": []}]
        right: dict[str, tuple[type, ...]] = {
            **dict.fromkeys(("worker", "command", "path", "cwd", "stdin"), (str,)),
            **dict.fromkeys(("env", "labels"), (dict,)),
        }
        for field, allowed in right.items():
            for value in wrong:
                if not (isinstance(value, allowed) and value in ("text", {})):
                    self.assertTrue(self.refused(**{field: value}).field.startswith(field), (field, value))
        for value in wrong:
            if value != []:
                self.assertTrue(self.refused(args=value).field.startswith("args"), value)
            if value != {}:
                self.assertTrue(self.refused(worker=..., selector=value).field.startswith("selector"), value)
            if value is not True:
                self.assertEqual(self.refused(merge_stderr=value).field, "merge_stderr")
            if value not in (1, 1.5) or value is True:
                if value is not None:
                    self.assertEqual(self.refused(timeout=value).field, "timeout")
                self.assertEqual(self.refused(stop_grace=value).field, "stop_grace")
            if value != "text":
                self.assertEqual(self.refused(stdin_base64=value).field, "stdin_base64")
                self.assertEqual(self.refused(command=..., script=value).field, "script")

    def test_nul(self) -> None:
        """NUL is refused in every text that must reach a program whole."""
        for fields in (
            {"command": "a\0"},
            {"path": "a\0"},
            {"cwd": "a\0"},
            {"args": ["a\0"]},
            {"env": {"A": "a\0"}},
            {"env": {"A\0": "a"}},
            {"labels": {"a\0": "a"}},
            {"labels": {"a": "a\0"}},
            {"worker": "a\0"},
        ):
            self.assertTrue(self.refused(**fields).field.startswith(next(iter(fields))))

    def test_surrogates(self) -> None:
        """Text that is no Unicode is refused in every field, and quoted in ASCII."""
        bad = "\ud800"
        for field in ("worker", "command", "path", "cwd", "stdin", "stdin_base64", "timeout"):
            self.assertEqual(self.refused(**{field: bad}).field, field)
        self.assertEqual(self.refused(command=..., script=bad).field, "script")
        self.assertEqual(self.refused(args=[bad]).field, "args[0]")
        for field in ("env", "labels"):
            self.assertEqual(self.refused(**{field: {bad: ""}}).field, field)
            self.assertEqual(self.refused(**{field: {"A": bad}}).field, f"{field}.A")
        self.assertTrue(str(self.refused(**{bad: ""})).isascii())

    def test_lengths(self) -> None:
        """What the kernel would not take is refused; as much as it takes is not."""
        for field in ("command", "path", "cwd"):
            wire.read_submit(MINIMAL | {field: "x" * 4_095})
            self.assertIn("at most 4095", str(self.refused(**{field: "ü" * 2_048})))
        wire.read_submit(MINIMAL | {"args": ["x" * 131_071]})
        self.assertIn("args[1]", str(self.refused(args=["", "x" * 131_072])))
        wire.read_submit(MINIMAL | {"env": {"A": "x" * 131_069}})
        self.assertIn("env.A", str(self.refused(env={"A": "x" * 131_070})))

    def test_counts(self) -> None:
        """Ten thousand arguments are fine; each count has its limit."""
        self.assertEqual(len(wire.read_submit(MINIMAL | {"args": ["a"] * 10_000})[0].args), 10_000)
        self.assertIn("at most 32768", str(self.refused(args=[""] * 32_769)))
        self.assertIn("at most 4096", str(self.refused(env={f"A{i}": "" for i in range(4_097)})))
        self.assertIn("at most 64", str(self.refused(labels={f"a{i}": "" for i in range(65)})))

    def test_env_names(self) -> None:
        """A variable a job may not have is refused with the reason."""
        for key in ("", "1A", "A=B", "A B", "LD_PRELOAD", "SCHEDULER_JOB_ID", "NOTIFY_SOCKET"):
            self.assertEqual(self.refused(env={key: "x"}).field, "env")

    def test_labels(self) -> None:
        """Labels have names like those of a configuration, and printable values."""
        for key in ("", "-a", ".a", "a b", "ü", "a" * 254, "a\n"):
            self.assertIn("letters, digits", str(self.refused(labels={key: "x"})))
            self.assertIn("letters, digits", str(self.refused(worker=..., selector={key: "x"})))
        for value in ("a\n", "\x1b[0m", "x" * 254):
            self.assertIn("printable", str(self.refused(labels={"a": value})))

    def test_durations(self) -> None:
        """A timeout is more than nothing and a grace may be nothing; null is no timeout."""
        self.assertEqual(wire.read_submit(MINIMAL | {"timeout": 0.5})[0].timeout, 0.5)
        self.assertIsNone(wire.read_submit(MINIMAL | {"timeout": None})[0].timeout)
        for value in (0, "0s", -1, "3651d", "soon", 1e300):
            self.assertEqual(self.refused(timeout=value).field, "timeout")
        for value in (-1, "3651d", "", None):
            self.assertEqual(self.refused(stop_grace=value).field, "stop_grace")

    def test_base64(self) -> None:
        """Only exact base64 is taken."""
        for value in ("a", "a===", "YQ", "YQ==\n", "Y Q=", "ü", "_w=="):
            self.assertEqual(self.refused(stdin_base64=value).field, "stdin_base64")

    def test_empty(self) -> None:
        """Nothing is no worker, no command and no script."""
        for fields in ({"worker": ""}, {"command": ""}, {"command": ..., "script": ""}):
            self.assertEqual(self.refused(**fields).field, next(reversed(fields)))

    def test_complaints_are_short(self) -> None:
        """A megabyte of nonsense is not sent back."""
        for fields in ({"worker": "x" * 10**6}, {"args": "x" * 10**6}, {"x" * 10**6: 1}, {"env": {"-" * 10**6: ""}}):
            self.assertLess(len(str(self.refused(**fields))), 600)


class ClassicTests(SynchronousTestCase):
    """``/start``, ``/stop`` and ``/query``."""

    def test_start(self) -> None:
        """A job runs as ``command path``; an empty path, or none, runs the command alone."""
        for extra in ({}, {"path": ""}):
            self.assertEqual(
                wire.read_start({"worker_id": "w", "command": "ls", **extra}),
                (JobSpec(command="ls"), Target(worker="w")),
            )
        spec, _ = wire.read_start({"worker_id": "w", "command": "sh", "path": "a.sh"})
        self.assertEqual(spec, JobSpec(command="sh", path="a.sh"))
        self.assertTrue(spec.classic)

    def test_start_refused(self) -> None:
        """Missing, unknown and wrong fields are refused by name."""
        good = {"worker_id": "w", "command": "ls", "path": ""}
        for field in good:
            for value in (None, 1, [], "\0"):
                self.assertEqual(self.assertRaises(Invalid, wire.read_start, good | {field: value}).field, field)
        for field in ("worker_id", "command"):
            for body in ({**good, field: ""}, {key: good[key] for key in good if key != field}):
                self.assertEqual(self.assertRaises(Invalid, wire.read_start, body).field, field)
        self.assertIn("args", str(self.assertRaises(Invalid, wire.read_start, good | {"args": []})))

    def test_reference(self) -> None:
        """A worker and a job, both needed."""
        good = {"worker_id": "w", "job_id": "j"}
        self.assertEqual(wire.read_worker_and_job(good), ("w", "j"))
        for field in good:
            error = self.assertRaises(
                Invalid, wire.read_worker_and_job, {key: good[key] for key in good if key != field}
            )
            self.assertEqual((error.field, error.problem), (field, "is missing: it must be a string"))
        self.assertRaises(Invalid, wire.read_worker_and_job, good | {"path": ""})

    def test_nothing(self) -> None:
        """A route without fields takes none."""
        wire.read_nothing({})
        self.assertIn("allowed: none", str(self.assertRaises(Invalid, wire.read_nothing, {"a": 1})))


JOB = Job(id="j", spec=JobSpec(command="sh"), state=JobState.RUNNING, created_at=1_767_225_600.25)


class EncodeTests(SynchronousTestCase):
    """What is told."""

    def test_job(self) -> None:
        """Every field of the contract is there, absent is null, times are RFC 3339 in UTC."""
        told = wire.job_json(evolve(JOB, finished_at=1_767_225_601.0, reason="signal: killed", signal="SIGKILL"))
        self.assertEqual(
            " ".join(told),
            "id worker_id worker_name state reason command args path cwd env labels created_by created_at started_at "
            "finished_at exit_code signal stop_requested_at stdout_bytes stderr_bytes group_id retry_of",
        )
        self.assertEqual(told["created_at"], "2026-01-01T00:00:00.250000Z")
        self.assertEqual(told["finished_at"], "2026-01-01T00:00:01.000000Z")
        self.assertEqual((told["state"], told["signal"], told["started_at"]), ("running", "SIGKILL", None))

    def test_impossible_time(self) -> None:
        """A time no calendar has is absent."""
        self.assertIsNone(wire.time_text(1e20))
        self.assertIsNone(wire.time_text(float("nan")))

    def test_page(self) -> None:
        """A list is jobs and a cursor."""
        self.assertEqual(wire.page_json(JobPage((JOB,), "c")), {"jobs": [wire.job_json(JOB)], "next": "c"})

    def test_worker(self) -> None:
        """Every field of the contract is there."""
        worker = Worker("id", "w1", "127.0.0.1:1", labels={"a": "b"}, state=WorkerState.ONLINE, last_seen=0.0)
        self.assertEqual(
            wire.worker_json(WorkerView(worker, 2)),
            {
                "id": "id",
                "name": "w1",
                "address": "127.0.0.1:1",
                "labels": {"a": "b"},
                "slots": None,
                "state": "online",
                "draining": False,
                "last_seen": "1970-01-01T00:00:00.000000Z",
                "running_jobs": 2,
                "version": None,
            },
        )

    def test_query(self) -> None:
        """An error is a job that is done and did not succeed, whatever the reason says before."""
        for state, reason, expected in (
            (JobState.RUNNING, None, (False, False, "")),
            (JobState.UNKNOWN, "the start was not answered", (False, False, "")),
            (JobState.SUCCEEDED, "", (True, False, "")),
            (JobState.FAILED, "exit status 3", (True, True, "exit status 3")),
            (JobState.STOPPED, "signal: terminated", (True, True, "signal: terminated")),
            (JobState.LOST, None, (True, True, "lost")),
        ):
            told = wire.query_json(evolve(JOB, state=state, reason=reason))
            self.assertEqual(tuple(told.values()), expected)
            self.assertEqual(list(told), ["done", "error", "error_text"])

    def test_dump(self) -> None:
        """JSON is a line of UTF-8, and JSON also when a text is no Unicode."""
        self.assertEqual(wire.dump({"a": ["ü", None]}), '{"a": ["ü", null]}\n'.encode())
        self.assertEqual(wire.dump("\ud800"), b'"\\ud800"\n')
