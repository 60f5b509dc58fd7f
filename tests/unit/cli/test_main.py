"""The group of commands: its imports, and its failures."""

import contextlib
import io
import subprocess
import sys

import click
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.problems import TYPES
from scheduler.cli import main as cli
from scheduler.cli.failures import Failure, of_client
from scheduler.cli.session import Session
from scheduler.client import ApiProblem, ConnectionFailed

#: Modules that are slow to import and not needed for ``--help``.
HEAVY = {"grpc", "twisted", "zope", "sqlalchemy", "sqlite3", "rich", "urllib3", "treq", "klein", "cryptography", "attr"}


def loaded(*arguments: str) -> set[str]:
    """All modules that a command line imports."""
    code = "import sys; from scheduler.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command line."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.main(arguments)
    return code, out.getvalue(), err.getvalue()


class LoadingTests(SynchronousTestCase):
    """Commands are imported when they are used."""

    def test_help_loads_nothing_heavy(self) -> None:
        """``schedctl --help`` imports neither a command nor any of the libraries that commands need."""
        modules = loaded("--help")
        self.assertIn("click", modules)
        self.assertEqual({module for module in modules if module.partition(".")[0] in HEAVY}, set())
        entries = {f"scheduler.cli.{entry.module}" for entries in cli.COMMANDS.values() for entry in entries}
        self.assertEqual(modules & entries, set())

    def test_every_command_is_there(self) -> None:
        """Each row of the table is a command of that name, whose help begins with the words of the table."""
        context = click.Context(cli.commands)
        for name in cli.commands.list_commands(context):
            command = cli.commands.get_command(context, name)
            assert command is not None
            self.assertEqual(command.name, name)
            self.assertTrue(command.help, name)

    def test_every_help_has_examples(self) -> None:
        """The help of each command, and of the group, has examples."""
        context = click.Context(cli.commands)
        for name in ("", *cli.commands.list_commands(context)):
            code, out, _ = run(*([name] if name else []), "--help")
            self.assertEqual(code, 0)
            examples = out.partition("\n  Examples:\n")[2].partition("\n\n")[0].splitlines()
            self.assertTrue(examples, name)
            for line in examples:
                self.assertRegex(line, rf"\bschedctl {name}\b")


class FailureTests(SynchronousTestCase):
    """A failure is a sentence, a next step, and an exit code."""

    def test_no_command(self) -> None:
        """Without a command the help is shown."""
        code, out, err = run()
        self.assertEqual((code, err), (0, ""))
        self.assertIn("Usage: schedctl", out)

    def test_usage(self) -> None:
        """An invalid command line started nothing: 125, and a hint."""
        code, out, err = run("no-such-command")
        self.assertEqual((code, out), (125, ""))
        self.assertEqual(
            err, "schedctl: no such command 'no-such-command'\n`schedctl --help` shows what there is, with examples.\n"
        )
        code, out, err = run("--no-such-option", "run")
        self.assertEqual((code, out), (125, ""))
        self.assertIn("--no-such-option", err)

    def test_misplaced(self) -> None:
        """For an option of schedctl behind the command, the right place is named."""
        for name, value in (("--url", "URL"), ("--token", "TOKEN"), ("--context", "NAME"), ("--ca-file", "FILE")):
            for arguments in (("ps", name, "x"), ("run", name, "x", "make")):
                told = f"schedctl: {name} stands before the command\n`schedctl {name} {value} {arguments[0]} ...`\n"
                self.assertEqual(run(*arguments), (125, "", told))

    def test_shown(self) -> None:
        """Sentence and next step are lines of their own; without a step there is one line."""
        with contextlib.redirect_stderr(io.StringIO()) as err:
            Failure("it broke", "Mend it.").show()
            Failure("it broke").show()
        self.assertEqual(err.getvalue(), "schedctl: it broke\nMend it.\nschedctl: it broke\n")

    def test_started(self) -> None:
        """The exit code says whether the command may be repeated: 121 if a job may have run, else 125."""
        for started, code in ((True, 121), ("unknown", 121), (False, 125), (None, 125)):
            failure = of_client(ConnectionFailed("POST /v1/jobs: cut", started=started), "http://a")
            self.assertEqual((failure.code, failure.message), (code, "no answer from http://a: POST /v1/jobs: cut"))
            self.assertIn("schedctl doctor", failure.next_step)
        failure = of_client(ConnectionFailed("cut"), "https://a:3000")
        self.assertTrue(failure.next_step.endswith("If it has no TLS, it is http://a:3000."))

    def test_problems(self) -> None:
        """A refusal is shown in the scheduler's words, with our next step if its type has one."""
        problem = {"type": "/problems/worker-unknown", "detail": "worker 'x' not found"}
        failure = of_client(ApiProblem(404, problem, started=False), "http://a")
        self.assertEqual((failure.code, failure.message), (125, "worker 'x' not found"))
        self.assertIn("schedctl workers", failure.next_step)
        problem = {"type": "/problems/invalid-request", "detail": "command: must not be empty"}
        with click.Context(cli.commands, info_name="schedctl") as context:
            context.invoked_subcommand = "run"
            self.assertIn("`schedctl run --help`", of_client(ApiProblem(400, problem), "http://a").next_step)
        # These types answer requests that schedctl does not send.
        others = {"cross-site", "method-not-allowed", "unsupported-media-type", "offset-beyond-end"}
        for name in TYPES.keys() - others - {"job-failed", "http-version"}:
            self.assertTrue(of_client(ApiProblem(400, {"type": f"/problems/{name}"}), "http://a").next_step, name)
        failure = of_client(ApiProblem(418, {"type": "/problems/teapot", "detail": "no"}), "http://a")
        self.assertEqual((failure.code, failure.message, failure.next_step), (125, "no", ""))

    def test_control_characters(self) -> None:
        """Text of unknown origin can't control the terminal."""
        with contextlib.redirect_stderr(io.StringIO()) as err:
            Failure("\x1b[2J broke\nand", "Mend\x07 it.\nSoon.").show()
        self.assertEqual(err.getvalue(), "schedctl: \\x1b[2J broke\\nand\nMend\\x07 it.\nSoon.\n")

    def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8 are refused before any request."""
        for arguments in (
            ("logs", "\udcff" * 8),
            ("wait", "a" * 40 + "\udcff"),
            ("drain", "\udcff"),
            ("ps", "-l", "\udcff=a"),
        ):
            code, out, err = run(*arguments)
            self.assertEqual((code, out), (125, ""))
            self.assertIn("not UTF-8", err)

    def test_fault_of_ours(self) -> None:
        """An unexpected exception has no exit code of a job: 121, with advice about the traceback."""
        self.patch(cli, "invoke", lambda _: 1 // 0)
        code, out, err = run("ps")
        self.assertEqual((code, out), (121, ""))
        self.assertIn("ZeroDivisionError", err)
        self.assertTrue(err.endswith("schedctl: this is a fault of schedctl\nReport it with the lines above.\n"))

    def test_client_settings(self) -> None:
        """An invalid URL or token is a failure that names its origin."""
        for token, environ, url, named in (
            (None, {}, "http://a:b@c", "--url: "),
            ("t t", {"SCHEDULER_TOKEN": "t"}, "http://a", "--token must be"),
            (None, {"SCHEDULER_TOKEN": "\xfc"}, "http://a", "SCHEDULER_TOKEN must be"),
        ):
            session = Session(url, token, None, None, environ)
            with self.assertRaises(Failure) as caught:
                session.client()
            self.assertIn(named, caught.exception.message)
