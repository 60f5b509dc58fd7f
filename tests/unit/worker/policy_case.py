"""A policy, with a folder of scripts and programs, for its tests."""

import os
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from scheduler.model import JobSpec
from scheduler.worker.commands import NotRunnable, Policy
from scheduler.worker.environment import BaseEnvironment

SCRIPT = b"#!/bin/sh\necho hi\n"


class PolicyCase(SynchronousTestCase):
    """A machine of folders: two on PATH, one of scripts, one elsewhere."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.root = self.root.resolve()
        self.bin, self.tools, self.scripts, self.outside = (
            self.root / name for name in ("bin", "tools", "scripts", "outside")
        )
        for folder in (self.bin, self.tools, self.scripts, self.outside):
            folder.mkdir()
        self.sh = self.program("bin/sh")
        self.find = self.program("bin/find")
        self.python = self.program("tools/python")
        self.count = self.file("scripts/count.sh", f"#!{self.sh}\n")
        self.secret = self.file("outside/secret", "s")
        self.policy = Policy(
            scripts_dir=str(self.scripts),
            scripts_only=False,
            allowed_commands=("*",),
            base=BaseEnvironment(own={"PATH": f"{self.bin}:{self.tools}"}),
        )

    def file(self, name: str, content: str = "") -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return str(path)

    def program(self, name: str) -> str:
        path = self.file(name, "#!/bin/true\n")
        os.chmod(path, 0o755)
        return path

    def restrict(self, *allowed: str, scripts_only: bool = False) -> None:
        self.policy = evolve(self.policy, allowed_commands=allowed or ("*",), scripts_only=scripts_only)

    def run_(self, command: str = "sh", path: str = "", *args: str, **more: object) -> list[str]:
        return self.policy.command_line_thd(JobSpec(command=command, path=path, args=args, **more), None)

    def refusal(self, command: str = "sh", path: str = "", *args: str, **more: object) -> str:
        return str(self.assertRaises(NotRunnable, self.run_, command, path, *args, **more))
