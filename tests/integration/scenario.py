"""Part of a test in a process of its own, where the machine is another: ``python -m tests.integration.scenario``.

The arguments are ``MODULE:FUNCTION`` and a state folder. The function gets a
``Running`` that has begun; the process exits with 0 when it returns.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.integration.running import Running

#: Where ``tests`` and ``scheduler`` are imported from.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


async def play(test: TestCase, name: str, state_dir: str, prefix: Sequence[str] = ()) -> str:
    """Run that function of the test's module by a command that begins with ``prefix``; its output, if it succeeds."""
    command = [*prefix, sys.executable, "-m", "tests.integration.scenario", f"{test.__module__}:{name}", state_dir]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = await deferToThread(subprocess.run, command, cwd=ROOT, env=env, capture_output=True, check=False, text=True)
    test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    return done.stdout + done.stderr


async def _main() -> None:
    module, _, name = sys.argv[1].partition(":")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    worker = Running(sys.argv[2])
    await worker.begin()
    await getattr(import_module(module), name)(worker)
    await worker.drop()


def _failed(failure: Failure) -> None:
    failure.printTraceback()
    os._exit(1)


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(_main()).addCallbacks(lambda _: reactor.stop(), _failed))
    reactor.run()
