"""Startup: refusals and their texts, and the result if nothing is refused."""

import contextlib
import io
import json
import os
import socket
import struct
import time
from pathlib import Path

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from scheduler import __version__
from scheduler.daemon import ports
from scheduler.daemon.config import TlsFiles, WorkerSettings, load_scheduler
from scheduler.daemon.startup import (
    ANNOUNCE_AGAIN_SECONDS,
    Announcement,
    SchedulerOptions,
    StateDir,
    WorkerOptions,
    use_monotonic_time,
)
from scheduler.errors import Invalid
from scheduler.net import Address


class StartCase(SynchronousTestCase):
    """Parses command lines like twistd."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = str(self.folder / "some.toml")
        self.write('[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"\n')
        umask = os.umask(0o022)
        self.addCleanup(os.umask, umask)

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


class RefusalTests(StartCase):
    """A refusal is one line and exit code 1, before anything forks or listens."""

    def test_no_config_named(self) -> None:
        """Without -c the missing option is named."""
        refused = self.assertRaises(SystemExit, SchedulerOptions().parseOptions, [])
        said, _, path = refused.code.rpartition(" ")
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
            "known: state_dir, log_format, log_level, shutdown_timeout, grpc_server, http_server, cluster, store",
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
        client = socket.create_connection(server.getsockname())
        self.addCleanup(client.close)
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
            def open_database(url: str, uid: int | None, gid: int | None) -> None:
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
            def open_database(url: str, uid: int | None, gid: int | None) -> None:
                raise KeyboardInterrupt

        for _ in range(2):  # the state folder was released
            ended = self.assertRaises(SystemExit, Options().parseOptions, ["-c", self.file])
            self.assertEqual(ended.code, 130)

    def test_the_database(self) -> None:
        """The database is opened for the process's later user, before the service is made."""

        class Options(SchedulerOptions):
            @staticmethod
            def open_database(url: str, uid: int | None, gid: int | None) -> object:
                return url, uid, gid

        options = Options()
        self.parse(options, "--uid", "65534", "--gid", "65534")
        self.assertEqual(options.database, (f"sqlite:///{self.folder}/state/scheduler.db", 65534, 65534))

    def test_the_folder(self) -> None:
        """A worker's folder gets its identity for the process's later user; a refusal names the file."""
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')

        class Options(WorkerOptions):
            @staticmethod
            def open_folder(path: Path, new_id: bool, uid: int | None, gid: int | None) -> object:
                if new_id:
                    raise Invalid(f"{path}/jobs", "is no copy")
                return path, new_id, uid, gid

        options = Options()
        self.parse(options, "--uid", "65534", "--gid", "65533")
        self.assertEqual(options.folder, (self.folder / "state", False, 65534, 65533))
        options.state.release()
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
            def open_folder(path: Path, new_id: bool, uid: int | None, gid: int | None) -> object:
                opened.append(new_id)
                return None

        opened: list[bool] = []
        self.parse(Options())
        refused = self.assertRaises(SystemExit, Options().parseOptions, ["-c", self.file, "--new-id"])
        self.assertIn("is in use by a running process; each worker needs a folder of its own", refused.code)
        self.assertEqual(opened, [False])

    def test_unusable_certificate(self) -> None:
        """A fault of a certificate is reported like any other mistake."""

        class Options(SchedulerOptions):
            @staticmethod
            def check_tls(tls: TlsFiles) -> None:
                raise Invalid("key_file", f"is not the key of {tls.crt_file.name}")

        for name in ("a.pem", "a.key"):
            (self.folder / name).write_text("x")
        self.write('[grpc_server]\nuse_tls = true\ncrt_file = "a.pem"\nkey_file = "a.key"\naddr = "127.0.0.1:0"')
        self.assertEqual(
            self.refusal(Options()), f'[grpc_server] key_file = "{self.folder}/a.key": is not the key of a.pem'
        )
        self.write('[grpc_server]\naddr = "127.0.0.1:0"\n[http_server]\naddr = "127.0.0.1:0"')
        self.parse(Options())  # without TLS the files are not checked


