"""``schedctl doctor --config``: files of this machine, their ports, certificates and disks."""

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from trustme import CA
from twisted.trial.unittest import SynchronousTestCase

from scheduler.cli.checks import installations
from scheduler.cli.checks.findings import Finding
from scheduler.cli.checks.ports import Listener, connect, dial, find_listeners, listener_at
from scheduler.daemon.config import WorkerConfig
from scheduler.daemon.servers import TlsFiles
from scheduler.net import Address


class Case(SynchronousTestCase):
    """A test with a folder and listening sockets."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def listen(self) -> int:
        """A port that accepts connections, until the test ends."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port: int = listening.getsockname()[1]
        return port

    def answer(self, said: bytes) -> int:
        """The port of a server that sends ``said`` to the first client that sends something."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(10)

        def run() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(10)
                    connection.recv(1000)
                    connection.sendall(said)

        thread = threading.Thread(target=run)
        thread.start()
        # Cleanups run in reverse order, so the socket closes first even if no client connected.
        self.addCleanup(listening.close)
        self.addCleanup(thread.join)
        self.addCleanup(listening.shutdown, socket.SHUT_RDWR)
        port: int = listening.getsockname()[1]
        return port

    def closed_port(self) -> int:
        """A port on which nothing listens, reserved for this test."""
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def inspect(self, file: str) -> list[Finding]:
        return list(installations.inspect(file))

    def wrong(self, file: str) -> str:
        return "\n".join(f"{each.sentence}. {each.advice}" for each in self.inspect(file) if each.severity.wrong)

    def said(self, file: str) -> str:
        return "\n".join(each.sentence for each in self.inspect(file))


class FileTests(Case):
    """The configuration itself."""

    def test_mistake(self) -> None:
        """A file that its program would refuse is refused in the same words."""
        self.assertIn("Can't be read: No such file", self.wrong(str(self.folder / "none.toml")))
        self.assertIn("Is not TOML", self.wrong(self.write("a.toml", "a = ")))
        self.assertIn("[store] url", self.wrong(self.write("a.toml", "[store]\nurl = 3\n")))
        self.assertIn("[worker] slots", self.wrong(self.write("a.toml", "[worker]\nslots = -1\n")))

    def test_program(self) -> None:
        """The program of a file is recognised by its tables, or else by its name."""
        state = 'state_dir = "s"\n'
        for name, text, program in (
            ("a.toml", "[http_server]\n", "scheduler"),
            ("worker.toml", "[cluster]\n", "scheduler"),
            ("a.toml", "[worker]\n", "worker"),
            ("scheduler.toml", "[scheduler]\n", "worker"),
            ("box-worker.toml", "", "worker"),
            ("a.toml", "", "scheduler"),
        ):
            self.assertIn(f"configuration of a {program}", self.said(self.write(name, state + text)))

    def test_owners_and_modes(self) -> None:
        """The faults of files for which the program would refuse its start, or a worker every script, are named."""
        state, scripts = self.folder / "s", self.folder / "scripts"
        state.mkdir(mode=0o755)
        scripts.mkdir(mode=0o755)
        file = self.write("worker.toml", 'state_dir = "s"\n[grpc_server]\naddr = "127.0.0.1:0"\n[worker]\nname = "w"\n')
        self.assertIn(f"state_dir {state} is open to others (mode 0755): chmod 700 {state}", self.wrong(file))
        state.chmod(0o700)
        self.assertNotIn("open to others", self.wrong(file))
        token = state / "admin.token"
        token.write_text("x")
        token.chmod(0o644)
        self.assertIn(f"The token file {token} has the mode 0644", self.wrong(file))
        token.chmod(0o600)
        self.assertNotIn("token", self.wrong(file))
        scripts.chmod(0o777)
        self.assertIn(f"scripts_dir {scripts} is not safe, so its scripts are refused", self.wrong(file))
        scripts.chmod(0o755)
        self.assertNotIn("scripts_dir", self.wrong(file))

    def test_unprotected(self) -> None:
        """Servers that ask nobody for anything, and users whom this machine does not know, are warnings."""
        file = self.write("a.toml", 'state_dir = "s"\n[grpc_server]\nlocal_users = ["nosuchuser"]\n[http_server]\n')
        self.assertIn("local_users names nosuchuser, and this machine has no such user", self.wrong(file))
        self.assertNotIn("allow_insecure", self.wrong(file))
        open_to_all = "allow_insecure = true\n"
        file = self.write("a.toml", f'state_dir = "s"\n[grpc_server]\n{open_to_all}[http_server]\n{open_to_all}')
        self.assertIn("[http_server] allow_insecure = true: everyone", self.wrong(file))
        self.assertIn("[grpc_server] allow_insecure = true: everyone", self.wrong(file))
        self.assertNotIn("no such user", self.wrong(file))

    def test_system_state(self) -> None:
        """A file without a state folder belongs to a system service, if there is one."""
        system = self.folder / "var"
        self.patch(installations, "SYSTEM_STATE", {"scheduler": system, "worker": system})
        file = self.write("a.toml", "[cluster]\n")
        self.assertNotEqual(installations.load(file).state_dir, system)
        system.mkdir()
        self.assertEqual(installations.load(file).state_dir, system)
        self.assertEqual(installations.load(self.write("a.toml", 'state_dir = "s"')).state_dir, self.folder / "s")

    def test_registration(self) -> None:
        """The scheduler must know a running worker, by the address at which it is to be called."""
        port = self.closed_port()
        scheduler = f'[scheduler]\naddr = "127.0.0.1:{port}"\n'
        file = self.write("worker.toml", f'state_dir = "s"\n{scheduler}[worker]\nname = "box"\n')
        config = installations.load(file)
        assert isinstance(config, WorkerConfig)
        here, there = {"name": "box", "address": "127.0.0.1:1"}, {"name": "box", "address": "127.0.0.1:2"}
        check = installations.check_registration
        self.assertIn("knows it as box", check(file, config, "127.0.0.1:1", [{**there, "name": "a"}, here]).sentence)
        self.assertIn("knows box at 127.0.0.1:2: another", check(file, config, "127.0.0.1:1", [there]).sentence)
        unknown = check(file, config, "127.0.0.1:1", [])
        self.assertIn("the scheduler knows no worker box", unknown.sentence)
        self.assertIn(f"127.0.0.1:{port}", unknown.advice)

        def said(*listed: list[dict[str, str]]) -> str:
            return "\n".join(each.sentence for each in installations.inspect(file, listed))

        self.assertNotIn("knows", said([here]), "it does not run")
        (self.folder / "s").mkdir()
        (self.folder / "s" / "endpoints.json").write_text('{"grpc": "127.0.0.1:1"}')
        self.assertIn("knows it as box", said([here]))
        self.assertIn("knows no worker box", said([]))
        self.assertNotIn("knows", said(), "the scheduler was not asked")

    def test_scripts(self) -> None:
        """A worker that only runs scripts needs the folder with them."""
        file = self.write("worker.toml", 'state_dir = "s"\n[worker]\nscripts_only = true\n')
        self.assertIn("scripts_dir", self.wrong(file))
        (self.folder / "scripts").mkdir()
        self.assertNotIn("scripts_dir", self.wrong(file))

    def test_disk(self) -> None:
        """The disk of the state folder is checked, even before the folder exists."""
        self.assertIn("free on its disk", self.said(self.write("a.toml", 'state_dir = "s/t/u"')))
        file = self.write("worker.toml", 'state_dir = "s"\n[worker]\nspool_min_free = "100%"\n')
        self.assertIn("it takes no jobs", self.wrong(file))


class PortTests(Case):
    """The addresses of its servers."""

    def scheduler(self, grpc: int, http: int) -> str:
        return self.write(
            "scheduler.toml",
            f'state_dir = "state"\n[grpc_server]\naddr = "127.0.0.1:{grpc}"\n'
            f'[http_server]\naddr = "127.0.0.1:{http}"\n',
        )

    def runs(self, **endpoints: str) -> None:
        state = self.folder / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        (state / "endpoints.json").write_text(json.dumps(endpoints))

    def test_free(self) -> None:
        """A program that does not run is a warning; its ports are free, or their owner is named."""
        file = self.scheduler(0, self.closed_port())
        self.assertIn("twistd scheduler -c", self.wrong(file))
        self.assertNotIn("taken", self.wrong(file))
        taken = self.wrong(self.scheduler(0, self.listen()))
        self.assertIn(f"is taken by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})", taken)

    def test_running(self) -> None:
        """The ports of a running program answer, wherever they are; otherwise its process was killed."""
        grpc, http = self.listen(), self.listen()
        file = self.scheduler(0, 0)
        self.runs(grpc=f"127.0.0.1:{grpc}", http=f"127.0.0.1:{http}")
        self.assertEqual(self.wrong(file), "")
        self.assertIn(f"[http_server] listens at 127.0.0.1:{http}", self.said(file))
        self.assertIn(f"(pid {os.getpid()})", self.said(file))
        self.runs(grpc=f"127.0.0.1:{self.closed_port()}", http=f"127.0.0.1:{http}")
        self.assertIn("killed, or hangs", self.wrong(file))

    def test_unreadable_state(self) -> None:
        """An unreadable state folder leads to no conclusion."""
        for text in ("{", "[]", '{"grpc": 3}', '{"grpc": "nowhere"}'):
            self.runs()
            (self.folder / "state" / "endpoints.json").write_text(text)
            self.assertEqual(self.wrong(self.scheduler(0, 0)), "", text)
            self.assertIn("is not known", self.said(self.scheduler(0, 0)), text)

    def test_worker_dials(self) -> None:
        """A worker must reach the scheduler, and the address that it tells the scheduler should be reachable."""

        def file(scheduler: int, told: int) -> str:
            return self.write(
                "worker.toml",
                f'state_dir = "s"\n[grpc_server]\naddr = "127.0.0.1:0"\n[scheduler]\naddr = "127.0.0.1:{scheduler}"\n'
                f'[worker]\nadvertise_addr = "127.0.0.1:{told}"\n',
            )

        self.assertIn("The scheduler can be reached from here", self.said(file(self.answer(b"\0"), self.closed_port())))
        self.assertNotIn("[worker] advertise_addr", self.wrong(file(self.closed_port(), self.answer(b"\0"))))
        for said in (b"\x15\3", b"", b"HTTP/1.1 400"):
            wrong = self.wrong(file(self.answer(said), self.answer(b"\0")))
            self.assertIn("it has use_tls, most probably", wrong, said)
        wrong = self.wrong(file(self.closed_port(), self.closed_port()))
        self.assertIn("can't be reached from here at [scheduler] addr", wrong)
        self.assertIn("connection refused", wrong)
        self.assertIn("advertise_addr", wrong)

    def test_listeners(self) -> None:
        """Listeners are found by address, including those of every address, and of IPv6."""
        self.assertIsNotNone(listener_at(Address("127.0.0.1", self.listen()), find_listeners()))
        self.assertIsNone(listener_at(Address("127.0.0.1", self.closed_port()), find_listeners()))
        every = [Listener("0.0.0.0", 1, "a"), Listener("::", 2, "b"), Listener("10.0.0.1", 3, "c")]
        for host, number, process in (
            ("127.0.0.1", 1, "a"),
            ("::1", 2, "b"),
            ("10.0.0.1", 3, "c"),
            ("0.0.0.0", 3, "c"),
            ("127.0.0.1", 3, None),
            ("10.0.0.1", 4, None),
        ):
            listener = listener_at(Address(host, number), every)
            self.assertEqual(None if listener is None else listener.process, process, (host, number))

    def test_proc(self) -> None:
        """An address of /proc/net is read in this machine's byte order, IPv6 by words, and IPv4 inside of it."""
        net = self.folder / "net"
        net.mkdir()
        rest = "00:0 00:0 0 0 0 0 12 1"
        (net / "tcp").write_text(f"head\n 0: 0100007F:0BB8 0:0 0A {rest}\n 1: 0100007F:0BB9 0:0 01 {rest}\n")
        (net / "tcp6").write_text(
            f"head\n 0: 00000000000000000000000001000000:0BBA 0:0 0A {rest}\n"
            f" 1: 0000000000000000FFFF00000100007F:0BBB 0:0 0A {rest}\n"
        )
        found = [Listener("127.0.0.1", 3000, ""), Listener("::1", 3002, ""), Listener("127.0.0.1", 3003, "")]
        self.assertEqual(find_listeners(self.folder), found)


