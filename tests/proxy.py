"""A TCP proxy that breaks connections at bytes that a test chooses, for clients in this process or another."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType

Address = tuple[str, int]

#: Makes close() a reset.
_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Passes bytes on in both directions, and cuts each connection after a number of them.

    ``limit`` is called for each connection: the number of bytes, of both directions together, after which it is cut.
    ``None``: never; a client that keeps such a connection may use no other. Every second cut is a reset, so that the
    client sees both kinds of end.
    """

    def __init__(self, target: Callable[[], Address], limit: Callable[[], int | None]) -> None:
        """``target`` is called for each connection, so the server may move."""
        self._target = target
        self._limit = limit
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[_Link] = set()
        #: Connections that were cut.
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            links = list(self._open)
        for link in links:
            link.cut()

    def close(self) -> None:
        """Stop listening, and cut open connections."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)
        self.cut_all()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target(), 20)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            link = _Link(client, server, self._limit(), self._gone)
            with self._lock:
                self._open.add(link)
            link.start()

    def _gone(self, link: _Link, cut: bool) -> bool:
        """Whether this cut is to be a reset."""
        with self._lock:
            self._open.discard(link)
            self.cuts += cut
            return self.cuts % 2 == 0


class _Link:
    """Two sockets, and a thread for each direction."""

    def __init__(
        self, client: socket.socket, server: socket.socket, limit: int | None, gone: Callable[[_Link, bool], bool]
    ) -> None:
        self._client = client
        self._server = server
        self._left = limit
        self._gone = gone
        self._lock = threading.Lock()
        self._over = False

    def start(self) -> None:
        """Pass bytes on until it is cut, or one end closes."""
        for source, sink in ((self._client, self._server), (self._server, self._client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        """Break both sides now."""
        self._end(cut=True)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        cut = False
        try:
            while data := source.recv(65536):
                with self._lock:
                    allowed = data if self._left is None else data[: self._left]
                    if self._left is not None:
                        self._left -= len(allowed)
                        cut = self._left == 0
                sink.sendall(allowed)
                if cut:
                    break
        except OSError:
            pass
        self._end(cut)

    def _end(self, cut: bool) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        reset = self._gone(self, cut) and cut
        for each in (self._client, self._server):
            with contextlib.suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.shutdown(socket.SHUT_RDWR)
            each.close()
