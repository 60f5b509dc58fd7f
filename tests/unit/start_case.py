"""Command lines of the daemons, parsed like twistd."""

import codecs
import os
import shutil
import tempfile
from pathlib import Path

from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.startup import SchedulerOptions, WorkerOptions

#: Loaded now: with ``--uid`` a test has the rights of a user who may not be able to read the standard library.
codecs.lookup("ascii")


class StartCase(SynchronousTestCase):
    """Parses command lines like twistd."""

    def setUp(self) -> None:
        # With --uid a test has the rights of a user who may not be able to reach trial's folders.
        reachable = Path(tempfile.mkdtemp())
        reachable.chmod(0o711)
        self.addCleanup(shutil.rmtree, reachable)
        self.folder = reachable / "temp"
        self.folder.mkdir()
        self.file = str(self.folder / "some.toml")
        self.write('[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"\n')
        self.addCleanup(os.umask, os.umask(0o022))

    def write(self, content: str) -> None:
        Path(self.file).write_text(f'state_dir = "state"\n{content}')

    def parse(self, options: SchedulerOptions | WorkerOptions, *twistd: str) -> ServerOptions:
        """Parse ``twistd ARGS scheduler -c FILE``, up to the point where the service is made."""

        class Twistd(ServerOptions):
            subCommands = [[options.program, None, lambda: options, ""]]  # noqa: N815 - twisted's name

        parent = Twistd()
        parent.parseOptions([*twistd, options.program, "-c", self.file])
        self.addCleanup(options.state.release)
        return parent

    def refusal(self, options: SchedulerOptions | WorkerOptions | None = None) -> str:
        """The refusal of the present configuration."""
        options = options or SchedulerOptions()
        refused = self.assertRaises(SystemExit, options.parseOptions, ["-c", self.file])
        self.assertNotIn("\n", refused.code)  # a string: one line on stderr and exit code 1
        return refused.code.removeprefix(f"{self.file}: ")
