"""The file of a worker."""

import os
import socket
from pathlib import Path

from scheduler.cluster.workers.ids import id_of_folder
from scheduler.daemon.config import load_worker
from scheduler.units import Share
from scheduler.worker import own_ids
from tests.unit.config_case import ETC, ConfigCase


class WorkerFileTests(ConfigCase):
    def test_empty_file(self) -> None:
        """Every key has a default."""
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
        self.assertIsNone(settings.allowed_env)
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
            allowed_env = ["LANG", "APP_*"]
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
        self.assertEqual(settings.allowed_env, ("LANG", "APP_*"))
        self.assertEqual(settings.env, {"https_proxy": "http://proxy:3128", "EMPTY": "", "LD_LIBRARY_PATH": "/opt/lib"})
        self.assertEqual(str(settings.advertise_addr), "box.example.com:30000")
        self.assertEqual(settings.keep_spool, 3600)
        self.assertEqual((settings.spool_max, settings.spool_min_free), (Share(50 * 10**9), Share(percent=0.5)))
        self.assertEqual(settings.output_limit, 1_500_000)

    def test_what_no_scheduler_takes(self) -> None:
        """Facts that a scheduler would refuse are refused at the start of the worker, with their origin."""
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
        """A host name that can't be the name of a worker is refused with the key to set."""
        for host in ("-box", "box 7", "büro", "", id_of_folder("some folder")):
            self.patch(socket, "gethostname", lambda host=host: host)
            complaint = self.complaint(load_worker, "[worker]\nslots = 1")
            for words in ("[worker] name: ", f"the host name of this machine, {host!r}", "must ", "set [worker] name"):
                self.assertIn(words, complaint)
            self.assertEqual(self.worker('[worker]\nname = "w1"').worker.name, "w1")

    def test_largest_registration(self) -> None:
        """A scheduler takes every value that is allowed here, at its largest."""
        labels = "".join(f'"{"k" * 250}{number:03}" = "{"v" * 253}"\n' for number in range(63))
        config = self.worker(f'[worker]\nname = "{"n" * 253}"\nslots = 100000\n[worker.labels]\n{labels}')
        own_ids.check_worker(config.worker)

    def test_unreachable_worker(self) -> None:
        """A worker on loopback with a scheduler elsewhere is refused, because it could never be called."""
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
        """A worker speaks plain text to a scheduler elsewhere only with ``allow_insecure``."""
        self.assertIn(
            '[scheduler] addr = "far:1": beyond loopback it needs use_tls',
            self.complaint(load_worker, '[scheduler]\naddr = "far:1"\n[worker]\nadvertise_addr = "gate:1"'),
        )