class ReadyTests(StartCase):
    """The result if nothing is refused."""

    def test_configuration(self) -> None:
        """The tap finds the configuration of either program."""
        scheduler, worker = SchedulerOptions(), WorkerOptions()
        self.parse(scheduler)
        self.assertEqual(scheduler.config.http_server.addr.port, 0)
        scheduler.state.release()
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')
        self.parse(worker)
        self.assertEqual(str(worker.config.scheduler), "127.0.0.1:50000")

    def test_private(self) -> None:
        """The state folder, and all files written later, are only for the process's user."""
        options = SchedulerOptions()
        self.parse(options)
        self.assertEqual((self.folder / "state").stat().st_mode & 0o777, 0o700)
        self.assertEqual(os.umask(0o077), 0o077)

    def test_umask_of_jobs(self) -> None:
        """Jobs get the umask that twistd was started with, or was told to use."""
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')
        for twistd, expected in (((), 0o027), (("-n",), 0o027), (("--umask", "007"), 0o007)):
            os.umask(0o027)
            options = WorkerOptions()
            self.parse(options, *twistd)
            self.assertEqual((options.umask, os.umask(0o077)), (expected, 0o077))
            options.state.release()

    def test_foreign_folder_keeps_its_mode(self) -> None:
        """An existing folder keeps its mode."""
        (self.folder / "state").mkdir()
        (self.folder / "state").chmod(0o750)
        self.parse(SchedulerOptions())
        self.assertEqual((self.folder / "state").stat().st_mode & 0o777, 0o750)

    def test_owner(self) -> None:
        """A new folder belongs to the user that the process will become."""
        if os.geteuid() != 0:
            self.skipTest("only root can give a folder away")
        self.parse(SchedulerOptions(), "--uid", "65534", "--gid", "65534")
        self.assertEqual((self.folder / "state").stat().st_uid, 65534)

    def test_foreground(self) -> None:
        """In the foreground there is no pidfile, and twistd logs to stdout."""
        twistd = self.parse(SchedulerOptions(), "-n")
        self.assertEqual((twistd["pidfile"], twistd["logfile"]), ("", None))

    def test_daemon(self) -> None:
        """A daemon's pidfile and log are in its state folder, under the name of the program."""
        for options, name in ((SchedulerOptions(), "scheduler"), (WorkerOptions(), "worker")):
            self.write(
                '[grpc_server]\naddr = "127.0.0.1:0"\n' + '[http_server]\naddr = "127.0.0.1:0"\n' * (name != "worker")
            )
            twistd = self.parse(options)
            self.assertEqual(twistd["pidfile"], str(self.folder / f"state/{name}.pid"))
            self.assertEqual(twistd["logfile"], str(self.folder / f"state/{name}.log"))
            options.state.release()

    def test_twistd_options_win(self) -> None:
        """twistd's options for pidfile and log are respected."""
        for arguments in (["--pidfile", "x.pid", "-l", "x.log"], ["-n", "--pidfile", "x.pid", "-l", "x.log"]):
            options = SchedulerOptions()
            twistd = self.parse(options, *arguments)
            self.assertEqual((twistd["pidfile"], twistd["logfile"]), (os.path.abspath("x.pid"), "x.log"))
            options.state.release()

    def test_stale_pidfile(self) -> None:
        """A stale pidfile does not stop a daemon from starting, even if its pid is that of a live process."""
        (self.folder / "state").mkdir()
        pidfile = self.folder / "state/scheduler.pid"
        pidfile.write_text(str(os.getpid()))
        self.parse(SchedulerOptions())
        self.assertFalse(pidfile.exists())

    def test_lock_survives_daemonizing(self) -> None:
        """The lock is held after the process that took it has forked and ended."""
        state = StateDir(self.folder / "state")
        go, wait = os.pipe()
        child = os.fork()
        if child == 0:  # like twistd: lock, fork, and the first process ends
            state.take()
            if os.fork() == 0:
                os.close(wait)
                os.read(go, 1)  # until the test closes the pipe
            os._exit(0)
        os.close(go)
        os.waitpid(child, 0)
        self.assertRaises(BlockingIOError, state.take)
        os.close(wait)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                state.take()
            except BlockingIOError:
                os.sched_yield()
            else:
                return state.release()
        self.fail("the lock outlived its process")
        return None

    def test_lock_is_not_handed_on(self) -> None:
        """A child process does not hold the lock."""
        state = StateDir(self.folder / "state")
        state.take()
        self.addCleanup(state.release)
        files = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
        (lock,) = [path for path in files if path.resolve().parent == (self.folder / "state").resolve()]
        self.assertFalse(os.get_inheritable(int(lock.name)))

    def test_endpoints(self) -> None:
        """The addresses are in a file while the servers listen. A file left by a killed process is removed at the
        start.
        """
        state = StateDir(self.folder / "state")
        state.take()
        state.write_endpoints(http="127.0.0.1:3000", grpc="127.0.0.1:50000")
        file = self.folder / "state/endpoints.json"
        self.assertEqual(json.loads(file.read_text()), {"http": "127.0.0.1:3000", "grpc": "127.0.0.1:50000"})
        self.assertEqual({each.name for each in file.parent.iterdir()}, {"lock", "endpoints.json"})
        state.release()
        state.take()
        self.assertFalse(file.exists())
        state.write_endpoints(grpc="127.0.0.1:1")
        state.remove_endpoints()
        self.assertFalse(file.exists())
        state.remove_endpoints()
        state.release()

    def test_no_room_for_endpoints(self) -> None:
        """If the file can't be written, the process starts all the same, logs this, and writes the file later."""
        state, clock = StateDir(self.folder / "state"), Clock()
        state.take()
        self.addCleanup(state.release)
        draft, file = self.folder / "state/endpoints.tmp", self.folder / "state/endpoints.json"
        draft.mkdir()
        server = type("Server", (), {"bound": Address("127.0.0.1", 3000)})()
        announcement = Announcement(clock, state, http=server)
        with capturedLogs() as logged:
            announcement.startService()
        self.assertIn("can't be written", str(formatEvent(logged[0])))
        self.assertFalse(file.exists())
        draft.rmdir()
        clock.advance(ANNOUNCE_AGAIN_SECONDS)
        self.assertEqual(json.loads(file.read_text()), {"http": "127.0.0.1:3000"})
        announcement.stopService()
        self.assertEqual((file.exists(), clock.getDelayedCalls()), (False, []))
        draft.mkdir()
        announcement.startService()
        announcement.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])


