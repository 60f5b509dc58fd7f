"""Startup: refusals and their texts."""

import os
import socket
import struct
from pathlib import Path

from scheduler.daemon import ports
from scheduler.daemon.config import WorkerSettings, load_scheduler
from scheduler.daemon.startup import SchedulerOptions, WorkerOptions
from scheduler.errors import Invalid
from scheduler.net import Address
from tests.unit.start_case import StartCase


class RefusalTests(StartCase):
    """A refusal is one line and exit code 1, before anything forks or listens."""

    def test_no_config_named(self) -> None:
        """Without -c the missing option is named."""
        said, _, path = self.assertRaises(SystemExit, SchedulerOptions().parseOptions, []).code.rpartition(" ")
        self.assertEqual(said, "twistd scheduler: -c FILE is needed, the configuration; see")
        self.assertTrue(Path(path).is_absolute())
        load_scheduler(path)

    def test_no_such_file(self) -> None:
        """A missing configuration file is named."""
        refused = self.assertRaises(SystemExit, WorkerOptions().parseOptions, ["-c", "no/such.toml"])
        self.assertEqual(refused.code, "no/such.toml: can't be read: No such file or directory")

    def test_mistake_in_config(self) -> None:
        """A mistake in the file is the whole refusal."""
        self.write("adr = 1")
        self.assertEqual(
            self.refusal(),
            "adr = 1: unknown key; "
            "known: state_dir, log_format, log_level, shutdown_timeout, grpc_server, http_server, cluster, store, "
            "limits",
        )

    def test_taken_ports(self) -> None:
        """A port in use is refused for either server, and the state folder is released."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        problem = f' addr = "{address}": the port is taken; allowed is a free one, or 0 for any'
        for table in ("http_server", "grpc_server"):
            self.write(f'[{table}]\naddr = "{address}"')
            self.assertEqual(self.refusal(), f"[{table}]{problem}")
        self.assertEqual(self.refusal(WorkerOptions()), f"[grpc_server]{problem}")

    def test_shared_port(self) -> None:
        """A port counts as used even if its owner would share it."""
        taken = socket.create_server(("127.0.0.1", 0), reuse_port=True)
        self.addCleanup(taken.close)
        self.write(f'[grpc_server]\naddr = "127.0.0.1:{taken.getsockname()[1]}"')
        self.assertIn("the port is taken", self.refusal())

    def test_port_just_given_back(self) -> None:
        """A connection that lingers after its server ended does not block the port."""
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        for each in (accepted, server, client):  # the server's end closes first, so it is the one that lingers
            each.close()
        self.write(f'[grpc_server]\naddr = "127.0.0.1:{port}"\n[http_server]\naddr = "127.0.0.1:0"')
        self.parse(SchedulerOptions())

    def test_port_of_ended_connections(self) -> None:
        """The startup waits for a port that only has ended connections of a program without SO_REUSEADDR."""
        server = socket.socket()  # without SO_REUSEADDR
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = Address(*server.getsockname())
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        self.assertIn("taken", ports.why_not_listen(address, self.fail, self.fail))
        for each in (accepted, server):
            each.close()
        said: list[str] = []
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:  # a reset, as the end of the kernel's minute
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()

        self.assertEqual(ports.why_not_listen(address, said.append, sleep), "")
        self.assertEqual((len(said), len(slept)), (1, 3))

    def test_port_of_ended_connections_for_long(self) -> None:
        """The wait is limited."""
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = Address(*server.getsockname())
        self.addCleanup(socket.create_connection(server.getsockname()).close)
        for each in (server.accept()[0], server):
            each.close()
        slept: list[float] = []
        self.patch(ports, "WAIT_MAX_SECONDS", 5.0)
        self.assertIn("taken", ports.why_not_listen(address, str, slept.append))
        self.assertEqual(sum(slept), 5.0)

    def test_address_of_another_machine(self) -> None:
        """An address of another machine is refused, and so is an unknown name."""
        self.write('[http_server]\nallow_insecure = true\naddr = "192.0.2.1:0"')
        self.assertEqual(self.refusal(), '[http_server] addr = "192.0.2.1:0": must be an address of this machine')
        self.write('[http_server]\nallow_insecure = true\naddr = "no.such.name.invalid:0"')
        self.assertIn("the name does not resolve", self.refusal())

    def test_state_in_use(self) -> None:
        """The second of two processes with one state folder is refused, and can start once the first has ended."""
        first = SchedulerOptions()
        self.parse(first)
        self.assertEqual(
            self.refusal(),
            f'state_dir = "{self.folder}/state": is in use by a running process; '
            "each scheduler needs a folder of its own",
        )
        first.state.release()
        self.parse(SchedulerOptions())

    def test_unusable_state_dir(self) -> None:
        """A state folder that can't be made is refused."""
        (self.folder / "state").write_text("a file")
        self.assertEqual(
            self.refusal(),
            f'state_dir = "{self.folder}/state": must be a folder this process can write, or can make: File exists',
        )

    def test_unusable_database(self) -> None:
        """A refused database is reported like any other mistake, without its password."""

        class Options(SchedulerOptions):
            @staticmethod
            def open_database(url: str) -> None:
                raise Invalid("url", "is in use")

        self.write(
            '[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"\n'
            '[store]\nurl = "postgresql+psycopg://me:secret@db/jobs"\n'
        )
        for _ in range(2):  # the state folder was released
            self.assertEqual(self.refusal(Options()), '[store] url = "postgresql+psycopg://me:***@db/jobs": is in use')

    def test_interrupted(self) -> None:
        """Ctrl-C while it waits for the database ends it without a traceback."""

        class Options(SchedulerOptions):
            @staticmethod
            def open_database(url: str) -> None:
                raise KeyboardInterrupt

        for _ in range(2):  # the state folder was released
            self.assertEqual(self.assertRaises(SystemExit, Options().parseOptions, ["-c", self.file]).code, 130)

    def test_the_database(self) -> None:
        """The database is opened as the process's later user, before the service is made."""
        if os.geteuid() != 0:
            self.skipTest("only root can become another user")

        class Options(SchedulerOptions):
            @staticmethod
            def open_database(url: str) -> object:
                return url, os.geteuid(), os.getegid()

        options = Options()
        self.parse(options, "--uid", "65534", "--gid", "65534")
        self.assertEqual(options.database, (f"sqlite:///{self.folder}/state/scheduler.db", 65534, 65534))

    def test_the_folder(self) -> None:
        """A worker's folder gets its identity as the process's later user; a refusal names the file."""
        if os.geteuid() != 0:
            self.skipTest("only root can become another user")
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')

        class Options(WorkerOptions):
            @staticmethod
            def open_folder(path: Path, new_id: bool) -> object:
                if new_id:
                    raise Invalid(f"{path}/jobs", "is no copy")
                return path, new_id, os.geteuid(), os.getegid()

        options = Options()
        self.parse(options, "--uid", "65534", "--gid", "65533")
        self.assertEqual(options.folder, (self.folder / "state", False, 65534, 65533))
        options.state.release()
        os.chown(self.folder / "state", 0, 0)
        for _ in range(2):  # the state folder was released
            refused = self.assertRaises(SystemExit, Options().parseOptions, ["-c", self.file, "--new-id"])
            self.assertEqual(refused.code, f"{self.folder}/state/jobs: is no copy")

    def test_worker_that_no_scheduler_takes(self) -> None:
        """A worker that no scheduler would register does not start, whatever the reason."""
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')

        class Options(WorkerOptions):
            @staticmethod
            def check_worker(settings: WorkerSettings) -> None:
                raise Invalid("bootID", f"of {settings.name} is too long")

        for _ in range(2):  # the state folder was released
            self.assertRegex(
                self.refusal(Options()), r"^no scheduler would take this worker: bootID: of \S+ is too long$"
            )

    def test_folder_in_use(self) -> None:
        """A folder that a process uses gets no other identity."""
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')

        class Options(WorkerOptions):
            @staticmethod
            def open_folder(path: Path, new_id: bool) -> object:
                opened.append(new_id)
                return None

        opened: list[bool] = []
        self.parse(Options())
        refused = self.assertRaises(SystemExit, Options().parseOptions, ["-c", self.file, "--new-id"])
        self.assertIn("is in use by a running process; each worker needs a folder of its own", refused.code)
        self.assertEqual(opened, [False])

    def test_unusable_certificate(self) -> None:
        """A fault of a certificate is reported like any other mistake."""
        for name in ("a.pem", "a.key"):
            (self.folder / name).write_text("x")
        self.write('[grpc_server]\nuse_tls = true\ncrt_file = "a.pem"\nkey_file = "a.key"\naddr = "127.0.0.1:0"')
        path = f"{self.folder}/a.pem"
        self.assertEqual(
            self.refusal(), f'[grpc_server] crt_file = "{path}": {path} must hold a certificate in PEM form'
        )
        http = '[http_server]\nuse_tls = true\ncrt_file = "a.pem"\nkey_file = "a.key"\naddr = "127.0.0.1:0"'
        self.write(f'{http}\n[grpc_server]\naddr = "127.0.0.1:0"')
        self.assertEqual(
            self.refusal(), f'[http_server] crt_file = "{path}": {path} must hold a certificate in PEM form'
        )
        self.write('[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"')
        self.parse(SchedulerOptions())  # without TLS the files are not checked
