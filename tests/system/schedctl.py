"""``schedctl`` as users run it, byte for byte: in pipes, and in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from scheduler.client import Client
from tests.system.conftest import BIN, Daemon, wait_until

#: Seconds that a command may take.
WAIT_MAX_SECONDS = 60.0

#: Variables that change schedctl's behaviour: another token, width, or buffering.
_NOT_INHERITED = ("SCHEDULER_TOKEN", "COLUMNS", "LINES", "PYTHONUNBUFFERED")

#: Prints that it has begun, and waits for a file; prints a last line when it is asked to end.
PATIENT = "trap 'echo bye; exit 9' TERM; echo begun; while [ ! -e {gate} ]; do sleep 0.05; done; echo passed"

#: Ignores the signal that asks it to end.
STUBBORN = "trap '' TERM; echo begun; while [ ! -e {gate} ]; do sleep 0.05; done"

_FROM_SOURCE = "import sys\nfrom scheduler.cli.main import main\nsys.exit(main())"


def command_line(*arguments: str) -> list[str]:
    """The command line of schedctl: the installed program, or the sources."""
    installed = shutil.which("schedctl", path=str(BIN))
    return [*([installed] if installed else [sys.executable, "-c", _FROM_SOURCE]), *arguments]


class User:
    """A user of that scheduler, or of the one at that URL; ``home`` is an empty folder."""

    def __init__(self, scheduler: Daemon, home: Path, url: str = "") -> None:
        self.url = url or f"http://{scheduler.endpoints['http']}"
        self.client = Client(f"http://{scheduler.endpoints['http']}")
        self.environ = {
            **{name: value for name, value in os.environ.items() if name not in _NOT_INHERITED},
            "SCHEDULER_URL": self.url,
            "XDG_CONFIG_HOME": str(home),
            "TERM": "xterm",
        }

    def online(self, workers: int = 1) -> User:
        """This user, once so many workers are online."""
        wait_until(
            lambda: sum(worker.state == "online" for worker in self.client.workers()) == workers, "all are online"
        )
        return self

    def start(self, *arguments: str, stdin: int | IO[Any] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a command in pipes."""
        return subprocess.Popen(
            command_line(*arguments),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self.environ,
        )

    def run(self, *arguments: str, data: bytes | None = None, file: IO[Any] | None = None) -> tuple[int, bytes, bytes]:
        """The exit code, stdout and stderr of a command in pipes. Its stdin is ``data``, ``file`` or /dev/null."""
        process = self.start(*arguments, stdin=file or (subprocess.DEVNULL if data is None else subprocess.PIPE))
        return finish(process, data)

    def terminal(self, *arguments: str) -> Terminal:
        """Start a command in a terminal."""
        return Terminal(command_line(*arguments), self.environ)

    def jobs(self) -> list[str]:
        """The states of all jobs, newest first."""
        return [job.state for job in self.client.jobs()]


def job_of(text: bytes) -> str:
    """The id of the job that a message names."""
    found = re.search(rb"job ([0-9a-f-]{36})", text)
    assert found, text
    return found[1].decode()


def finish(process: subprocess.Popen[bytes], data: bytes | None = None) -> tuple[int, bytes, bytes]:
    """The exit code, and the rest of stdout and stderr."""
    try:
        out, err = process.communicate(data, timeout=WAIT_MAX_SECONDS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


class Terminal:
    """A program with a pseudo-terminal as its controlling terminal and for all of its descriptors."""

    def __init__(self, command: list[str], environ: Mapping[str, str], width: int = 100) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, env=environ
        )
        os.close(slave)
        #: All output, with its control sequences.
        self.text = b""

    def until(self, wanted: bytes) -> bytes:
        """All output, once it contains ``wanted``."""
        deadline = time.monotonic() + WAIT_MAX_SECONDS
        while wanted not in self.text:
            assert self._read(deadline), f"it ended without {wanted!r}:\n{self.text.decode()}"
        return self.text

    def type(self, keys: bytes) -> None:
        """Type keys; ``\\x03`` is Ctrl-C."""
        os.write(self._master, keys)

    def end(self) -> tuple[int, bytes]:
        """The exit code, and all output."""
        deadline = time.monotonic() + WAIT_MAX_SECONDS
        try:
            while self._read(deadline):
                pass
            return self.process.wait(WAIT_MAX_SECONDS), self.text
        finally:
            self.process.kill()
            self.close()

    def close(self) -> None:
        """Close the terminal, and wait for the end of the program."""
        os.close(self._master)
        self.process.wait(WAIT_MAX_SECONDS)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing more within {WAIT_MAX_SECONDS:g} s:\n{self.text.decode()}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += data
        return bool(data)
