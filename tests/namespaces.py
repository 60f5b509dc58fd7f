"""Commands that run as another: in namespaces of their own, where all is gone with the process, or as another user."""

import os
import subprocess
import sys

from twisted.trial.unittest import SkipTest


def in_namespace(prepare: str, *command: str) -> list[str]:
    """``command`` as root of its own users and mounts, after the shell command ``prepare``; ``SkipTest``."""
    shell = ["unshare", "-Urm", "sh", "-c", f'{prepare} && exec "$@"', "sh"]
    tried = subprocess.run([*shell, "true"], capture_output=True, check=False, text=True)
    if tried.returncode:
        raise SkipTest(f"this can't be prepared in a namespace here: {tried.stderr.strip()}")
    return [*shell, *command]


#: Of nobody else.
_OTHER_USER = 54_321


def as_other_user(folder: str, *command: str) -> list[str]:
    """``command`` as a user who is not root and has no other process; ``folder`` is theirs now. ``SkipTest``.

    It may read everything, as the interpreter may be in the home folder of root.
    """
    if os.geteuid():
        raise SkipTest("only root can have a process of another user")
    os.chown(folder, _OTHER_USER, _OTHER_USER)
    ids = [f"--reuid={_OTHER_USER}", f"--regid={_OTHER_USER}", "--clear-groups"]
    rights = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    become = ["setpriv", *ids, *rights]
    tried = subprocess.run([*become, sys.executable, "-c", ""], capture_output=True, check=False, text=True)
    if tried.returncode:
        raise SkipTest(f"no process of another user can be had here: {tried.stderr.strip()}")
    return [*become, *command]
