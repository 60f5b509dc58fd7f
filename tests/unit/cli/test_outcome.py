"""The exit code of a job: every row of the table, and the texts of the real worker."""

from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.outcome import outcome, refusal, signal_number
from scheduler.client import FINAL_STATES, Job
from scheduler.model import JobSpec
from scheduler.worker.commands import NotRunnable, Policy

STARTED = "2026-01-02T03:04:05.000000Z"


def job(state: str, **fields: Any) -> Job:
    return Job.from_json({"id": "j1", "state": state, **fields})


def started(state: str, **fields: Any) -> Job:
    return job(state, started_at=STARTED, **fields)


class TableTests(SynchronousTestCase):
    def assertOutcome(self, of: Job, code: int, *words: str) -> None:
        """``words`` must be in the sentence; without any there is no sentence."""
        found = outcome(of)
        self.assertEqual(found.code, code, of)
        if not words:
            self.assertIsNone(found.sentence)
        for word in (*words, "j1") if words else ():
            self.assertIn(word, found.sentence or "")

    def test_zero(self) -> None:
        """0 means ``succeeded`` and nothing else, whatever the job's code is."""
        self.assertOutcome(started("succeeded", exit_code=0), 0)
        for state in (*FINAL_STATES - {"succeeded"}, "unknown", "queued", "starting", "running", "new-state"):
            for code in (0, None):
                self.assertNotEqual(outcome(started(state, exit_code=code)).code, 0, state)

    def test_own_code(self) -> None:
        """The job's own code is passed on without a sentence, even if it equals one of ours."""
        for code in (1, 3, 121, 124, 125, 126, 127, 255):
            self.assertOutcome(started("failed", exit_code=code, reason=f"exit status {code}"), code)
        self.assertOutcome(started("stopped", exit_code=3), 3)

    def test_signals(self) -> None:
        """A signal gives 128 plus its number, also for a stopped job."""
        self.assertOutcome(started("failed", signal="SIGKILL", reason="signal: killed"), 137)
        self.assertOutcome(started("failed", signal="SIGSEGV"), 139)
        self.assertOutcome(started("failed", signal="SIGRTMIN+3"), 128 + signal_number("SIGRTMIN") + 3)
        self.assertOutcome(started("stopped", signal="SIGTERM"), 143)
        self.assertOutcome(started("stopped", signal="SIGKILL"), 137)

    def test_stopped_without_a_code(self) -> None:
        """A stopped job without a code counts as ended by the signal of the stop."""
        self.assertOutcome(started("stopped", exit_code=0), 143)
        self.assertOutcome(job("stopped", reason="stopped before it was started"), 143)
        self.assertOutcome(started("stopped", exit_code=0, stop_signal="SIGINT"), 130)
        self.assertOutcome(started("failed", exit_code=0, reason="output limit of 5 bytes reached"), 143)

    def test_timed_out(self) -> None:
        """A job that timed out gives 124, however it ended."""
        for fields in ({"signal": "SIGTERM"}, {"exit_code": 0}, {"exit_code": 3}, {}):
            self.assertOutcome(started("timed_out", reason="timed out after 3 s", **fields), 124, "timed out after 3 s")

    def test_not_started(self) -> None:
        """127 and 126 if the command could not be run, 125 if it was not tried."""
        self.assertOutcome(job("failed", reason="command 'x': not found"), 127, "did not start", "not found")
        self.assertOutcome(job("failed", reason="command '/x' is a directory"), 126, "is a directory")
        self.assertOutcome(job("failed", reason="not started within 1 h"), 125, "not started within 1 h")
        self.assertOutcome(job("failed"), 125, "no reason is known")

    def test_may_have_run(self) -> None:
        """A job whose outcome is not known gives 121."""
        self.assertOutcome(job("lost", reason="no record"), 121, "lost", "no record")
        self.assertOutcome(started("lost", reason="rebooted"), 121, "rebooted")
        self.assertOutcome(started("unknown", reason="no sign of life for 43 s"), 121, "unknown", "43 s")
        self.assertOutcome(started("running"), 121, "running")

    def test_core_worker(self) -> None:
        """A failure without a reported code gives 1."""
        self.assertOutcome(started("failed", reason="it broke"), 1)

    def test_signal_numbers(self) -> None:
        """An unknown signal has number 0, so the code is 128."""
        self.assertEqual([signal_number(name) for name in ("SIGINT", "SIGNEW", "", "SIGRTMIN+x")], [2, 0, 0, 0])


class RefusalTests(SynchronousTestCase):
    """The real worker's texts for a command that it can't run."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.policy = Policy(scripts_dir=str(self.folder), scripts_only=False, allowed_commands=("*",))

    def code(self, policy: Policy | None = None, **spec: Any) -> int:
        with self.assertRaises(NotRunnable) as caught:
            (policy or self.policy).command_line_thd(JobSpec(**spec), "script")
        return refusal(str(caught.exception))

    def file(self, name: str, text: str = "", mode: int = 0o644) -> str:
        file = self.folder / name
        file.write_text(text)
        file.chmod(mode)
        return str(file)

    def test_not_found(self) -> None:
        """A missing command, script or interpreter gives 127."""
        self.assertEqual(self.code(command="no-such-program"), 127)
        self.assertEqual(self.code(command="/no/such/program"), 127)
        self.assertEqual(self.code(command="true", path="no-such-script"), 127)
        self.assertEqual(self.code(script=b"#!/no/such/interpreter\n"), 127)

    def test_not_runnable(self) -> None:
        """A command that exists but can't be run, or is not allowed, gives 126."""
        self.assertEqual(self.code(command=self.file("data")), 126)
        self.assertEqual(self.code(command=str(self.folder)), 126)
        self.assertEqual(self.code(command="./x"), 126)
        self.assertEqual(self.code(command="true", path="../x"), 126)
        restricted = evolve(self.policy, allowed_commands=("echo",))
        self.assertEqual(self.code(restricted, command="true"), 126)
        self.assertEqual(self.code(restricted, script=b"#!/bin/sh\n"), 126)

    def test_quoted(self) -> None:
        """Quoted text does not count as the worker's words."""
        self.assertEqual(self.code(command=self.file("not found")), 126)
        self.assertEqual(self.code(command=self.file("it's not found \"")), 126)
        self.assertEqual(self.code(command=self.file("'not found\\")), 126)

    def test_shim(self) -> None:
        """The shim's texts, for failures that it notices."""
        self.assertEqual(refusal("command '/bin/x': not found"), 127)
        self.assertEqual(refusal("command '/bin/x': the interpreter it names was not found"), 127)
        self.assertEqual(refusal("command '/bin/x': not executable: Permission denied"), 126)
        self.assertEqual(refusal("command '/bin/x': Argument list too long"), 126)
        self.assertEqual(refusal("cwd '/no/such': not found"), 125)

    def test_others(self) -> None:
        """A failure that is not about the command gives 125: the command was not tried."""
        for reason in ("env 'LD_PRELOAD': is refused", "never started: its worker did not begin it", ""):
            self.assertEqual(refusal(reason), 125, reason)
