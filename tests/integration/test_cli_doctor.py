"""``schedctl doctor`` against servers that answer well, badly, or not at all."""

import contextlib
import http.server
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trustme import CA
from twisted.trial.unittest import SynchronousTestCase

from scheduler import __version__
from scheduler.cli import main as cli
from scheduler.cli.checks import service
from scheduler.cli.checks.service import Answer, NoAnswer, ask, check_service
from scheduler.cli.contexts import Connection

WORKER = {
    "name": "box",
    "address": "127.0.0.1:1",
    "state": "online",
    "reason": None,
    "draining": False,
    "last_seen": None,
    "version": __version__,
}

WELL: dict[str, Any] = {
    "/v1/version": {"version": __version__, "api": "v1"},
    "/readyz": {"ready": True, "workers_online": 1},
    "/v1/workers": {"workers": [WORKER]},
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from its server's dictionary; a number is a status."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Authorization"]))  # type: ignore[attr-defined]
        answer = self.server.answers.get(self.path, 404)  # type: ignore[attr-defined]
        body = json.dumps({} if isinstance(answer, int) else answer).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A server with answers by path, which records its requests."""

    answers: dict[str, Any]
    seen: list[tuple[str, str | None]]

    def handle_error(self, *_: Any) -> None:
        """Ignore failed handshakes, which some tests cause."""


@contextlib.contextmanager
def serving(answers: dict[str, Any], context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server at a free port."""
    server = Server(("127.0.0.1", 0), Handler)
    server.answers, server.seen = answers, []
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def connection(port: int, scheme: str = "http", **more: Any) -> Connection:
    return Connection(f"{scheme}://127.0.0.1:{port}", source="--url", **more)


class AskTests(SynchronousTestCase):
    """A request, and the reason if it has no answer."""

    def problem(self, where: Connection) -> NoAnswer:
        found = ask(where, "/readyz")
        assert isinstance(found, NoAnswer), found
        self.assertTrue(found.advice)
        return found

    def test_answer(self) -> None:
        """Status, document and clock of the answer; the token is sent."""
        with serving(WELL) as server:
            answer = ask(connection(server.server_port, token="s3cret"), "/readyz")
            assert isinstance(answer, Answer)
            self.assertEqual((answer.status, answer.document), (200, WELL["/readyz"]))
            self.assertEqual(server.seen, [("/readyz", "Bearer s3cret")])
            assert answer.date is not None
            self.assertLess(abs(answer.date - time.time()), 10)
            self.assertIsNone(answer.certificate)

    def test_refused(self) -> None:
        """Nothing listens, or the name is unknown."""
        with contextlib.closing(socket.socket()) as bound:
            bound.bind(("127.0.0.1", 0))
            self.assertIn("twistd scheduler", self.problem(connection(bound.getsockname()[1])).advice)
        self.assertIn("does not resolve", self.problem(Connection("http://no-such-host.invalid:1")).problem)

    def test_no_http(self) -> None:
        """The server does not speak HTTP, hangs up, or sends nothing."""
        for said, problem in ((b"220 mail\r\n", "does not speak HTTP"), (b"", "")):
            with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:

                def answer(listening: socket.socket = listening, said: bytes = said) -> None:
                    accepted, _ = listening.accept()
                    with accepted:
                        accepted.recv(1000)
                        accepted.sendall(said)

                thread = threading.Thread(target=answer)
                thread.start()
                self.assertIn(problem, self.problem(connection(listening.getsockname()[1])).problem)
                thread.join()
        self.patch(service, "ANSWER_TIMEOUT", 0.05)
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
            self.assertIn("no answer in time", self.problem(connection(listening.getsockname()[1])).problem)

    def test_tls(self) -> None:
        """Over TLS the certificate must be trusted, and its expiry is checked."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        ca = CA()
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        issued = ca.issue_cert("127.0.0.1", not_after=datetime.now(UTC) + timedelta(days=3, hours=1))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        with serving(WELL, context) as server:
            trusting = connection(server.server_port, "https", ca_file=str(folder / "ca.pem"))
            answer = ask(trusting, "/v1/version")
            found = [each.sentence for each in check_service(trusting, answer, answer) if each.severity.wrong]
            self.assertEqual(len(found), 1, found)
            self.assertIn("in 3 days", found[0])
            distrusting = self.problem(connection(server.server_port, "https"))
            self.assertIn("certificate is not accepted", distrusting.problem)
            self.assertIn("ca_file", distrusting.advice)
            missing = connection(server.server_port, "https", ca_file=str(folder / "none.pem"))
            self.assertIn("ca_file", self.problem(missing).problem)
        with serving(WELL) as server:
            self.assertIn("http://", self.problem(connection(server.server_port, "https")).advice)


class DoctorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        # The user's own environment is not read.
        self.patch(cli.os, "environ", {"XDG_CONFIG_HOME": "/nonexistent"})

    def run_cli(self, *arguments: str) -> tuple[int, str]:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = cli.main(arguments)
        self.assertEqual(err.getvalue(), "")
        return code, out.getvalue()

    def test_well(self) -> None:
        """The exit code is 0, with a line for each good result."""
        with serving(WELL) as server:
            code, out = self.run_cli("--url", f"http://127.0.0.1:{server.server_port}", "doctor")
        self.assertEqual(code, 0, out)
        for line in (
            "scheduler: It answers at",
            "scheduler: It is ready",
            "worker box: It is online",
            "clock: The clocks",
        ):
            self.assertIn(f"ok      {line}", out)
        self.assertIn("note    configuration: No file", out)

    def test_wrong(self) -> None:
        """The exit code is 1, with advice below each problem; or lines of JSON."""
        with serving({**WELL, "/readyz": 503, "/v1/workers": {"workers": []}}) as server:
            url = f"http://127.0.0.1:{server.server_port}"
            code, out = self.run_cli("--url", url, "doctor")
            self.assertEqual(code, 1)
            self.assertIn("error   scheduler: It takes no new jobs: /readyz is 503.\n        See its log", out)
            code, out = self.run_cli("--url", url, "doctor", "--json")
            self.assertEqual(code, 1)
        found = [json.loads(line) for line in out.splitlines()]
        self.assertEqual({tuple(each) for each in found}, {("severity", "subject", "sentence", "advice")})
        self.assertEqual([each["subject"] for each in found if each["severity"] == "warning"], ["workers"])

    def test_no_scheduler_at_all(self) -> None:
        """An address without a server is one error, and the workers are not requested."""
        with contextlib.closing(socket.socket()) as bound:
            bound.bind(("127.0.0.1", 0))
            code, out = self.run_cli("--url", f"http://127.0.0.1:{bound.getsockname()[1]}", "doctor")
        self.assertEqual(code, 1)
        self.assertEqual(out.count("error"), 1)

    def test_scheduler_that_hangs(self) -> None:
        """A scheduler that does not answer is asked once, since that takes long; its advice is as usual."""
        self.patch(service, "ANSWER_TIMEOUT", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            for scheme, hint in (("http", "See whether it hangs"), ("https", "use http:// if no TLS is served there")):
                code, out = self.run_cli("--url", f"{scheme}://127.0.0.1:{listening.getsockname()[1]}", "doctor")
                self.assertEqual((code, out.count("error")), (1, 1))
                self.assertIn(hint, out)
                listening.accept()[0].close()
                listening.settimeout(0)
                self.assertRaises(BlockingIOError, listening.accept)
                listening.settimeout(None)

    def test_sentences(self) -> None:
        """A key keeps its case, and a question has no full stop."""
        (self.folder / "bad.toml").write_text("[grpc_serverr]\n")
        _, out = self.run_cli("doctor", "--config", str(self.folder / "bad.toml"))
        self.assertIn("bad.toml: grpc_serverr = {...}: unknown key; did you mean grpc_server?\n", out)

    def test_address_from_the_file(self) -> None:
        """Without an address it asks the scheduler that a file configures, and none with only a worker's file."""
        with serving(WELL) as server:
            (self.folder / "scheduler.toml").write_text(
                f'state_dir = "s"\n[http_server]\naddr = "127.0.0.1:{server.server_port}"\n'
            )
            (self.folder / "worker.toml").write_text('state_dir = "w"\n[worker]\n')
            _, out = self.run_cli("doctor", "--config", str(self.folder / "scheduler.toml"))
            self.assertIn(f"It answers at http://127.0.0.1:{server.server_port} ({self.folder}/scheduler.toml)", out)
            self.assertIn("does not run", out)
            _, out = self.run_cli("doctor", "--config", str(self.folder / "worker.toml"))
            self.assertIn("note    scheduler: It was not asked", out)
            self.assertEqual(server.seen[-1][0], "/v1/workers")

    def test_https_address_from_the_file(self) -> None:
        """With HTTPS it asks by a name of the certificate, and trusts the authority of the file's gRPC pair."""
        ca = CA()
        ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        issued = ca.issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(self.folder / "server.key"))
        (self.folder / "server.key").chmod(0o600)
        issued.cert_chain_pems[0].write_to_path(str(self.folder / "server.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        file = self.folder / "scheduler.toml"
        with serving(WELL, context) as server:
            addr = f'addr = "127.0.0.1:{server.server_port}"\nuse_tls = true\nallowed_hosts = ["localhost"]\n'
            trust = 'addr = "127.0.0.1:0"\nuse_tls = true\nca_file = "ca.pem"\n'
            file.write_text(f'state_dir = "s"\n[grpc_server]\n{trust}[http_server]\n{addr}')
            _, out = self.run_cli("doctor", "--config", str(file))
            self.assertIn(f"It answers at https://localhost:{server.server_port} ({file})", out)
            CA().cert_pem.write_to_path(str(self.folder / "ca.pem"))
            _, out = self.run_cli("doctor", "--config", str(file))
            self.assertIn("its certificate is not accepted", out)
