"""JSON <-> model: bodies of ``POST /v1/jobs``."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler import wire
from scheduler.errors import Invalid
from scheduler.model import STOP_MODES, STOP_SIGNALS, Job, JobSpec, JobState, ScriptSummary
from scheduler.reading import printable
from scheduler.terms import NO_WAITING, QueueTerms, Retry, Target
from tests.unit.test_wire import NO_TEXTS

TEXTS = ("command", "path", "cwd", "stdin", "stdin_base64", "script", "shell", "worker")


def body(**changes: Any) -> dict[str, Any]:
    """A body of ``POST /v1/jobs``, right except for ``changes``; a value ``...`` leaves the field out."""
    full = {"worker": "w1", "command": "echo", **changes}
    return {name: value for name, value in full.items() if value is not ...}


class SubmitTestCase(SynchronousTestCase):
    """Bodies that are read or refused."""

    def refused(self, field: str, wrong: dict[str, Any]) -> str:
        error = self.assertRaises(Invalid, wire.read_submit, json.loads(json.dumps(wrong)))
        self.assertEqual(error.field, field, wrong)
        return str(error)


class SubmitTests(SubmitTestCase):
    def test_least(self) -> None:
        """A command and a worker are enough; every other field has its default."""
        self.assertEqual(wire.read_submit(body()), (JobSpec(command="echo"), Target(worker="w1"), NO_WAITING))

    def test_everything(self) -> None:
        """Every field arrives."""
        spec, target, _ = wire.read_submit(
            body(
                worker=...,
                selector={"gpu": "yes", "zone.example/a": ""},
                args=["a b", "", "c\nd"],
                path="run.sh",
                env={"A_1": "x\ny"},
                cwd="/tmp",
                stdin_base64="AP8=",
                timeout="1.5m",
                stop_grace=0,
                labels={"ci": "42"},
                merge_stderr=True,
                output_limit="1.5MB",
                linger="2s",
                stop_signal="SIGINT",
                stop_mode="main",
                umask="0027",
            )
        )
        self.assertEqual(target, Target(selector={"gpu": "yes", "zone.example/a": ""}))
        self.assertEqual(
            spec,
            JobSpec(
                command="echo",
                args=("a b", "", "c\nd"),
                path="run.sh",
                env={"A_1": "x\ny"},
                cwd="/tmp",
                stdin=b"\0\xff",
                timeout=90.0,
                stop_grace=0.0,
                labels={"ci": "42"},
                merge_stderr=True,
                output_limit=1_500_000,
                linger=2.0,
                stop_signal="SIGINT",
                stop_mode="main",
                umask=0o027,
            ),
        )

    def test_script_and_stdin(self) -> None:
        """Text is passed on in UTF-8; a script takes arguments."""
        spec, _, _ = wire.read_submit(body(command=..., script="#!/bin/sh\nä\n", stdin="ö", args=["1"]))
        self.assertEqual((spec.command, spec.script, spec.stdin), ("", "#!/bin/sh\nä\n".encode(), "ö".encode()))
        self.assertEqual(spec.args, ("1",))
        self.assertEqual(spec.script_summary, ScriptSummary(13, "#!/bin/sh"))
        self.assertEqual(spec.trimmed().script_summary, spec.script_summary)
        shown = wire.job_json(Job("j", spec.trimmed(), JobState.RUNNING, 0.0))
        self.assertEqual(shown["script"], {"bytes": 13, "first_line": "#!/bin/sh"})

    def test_shell(self) -> None:
        """A line is run by the shell, with the arguments after it; the other fields keep their meaning."""
        for given_, args in (
            ({"shell": "echo hi && ls"}, ("-c", "echo hi && ls")),
            ({"shell": " a\n\tb ", "args": ["1", "-2"]}, ("-c", " a\n\tb ", "sh", "1", "-2")),
            ({"shell": "-x"}, ("-c", "--", "-x")),
            ({"shell": "+x", "args": ["1"]}, ("-c", "--", "+x", "sh", "1")),
        ):
            spec, _, _ = wire.read_submit(body(command=..., **given_))
            self.assertEqual(spec, JobSpec(command="/bin/sh", args=args))
        self.refused("shell", body(command=..., shell="x" * (wire.TEXT_MAX_BYTES + 1)))
        for empty in ("", " \n"):
            self.refused("shell", body(command=..., shell=empty))

    def test_script_that_cannot_be_run(self) -> None:
        """A script whose first line no kernel could run is refused with the reason."""
        for script, problem in (
            ("", "must not be empty"),
            ("echo hi\n", "must begin with a #! line that names its interpreter"),
            ("#!\necho hi\n", "must begin with a #! line that names its interpreter"),
            ("\ufeff#!/bin/sh\necho hi\n", "begins with a byte order mark (BOM)"),
            ("#!/bin/sh\r\necho hi\r\n", "has a #! line that ends in a carriage return (CR LF)"),
            ("#!/usr/bin/env python3\r", "has a #! line that ends in a carriage return (CR LF)"),
        ):
            refused = self.assertRaises(Invalid, wire.read_submit, body(command=..., script=script))
            self.assertEqual(refused.field, "script")
            self.assertIn(problem, refused.problem)
        wire.read_submit(body(command=..., script="#!/bin/sh\necho hi\r\n"))

    def test_first_line_of_a_script(self) -> None:
        """The first line that a job shows is cut to its limit, and its unprintable characters are replaced."""
        spec, _, _ = wire.read_submit(body(command=..., script="#!/bin/sh\t" + "x" * 1000))
        assert spec.script_summary is not None
        self.assertTrue(spec.script_summary.first_line.startswith("#!/bin/sh\ufffdxxx"))
        self.assertEqual(len(spec.script_summary.first_line), wire.SCRIPT_LINE_MAX_CHARACTERS)

    def test_any_worker(self) -> None:
        """An empty selector means any worker."""
        self.assertEqual(wire.read_submit(body(worker=..., selector={}))[1], Target(selector={}))

    def test_ten_thousand_args(self) -> None:
        """Many arguments are allowed; the size of the body is the limit."""
        self.assertEqual(len(wire.read_submit(body(args=["x"] * 10_000))[0].args), 10_000)

    def test_one_or_the_other(self) -> None:
        """Fields that exclude each other are refused together; a required field is refused if absent."""
        self.refused("worker", body(worker=...))
        self.refused("worker", body(selector={}))
        self.refused("command", body(command=...))
        self.refused("command", body(script="#!/bin/sh"))
        self.refused("command", body(shell="true"))
        self.assertIn("command, script, shell", self.refused("command", body(command=..., script="#!/a", shell="true")))
        self.refused("stdin", body(stdin="", stdin_base64=""))
        for program in ({"script": "#!/bin/sh"}, {"shell": "true"}):
            complaint = self.refused("path", body(command=..., path="a", **program))
            self.assertIn(f"not with {next(iter(program))}", complaint)

    def test_features(self) -> None:
        """A job needs of its worker the features of the fields that are not at their default."""
        self.assertEqual(wire.read_submit(body())[0].features, frozenset())
        for name, value in (("linger", 0), ("stop_signal", "SIGHUP"), ("stop_mode", "main"), ("umask", "022")):
            self.assertEqual(wire.read_submit(body(**{name: value}))[0].features, {name})

    def test_base64(self) -> None:
        """Text that is not base64 is refused, not skipped."""
        for wrong in ("a", "****", "AA=A", "A A=", "ä"):
            self.refused("stdin_base64", body(stdin_base64=wrong))

    def test_unknown(self) -> None:
        """An unknown field is named before any other mistake, with the nearest known one and all allowed ones."""
        complaint = self.refused("comand", {"comand": "echo", "args": 1})
        self.assertIn("did you mean command?", complaint)
        self.assertIn("stop_grace", complaint)
        self.assertNotIn("did you mean", self.refused("bogus", body(bogus=1)))
        for short, field in (("cmd", "command"), ("arg", "args"), ("prio", "priority"), ("cw", "cwd"), ("Cwd", "cwd")):
            self.assertIn(f"did you mean {field}?", self.refused(short, {"worker": "w1", short: "ls"}))
        self.assertIn("did you mean delay?", self.refused("retry.dealy", body(retry={"dealy": 1})))
        self.refused(printable("x" * 1_000_000), {"x" * 1_000_000: 1})

    def test_terms(self) -> None:
        """A job with a selector waits an hour by default; a job for a named worker does not wait by default."""
        self.assertEqual(wire.read_submit(body(worker=..., selector={}))[2], QueueTerms(queue_timeout=3600.0))
        for where in ({"worker": "w1"}, {"worker": ..., "selector": {}}):
            for given_, seconds in (("2h", 7200.0), (0, 0.0), (0.5, 0.5)):
                terms = wire.read_submit(body(queue_timeout=given_, priority=-7, **where))[2]
                self.assertEqual(terms, QueueTerms(seconds, -7))
        self.assertEqual(wire.read_submit(body(retry={"attempts": 3}))[2].retry, Retry(3, 0.0))
        self.assertEqual(wire.read_submit(body(retry={"attempts": 100, "delay": "1m"}))[2].retry, Retry(100, 60.0))

    def test_terms_refused(self) -> None:
        """A wrong term is refused by name."""
        wrong: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("queue_timeout", (None, -1, "soon", True, "3651d", [])),
            ("priority", (None, 1001, -1001, 1.0, "1", True)),
            ("retry", (None, 1, [], "3")),
        )
        for field, values in wrong:
            for value in values:
                self.refused(field, body(**{field: value}))
        for attempts in (None, 0, 101, 1.0, "1", True):
            self.refused("retry.attempts", body(retry={"attempts": attempts}))
        self.refused("retry.attempts", body(retry={}))
        self.refused("retry.delay", body(retry={"attempts": 1, "delay": None}))
        self.refused("retry.every", body(retry={"attempts": 1, "every": 1}))

    def test_ending(self) -> None:
        """The fields of a job's end: linger may be 0, signal and mode are from a list, umask is octal text."""
        self.assertEqual(wire.read_submit(body(linger=0))[0].linger, 0.0)
        for wrong in (-1, "", None, "1x", False, []):
            self.refused("linger", body(linger=wrong))
        for name, allowed in (("stop_signal", STOP_SIGNALS), ("stop_mode", STOP_MODES)):
            for value in allowed:
                self.assertEqual(getattr(wire.read_submit(body(**{name: value}))[0], name), value)
            for wrong in ("", "sigterm", "SIGKILL", 15, None, []):
                self.refused(name, body(**{name: wrong}))
            self.assertIn(allowed[-1], self.refused(name, body(**{name: "SIGKILL"})))
        for text, umask in (("022", 0o022), ("0077", 0o077), ("0", 0), (None, None)):
            self.assertEqual(wire.read_submit(body(umask=text))[0].umask, umask)
        for wrong in (22, 0o022, "", "9", "1777", "0x1", "-1", True, []):
            self.refused("umask", body(umask=wrong))


