"""The choice of the scheduler."""

import contextlib
import io
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.contexts import Connection, choose, config_file
from scheduler.cli.failures import Failure

LAB = 'default = "lab"\n[contexts.lab]\nurl = "https://lab:3000/"\ntoken = "s3cret"\nca_file = "lab.pem"\n'
HOME = '[contexts.home]\nurl = "http://127.0.0.1:4000"\n'


class ContextTests(SynchronousTestCase):
    """``choose`` with a file, an environment and options."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "schedctl.toml"
        self.environ = {"XDG_CONFIG_HOME": str(self.folder)}

    def write(self, text: str, mode: int = 0o600) -> None:
        self.file.write_text(text)
        self.file.chmod(mode)

    def choose(
        self, url: str = "", token: str = "", context: str = "", ca_file: str = "", **environ: str
    ) -> Connection:
        return choose(url or None, token or None, context or None, ca_file or None, {**self.environ, **environ})

    def refused(self, text: str = "", **options: str) -> str:
        if text:
            self.write(text)
        with self.assertRaises(Failure) as caught:
            self.choose(**options)
        self.assertEqual(caught.exception.code, 125)
        self.assertTrue(caught.exception.next_step)
        return caught.exception.message

    def warned(self, text: str, mode: int) -> str:
        self.write(text, mode)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.choose()
        return said.getvalue()

    def test_nothing(self) -> None:
        """Without any configuration the default address is used."""
        self.assertEqual(self.choose(), Connection("http://127.0.0.1:3000"))
        self.assertEqual(self.choose(token="t").token, "t")

    def test_default_context(self) -> None:
        """The default context has its URL, token and authority; relative paths begin at the file's folder."""
        self.write(LAB + HOME)
        lab = Connection("https://lab:3000", "s3cret", str(self.folder / "lab.pem"), "context lab")
        self.assertEqual(self.choose(), lab)
        self.assertEqual(self.choose(token="other"), lab._replace(token="other"))

    def test_authority(self) -> None:
        """``--ca-file`` is always used, ``SCHEDULER_CA_FILE`` for a URL that is not of a context."""
        self.write(LAB + HOME)
        variable = {"SCHEDULER_CA_FILE": "variable.pem"}
        for given, expected in (
            ({"url": "https://x", **variable}, "variable.pem"),
            ({"url": "https://x", "ca_file": "option.pem", **variable}, "option.pem"),
            ({"SCHEDULER_URL": "https://x", **variable}, "variable.pem"),
            ({"context": "home", **variable}, None),
            (variable, str(self.folder / "lab.pem")),
            ({"ca_file": "option.pem", **variable}, "option.pem"),
        ):
            self.assertEqual(self.choose(**given).ca_file, expected, given)
        self.file.unlink()
        self.assertEqual(self.choose(**variable).ca_file, "variable.pem")

    def test_order(self) -> None:
        """The order is ``--url``, ``--context``, the environment, the default context."""
        self.write(LAB + HOME)
        env = {"SCHEDULER_URL": "http://env:1", "SCHEDULER_TOKEN": "env-token"}
        self.assertEqual(self.choose(url="http://a:1", **env)[:2], ("http://a:1", "env-token"))
        self.assertEqual(self.choose(context="home", **env)[:2], ("http://127.0.0.1:4000", None))
        self.assertEqual(self.choose(**env)[:2], ("http://env:1", "env-token"))
        self.assertEqual(self.choose(token="mine", **env)[:2], ("http://env:1", "mine"))

    def test_tokens_stay_where_they_belong(self) -> None:
        """The token of a context is sent to no other URL, and that of the environment to no context."""
        self.write(LAB)
        self.assertIsNone(self.choose(url="http://a:1").token)
        self.assertIsNone(self.choose(SCHEDULER_URL="http://a:1").token)
        self.assertEqual(self.choose(SCHEDULER_TOKEN="env-token").token, "s3cret")
        self.assertEqual(self.choose(SCHEDULER_TOKEN="not even one").token, "s3cret")

    def test_mistakes(self) -> None:
        """A mistake in the file is named, with what is allowed."""
        self.assertIn("colour: is not a key; allowed: default, contexts", self.refused("colour = 1"))
        self.assertIn(
            "contexts.a.uri: is not a key; allowed: url, token, ca_file", self.refused('[contexts.a]\nuri = "x"')
        )
        self.assertIn("contexts.a.url: is needed", self.refused("[contexts.a]"))
        self.assertIn(
            "contexts.a.token must be printable", self.refused('[contexts.a]\nurl = "http://a"\ntoken = "a b"')
        )
        self.assertIn("contexts.a.token: must be a text", self.refused('[contexts.a]\nurl = "http://a"\ntoken = 3'))
        self.assertIn("contexts: must be tables", self.refused("contexts = 3"))
        self.assertIn("contexts.a: must be a table", self.refused("contexts.a = 3"))
        self.assertIn("default: must be the name of a context: home", self.refused('default = "lab"\n' + HOME))
        self.assertIn("is not valid TOML", self.refused("default = "))
        self.assertIn("is not a URL", self.refused('[contexts.a]\nurl = "ftp://a"'))

    def test_wrong_choice(self) -> None:
        """A missing context, two choices at once, and an invalid URL are refused."""
        self.write(HOME)
        self.assertEqual(self.refused(context="lab"), "there is no context 'lab'")
        self.assertIn("together", self.refused(url="http://a", context="home"))
        for url in ("localhost:3000", "http://", "http://a:x", "http://a?b", "http://a:0", "x"):
            self.assertIn("--url", self.refused(url=url), url)
        self.assertIn("SCHEDULER_URL", self.refused(SCHEDULER_URL="box"))

    def test_unreadable(self) -> None:
        """An unreadable file is an error, and does not lead to another scheduler."""
        self.file.mkdir()
        self.assertIn("can't be read: Is a directory", self.refused())

    def test_permissions(self) -> None:
        """A token that others can read causes a warning; a protected token, or none, does not."""
        self.assertIn("others can read the token", self.warned(LAB, 0o644))
        self.assertIn("chmod 600", self.warned(LAB, 0o640))
        self.assertEqual(self.warned(LAB, 0o600), "")
        self.assertEqual(self.warned(HOME, 0o644), "")

    def test_place(self) -> None:
        """The file is where the XDG specification says."""
        self.assertEqual(config_file({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}), Path("/c/schedctl.toml"))
        self.assertEqual(config_file({"XDG_CONFIG_HOME": "c", "HOME": "/h"}), Path("/h/.config/schedctl.toml"))
        self.assertEqual(config_file({"HOME": "/h"}), Path("/h/.config/schedctl.toml"))
        self.assertEqual(config_file({}), Path(os.path.expanduser("~/.config/schedctl.toml")))
