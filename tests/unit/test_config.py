"""The two configuration files: what they may say, and what is answered to every mistake."""

import os
import socket
import tomllib
from ipaddress import ip_network
from pathlib import Path

from attrs.exceptions import FrozenInstanceError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.workers.registration import id_of_folder
from scheduler.daemon.config import StoreSettings, TlsFiles, load_scheduler, load_worker
from scheduler.daemon.tomlfile import ConfigError
from scheduler.net import Address
from scheduler.units import Share
from scheduler.worker import facts

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
    """Writes a file, loads it, and says what was complained of."""

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
        """The complaint without the file's name, which every one begins with."""
        error = self.assertRaises(ConfigError, load, self.write(content), {})
        text = str(error)
        self.assertTrue(text.startswith(f"{self.file}: "), text)
        self.assertNotIn("\n", text)
        return text.removeprefix(f"{self.file}: ")

    def pem_files(self) -> None:
        for name in ("server.pem", "server.key", "ca.pem"):
            (self.folder / name).write_text("x")


class SchedulerFileTests(ConfigCase):
    """``scheduler.toml``."""

    def test_contract_alone(self) -> None:
        """The part that is fixed starts a scheduler, everything else has a safe default."""
        config = self.scheduler(CONTRACT)
        self.assertEqual(config.grpc_server.addr, Address("127.0.0.1", 50000))
        self.assertIsNone(config.grpc_server.tls)
        self.assertFalse(config.grpc_server.allow_insecure)
        self.assertEqual(config.http_server.addr, Address("127.0.0.1", 3000))
        self.assertFalse(config.http_server.allow_insecure)
        self.assertEqual(config.cluster.allowed_networks, ())
        self.assertEqual((config.cluster.lease, config.cluster.forget_after), (30, 7 * 86400))
        self.assertEqual((config.log_format, config.log_level), ("text", "info"))

    def test_empty_file(self) -> None:
        """An empty file means the same as the one in the contract."""
        self.assertEqual(self.scheduler(""), self.scheduler(CONTRACT))

    def test_sample(self) -> None:
        """The file in etc/ is the defaults, spelled out."""
        sample = load_scheduler(str(ETC / "scheduler.toml"), {})
        default = self.scheduler("")
        self.assertEqual(sample.grpc_server, default.grpc_server)
        self.assertEqual(sample.http_server, default.http_server)
        self.assertEqual(sample.cluster, default.cluster)
        self.assertEqual(sample.store, default.store)
        self.assertEqual((sample.state_dir, sample.log_format), (default.state_dir, default.log_format))
        self.assertEqual((sample.log_level, default.log_level), ("info", "info"))
        self.assertEqual((sample.shutdown_timeout, default.shutdown_timeout), (20, 20))

    def test_every_key(self) -> None:
        """Each key reaches its attribute."""
        self.pem_files()
        config = self.scheduler(
            """
            state_dir = "state"
            log_format = "json"
            log_level = "warn"
            shutdown_timeout = "5s"
            [grpc_server]
            addr = "0.0.0.0:1"
            use_tls = true
            crt_file = "server.pem"
            key_file = "./x/../server.key"
            ca_file = "ca.pem"
            [http_server]
            addr = "[::]:0"
            allowed_hosts = ["Scheduler.example.com", "[::1]", "10.0.0.1"]
            allow_insecure = true
            [cluster]
            allowed_networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]
            lease = "2m"
            forget_after = 0
            [store]
            url = "sqlite:///jobs/all.db"
            keep_jobs = "12h"
            """
        )
        self.assertEqual(config.file, self.file)
        self.assertEqual(config.state_dir, self.folder / "state")
        self.assertEqual((config.log_format, config.log_level), ("json", "warn"))
        self.assertEqual(config.shutdown_timeout, 5)
        self.assertEqual(str(config.grpc_server.addr), "0.0.0.0:1")
        self.assertEqual(
            config.grpc_server.tls,
            TlsFiles(self.folder / "server.pem", self.folder / "server.key", self.folder / "ca.pem"),
        )
        self.assertTrue(config.grpc_server.protected)
        self.assertEqual(str(config.http_server.addr), "[::]:0")
        self.assertEqual(config.http_server.allowed_hosts, ("scheduler.example.com", "::1", "10.0.0.1"))
        self.assertEqual(
            config.cluster.allowed_networks,
            (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7/32")),
        )
        self.assertEqual((config.cluster.lease, config.cluster.forget_after), (120, 0))
        self.assertEqual(config.store, StoreSettings(f"sqlite:///{self.folder}/state/jobs/all.db", 12 * 3600))

    def test_store_urls(self) -> None:
        """A file is in the state folder unless it is absolute; a server and no memory at all are taken as they are."""
        for url, meant in {
            "sqlite:///x.db": f"sqlite:///{self.folder}/state/x.db",
            "sqlite:////srv/x.db": "sqlite:////srv/x.db",
            "memory:": "memory:",
            "postgresql+psycopg://me:a%40b@db.example.com:5433/jobs?sslmode=verify-full": None,
            "postgresql+psycopg:///jobs?host=/run/postgresql": None,
        }.items():
            config = self.scheduler(f'state_dir = "state"\n[store]\nurl = "{url}"')
            self.assertEqual(config.store.url, meant or url)
        self.assertEqual(
            self.scheduler('state_dir = "/s"').store, StoreSettings("sqlite:////s/scheduler.db", 30 * 86400)
        )

    def test_wrong_store_urls(self) -> None:
        """Every other is refused, with what is allowed and without the password it may hold."""
        for url, shown in {
            "scheduler.db": "scheduler.db",
            "sqlite://": "sqlite://",
            "sqlite:///": "sqlite:///",
            "sqlite:///folder/": "sqlite:///folder/",
            "sqlite:///x.db?mode=ro": "sqlite:///x.db?mode=ro",
            "mysql://me:se@c:ret@host/db": "mysql://me:***@host/db",
            "postgresql://me:secret@host/db": "postgresql://me:***@host/db",
            "postgresql+psycopg://me:secret@host": "postgresql+psycopg://me:***@host",
            "postgres://host/db?user=me&password=secret&x=1": "postgres://host/db?user=me&password=***&x=1",
        }.items():
            complaint = self.complaint(load_scheduler, f'[store]\nurl = "{url}"')
            self.assertTrue(complaint.startswith(f'[store] url = "{shown}": must be "sqlite:///FILE"'), complaint)
        self.assertIn("[store] url = 3: must be", self.complaint(load_scheduler, "[store]\nurl = 3"))

    def test_frozen(self) -> None:
        """What was read can't be changed."""
        config = self.scheduler("")
        with self.assertRaises(FrozenInstanceError):
            config.log_format = "json"

    def test_default_hosts(self) -> None:
        """No name is listed that the file does not list: the network decides which name this machine has."""
        for addr in ("192.0.2.1:80", "0.0.0.0:80", "box.example:80"):
            config = self.scheduler(f'[http_server]\naddr = "{addr}"\nallow_insecure = true')
            self.assertIsNone(config.http_server.allowed_hosts)

    def test_http_beyond_loopback(self) -> None:
        """HTTP for the whole network has to be asked for."""
        self.assertEqual(
            self.complaint(load_scheduler, '[http_server]\naddr = "0.0.0.0:3000"'),
            '[http_server] addr = "0.0.0.0:3000": beyond loopback it needs allow_insecure = true, '
            "where everyone who can reach it may run commands",
        )

    def test_grpc_beyond_loopback(self) -> None:
        """gRPC for the whole network needs certificates both ways, or to be asked for."""
        self.pem_files()
        beyond = '[grpc_server]\naddr = "192.0.2.1:50000"\n'
        for insufficient in ("", "use_tls = true", 'ca_file = "ca.pem"'):
            self.assertIn(
                '[grpc_server] addr = "192.0.2.1:50000": beyond loopback it needs use_tls',
                self.complaint(load_scheduler, beyond + insufficient),
            )
        self.scheduler(beyond + "allow_insecure = true")
        self.scheduler(beyond + 'use_tls = true\nca_file = "ca.pem"')

    def test_one_port_twice(self) -> None:
        """Two servers can't share a port; any free port is not one port."""
        self.assertEqual(
            self.complaint(load_scheduler, '[http_server]\naddr = "localhost:50000"'),
            '[http_server] addr = "127.0.0.1:50000": must not be that of [grpc_server], 127.0.0.1:50000',
        )
        everywhere = '[http_server]\nallow_insecure = true\naddr = "0.0.0.0:50000"'
        self.assertIn("must not be that of", self.complaint(load_scheduler, everywhere))
        self.scheduler('[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"')
        self.scheduler('[http_server]\naddr = "127.0.0.2:50000"')

    def test_name_is_beyond_loopback(self) -> None:
        """A name may resolve to anything, but for localhost, which is 127.0.0.1 to both servers."""
        self.assertIn("beyond loopback", self.complaint(load_scheduler, '[grpc_server]\naddr = "box:50000"'))
        config = self.scheduler('[grpc_server]\naddr = "localhost:1"\n[http_server]\naddr = "LOCALHOST:2"')
        self.assertEqual(str(config.grpc_server.addr), "127.0.0.1:1")
        self.assertEqual(str(config.http_server.addr), "127.0.0.1:2")

    def test_tls_files(self) -> None:
        """TLS without a certificate or key that can be read names the key; without TLS nobody looks."""
        complaint = self.complaint(load_scheduler, "[grpc_server]\nuse_tls = true")
        self.assertEqual(
            complaint,
            '[grpc_server] crt_file = "server.pem": must be a readable file; '
            f"{self.folder}/server.pem: No such file or directory",
        )
        self.pem_files()
        (self.folder / "server.key").unlink()
        self.assertIn(
            '[grpc_server] key_file = "server.key"', self.complaint(load_scheduler, "[grpc_server]\nuse_tls = true")
        )
        (self.folder / "server.key").mkdir()
        self.assertIn("Is a directory", self.complaint(load_scheduler, "[grpc_server]\nuse_tls = true"))
        self.assertIn(
            '[grpc_server] ca_file = "no.pem"',
            self.complaint(load_scheduler, '[grpc_server]\nuse_tls = true\nkey_file = "ca.pem"\nca_file = "no.pem"'),
        )
        self.scheduler('[grpc_server]\ncrt_file = "nowhere.pem"')


class StateDirTests(ConfigCase):
    """Where state goes when the file does not say."""

    def test_systemd_decides(self) -> None:
        """A unit's StateDirectory= is taken; of several, the first."""
        self.assertEqual(self.scheduler("", STATE_DIRECTORY="/x/a:/x/b").state_dir, Path("/x/a"))
        self.assertEqual(self.worker("", STATE_DIRECTORY="/x/a").state_dir, Path("/x/a"))

    def test_file_decides_first(self) -> None:
        """What the file says wins, relative to the file."""
        self.assertEqual(self.worker('state_dir = "here"', STATE_DIRECTORY="/x").state_dir, self.folder / "here")

    def test_root(self) -> None:
        """A daemon of root has its folder where daemons do, each program its own."""
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(self.scheduler("", XDG_STATE_HOME="/x").state_dir, Path("/var/lib/scheduler"))
        self.assertEqual(self.worker("").state_dir, Path("/var/lib/scheduler-worker"))

    def test_user(self) -> None:
        """Of anybody else, under the home of state."""
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(self.scheduler("", XDG_STATE_HOME="/x").state_dir, Path("/x/scheduler"))
        home = Path.home() / ".local/state/scheduler-worker"
        self.assertEqual(self.worker("").state_dir, home)
        self.assertEqual(self.worker("", XDG_STATE_HOME="not/absolute").state_dir, home)


class WorkerFileTests(ConfigCase):
    """``worker.toml``."""

    def test_empty_file(self) -> None:
        """Everything has a default."""
        config = self.worker("")
        self.assertEqual(str(config.grpc_server.addr), "127.0.0.1:30000")
        self.assertEqual(str(config.scheduler), "127.0.0.1:50000")
        settings = config.worker
        self.assertEqual(settings.name, socket.gethostname())
        self.assertEqual(settings.labels, {"name": settings.name})
        self.assertEqual(settings.slots, len(os.sched_getaffinity(0)))
        self.assertEqual(settings.scripts_dir, self.folder / "scripts")
        self.assertFalse(settings.scripts_only)
        self.assertEqual(settings.allowed_commands, ("*",))
        self.assertEqual(settings.env, {})
        self.assertIsNone(settings.advertise_addr)
        self.assertEqual(settings.keep_spool, 7 * 86400)
        self.assertEqual((settings.spool_max, settings.spool_min_free), (Share(percent=10), Share(percent=5)))
        self.assertIsNone(settings.output_limit)

    def test_sample(self) -> None:
        """The file in etc/ is the defaults, spelled out."""
        sample = load_worker(str(ETC / "worker.toml"), {})
        default = self.worker("")
        self.assertEqual(sample.grpc_server, default.grpc_server)
        self.assertEqual(sample.scheduler, default.scheduler)
        self.assertEqual(sample.worker.scripts_dir, ETC / "scripts")
        names = ["name", "labels", "slots", "scripts_only", "allowed_commands", "advertise_addr"]
        for name in (*names, "keep_spool", "spool_max", "spool_min_free", "output_limit"):
            self.assertEqual(getattr(sample.worker, name), getattr(default.worker, name), name)

    def test_every_key(self) -> None:
        """Each key reaches its attribute."""
        settings = self.worker(
            """
            [scheduler]
            addr = "localhost:50000"
            [worker]
            name = "w1"
            labels = {gpu = "a100", "example.com/rack" = "r 7"}
            slots = 0
            scripts_dir = "/opt/scripts"
            scripts_only = true
            allowed_commands = ["bash", "/usr/bin/make"]
            env = {https_proxy = "http://proxy:3128", EMPTY = "", LD_LIBRARY_PATH = "/opt/lib"}
            advertise_addr = "box.example.com:30000"
            keep_spool = 3600
            spool_max = "50GB"
            spool_min_free = "0.5%"
            output_limit = "1.5MB"
            """
        ).worker
        self.assertEqual(settings.name, "w1")
        self.assertEqual(settings.labels, {"name": "w1", "gpu": "a100", "example.com/rack": "r 7"})
        self.assertEqual(settings.slots, 0)
        self.assertEqual(settings.scripts_dir, Path("/opt/scripts"))
        self.assertTrue(settings.scripts_only)
        self.assertEqual(settings.allowed_commands, ("bash", "/usr/bin/make"))
        self.assertEqual(settings.env, {"https_proxy": "http://proxy:3128", "EMPTY": "", "LD_LIBRARY_PATH": "/opt/lib"})
        self.assertEqual(str(settings.advertise_addr), "box.example.com:30000")
        self.assertEqual(settings.keep_spool, 3600)
        self.assertEqual((settings.spool_max, settings.spool_min_free), (Share(50 * 10**9), Share(percent=0.5)))
        self.assertEqual(settings.output_limit, 1_500_000)

    def test_what_no_scheduler_takes(self) -> None:
        """What a scheduler would refuse of a worker is refused when it starts, with where it came from."""
        made = id_of_folder("some folder")
        many = "".join(f'k{number} = "v"\n' for number in range(64))
        for content, complaint in {
            f"[worker.labels]\ngpu = '{'x' * 300}'": '[worker.labels] gpu = "xxx',
            f"[worker.labels]\ngpu = '{'x' * 254}'": ": must be printable text of at most 253 characters",
            '[worker.labels]\ngpu = "a\\u200bb"': ": must be printable text of at most 253 characters",
            f"[worker.labels]\n{many}": "[worker] labels: are 65 with `name`; at most 64 are allowed",
            f'[worker]\nname = "{made}"': f'[worker] name = "{made}": must not be a version 5 UUID',
        }.items():
            self.assertIn(complaint, self.complaint(load_worker, content))

    def test_unfit_host_name(self) -> None:
        """A host name that can't be the name of a worker is refused as that, and another name may be given."""
        for host in ("-box", "box 7", "büro", "", id_of_folder("some folder")):
            self.patch(socket, "gethostname", lambda host=host: host)
            complaint = self.complaint(load_worker, "[worker]\nslots = 1")
            for words in ("[worker] name: ", f"the host name of this machine, {host!r}", "must ", "set [worker] name"):
                self.assertIn(words, complaint)
            self.assertEqual(self.worker('[worker]\nname = "w1"').worker.name, "w1")

    def test_largest_registration(self) -> None:
        """What is allowed here, each as large as it may be, is taken by a scheduler."""
        labels = "".join(f'"{"k" * 250}{number:03}" = "{"v" * 253}"\n' for number in range(63))
        config = self.worker(f'[worker]\nname = "{"n" * 253}"\nslots = 100000\n[worker.labels]\n{labels}')
        facts.check_worker(config.worker)

    def test_unreachable_worker(self) -> None:
        """A worker on loopback whose scheduler is elsewhere could never be called, so it refuses."""
        elsewhere = '[scheduler]\naddr = "192.0.2.1:50000"\n[grpc_server]\nallow_insecure = true\n'
        self.assertIn(
            '[grpc_server] addr = "127.0.0.1:30000": the scheduler at 192.0.2.1:50000 can\'t call a loopback address',
            self.complaint(load_worker, elsewhere),
        )
        self.assertIn(
            '[worker] advertise_addr = "[::1]:30000"',
            self.complaint(load_worker, elsewhere + 'addr = "0.0.0.0:1"\n[worker]\nadvertise_addr = "[::1]:30000"'),
        )
        self.worker(elsewhere + 'addr = "0.0.0.0:30000"')
        self.worker(elsewhere + '[worker]\nadvertise_addr = "gate.example.com:30000"')

    def test_unprotected_scheduler(self) -> None:
        """Nor does it speak plain text to a scheduler elsewhere unless told to."""
        self.assertIn(
            '[scheduler] addr = "far:1": beyond loopback it needs use_tls',
            self.complaint(load_worker, '[scheduler]\naddr = "far:1"\n[worker]\nadvertise_addr = "gate:1"'),
        )


class MistakeTests(ConfigCase):
    """Every mistake is one line that names file, table, key, value and what is allowed."""

    def test_no_file(self) -> None:
        """A file that is not there is named."""
        self.file = str(self.folder / "no.toml")
        error = self.assertRaises(ConfigError, load_scheduler, self.file)
        self.assertEqual(str(error), f"{self.file}: can't be read: No such file or directory")

    def test_no_text(self) -> None:
        """A file of bytes is no configuration."""
        Path(self.file).write_bytes(b'log_format = "\xff"')
        error = self.assertRaises(ConfigError, load_scheduler, self.file)
        self.assertEqual(str(error), f"{self.file}: is not UTF-8 from byte 14 on")

    def test_no_toml(self) -> None:
        """Where the parser gives up it says where."""
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
        """What the parser takes for a strange key, or drops for want of an end, is a mistake."""
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
        """Only ``host:port`` is an address: no scheme of gRPC's, no list, no other spelling of a port."""
        for address in (
            *(
                "",
                ":",
                "127.0.0.1",
                "127.0.0.1:",
                ":3000",
                "127.0.0.1:65536",
                "127.0.0.1:-1",
                "127.0.0.1:+1",
                "127.0.0.1:00",
            ),
            *("127.0.0.1:1 ", " 127.0.0.1:1", "::1:3000", "[::1]", "[127.0.0.1]:1", "[::1:1", "127.0.0:1", "1:2:3"),
            *(
                "unix:/run/x",
                "unix:///run/x",
                "dns:///box:1",
                "ipv4:127.0.0.1:1,127.0.0.2:2",
                "http://box:1",
                "tcp:3000",
            ),
            *("127.0.0.1:http", "127.0.0.1:٣", "a b:1", "-a:1", "a..b:1", "box/:1", "box\\n:1", "localhost:0x10"),
        ):
            for table in ("grpc_server", "http_server"):
                self.assertIn(
                    f"[{table}] addr = ", self.complaint(load_scheduler, f'[{table}]\naddr = "{address}"'), address
                )

    def test_long_values_are_cut(self) -> None:
        """A complaint stays readable whatever the value."""
        self.assertLess(len(self.complaint(load_scheduler, f'log_format = "{"x" * 5000}"')), 500)

    def test_escapes_stay_out_of_the_terminal(self) -> None:
        """Control characters in names and values reach nobody's terminal."""
        complaint = self.complaint(load_scheduler, '"a\\u001b[31m" = "b\\u001b\\nc"')
        self.assertNotIn("\x1b", complaint)

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
        """Whatever the file holds, it is read or complained of; what is no TOML at all is never read."""
        content = "".join(pieces)
        try:
            self.scheduler(content)
        except ConfigError:
            return
        self.assertEqual(set(tomllib.loads(content)) - {"cluster"}, set())
