"""A line of shell, as ``POST /v1/jobs`` has it run, in a real shell."""

import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler import wire


class ShellTests(SynchronousTestCase):
    """A shell line gets its arguments, and its exit status is the job's."""

    def run_line(self, line: str, *args: str) -> tuple[int, str]:
        body: dict[str, Any] = {"worker": "w1", "shell": line, "args": list(args)}
        spec, _, _ = wire.read_submit(body)
        done = subprocess.run([spec.command, *spec.args], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout

    def test_line(self) -> None:
        """Pipes, variables, several commands and several lines work; the last one's exit code is the job's."""
        for line, ended in (
            ("echo hi | tr a-z A-Z && exit 3", (3, "HI\n")),
            ("x=1; echo $((x + 1))\nfalse", (1, "2\n")),
            ("echo \"a  b\" '$x' # ä", (0, "a  b $x\n")),
        ):
            self.assertEqual(self.run_line(line), ended, line)

    def test_args(self) -> None:
        """They are ``$1`` and so on, whatever they hold, and never part of the line."""
        self.assertEqual(self.run_line('echo "$0:$#:$1:$2"', "a b", "; exit 9 $(id)"), (0, "sh:2:a b:; exit 9 $(id)\n"))
        self.assertEqual(self.run_line('echo "$#"'), (0, "0\n"))

    def test_no_options(self) -> None:
        """A line is never taken for an option of the shell."""
        for line in ("-e true", "+x true", "--version"):
            self.assertEqual(self.run_line(line), (127, ""), line)
            self.assertEqual(self.run_line(line, "a"), (127, ""), line)
