"""Tests that mount: each runs in a process of its own, in namespaces where it is root and which vanish with it."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import wraps

from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SkipTest, TestCase

_INSIDE = "SCHEDULER_TESTS_IN_NAMESPACES"

INSIDE = _INSIDE in os.environ

#: Seconds for a test: the process inside gives up first, and says where.
TIMEOUT = 30 if INSIDE else 60


def namespaced(case: type[TestCase]) -> type[TestCase]:
    """Have all its tests run in user and mount namespaces of their own."""
    for name in filter(lambda name: name.startswith("test_"), dir(case)):
        setattr(case, name, _inside(getattr(case, name)))
    return case


def _inside(test: Callable[[TestCase], Awaitable[None]]) -> Callable[[TestCase], Awaitable[None]]:
    @wraps(test)
    async def run(self: TestCase) -> None:
        if INSIDE:
            await test(self)
            return
        refused = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False, text=True)
        if refused.returncode:
            raise SkipTest(f"no namespaces can be made here: {refused.stderr.strip()}")
        folder = FilePath(self.mktemp())
        command = ["-rm", sys.executable, "-m", "twisted.trial", f"--temp-directory={folder.path}", self.id()]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), _INSIDE: "1"}
        out, err, code = await getProcessOutputAndValue("unshare", command, environment, "/")
        if b"SKIPPED" in out:
            raise SkipTest(out.decode())
        self.assertEqual(code, 0, (out + err).decode())

    return run


def mount(*arguments: str) -> None:
    """``mount(8)``."""
    subprocess.run(["mount", *arguments], check=True)


def mounted(below: str) -> list[str]:
    """Mount points."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return [line.split()[4] for line in table if line.split()[4].startswith(below)]
