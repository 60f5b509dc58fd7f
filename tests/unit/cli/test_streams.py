"""The standard streams."""

import contextlib
import errno
import io
import os
import pty
import subprocess
import sys
from unittest import skipUnless

import click
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.streams import prepare, write_all
from scheduler.cli.tables import json_line


class PrepareTests(SynchronousTestCase):
    def test_closed(self) -> None:
        """No file or socket gets the number of a closed standard stream, and all streams can be used."""
        code = """
import os, sys
from scheduler.cli.streams import prepare
prepare()
opened = os.open("/dev/null", os.O_RDONLY)
print("out", flush=True); print("err", file=sys.stderr, flush=True)
os._exit(opened)
"""
        for redirection in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            done = subprocess.run(
                ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-c", code], capture_output=True, check=False
            )
            out = b"" if ">&-" in redirection.replace("2>&-", "") else b"out\n"
            err = b"" if "2>&-" in redirection else b"err\n"
            self.assertEqual((done.returncode > 2, done.stdout, done.stderr), (True, out, err), redirection)

    def test_other_encodings(self) -> None:
        """A character that stdout can't encode is escaped, and JSON stays valid."""
        written = io.BytesIO()
        with contextlib.redirect_stdout(io.TextIOWrapper(written, encoding="latin-1")) as out:
            prepare()
            click.echo("\u00fc \u65e5")
            click.echo(json_line({"a": "\u00fc \U0001f389"}))
            out.flush()
        self.assertEqual(written.getvalue(), b'\xfc \\u65e5\n{"a":"\\u00fc \\ud83c\\udf89"}\n')


class WriteTests(SynchronousTestCase):
    def test_closed_terminal(self) -> None:
        """A terminal that is gone is treated like a pipe without a reader."""
        master, terminal = pty.openpty()
        self.addCleanup(os.close, terminal)
        os.close(master)
        self.assertRaises(BrokenPipeError, write_all, terminal, b"x")

    @skipUnless(os.path.exists("/dev/full"), "only Linux has it")
    def test_full(self) -> None:
        """A full disk is reported as such."""
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        self.assertEqual(self.assertRaises(OSError, write_all, full, b"x").errno, errno.ENOSPC)
