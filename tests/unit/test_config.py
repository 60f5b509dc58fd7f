"""The file of the scheduler, and the default state folder of both."""

import os
from ipaddress import ip_network
from pathlib import Path

from attrs.exceptions import FrozenInstanceError

from scheduler.daemon.config import StoreSettings, load_scheduler
from scheduler.daemon.servers import TlsFiles
from scheduler.net import Address
from tests.unit.config_case import CONTRACT, ETC, ConfigCase


class SchedulerFileTests(ConfigCase):
    def test_contract_alone(self) -> None:
        """The fixed part alone starts a scheduler; every other key has a safe default."""
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
        """A database file is in the state folder unless its path is absolute; other URLs are taken unchanged."""
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
        """Any other URL is refused, with the allowed ones, and without its password."""
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
        """The configuration can't be changed."""
        config = self.scheduler("")
        with self.assertRaises(FrozenInstanceError):
            config.log_format = "json"

    def test_default_hosts(self) -> None:
        """Unless the file lists hosts, there is no list: the network decides which name this machine has."""
        for addr in ("192.0.2.1:80", "0.0.0.0:80", "box.example:80"):
            config = self.scheduler(f'[http_server]\naddr = "{addr}"\nallow_insecure = true')
            self.assertIsNone(config.http_server.allowed_hosts)

    def test_http_beyond_loopback(self) -> None:
        """HTTP beyond loopback needs TLS or ``allow_insecure``. A trusted proxy does not protect it."""
        self.pem_files()
        beyond = '[http_server]\naddr = "0.0.0.0:3000"\n'
        for insufficient in ("", 'trusted_proxies = ["127.0.0.1"]', 'crt_file = "server.pem"'):
            self.assertIn(
                '[http_server] addr = "0.0.0.0:3000": beyond loopback it needs use_tls = true with crt_file and '
                "key_file, or allow_insecure = true",
                self.complaint(load_scheduler, beyond + insufficient),
            )
        self.scheduler(beyond + "allow_insecure = true")
        config = self.scheduler(beyond + "use_tls = true").http_server
        self.assertEqual(config.tls, TlsFiles(self.folder / "server.pem", self.folder / "server.key", None))

    def test_http_pair(self) -> None:
        """``use_tls`` needs readable files, and the refusal names the key."""
        for name, key in (("server.key", "key_file"), ("server.pem", "crt_file")):
            self.pem_files()
            (self.folder / name).unlink()
            complaint = self.complaint(load_scheduler, "[http_server]\nuse_tls = true")
            self.assertIn(f'[http_server] {key} = "{name}": must be a readable file', complaint)
        self.assertIsNone(self.scheduler("[http_server]").http_server.tls)

    def test_trusted_proxies(self) -> None:
        """Proxies are IP addresses or networks."""
        config = self.scheduler('[http_server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8", "::1"]')
        self.assertEqual(
            [str(each) for each in config.http_server.trusted_proxies], ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
        )
        for unfit in ('["nginx"]', '["10.0.0.1/8"]', '"127.0.0.1"', '["unix"]'):
            complaint = self.complaint(load_scheduler, f"[http_server]\ntrusted_proxies = {unfit}")
            self.assertIn("[http_server] trusted_proxies = ", complaint)

    def test_grpc_beyond_loopback(self) -> None:
        """gRPC beyond loopback needs certificates in both directions, or ``allow_insecure``."""
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
        """A name may resolve to any address, except localhost, which means 127.0.0.1 to both servers."""
        self.assertIn("beyond loopback", self.complaint(load_scheduler, '[grpc_server]\naddr = "box:50000"'))
        config = self.scheduler('[grpc_server]\naddr = "localhost:1"\n[http_server]\naddr = "LOCALHOST:2"')
        self.assertEqual(str(config.grpc_server.addr), "127.0.0.1:1")
        self.assertEqual(str(config.http_server.addr), "127.0.0.1:2")

    def test_tls_files(self) -> None:
        """TLS with an unreadable certificate or key is refused by key; without TLS the files are not read."""
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

    def test_callers(self) -> None:
        """The keys that say who may call need the authority by which callers are known, and usable values."""
        self.pem_files()
        tls = '[grpc_server]\nuse_tls = true\nca_file = "ca.pem"\n'
        for text, said in {
            '[grpc_server]\npeer_names = ["a"]': '[grpc_server] peer_names = ["a"]: needs use_tls = true and ca_file',
            '[grpc_server]\nuse_tls = true\nrevoked = "ca.pem"': '[grpc_server] revoked = "ca.pem": needs use_tls',
            tls + "peer_names = []": "[grpc_server] peer_names = []: must name at least one",
            tls + 'peer_names = "a"': '[grpc_server] peer_names = "a": must be a list',
            tls + 'peer_names = ["*.a"]': "must be host names",
            tls + 'revoked = "none.txt"': f"{self.folder}/none.txt: No such file or directory",
        }.items():
            self.assertIn(said, self.complaint(load_scheduler, text))
        server = self.scheduler(tls + 'peer_names = ["Box.Example.com."]\nrevoked = "ca.pem"').grpc_server
        self.assertEqual((server.peer_names, server.revoked), (("box.example.com",), self.folder / "ca.pem"))


class StateDirTests(ConfigCase):
    def test_systemd_decides(self) -> None:
        """The first folder of a unit's StateDirectory= is the default."""
        self.assertEqual(self.scheduler("", STATE_DIRECTORY="/x/a:/x/b").state_dir, Path("/x/a"))
        self.assertEqual(self.worker("", STATE_DIRECTORY="/x/a").state_dir, Path("/x/a"))

    def test_file_decides_first(self) -> None:
        """The file's ``state_dir`` goes first, relative to the file."""
        self.assertEqual(self.worker('state_dir = "here"', STATE_DIRECTORY="/x").state_dir, self.folder / "here")

    def test_root(self) -> None:
        """For root each program has its own folder in the place for daemons."""
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(self.scheduler("", XDG_STATE_HOME="/x").state_dir, Path("/var/lib/scheduler"))
        self.assertEqual(self.worker("").state_dir, Path("/var/lib/scheduler-worker"))

    def test_user(self) -> None:
        """For any other user the folder is in the user's home of state."""
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(self.scheduler("", XDG_STATE_HOME="/x").state_dir, Path("/x/scheduler"))
        home = Path.home() / ".local/state/scheduler-worker"
        self.assertEqual(self.worker("").state_dir, home)
        self.assertEqual(self.worker("", XDG_STATE_HOME="not/absolute").state_dir, home)
