"""Commands in namespaces of their own, for what only root may do to a machine; all of it is gone with the process."""

import subprocess

from twisted.trial.unittest import SkipTest


def in_namespace(prepare: str, *command: str) -> list[str]:
    """``command`` as root of its own users and mounts, after the shell command ``prepare``; ``SkipTest``."""
    shell = ["unshare", "-Urm", "sh", "-c", f'{prepare} && exec "$@"', "sh"]
    tried = subprocess.run([*shell, "true"], capture_output=True, check=False, text=True)
    if tried.returncode:
        raise SkipTest(f"this can't be prepared in a namespace here: {tried.stderr.strip()}")
    return [*shell, *command]