class TlsTests(Case):
    """Certificates in files, and connections with them."""

    def setUp(self) -> None:
        super().setUp()
        self.ca = CA()
        self.ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        self.issue(self.ca, "127.0.0.1")

    def issue(self, ca: CA, *hosts: str) -> None:
        issued = ca.issue_cert(*hosts)
        issued.cert_chain_pems[0].write_to_path(str(self.folder / "server.pem"))
        issued.private_key_pem.write_to_path(str(self.folder / "server.key"))
        (self.folder / "server.key").chmod(0o600)

    def config(self) -> str:
        return self.write(
            "scheduler.toml",
            'state_dir = "s"\n[grpc_server]\naddr = "127.0.0.1:0"\nuse_tls = true\nca_file = "ca.pem"\n'
            '[http_server]\naddr = "127.0.0.1:0"\n',
        )

    def serve(self, answer: Callable[[ssl.SSLSocket], None] = lambda secured: secured.sendall(b"x")) -> Address:
        """A TLS server with these files that wants a certificate of this authority, for one connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(10)

        def run() -> None:
            connection, _ = listening.accept()
            connection.settimeout(10)
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    answer(secured)
            except OSError:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(listening.close)
        self.addCleanup(thread.join)
        return Address("127.0.0.1", listening.getsockname()[1])

    def files(self, folder: Path) -> TlsFiles:
        return TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")

    def test_files(self) -> None:
        """The pair in the files is checked, for the host that others dial."""
        self.assertIn("The certificate is valid until", self.said(self.config()))
        self.issue(self.ca, "elsewhere")
        self.assertIn("not valid for 127.0.0.1", self.wrong(self.config()))
        self.issue(CA(), "127.0.0.1")
        self.assertIn("No authority", self.wrong(self.config()))
        (self.folder / "server.key").chmod(0o644)
        self.assertIn("chmod", self.wrong(self.config()))

    def test_unusable_files(self) -> None:
        """A file with other content is named."""
        for name, key in (("server.pem", "crt_file"), ("server.key", "key_file"), ("ca.pem", "ca_file")):
            before = (self.folder / name).read_bytes()
            (self.folder / name).write_text("nothing")
            self.assertIn(f"[grpc_server] {key} {self.folder / name} must hold", self.wrong(self.config()))
            (self.folder / name).write_bytes(before)

    def test_connect(self) -> None:
        """A connection succeeds where both sides accept each other."""
        self.assertEqual(dial(self.serve(), self.files(self.folder)), "")

    def test_refused(self) -> None:
        """The result says which side does not accept the other."""
        other = self.folder / "other"
        other.mkdir()
        issued = CA().issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(other / "server.pem"))
        issued.private_key_pem.write_to_path(str(other / "server.key"))
        CA().cert_pem.write_to_path(str(other / "ca.pem"))
        self.assertIn("its certificate is not accepted here", dial(self.serve(), self.files(other)))
        self.ca.cert_pem.write_to_path(str(other / "ca.pem"))
        self.assertIn("TLS fails", dial(self.serve(), self.files(other)))
        silent = self.serve(lambda secured: secured.shutdown(socket.SHUT_RDWR))
        self.assertIn("it hangs up", dial(silent, self.files(self.folder)))

    def test_unreachable(self) -> None:
        """An unknown name differs from a closed port."""
        self.assertIn("connection refused", connect(Address("127.0.0.1", self.closed_port())))
        self.assertIn("does not resolve", connect(Address("no-such-host.invalid", 1)))
