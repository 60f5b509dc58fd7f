"""The base of the tests of configuration files."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.config import load_scheduler, load_worker
from scheduler.daemon.tomlfile import ConfigError

ETC = Path(__file__).resolve().parents[2] / "etc"

CONTRACT = """
[grpc_server]
addr = "127.0.0.1:50000"
use_tls = false
crt_file = "server.pem"
key_file = "server.key"

[http_server]
addr = "127.0.0.1:3000"
"""


class ConfigCase(SynchronousTestCase):
    """Writes a configuration file, loads it, and returns the complaint."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = str(self.folder / "some.toml")

    def write(self, content: str) -> str:
        Path(self.file).write_text(content, encoding="utf-8")
        return self.file

    def scheduler(self, content: str, **environ: str):
        return load_scheduler(self.write(content), environ)

    def worker(self, content: str, **environ: str):
        return load_worker(self.write(content), environ)

    def complaint(self, load, content: str) -> str:
        """The complaint without the file's name, with which each begins."""
        text = str(self.assertRaises(ConfigError, load, self.write(content), {}))
        self.assertTrue(text.startswith(f"{self.file}: "), text)
        self.assertNotIn("\n", text)
        return text.removeprefix(f"{self.file}: ")

    def pem_files(self) -> None:
        for name in ("server.pem", "server.key", "ca.pem"):
            (self.folder / name).write_text("x")
