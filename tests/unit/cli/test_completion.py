"""Shell completion."""

import contextlib
import importlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import ShellComplete

from scheduler.cli import completion
from scheduler.cli import main as cli
from scheduler.client import Job
from tests.unit.cli.client import JOB, WORKER, Case, no_connection

OTHER = f"6a{JOB['id'][2:]}"


class CompletionTests(Case):
    """Workers and recent jobs."""

    def complete(self, *arguments: str) -> list[str]:
        """Completions of the last argument."""
        asked = ShellComplete(cli.commands, {}, "schedctl", "_SCHEDCTL_COMPLETE")
        return [item.value for item in asked.get_completions([*arguments[:-1]], arguments[-1])]

    def setUp(self) -> None:
        super().setUp()
        self.client.listed = [{**JOB}, {**JOB, "id": OTHER, "state": "failed"}]
        self.client.all_workers = [WORKER, {**WORKER, "name": "other"}]

    def test_workers(self) -> None:
        """Names of workers are offered for options and arguments that take one."""
        for command in ("drain", "resume", "forget"):
            self.assertEqual(self.complete(command, ""), ["box", "other"])
        self.assertEqual(self.complete("drain", "box", "o"), ["other"])
        for command in ("ps", "run"):
            self.assertEqual(self.complete(command, "--on", "b"), ["box"])

    def test_jobs(self) -> None:
        """Ids of recent jobs are offered, ended or not, with a description, short unless more was typed."""
        for command in ("show", "rm", "logs", "stop", "signal", "wait"):
            self.assertEqual(self.complete(command, ""), ["5f3a9c21", "6a3a9c21"], command)
        self.assertEqual(self.complete("rm", "6a"), ["6a3a9c21"])
        self.assertEqual(self.complete("rm", OTHER[:12]), [OTHER])
        context = click.Context(click.Command("x"))
        self.assertIn("failed: make", completion.complete_job(context, click.Argument(["id"]), "6a")[0].help or "")

    def test_commands(self) -> None:
        """Commands come from the table, with their help, without importing any."""
        imported: list[str] = []
        self.patch(cli, "import_module", lambda name: imported.append(name) or importlib.import_module(name))
        self.assertEqual(self.complete("dr"), ["drain"])
        self.assertEqual(self.complete(""), cli.commands.list_commands(click.Context(cli.commands)))
        self.assertEqual([name for name in imported if name.startswith("scheduler")], [])
        self.assertEqual(self.complete("--tok"), ["--token"])

    def test_the_scheduler_that_is_meant(self) -> None:
        """The options on the completed command line choose the scheduler."""
        self.complete("--url", "http://elsewhere:1", "drain", "")
        self.assertEqual(self.client.url, "http://elsewhere:1")

    def test_signals(self) -> None:
        """Signals are offered as they are typed, after the id of a job."""
        self.assertEqual(self.complete("signal", "5f3a9c21", "SIGUS"), ["SIGUSR1", "SIGUSR2"])
        self.assertEqual(self.complete("signal", "5f3a9c21", "US"), ["USR1", "USR2"])
        self.assertEqual(self.complete("signal", "5f3a9c21", "hu"), ["hup"])

    def test_contexts(self) -> None:
        """Names of contexts are offered; none from an unreadable file."""
        home = Path(self.mktemp()).absolute()
        home.mkdir()
        self.patch(cli.os, "environ", {"XDG_CONFIG_HOME": str(home)})
        self.assertEqual(self.complete("--context", ""), [])
        (home / "schedctl.toml").write_text('[contexts.lab]\nurl = "http://a"\n[contexts.here]\nurl = "http://b"\n')
        self.assertEqual(self.complete("--context", ""), ["lab", "here"])
        self.assertEqual(self.complete("--context", "l"), ["lab"])
        (home / "schedctl.toml").write_text("[contexts")
        self.assertEqual(self.complete("--context", ""), [])

    def test_files(self) -> None:
        """Files or folders are offered for options that take one, and for the command's arguments."""
        asked = ShellComplete(cli.commands, {}, "schedctl", "_SCHEDCTL_COMPLETE")
        for arguments, kind in (
            (["run", "--script"], "file"),
            (["run", "--cwd"], "dir"),
            (["run"], "file"),
            (["run", "cat"], "file"),
            (["doctor", "--config"], "file"),
        ):
            (item,) = asked.get_completions(arguments, "s")
            self.assertEqual((item.type, item.value), (kind, "s"), arguments)

    def test_silent(self) -> None:
        """Candidates that can't be fetched are left out silently."""
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(self.complete("--url", "nonsense", "drain", ""), [])
            self.assertEqual(self.complete("--context", "none", "drain", ""), [])
            for error in (no_connection(), OSError("no descriptor left")):
                self.client.errors["workers", ""] = error
                self.assertEqual(self.complete("drain", ""), [])
        self.assertEqual(err.getvalue(), "")

    def test_in_time(self) -> None:
        """An answer that is late is left out."""
        late = threading.Event()
        self.addCleanup(late.set)
        self.patch(completion, "COMPLETION_TIMEOUT", 0.05)

        def jobs(**_: Any) -> Iterator[Job]:
            late.wait(5)
            return iter([Job.from_json({**JOB})])

        self.patch(self.client, "jobs", jobs)
        self.assertEqual(self.complete("show", ""), [])

    def test_scripts(self) -> None:
        """Each shell has a script that makes schedctl complete."""
        for shell in ("bash", "zsh", "fish"):
            self.assertIn(f"_SCHEDCTL_COMPLETE={shell}_complete", self.out("completion", shell))
        self.assertIn("'tcsh' is not one of", self.refused("completion", "tcsh"))