class HelpTests(SynchronousTestCase):
    """``--help``."""

    def test_help(self) -> None:
        """The help of each program has its purpose, its sample and its usage."""
        for options, sample in ((SchedulerOptions(), "etc/scheduler.toml"), (WorkerOptions(), "etc/worker.toml")):
            text = str(options)
            for part in (f"twistd [twistd options] {options.program} -c FILE", "--config=", sample, "SIGTERM"):
                self.assertIn(part, text)

    def test_help_needs_no_config(self) -> None:
        """The help and the version start nothing."""
        self.assertIn("--new-id", str(WorkerOptions()))
        for question, answer in (("--help", "Usage: twistd"), ("--version", f"scheduler-gateway {__version__}\n")):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                self.assertEqual(self.assertRaises(SystemExit, SchedulerOptions().parseOptions, [question]).code, 0)
            self.assertTrue(printed.getvalue().startswith(answer))


class TimeTests(SynchronousTestCase):
    """Timers."""

    def test_monotonic(self) -> None:
        """A reactor's timers follow a clock that can't be set."""

        class Reactor(ReactorBase):
            def installWaker(self) -> None:
                pass

        reactor = Reactor()
        use_monotonic_time(reactor)
        call = reactor.callLater(100, lambda: None)
        self.assertApproximates(call.getTime(), time.monotonic() + 100, 10)
        call.cancel()
