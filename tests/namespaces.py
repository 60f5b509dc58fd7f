"""Runs commands and tests in namespaces of their own, or as another user.

The namespaces are those of users and of mounts. Inside, the process is root, and its mounts vanish with it.
"""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import wraps

from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SkipTest, TestCase

_INSIDE = "SCHEDULER_TESTS_IN_NAMESPACES"

#: Whether this process is such a command of ``namespaced``.
INSIDE = _INSIDE in os.environ

#: Seconds for a ``namespaced`` test. The process inside times out first, and says where.
TIMEOUT = 30 if INSIDE else 60

#: A user id without any other process.
_OTHER_USER = 54_321


def in_namespaces(prepare: str, *command: str) -> list[str]:
    """``command`` in namespaces of its own, after the shell command ``prepare``; ``SkipTest``."""
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{prepare} && exec "$@"', "sh"]
    _try([*shell, "true"], "this can't be prepared in namespaces here")
    return [*shell, *command]


def as_other_user(folder: str, *command: str) -> list[str]:
    """``command`` as another user, without other processes, who becomes the owner of ``folder``; ``SkipTest``.

    The user may read everything, because the interpreter may be in root's home folder.
    """
    if os.geteuid():
        raise SkipTest("only root can have a process of another user")
    os.chown(folder, _OTHER_USER, _OTHER_USER)
    ids = [f"--reuid={_OTHER_USER}", f"--regid={_OTHER_USER}", "--clear-groups"]
    rights = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    become = ["setpriv", *ids, *rights]
    _try([*become, sys.executable, "-c", ""], "no process of another user can be had here")
    return [*become, *command]


def _try(command: list[str], problem: str) -> None:
    try:
        tried = subprocess.run(command, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        raise SkipTest(f"there is no {command[0]}") from None
    if tried.returncode:
        raise SkipTest(f"{problem}: {tried.stderr.strip()}")


def namespaced(case: type[TestCase]) -> type[TestCase]:
    """Run each test of the class in a process and namespaces of its own."""
    for name in filter(lambda name: name.startswith("test_"), dir(case)):
        setattr(case, name, _inside(getattr(case, name)))
    return case


def _inside(test: Callable[[TestCase], Awaitable[None]]) -> Callable[[TestCase], Awaitable[None]]:
    @wraps(test)
    async def run(self: TestCase) -> None:
        if INSIDE:
            await test(self)
            return
        folder = FilePath(self.mktemp())
        trial = [sys.executable, "-m", "twisted.trial", f"--temp-directory={folder.path}", self.id()]
        program, *arguments = in_namespaces(":", *trial)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), _INSIDE: "1"}
        out, err, code = await getProcessOutputAndValue(program, arguments, environment, "/")
        if b"SKIPPED" in out:
            raise SkipTest(out.decode())
        self.assertEqual(code, 0, (out + err).decode())

    return run


def mount(*arguments: str) -> None:
    """Call ``mount(8)``, inside a namespace."""
    subprocess.run(["mount", *arguments], check=True)


def mounted(below: str) -> list[str]:
    """Mount points."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return [line.split()[4] for line in table if line.split()[4].startswith(below)]
