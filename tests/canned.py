"""An HTTP server that answers with bytes that a test chooses, and then closes: for answers no scheduler would send."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType


class CannedServer:
    """Reads one request of each connection, and sends the result of ``answer``. ``None``: it never answers."""

    def __init__(self, answer: Callable[[bytes], bytes | None], context: ssl.SSLContext | None = None) -> None:
        """``answer`` is called in a thread; with ``context``, the server speaks TLS."""
        self._answer = answer
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        #: The heads and bodies of the requests.
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http{'s' if self._context else ''}://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End the server."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)
        for each in self._held:
            each.close()

    def __enter__(self) -> CannedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(20)
            with contextlib.suppress(OSError):  # for example, the client broke off a handshake
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                request = _read(connection)
                self.requests.append(request)
                answer = self._answer(request)
                if answer is None:
                    self._held.append(connection)
                    continue
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # otherwise the close would be a reset
                    pass
            connection.close()


def _read(connection: socket.socket) -> bytes:
    """A whole request, or the part that arrived."""
    received = b""
    while True:
        head, blank, body = received.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if received[:1] == b"\x16":  # TLS, which this server does not speak
            return received
        if blank and len(body) >= int(lengths[0] if lengths else 0):
            return received
        data = connection.recv(65536)
        if not data:
            return received
        received += data
