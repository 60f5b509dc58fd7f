"""The walkthrough of docs/operations.md, "Three machines", with its own commands and configuration, on loopback.

Not done here: the installation, the users and units, and the copies to other machines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.system.conftest import ROOT, Daemon, wait_until
from tests.system.documents import Block, blocks, shell_commands
from tests.system.schedctl import command_line

WAIT_MAX_SECONDS = 60.0

#: The name of the scheduler's machine, which is this one here.
NAME = "scheduler.example.com"


def walkthrough() -> list[Block]:
    """The blocks of the section."""
    text = (ROOT / "docs/operations.md").read_text()
    return blocks(text.partition("\n## Three machines\n")[2].partition("\n## ")[0])


def commands(*beginnings: str) -> list[str]:
    """The documented commands that begin so, each at least once."""
    lines = [
        line.partition("  #")[0].strip().replace(NAME, "localhost")
        for block in walkthrough()
        if block.language in ("", "sh")
        for line in shell_commands(block)
    ]
    found = [line for line in lines if line.startswith(beginnings)]
    assert all(any(line.startswith(each) for line in found) for each in beginnings)
    return found


def toml(sign: str) -> str:
    """The documented file that contains ``sign``."""
    (found,) = (block.text for block in walkthrough() if block.language == "toml" and sign in block.text)
    return found.replace(NAME, "localhost").replace("0.0.0.0:", "127.0.0.1:")


class Person:
    """A person at a machine: runs commands in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SCHEDULER_")},
            "XDG_CONFIG_HOME": str(folder),
        }

    def run(self, command: str) -> tuple[int, str]:
        """The exit code and stdout of a ``schedctl`` command."""
        program, *arguments = command.split()
        assert program == "schedctl"
        done = subprocess.run(
            command_line(*arguments),
            cwd=self.folder,
            env=self.environ,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            timeout=WAIT_MAX_SECONDS,
        )
        return done.returncode, done.stdout


@pytest.fixture
def person(tmp_path: Path) -> Person:
    """The person at a computer of its own, who has made the certificates."""
    home = tmp_path / "home"
    home.mkdir()
    made = Person(home)
    for command in commands("schedctl ca "):
        assert made.run(command)[0] == 0, command
    return made


def with_pair(daemon: Daemon, person: Person, name: str) -> Daemon:
    """The daemon with its files beside its configuration, as copied there."""
    for file in ("ca.pem", f"{name}.pem", f"{name}.key"):
        shutil.copy(person.folder / "lab-ca" / file, daemon.folder / file)
    return daemon


def test_three_machines(daemons: Callable[..., Daemon], person: Person) -> None:
    """With the documented files, a token of the documented commands runs a job on the worker; ``doctor`` is content."""
    text = re.sub(r":(50000|3000)\"", ':0"', toml("[http_server]"))
    scheduler = with_pair(daemons("scheduler", text), person, "scheduler")
    (scheduler.folder / "revoked.txt").touch()
    scheduler.start()
    port = scheduler.endpoints["http"].rpartition(":")[2]

    (config,) = (block.text for block in walkthrough() if block.language == "toml" and "[contexts" in block.text)
    shutil.copy(person.folder / "lab-ca/ca.pem", person.folder / "lab-ca.pem")
    context = person.folder / "schedctl.toml"

    def use(token: str) -> None:
        context.write_text(re.sub(r"sched_\.\.\.", token, config).replace(f"{NAME}:3000", f"localhost:{port}"))
        context.chmod(0o600)

    use((scheduler.state / "admin.token").read_text().strip())
    made = [person.run(command) for command in commands("schedctl token create ")]
    assert [code for code, _ in made] == [0, 0]
    use(made[0][1].strip())
    code, told = person.run("schedctl doctor")
    assert (code, told.count("warning"), told.count("error")) == (1, 1, 0), told
    assert "No worker has registered" in told

    grpc = scheduler.endpoints["grpc"].replace("127.0.0.1", "localhost")
    text = toml("[worker]").replace("localhost:50000", grpc).replace(":30000", ":0")
    worker = with_pair(daemons("worker", text, "box7"), person, "box7").start()
    wait_until(lambda: "online" in person.run("schedctl workers")[1], "the worker is online")

    for options in ("", f" --config {scheduler.file}", f" --config {worker.file}"):
        code, told = person.run(f"schedctl doctor{options}")
        assert code == 0, told
    (run,) = commands("schedctl run ")
    assert person.run(run) == (0, f"{os.uname().nodename}\n")
    assert person.run("schedctl token revoke admin")[0] == 0
    assert person.run(run)[0] == 0

    # with another token there is nothing
    use("sched_x")
    assert person.run(run)[0] != 0