class ValueTests(SubmitTestCase):
    def test_wrong_types(self) -> None:
        """Each field has one type, and null is not of that type."""
        for name in TEXTS:
            for wrong in NO_TEXTS:
                self.refused(name, body(**{name: wrong, **({"command": ...} if name in ("script", "shell") else {})}))
        for name, wrongs in {
            "args": (None, "a", {}, 1),
            "env": (None, [], "a"),
            "labels": (None, [], "a"),
            "merge_stderr": (None, 0, "true"),
        }.items():
            for wrong in wrongs:
                self.refused(name, body(**{name: wrong}))
        for wrong in NO_TEXTS:
            self.refused("args[1]", body(args=["a", wrong]))
            self.refused("env.A", body(env={"A": wrong}))
            self.refused("labels.a", body(labels={"a": wrong}))
            self.refused("selector.a", body(worker=..., selector={"a": wrong}))

    def test_no_nul_nor_half_characters(self) -> None:
        """No text or name may have a NUL or half a surrogate pair."""
        for bad in ("a\0b", "a\ud800b"):
            for name in TEXTS:
                self.refused(name, body(**{name: bad, **({"command": ...} if name in ("script", "shell") else {})}))
            self.refused("args[0]", body(args=[bad]))
            self.refused("env.A", body(env={"A": bad}))
            self.refused("env", body(env={bad: "a"}))
            self.refused("labels.a", body(labels={"a": bad}))
            self.refused("labels", body(labels={bad: "a"}))
            self.refused("selector", body(worker=..., selector={bad: "a"}))

    def test_line_breaks(self) -> None:
        """Arguments, input, scripts and values of variables may have line breaks; other texts may not."""
        for end in ("\n", "\r"):
            text = "a" + end + "b"
            for name in ("command", "path", "cwd", "worker"):
                self.refused(name, body(**{name: text}))
            self.refused("labels.a", body(labels={"a": text}))
            wire.read_submit(body(args=[text], stdin=text, env={"A": text}))
            wire.read_submit(body(command=..., script=f"#!/bin/sh\n{text}"))
            wire.read_submit(body(command=..., shell=text))

    def test_variables(self) -> None:
        """Malformed names of variables, and names that belong to the scheduler, are refused."""
        for name in ("", "1A", "A-B", "A=B", "ä", "SCHEDULER_SPOOL", "SCHEDULER_JOB_ID", "NOTIFY_SOCKET"):
            self.refused("env", body(env={name: "x"}))

    def test_labels(self) -> None:
        """A label that no filter could name is refused."""
        for name in ("", "a=b", "a b", "-a", "a" * 254):
            self.refused("labels", body(labels={name: "x"}))

    def test_sizes(self) -> None:
        """A size is a number of bytes or a text; null is no limit; a limit of 0 is refused."""
        for given_, size in ((1, 1), ("100MB", 100_000_000), ("4KiB", 4096), (None, None)):
            self.assertEqual(wire.read_submit(body(output_limit=given_))[0].output_limit, size)
        for wrong in (0, -1, True, 1.5, "10%", "0MB", "much", [], 2**61):
            self.refused("output_limit", body(output_limit=wrong))

    def test_numbers_stay_numbers(self) -> None:
        """Durations and sizes are shown as numbers; a number is never taken for text."""
        durations = {"timeout": "90", "stop_grace": "1m30s", "linger": "500ms", "queue_timeout": "2 H"}
        spec, _, terms = wire.read_submit(body(**durations, unattended_timeout=5, output_limit="64k"))
        shown = wire.job_json(Job(id="j", spec=spec, terms=terms, state=JobState.QUEUED, created_at=0.0))
        for name, number in (
            ("timeout", 90),
            ("stop_grace", 90),
            ("linger", 0.5),
            ("output_limit", 65_536),
            ("queue_timeout", 7200),
            ("unattended_timeout", 5),
        ):
            self.assertEqual((type(shown[name]), shown[name]), (type(number), number), name)
        for field, wrong in (
            ("args[0]", {"args": [5]}),
            ("env.N", {"env": {"N": 5}}),
            ("labels.n", {"labels": {"n": 5}}),
        ):
            self.assertIn('write "5"', self.refused(field, body(**wrong)))

    def test_durations(self) -> None:
        """A duration is a text or a number of seconds; null is no timeout; a timeout of 0 is refused."""
        for given_, seconds in ((1, 1.0), (0.5, 0.5), ("30s", 30.0), ("7d", 604800.0), (None, None)):
            self.assertEqual(wire.read_submit(body(timeout=given_))[0].timeout, seconds)
        for wrong in (0, -1, "0s", "", "1x", "-1s", True, [], {}, "1e3", "9999999d", 10**400):
            self.refused("timeout", body(timeout=wrong))
        for wrong in (-1, "", None, "1x", False, []):
            self.refused("stop_grace", body(stop_grace=wrong))

    def test_complaints_quote(self) -> None:
        self.assertIn("[1, 2]", self.refused("command", body(command=[1, 2])))
        self.assertLess(len(self.refused("args", body(args="x" * 100_000))), 300)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["worker", "command", *TEXTS]) | st.text(), inner, max_size=5)
            ),
            max_leaves=8,
        )
    )
    def test_anything(self, value: Any) -> None:
        """Any JSON object is either read or refused with ``Invalid``."""
        try:
            wire.read_submit(wire.load(json.dumps(value, allow_nan=True).encode()))
        except Invalid as error:
            wire.dump({"error": str(error)})
