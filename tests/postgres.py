"""A PostgreSQL server for tests, started by the first that needs it and ended with the process.

It uses Debian's programs if they are installed; ``Skip`` names a missing one. The server listens on a socket in a
folder of its own and on a free port of 127.0.0.1. It trusts everyone, and does not sync to disk unless told to.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from unittest import SkipTest

#: Seconds a server may take to answer.
WAIT_MAX_SECONDS = 60.0


class Server:
    """A server process and its folder; ``SkipTest`` if it can't be started."""

    def __init__(self, fsync: str = "off") -> None:
        programs = _programs()
        if why_not() or programs is None:
            raise SkipTest(why_not())
        self._programs = programs
        self._fsync = fsync
        self._user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        # A socket's path has room for about 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        if self._user is not None:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._data = self.folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "scheduler", "-E", "UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start the server, also after ``kill``. Returns when it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": self._fsync,
            "shared_buffers": "16MB",
            "max_connections": 20,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._data, *options],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        until = time.monotonic() + WAIT_MAX_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def url(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{secrets.token_hex(6)}"
        self.sql(f"create database {name} template template0")
        return f"postgresql+psycopg://scheduler:secret@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """The output of psql for a statement."""
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "scheduler", "-d", database]
        return self._run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *where, "-c", statement).strip()

    def signal(self, number: int) -> None:
        """Send a signal to the server and all its sessions."""
        for pid in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End the server at once, as when the machine goes down; ``start`` recovers it."""
        self.process.send_signal(
            signal.SIGQUIT
        )  # the postmaster's immediate shutdown: its sessions must not outlive it
        self.process.wait(WAIT_MAX_SECONDS)

    def copy(self) -> None:
        """Copy all databases of a killed server, for ``put_back``."""
        subprocess.run(["cp", "-a", self._data, self.folder / "copy"], check=True)

    def put_back(self) -> None:
        """Restore the databases of a killed server to their state at ``copy``."""
        shutil.rmtree(self._data)
        (self.folder / "copy").rename(self._data)

    def remove(self) -> None:
        """End the server and remove its files."""
        self.signal(signal.SIGCONT)
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.sql("select 1")
            return True
        return False

    def _run(self, program: str, *arguments: str) -> str:
        return subprocess.run(
            [self._programs / program, *arguments],
            user=self._user,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text() if Path(f"/proc/{pid}").exists() else ""
    return [int(child) for child in listed.split()]


def _programs() -> Path | None:
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    for place in ("/usr/lib/postgresql", "/usr/pgsql"):
        found += sorted(Path(place).glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return next(
        (folder for folder in found if all((folder / name).exists() for name in ("initdb", "postgres", "psql"))), None
    )


def why_not() -> str:
    """Why these tests can't have a server; ``""`` if they can."""
    if _programs() is None:
        return "needs PostgreSQL's initdb, postgres and psql (Debian: postgresql)"
    if os.geteuid() == 0 and "postgres" not in (entry.pw_name for entry in pwd.getpwall()):
        return "run by root, PostgreSQL needs the user postgres"
    return ""


@cache
def server() -> Server:
    """The server of this process; ``SkipTest`` if it can't be started."""
    started = Server()
    atexit.register(started.remove)
    return started
