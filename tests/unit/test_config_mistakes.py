"""Mistakes in configuration files."""

import tomllib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.daemon.config import load_scheduler, load_worker
from scheduler.daemon.tomlfile import ConfigError
from tests.unit.config_case import ConfigCase


class MistakeTests(ConfigCase):
    """Each mistake is one line with file, table, key, value and the allowed values."""

    def test_no_file(self) -> None:
        """A missing file is named."""
        self.file = str(self.folder / "no.toml")
        error = self.assertRaises(ConfigError, load_scheduler, self.file)
        self.assertEqual(str(error), f"{self.file}: can't be read: No such file or directory")

    def test_no_text(self) -> None:
        """A file that is not text is refused."""
        Path(self.file).write_bytes(b'log_format = "\xff"')
        error = self.assertRaises(ConfigError, load_scheduler, self.file)
        self.assertEqual(str(error), f"{self.file}: is not UTF-8 from byte 14 on")

    def test_no_toml(self) -> None:
        """A file that is not TOML is refused with the place of the mistake."""
        self.assertIn("is not TOML", self.complaint(load_scheduler, "[grpc_server\naddr = 1"))
        self.assertIn("line 2", self.complaint(load_scheduler, "[grpc_server]\naddr = what"))

    def test_unknown_keys(self) -> None:
        """An unknown key is an error with a suggestion."""
        for content, complaint in {
            "[grpc_server]\naddres = 1": "[grpc_server] addres = 1: unknown key; did you mean addr?",
            "[grcp_server]\naddr = 1": "grcp_server = {...}: unknown key; did you mean grpc_server?",
            "statedir = true": "statedir = true: unknown key; did you mean state_dir?",
            "[cluster]\nzzz = [1, 2]": "[cluster] zzz = [1, 2]: unknown key; known: allowed_networks, lease",
            "[store]\nurls = 1": "[store] urls = 1: unknown key; did you mean url?",
            "[store]\nkeep = 1": "[store] keep = 1: unknown key; did you mean keep_jobs?",
            "[store]\nzzz = 1": "[store] zzz = 1: unknown key; known: url, keep_jobs",
            "[grpc_server]\nuse_tls = true\ncert_file = 1": "cert_file = 1: unknown key; did you mean crt_file?",
            '[client]\nurl = "memory:"': "client = {...}: unknown key; known: ",
        }.items():
            self.assertIn(complaint, self.complaint(load_scheduler, content))

    def test_silent_mistakes_of_the_parser(self) -> None:
        """A key that the parser misreads, or drops because a value has no end, is a mistake."""
        for content in (
            "log_format=1 state_dir=2",
            "log_format . x = 1",
            '[worker]\nallowed_commands = ["bash"\n[grpc_server]\nallow_insecure = false',
            "[worker]\nallowed_commands = [",
            '[worker]\nname = """w1\nallowed_commands = ["bash"]',
            "[worker.labels]\ngpu=1 rack=2",
        ):
            self.assertTrue(self.complaint(load_worker, content))

    def test_values(self) -> None:
        """A value of the wrong type or out of range is shown beside what is allowed."""
        for content, complaint in {
            "log_format = 1": 'log_format = 1: must be "text" or "json"',
            'log_level = "warning"': 'log_level = "warning": must be "debug", "info", "warn" or "error"',
            "log_level = 1": 'must be "debug", "info", "warn" or "error"',
            'log_format = "xml"': 'log_format = "xml": must be "text" or "json"',
            'state_dir = ""': 'state_dir = "": must be a string of 1 to 4096 characters',
            "grpc_server = 1": "grpc_server = 1: must be a table, [grpc_server]",
            "[[cluster]]": "cluster = [{...}]: must be a table, [cluster]",
            '[grpc_server]\nuse_tls = "yes"': '[grpc_server] use_tls = "yes": must be true or false',
            "[grpc_server]\nuse_tls = 1": "[grpc_server] use_tls = 1: must be true or false",
            "[grpc_server]\naddr = 50000": '[grpc_server] addr = 50000: must be "host:port"',
            "shutdown_timeout = 0": "shutdown_timeout = 0: must be a duration like 30s, 5m, 1h30m or 7d, "
            "or a number of seconds, from 1s to 1h",
            '[cluster]\nlease = "soon"': '[cluster] lease = "soon": must be a duration like 30s, 5m, 1h30m or 7d',
            "[cluster]\nlease = true": "[cluster] lease = true: must be a duration",
            '[cluster]\nforget_after = "never"': "or a number of seconds, from 0s to 3650d",
            "[store]\nkeep_jobs = 0": "[store] keep_jobs = 0: must be a duration like 30s, 5m, 1h30m or 7d",
            "[cluster]\nlease = -1": "from 1s to 1h",
            "[cluster]\nlease = 3601": "from 1s to 1h",
            "[cluster]\nlease = 2020-01-01": "[cluster] lease = 2020-01-01: must be a duration",
            '[cluster]\nallowed_networks = "10.0.0.0/8"': "must be a list",
            '[cluster]\nallowed_networks = ["10.0.0.1/8"]': 'allowed_networks = ["10.0.0.1/8"]: must be networks',
            "[cluster]\nallowed_networks = [1]": "must be networks",
            '[http_server]\nallowed_hosts = ["a:80"]': '[http_server] allowed_hosts = ["a:80"]: must be host names',
            '[http_server]\nallowed_hosts = ["http://a"]': "must be host names",
            '[http_server]\nallowed_hosts = [""]': "must be host names",
        }.items():
            self.assertIn(complaint, self.complaint(load_scheduler, content))
        for content, complaint in {
            '[worker]\nname = "a b"': '[worker] name = "a b": must be 1 to 253 letters',
            '[worker]\nname = ""': "must be 1 to 253 letters",
            "[worker]\nslots = -1": "[worker] slots = -1: must be a whole number from 0 to 100000",
            "[worker]\nslots = 1.5": "must be a whole number",
            "[worker]\nslots = true": "must be a whole number",
            "[worker]\nlabels = 1": "[worker] labels = 1: must be a table, [worker.labels]",
            "[worker.labels]\ngpu = 1": "[worker.labels] gpu = 1: must be a string",
            '[worker.labels]\n"" = "x"': "a label is",
            '[worker.labels]\na.b = "x"': "[worker.labels] a = {...}: must be a string",
            '[worker]\nallowed_env = "A"': "must be a list",
            '[worker]\nallowed_env = ["A*B"]': "'A*B' is not a name of letters",
            '[worker]\nallowed_env = ["SCHEDULER_X"]': "is not for jobs to be given",
            '[worker]\nallowed_commands = "*"': "must be a list",
            "[worker]\nenv = 1": "[worker] env = 1: must be a table, [worker.env]",
            "[worker.env]\nA = 1": "[worker.env] A = 1: must be a string of at most 32768 bytes",
            f"[worker.env]\nA = '{'x' * 40_000}'": "must be a string of at most 32768 bytes",
            '[worker.env]\n"A-B" = "x"': "[worker.env] A-B: is not a name of letters, digits and '_'",
            '[worker.env]\nSCHEDULER_X = "x"': "[worker.env] SCHEDULER_X: is not for jobs to be given",
            '[worker.env]\nNOTIFY_SOCKET = "x"': "[worker.env] NOTIFY_SOCKET: is not for jobs to be given",
            '[worker]\nallowed_commands = ["a\\u0000"]': "none of them a control character",
            '[worker]\nallowed_commands = ["ls", "bin/x"]': "must be names of commands or absolute paths",
            '[worker]\nscripts_dir = ["x"]': "must be a string",
            '[worker]\nkeep_spool = "0s"': "from 1s to 3650d",
            '[worker]\nspool_max = "110%"': "must be a percentage like 10%, a number of bytes, or a size like 64KiB",
            "[worker]\nspool_min_free = -1": "must be a percentage like 10%",
            "[worker]\noutput_limit = 0": "a size like 64KiB, 100MB or 4GiB, at least 1",
            '[worker]\noutput_limit = "10%"': "a size like 64KiB, 100MB or 4GiB, at least 1",
            '[worker]\nadvertise_addr = "0.0.0.0:0"': "the port from 1 to 65535",
            '[scheduler]\naddr = "127.0.0.1:0"': "the port from 1 to 65535",
        }.items():
            self.assertIn(complaint, self.complaint(load_worker, content))

    def test_addresses(self) -> None:
        """Only ``host:port`` is an address: no scheme of gRPC, no list, no other spelling of a port."""
        for address in (
            *("", ":", "127.0.0.1", "127.0.0.1:", ":3000", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1"),
            *("127.0.0.1:00", "127.0.0.1:1 ", " 127.0.0.1:1", "::1:3000", "[::1]", "[127.0.0.1]:1", "[::1:1"),
            *("127.0.0:1", "1:2:3", "unix:/run/x", "unix:///run/x", "dns:///box:1", "ipv4:127.0.0.1:1,127.0.0.2:2"),
            *("http://box:1", "tcp:3000", "127.0.0.1:http", "127.0.0.1:٣", "a b:1", "-a:1", "a..b:1", "box/:1"),
            *("box\\n:1", "localhost:0x10"),
        ):
            for table in ("grpc_server", "http_server"):
                complaint = self.complaint(load_scheduler, f'[{table}]\naddr = "{address}"')
                self.assertIn(f"[{table}] addr = ", complaint, address)

    def test_long_values_are_cut(self) -> None:
        self.assertLess(len(self.complaint(load_scheduler, f'log_format = "{"x" * 5000}"')), 500)

    def test_escapes_stay_out_of_the_terminal(self) -> None:
        """Control characters in names and values are not in the complaint."""
        self.assertNotIn("\x1b", self.complaint(load_scheduler, '"a\\u001b[31m" = "b\\u001b\\nc"'))

    @settings(max_examples=150)
    @given(
        st.lists(
            st.sampled_from(
                [
                    *("[cluster]", "[worker]", "[[", "]", "lease", "a", "=", ".", ",", "\n", " ", "#", '"', "'", '"""'),
                    *("{", "}", "[", "1", "1.5", "true", "30s", '"30s"', "\\", "\\u0000", "-", "_", "1979-05-27", "é"),
                ]
            ),
            max_size=12,
        )
    )
    def test_no_malformed_file_gets_through(self, pieces: list[str]) -> None:
        """Any file is read or refused with ``ConfigError``; a file that is not TOML is never read."""
        content = "".join(pieces)
        try:
            self.scheduler(content)
        except ConfigError:
            return
        self.assertEqual(set(tomllib.loads(content)) - {"cluster"}, set())
